//! When sandboxes sleep that do not say it themselves: their workspace's word, and sweeps.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::sleep::{events, state};
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    ("sleep_said::a_workspace_says_when", workspace_says),
    ("sleep_said::a_sweep_puts_idle_sandboxes_down", swept),
];

fn workspace_says(context: &Context) -> Result<()> {
    let server = &context.server;
    let made = server.run(&["workspace", "create", "sleepers"])?;
    let at = ["--workspace", made.trim()];
    let run = |args: &[&str]| server.run(&[args, &at].concat());
    let set = run(&["workspace", "sleep", "set", "--pause-after", "1s", "--json"])?;
    check!(
        set.contains("\"generation\": 1") || set.contains("\"generation\":1"),
        "{set}"
    );
    let refused = run(&["workspace", "sleep", "set", "--checkpoint-every", "1s"]);
    let refused = format!("{:?}", refused.err());
    check!(refused.contains("must be 10 to"), "{refused}");
    let create =
        |flags: &[&str]| server.create(&[&["base", "--timeout", "0"], flags, &at].concat());
    let (dozing, awake) = (create(&[])?, create(&["--pause-after", "never"])?);
    let show = |id: &str| run(&["sandbox", "show", id, "--json"]);
    wait_for("it to be paused", Duration::from_secs(60), || {
        let shown: Value = serde_json::from_str(&show(&dozing).ok()?).ok()?;
        (shown["state"] == "paused").then_some(())
    })?;
    let shown: Value = serde_json::from_str(&show(&awake)?)?;
    check!(shown["state"] == "running", "{shown}");
    run(&["workspace", "sleep", "reset"])?;
    let text = run(&["workspace", "sleep", "show"])?;
    check!(!text.contains("the workspace"), "{text}");
    let made: Value = serde_json::from_str(&show(&create(&[])?)?)?;
    let after = made["sleep_policy"]["pause_after_seconds"].as_u64();
    check!(after > Some(1), "{made}");
    server.run(&["workspace", "remove", at[1], "--wait"])?;
    Ok(())
}

/// With a cron line of every second. Who is held, or never sleeps by itself, stays up.
fn swept(_: &Context) -> Result<()> {
    let dir = data_dir("sweep");
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("sweep.toml");
    std::fs::write(
        &config,
        "[sleep]\nsweep = \"* * * * * *\"\nsweep_idle = \"4s\"\n",
    )?;
    let config = config.to_str().context("the path of the settings")?;
    let server = Server::start(&binary(), &dir, &["--spares", "0", "--config", config])?;
    server.run(&["template", "prepare", "base"])?;
    let create = |pause| server.create(&["base", "--timeout", "0", "--pause-after", pause]);
    let held = create("1h")?;
    server.run(&["sandbox", "hold", &held, "mine"])?;
    let awake = create("never")?;
    let idle = create("1h")?;
    wait_for("two sweeps", Duration::from_secs(60), || {
        (state(&server, &idle).ok()? == "hibernated").then_some(())
    })?;
    for id in [&held, &awake] {
        let state = state(&server, id)?;
        check!(state == "running", "{id} is {state}");
    }
    let paused = events(&server, &idle, "sandbox.paused")?;
    check!(paused == 1, "{paused} times paused on the way down");
    server.remove()
}
