//! Sandboxes that go between two servers which share a Postgres and an archive.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use woodfrog_testkit::http::Client;
use woodfrog_testkit::websocket::Socket;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::sessions::{own_server_with, postgres};
use crate::sleep::{count, counters, counts_on, start_counter, state};
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    (
        "handoff::a_process_and_its_output_go_on_on_the_other_server",
        moves,
    ),
    ("handoff::using_a_sandbox_brings_it_here", brings),
    (
        "handoff::a_killed_server_is_taken_over_from_the_archive",
        killed,
    ),
    ("handoff::a_server_that_comes_late_writes_nothing", late),
];

/// How long leases last where both servers live: longer than any test, so that none is lost.
const LONG: &str = "10m";
/// And where one does not: its lease is waited for.
const SHORT: &str = "15s";
/// More than long enough for a lost one to be noticed.
const NOTICED: Duration = Duration::from_secs(60);

/// Two servers of one cluster; the second one has the first one's key.
fn two(name: &str, lease: &str) -> Result<(Server, Server)> {
    let archive = archive(name);
    std::fs::create_dir_all(&archive)?;
    let settings = |node: &str| -> Result<String> {
        let store = postgres(&format!("e2e_{name}"))?;
        let archive = archive.display();
        Ok(format!(
            "{store}[archive]\nurl = \"file://{archive}\"\n[node]\nname = \"{node}\"\nlease = \"{lease}\"\n"
        ))
    };
    let a = own_server_with(&format!("{name}-a"), &settings("a")?)?;
    let b = second(&format!("{name}-b"), &settings("b")?, a.data_dir())?;
    Ok((a, b))
}

/// A server that joins: the key was made by the first.
fn second(name: &str, settings: &str, first: &Path) -> Result<Server> {
    let dir = data_dir(name);
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("config.toml");
    std::fs::write(&config, settings)?;
    let flags = ["--config", config.to_str().context("a path")?];
    let server = Server::start(&binary(), &dir, &flags)?;
    std::fs::copy(first.join("admin.key"), dir.join("admin.key"))?;
    server.run(&["template", "prepare", "base"])?;
    Ok(server)
}

/// Runs a case with two servers; if it fails, what they said last is told.
fn with_two(
    name: &str,
    lease: &str,
    body: fn(&mut Server, &mut Server) -> Result<()>,
) -> Result<()> {
    let (mut a, mut b) = two(name, lease)?;
    let told = |server: &Server| {
        let log = server.log();
        let mut lines: Vec<_> = log.lines().rev().take(25).collect();
        lines.reverse();
        lines.join("\n")
    };
    let done = body(&mut a, &mut b);
    done.with_context(|| format!("a:\n{}\nb:\n{}", told(&a), told(&b)))?;
    a.remove()?;
    b.remove()?;
    Ok(std::fs::remove_dir_all(archive(name))?)
}

/// The archive of both.
fn archive(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-archive-{}", std::process::id()))
}

fn key(server: &Server) -> Result<String> {
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    Ok(key.trim().to_owned())
}

/// Whether this server's machine has something of the sandbox.
fn is_on(server: &Server, id: &str) -> bool {
    server.data_dir().join("pool/sandboxes").join(id).exists()
}

fn moves(_: &Context) -> Result<()> {
    with_two("move", LONG, |a, b| {
        let first = json!({"enable_checkpoint": true, "enable_sandbox_handoff": true});
        let mut at_a = Socket::create(a.url(), &key(a)?, &first)?;
        let wanted = ["CREATING", "LOCK_ACQUIRING", "LOCK_ACQUIRED", "RUNNING"];
        check!(at_a.statuses == wanted, "{:?}", at_a.statuses);
        let code = "echo $$ before; read x; echo $$ $x; exit 3";
        at_a.say(&json!({"language": "bash", "code": code}))?;
        while !at_a.stdout.ends_with("before\n") {
            at_a.read()?;
        }
        let process = at_a.stdout.trim_end_matches(" before\n").to_owned();
        let (id, token) = (at_a.id.clone(), at_a.token.clone());
        let began = std::time::Instant::now();
        let mut at_b = Socket::attach(b.url(), &id, &token, false)?;
        println!("moved in {:?}", began.elapsed());
        let wanted = ["RESTORING", "LOCK_ACQUIRING", "LOCK_ACQUIRED", "RUNNING"];
        check!(at_b.statuses == wanted, "{:?}", at_b.statuses);
        // The first client was told, and let go.
        let code = at_a.closed()?;
        check!(code == 1000, "closed with {code}");
        let told = [
            "EXECUTION_RUNNING",
            "LOCK_RELEASE_REQUESTED",
            "CHECKPOINTING",
            "EXECUTION_DONE",
            "DELETING",
            "LOCK_RELEASING",
            "LOCK_RELEASED",
            "DELETED",
            "CHECKPOINTED",
        ];
        check!(
            at_a.statuses.ends_with(&told.map(String::from)),
            "{:?}",
            at_a.statuses
        );
        check!(!is_on(a, &id) && is_on(b, &id), "where it is");
        // The same process, its input, and all of its output once.
        at_b.say(&json!({"action": "reconnect"}))?;
        at_b.say(&json!({"event": "stdin", "data": "after\n"}))?;
        at_b.until("EXECUTION_DONE")?;
        check!(at_b.last["exit_code"] == 3, "{}", at_b.last);
        check!(
            at_b.stdout == format!("{process} after\n"),
            "{:?}",
            at_b.stdout
        );
        at_b.kill()?;
        Ok(())
    })
}

fn brings(_: &Context) -> Result<()> {
    with_two("bring", LONG, |a, b| {
        let id = a.create(&["base"])?;
        start_counter(a, &id)?;
        let mut before = count(a, &id)?;
        for (round, server) in [&*b, &*a, &*b].into_iter().enumerate() {
            before = counts_on(server, &id, before).with_context(|| format!("round {round}"))?;
            let counters = counters(server, &id)?;
            check!(counters == "1", "round {round}: {counters} counters");
            check!(is_on(a, &id) != is_on(b, &id), "round {round}");
        }
        // One that sleeps on the other's disk, and a new one from what the other made.
        b.run(&["sandbox", "hibernate", &id])?;
        counts_on(a, &id, before)?;
        let own = b.create(&["base"])?;
        let said = b.exec(&own, "user", "echo here")?;
        check!(said.stdout == "here\n", "{said:?}");
        for id in [&id, &own] {
            b.run(&["sandbox", "delete", id])?;
        }
        Ok(())
    })
}

/// A sandbox of `server` with something of it in the archive, and something that is not.
fn archived_once(server: &Server) -> Result<(String, u64)> {
    let id = server.create(&["base"])?;
    start_counter(server, &id)?;
    server.run(&["sandbox", "archive", &id])?;
    let saved = count(server, &id)?;
    let since = server.exec(&id, "user", "touch ~/since")?;
    check!(since.code == 0, "{since:?}");
    Ok((id, saved))
}

fn events(server: &Server, id: &str) -> Result<String> {
    let mut client = Client::connect(server.url())?;
    let head = format!("X-API-Key: {}\r\n", key(server)?);
    let path = format!("/api/v1/sandboxes/{id}/events");
    let (status, body) = client.exchange("GET", &path, &head, b"")?;
    let text = String::from_utf8(body)?;
    check!(status == 200, "{text}");
    Ok(text)
}

fn taken_over(server: &Server, id: &str, saved: u64) -> Result<()> {
    let seen = server.exec(id, "user", "ls ~/since")?;
    check!(seen.code != 0 && seen.stderr.contains("since"), "{seen:?}");
    counts_on(server, id, saved.saturating_sub(100))?;
    let events = events(server, id)?;
    check!(events.contains("what it did since is lost"), "{events}");
    Ok(())
}

fn killed(_: &Context) -> Result<()> {
    with_two("killed", SHORT, |a, b| {
        let (id, saved) = archived_once(a)?;
        let never = a.create(&["base"])?;
        start_counter(a, &never)?;
        let before = count(a, &never)?;
        a.kill()?;
        taken_over(b, &id, saved)?;
        // Of this one nothing is in the archive: it is left to its server.
        let refused = b.exec(&never, "user", "true")?;
        check!(
            refused.code != 0 && refused.stderr.contains("nothing of it is in the archive"),
            "{refused:?}"
        );
        a.restart()?;
        check!(!is_on(a, &id), "its copy is gone");
        counts_on(a, &never, before)?;
        let counters = counters(b, &id)?;
        check!(counters == "1", "{counters} counters");
        for id in [&id, &never] {
            a.run(&["sandbox", "delete", id])?;
        }
        Ok(())
    })
}

fn signal(server: &Server, name: &str) -> Result<()> {
    let pid = server.pid().to_string();
    let sent = Command::new("kill").args([name, &pid]).status()?;
    check!(sent.success(), "{name}");
    Ok(())
}

fn late(_: &Context) -> Result<()> {
    with_two("late", SHORT, |a, b| {
        let (id, saved) = archived_once(a)?;
        signal(a, "-STOP")?;
        let taken = taken_over(b, &id, saved);
        let before = events(b, &id);
        signal(a, "-CONT")?;
        taken?;
        let before = before?;
        wait_for("the late one to end its copy", NOTICED, || {
            (!is_on(a, &id)).then_some(())
        })?;
        check!(a.log().contains("LOST LEASE"), "it is not said");
        let state = state(b, &id)?;
        check!(state == "running", "{state}");
        let after = events(b, &id)?;
        check!(after == before, "{before}\n---\n{after}");
        let said = b.exec(&id, "user", "echo here")?;
        check!(said.stdout == "here\n", "{said:?}");
        b.run(&["sandbox", "delete", &id])?;
        Ok(())
    })
}
