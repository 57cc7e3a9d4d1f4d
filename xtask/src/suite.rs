//! The whole test suite: what `./x test` and CI run.

use anyhow::{Context, Result, bail};

use crate::step::{run, step, watch};
use crate::{edges, sdk, server, setup, tidy};

/// Passed and failed tests of one step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

type Work = fn() -> Result<Tally>;

/// The steps in their order: the cheap ones that fail early come first.
const STEPS: &[(&str, Work)] = &[
    ("setup", || {
        setup::run(setup::Level::Tests).map(|()| Tally::default())
    }),
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("tidy", || {
        tidy::run()
            .and_then(|()| edges::run())
            .map(|()| Tally::default())
    }),
    ("lint", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
    }),
    ("build", || {
        let binary = server::build(false)?;
        server::complete(&binary).map(|()| Tally::default())
    }),
    ("tests", rust_tests),
    ("sdk", || sdk::run("")),
];

/// Runs all steps, or those named in `only`; stops at the first that fails.
pub(crate) fn run_steps(only: &[String]) -> Result<Tally> {
    if let Some(unknown) = only
        .iter()
        .find(|name| !STEPS.iter().any(|(step, _)| step == name))
    {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        bail!("no step `{unknown}`; there are: {}", names.join(", "));
    }
    let mut total = Tally::default();
    for (name, work) in STEPS {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            let tally = step(name, *work)?;
            total.passed += tally.passed;
            total.failed += tally.failed;
        }
    }
    Ok(total)
}

/// Runs the suite and closes with one line that counts the tests.
pub(crate) fn run_all(only: &[String]) -> Result<()> {
    let total = run_steps(only)?;
    println!("\n{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<Tally> {
    run(crate::step::cargo().args(args).current_dir(server::root()))?;
    Ok(Tally::default())
}

/// `cargo test`, its result lines counted.
fn rust_tests() -> Result<Tally> {
    let mut tally = Tally::default();
    watch(
        crate::step::cargo()
            .args([
                "test",
                "--workspace",
                "--locked",
                "--no-fail-fast",
                "--color=never",
            ])
            .current_dir(server::root()),
        |line| {
            if let Some(counts) = result_line(line) {
                tally.passed += counts.passed;
                tally.failed += counts.failed;
            }
        },
    )
    .context("run the Rust tests")?;
    if tally.passed == 0 {
        bail!("cargo test ran no test");
    }
    Ok(tally)
}

/// `test result: ok. 7 passed; 0 failed; …`
fn result_line(line: &str) -> Option<Tally> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |what: &str| {
        let before = rest.split(what).next()?;
        before
            .rsplit(|c: char| !c.is_ascii_digit())
            .find(|part| !part.is_empty())?
            .parse()
            .ok()
    };
    Some(Tally {
        passed: number(" passed")?,
        failed: number(" failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let tally =
            result_line("test result: FAILED. 12 passed; 3 failed; 0 ignored").expect("line");
        assert_eq!((tally.passed, tally.failed), (12, 3));
        assert!(result_line("running 3 tests").is_none());
    }
}
