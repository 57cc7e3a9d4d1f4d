//! Running things with progress.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Says what is being done, does it, says how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n==> {name}");
    let start = Instant::now();
    let result = work();
    let how = if result.is_ok() { "done" } else { "FAILED" };
    println!(
        "<== {name}: {how} in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    std::io::stdout().flush()?;
    result
}

/// Cargo, as if nobody had started this program with it. What it says of the package that it runs
/// is left out: build scripts ask for that, and all would be built anew after every other call.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs a command with its output shown; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    let status = command.status().with_context(|| format!("start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// How often a command that needs the network is tried.
const TRIES: u32 = 3;
/// How long it waits before the second try; each later one waits three times as long.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs a command that needs the network, like [`run`], and again if it fails.
pub(crate) fn run_over_network(command: &mut Command) -> Result<()> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match run(command) {
            Ok(()) => return Ok(()),
            Err(error) => println!("{error:#}; again in {} s", pause.as_secs()),
        }
        std::thread::park_timeout(pause);
        pause *= 3;
    }
    run(command)
}

/// Runs a command and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
    }
    String::from_utf8(output.stdout).context("read its output")
}

/// How long a command that ended may be silent before its output is taken to be over.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs a command, shows its output, and hands every line to `see`.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<()> {
    let shown = describe(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let stdout = child.stdout.take().context("take its output")?;
    let (sender, lines) = std::sync::mpsc::channel();
    // Not waited for: what the command left behind may hold its end of the pipe for ever.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        match lines.recv_timeout(LAST_WORDS) {
            Ok(line) => {
                let line = line.context("read its output")?;
                println!("{line}");
                see(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => {
                println!("{shown}: it ended, but something that it started goes on");
                break;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Whether a program is on the path.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
