//! `./x soak`: random operations against a model, for as long as asked, with an inventory at the end.

use std::time::Duration;

use anyhow::Result;
use woodfrog_testkit::Server;
use woodfrog_testkit::soak::{self, Plan};

use crate::server::{build, complete, root};
use crate::setup::{self, Level};
use crate::step::step;

/// Builds the server and runs the soak for so long.
pub(crate) fn run_soak(seconds: u64, seed: u64, debug: bool) -> Result<()> {
    setup::run(Level::Run)?;
    let binary = step("build", || build(!debug))?;
    complete(&binary)?;
    let mut server = Server::start(&binary, &root().join("target/soak"), &["--dev"])?;
    let plan = Plan {
        duration: Duration::from_secs(seconds),
        seed,
    };
    let result = step("prepare the base template", || {
        server.run(&["template", "prepare", "base"]).map(drop)
    })
    .and_then(|()| step("soak", || soak::run(&mut server, plan)));
    server.remove()?;
    println!("\n{}", result?);
    Ok(())
}
