//! `kill -9` of the server while sandboxes sleep, fall asleep and wake.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::sleep::{count, counters, counts_on, start_counter, state};
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    (
        "sleep_crash::those_asleep_wake_after_a_kill",
        asleep_over_a_kill,
    ),
    (
        "sleep_crash::a_kill_while_one_falls_asleep_loses_nothing",
        kill_while_falling_asleep,
    ),
    (
        "sleep_crash::a_kill_while_one_wakes_loses_nothing",
        kill_while_waking,
    ),
];

/// Kills of one kind, each a little later than the one before.
const ROUNDS: u64 = 5;

fn own_server(name: &str) -> Result<Server> {
    let server = Server::start(&binary(), &data_dir(name), &[])?;
    server.run(&["template", "prepare", "base"])?;
    Ok(server)
}

fn asleep_over_a_kill(_: &Context) -> Result<()> {
    let mut server = own_server("asleep")?;
    let (hibernated, paused) = (server.create(&["base"])?, server.create(&["base"])?);
    for id in [&hibernated, &paused] {
        start_counter(&server, id)?;
    }
    let before = [count(&server, &hibernated)?, count(&server, &paused)?];
    server.run(&["sandbox", "hibernate", &hibernated])?;
    server.run(&["sandbox", "pause", &paused])?;
    server.kill()?;
    server.restart()?;
    for (id, wanted) in [(&hibernated, "hibernated"), (&paused, "paused")] {
        let state = state(&server, id)?;
        check!(state == wanted, "{state}, not {wanted}");
    }
    for (id, before) in [(&hibernated, before[0]), (&paused, before[1])] {
        counts_on(&server, id, before)?;
        let counters = counters(&server, id)?;
        check!(counters == "1", "{counters} counters");
    }
    server.remove()
}

/// Waits until the sandbox neither falls asleep nor wakes.
fn settled(server: &Server, id: &str) -> Result<String> {
    wait_for("the sandbox to settle", Duration::from_secs(20), || {
        let state = state(server, id).ok()?;
        ["running", "paused", "hibernated"]
            .contains(&state.as_str())
            .then_some(state)
    })
}

/// Its counter goes on, once, and all that it wrote is there.
fn whole(server: &Server, id: &str, before: u64) -> Result<u64> {
    settled(server, id)?;
    let now = counts_on(server, id, before)?;
    let counters = counters(server, id)?;
    check!(counters == "1", "{counters} counters");
    Ok(now)
}

fn kill_while_falling_asleep(_: &Context) -> Result<()> {
    let mut server = own_server("falling")?;
    let id = server.create(&["base"])?;
    start_counter(&server, &id)?;
    let mut before = count(&server, &id)?;
    for round in 0..ROUNDS {
        let mut hibernate = server
            .cli(&["sandbox", "hibernate", &id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // A different moment each round.
        std::thread::park_timeout(Duration::from_millis(10 + round * 15));
        server.kill()?;
        hibernate.wait()?;
        server.restart()?;
        before = whole(&server, &id, before)?;
    }
    server.remove()
}

fn kill_while_waking(_: &Context) -> Result<()> {
    let mut server = own_server("waking")?;
    let id = server.create(&["base"])?;
    start_counter(&server, &id)?;
    let mut before = count(&server, &id)?;
    for round in 0..ROUNDS {
        server.run(&["sandbox", "hibernate", &id])?;
        let mut resume = server
            .cli(&["sandbox", "resume", &id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // A different moment each round.
        std::thread::park_timeout(Duration::from_millis(10 + round * 12));
        server.kill()?;
        resume.wait()?;
        server.restart()?;
        before = whole(&server, &id, before)?;
    }
    server.remove()
}
