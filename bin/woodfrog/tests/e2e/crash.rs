//! `kill -9` of the server: sandboxes run on and are adopted.

use std::time::Duration;

use anyhow::{Context as _, Result};
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    (
        "crash::sandboxes_survive_kill_9_with_their_output",
        survive_kill,
    ),
    (
        "crash::a_graceful_stop_leaves_sandboxes_running",
        graceful_stop,
    ),
    (
        "crash::kills_during_creates_leave_no_orphans",
        kills_during_creates,
    ),
];

fn own_server(name: &str) -> Result<Server> {
    let server = Server::start(&binary(), &data_dir(name), &[])?;
    server.run(&["template", "prepare", "base"])?;
    Ok(server)
}

/// Starts a counter that writes to a file, and waits for its first line.
fn start_counter(server: &Server, id: &str) -> Result<()> {
    server.exec(
        id,
        "user",
        "setsid -f bash -c 'i=0; while true; do i=$((i+1)); echo $i >> ~/count; sleep 0.05; done' >/dev/null 2>&1 </dev/null",
    )?;
    wait_for("the counter to run", Duration::from_secs(30), || {
        count(server, id).filter(|count| *count > 0)
    })?;
    Ok(())
}

fn count(server: &Server, id: &str) -> Option<u64> {
    server
        .exec(id, "user", "tail -n 1 ~/count")
        .ok()?
        .stdout
        .trim()
        .parse()
        .ok()
}

fn survive_kill(_: &Context) -> Result<()> {
    let mut server = own_server("crash")?;
    let id = server.create(&["base"])?;
    start_counter(&server, &id)?;
    let before = count(&server, &id).context("count before the kill")?;
    server.kill()?;
    server.restart()?;
    let shown = server.json(&["sandbox", "show", &id])?;
    check!(shown["state"] == "running", "{shown}");
    wait_for("the counter to go on", Duration::from_secs(30), || {
        count(&server, &id).filter(|now| *now > before)
    })?;
    // Of a copy, since the counter goes on: every number is there, once and in order.
    let compared = server.exec(
        &id,
        "user",
        "set -o pipefail; cat ~/count > ~/seen && seq $(tail -n 1 ~/seen) | diff - ~/seen",
    )?;
    check!(
        compared.code == 0 && compared.stdout.is_empty(),
        "{compared:?}"
    );
    server.run(&["sandbox", "delete", &id])?;
    server.remove()
}

fn graceful_stop(_: &Context) -> Result<()> {
    let mut server = own_server("graceful")?;
    let id = server.create(&["base"])?;
    start_counter(&server, &id)?;
    server.stop()?;
    server.restart()?;
    let before = count(&server, &id).context("count after the restart")?;
    wait_for("the counter to go on", Duration::from_secs(30), || {
        count(&server, &id).filter(|now| *now > before)
    })?;
    server.remove()
}

/// Kills the server while creates are under way; afterwards rows and sandboxes agree.
fn kills_during_creates(_: &Context) -> Result<()> {
    let mut server = own_server("midair")?;
    for round in 0_u64..5 {
        let creates: Vec<_> = (0..4)
            .map(|_| server.cli(&["sandbox", "create", "base"]).spawn())
            .collect::<std::io::Result<_>>()?;
        // A different moment each round: the time a create takes is a few milliseconds.
        std::thread::park_timeout(Duration::from_millis(2 + round * 4));
        server.kill()?;
        for mut create in creates {
            create.wait()?;
        }
        server.restart()?;
        let listed = server.json(&["sandbox", "list"])?;
        for sandbox in listed.as_array().into_iter().flatten() {
            let id = sandbox["id"].as_str().unwrap_or_default();
            let seen = server.exec(id, "user", "echo usable")?;
            check!(seen.stdout == "usable\n", "{id}: {seen:?}");
        }
        let rows = listed.as_array().map_or(0, Vec::len);
        let kept = std::fs::read_dir(server.data_dir().join("pool/sandboxes"))?.count();
        check!(rows == kept, "{rows} rows, {kept} sandboxes on disk");
    }
    server.remove()
}
