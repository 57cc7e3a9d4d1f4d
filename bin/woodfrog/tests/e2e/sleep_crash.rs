//! `kill -9` of the server while sandboxes sleep, fall asleep and wake.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use woodfrog_testkit::api::Api;
use woodfrog_testkit::{Server, Setting, wait_for};

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
    (
        "sleep_crash::what_was_saved_while_it_ran_comes_back_after_a_reboot",
        comes_back_after_a_reboot,
    ),
    (
        "sleep_crash::memory_that_comes_later_is_whole_after_a_kill",
        memory_comes_later,
    ),
];

/// Of a sandbox that goes on before its memory is in.
const HELD_MIB: usize = 192;
const HELD_LIMIT: u64 = 512 << 20;

/// Kills of one kind, each a little later than the one before.
const ROUNDS: u64 = 5;

pub(crate) fn own_server(name: &str) -> Result<Server> {
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
    let held = server.create(&["base", "--timeout", "0", "--pause-after", "1s"])?;
    for name in ["mine", LOST_RUN] {
        server.run(&["sandbox", "hold", &held, name])?;
    }
    server.kill()?;
    server.restart()?;
    still_held(&server, &held)?;
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

/// The hold of a run that nobody knows: its server ended between the run's end and the hold's.
const LOST_RUN: &str = "run:rn00000000000000000000000000";

/// Its hold is there after a restart and keeps it awake until it is released; that of a run that
/// is over is not.
fn still_held(server: &Server, id: &str) -> Result<()> {
    let why = wait_for("the hold of no run to go", Duration::from_secs(60), || {
        let why = server.json(&["sandbox", "why", id]).ok()?;
        let mine = why["holds"][0]["name"] == "mine" && why["holds"][1].is_null();
        mine.then_some(why)
    })?;
    check!(why["state"] == "running" && why["next"].is_null(), "{why}");
    server.run(&["sandbox", "hold", id, "mine", "--release"])?;
    wait_for("it to be paused", Duration::from_secs(60), || {
        (state(server, id).ok()? == "paused").then_some(())
    })
}

/// Waits until the sandbox neither falls asleep nor wakes.
fn settled(server: &Server, id: &str) -> Result<String> {
    wait_for("the sandbox to settle", Duration::from_secs(40), || {
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

/// The server is killed when the sandbox goes on and most of its memory is still to come; in the
/// last rounds it falls asleep again, or is copied, at that moment.
fn memory_comes_later(_: &Context) -> Result<()> {
    let Some(_setting) = Setting::userfaultfd() else {
        return Ok(());
    };
    let dir = data_dir("later");
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("later.toml");
    std::fs::write(&config, "lazy_pages = \"on\"\n")?;
    let config = config.to_str().context("the path of the settings")?;
    let mut server = Server::start(&binary(), &dir, &["--dev", "--config", config])?;
    server.run(&["template", "prepare", "base"])?;
    let mut api = Api::connect(server.url())?;
    let id = api.create(HELD_LIMIT)?;
    api.hold_memory(&id, HELD_MIB)?;
    let hash = api.memory_hash(&id)?;
    for _ in 0..3 {
        api.act(&id, "hibernate")?;
        api.act(&id, "resume")?;
        server.kill()?;
        server.restart()?;
        api = Api::connect(server.url())?;
        check!(api.memory_hash(&id)? == hash, "other memory after a kill");
    }
    for _ in 0..3 {
        api.act(&id, "hibernate")?;
        api.act(&id, "resume")?;
    }
    check!(api.memory_hash(&id)? == hash, "other memory after naps");
    let events = api.must("GET", &format!("/sandboxes/{id}/events?limit=1000"), None)?;
    let events = events.to_string();
    check!(
        events.contains("memory_later_us"),
        "all of it came at once: {events}"
    );
    api.act(&id, "hibernate")?;
    let forked = api.must(
        "POST",
        &format!("/sandboxes/{id}/fork"),
        Some(&json!({ "count": 2 })),
    )?;
    let copies = forked["items"].as_array().context("the copies")?;
    for copy in copies {
        let copy = copy["sandbox"]["id"].as_str().context("the id of a copy")?;
        check!(api.memory_hash(copy)? == hash, "other memory in a copy");
    }
    check!(copies.len() == 2, "{forked}");
    let log = server.log();
    check!(!log.contains("did not come"), "{log}");
    server.remove()
}

/// Ends the first process of a sandbox from outside, and so all of it, as the machine's end does.
fn end_processes(id: &str) -> Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let host = std::fs::read_to_string(path.join("root/etc/hostname")).unwrap_or_default();
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let pids: Vec<&str> = pids.unwrap_or_default().split_whitespace().collect();
        if host.trim() != id || pids.len() < 2 || pids.last() != Some(&"1") {
            continue;
        }
        let killed = Command::new("kill").args(["-9", pids[0]]).status()?;
        check!(killed.success(), "its init {} cannot be killed", pids[0]);
        // It ends after all the others, whatever these wait for.
        return wait_for("its first process to end", Duration::from_secs(60), || {
            let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
            matches!(state, None | Some(Some('Z' | 'X') | None)).then_some(())
        });
    }
    anyhow::bail!("no first process of {id}")
}

fn comes_back_after_a_reboot(_: &Context) -> Result<()> {
    let mut server = own_server("reboot")?;
    let id = server.create(&["base", "--checkpoint-every", "10s"])?;
    let other = server.create(&["base"])?;
    start_counter(&server, &id)?;
    let before = count(&server, &id)?;
    wait_for("a checkpoint", Duration::from_secs(40), || {
        let listed = server.json(&["snapshot", "list", "--source", &id, "--all"]);
        let listed = listed.ok()?;
        (listed[0]["state"] == "ready").then_some(())
    })?;
    check!(state(&server, &id)? == "running", "it does not run");
    server.kill()?;
    end_processes(&id)?;
    end_processes(&other)?;
    server.restart()?;
    wait_for("it to run again", Duration::from_secs(60), || {
        (state(&server, &id).ok()? == "running").then_some(())
    })?;
    whole(&server, &id, before)?;
    check!(
        server.run(&["sandbox", "show", &other]).is_err(),
        "what was never saved is there"
    );
    server.remove()
}
