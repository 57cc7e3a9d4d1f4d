//! `./x soak`: random operations against a model, for as long as asked, with an inventory at the end.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use woodfrog_testkit::Server;
use woodfrog_testkit::soak::{self, Length, Plan, Rounds};

use crate::server::{build, complete, root};
use crate::setup::{self, Level};
use crate::step::step;

/// Kills the server so often while agents speak, with either database; see the tests of sessions.
pub(crate) fn run_sessions(kills: u64) -> Result<()> {
    setup::run(Level::Tests)?;
    step("kills under load", || {
        let status = Command::new("cargo")
            .args(["test", "--locked", "-p", "woodfrog", "--test", "e2e", "--"])
            .args(["sessions::kills_under_load", "--nocapture"])
            .env("WOODFROG_CRASH_ROUNDS", kills.to_string())
            .current_dir(root())
            .status()?;
        anyhow::ensure!(status.success(), "kills under load: {status}");
        Ok(())
    })
}

/// Builds the server and runs the soak for so long.
pub(crate) fn run_soak(time: Duration, seed: u64, debug: bool) -> Result<()> {
    let plan = Plan {
        length: Length::Time(time),
        seed,
        say,
    };
    println!(
        "{} minutes of random operations",
        time.as_secs().div_ceil(60)
    );
    with_server(debug, |server| {
        step("soak", || soak::run(server, plan)).map(|outcome| outcome.to_string())
    })
}

/// Builds the server and puts one sandbox to sleep and wakes it so many times.
pub(crate) fn run_rounds(count: u64, debug: bool) -> Result<()> {
    with_server(debug, |server| {
        let plan = Rounds { count, say };
        let turned = step("rounds", || {
            soak::rounds(server.url(), server.data_dir(), plan)
        });
        turned.map(|turned| turned.to_string())
    })
}

fn say(line: &str) {
    println!("  {line}");
}

fn with_server(debug: bool, work: impl FnOnce(&mut Server) -> Result<String>) -> Result<()> {
    setup::run(Level::Run)?;
    let binary = step("build", || build(!debug))?;
    complete(&binary)?;
    let mut server = Server::start(
        &binary,
        &root().join("target/soak"),
        &["--dev", "--spares", "0"],
    )?;
    let result = step("prepare the base template", || {
        server.run(&["template", "prepare", "base"]).map(drop)
    })
    .and_then(|()| work(&mut server));
    server.remove()?;
    println!("\n{}", result?);
    Ok(())
}
