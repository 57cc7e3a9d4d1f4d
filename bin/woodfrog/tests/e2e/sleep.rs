//! Sleep through the built binary: what wakes, what stays, what is left on the machine.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use woodfrog_testkit::{Leftovers, Server, wait_for};

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("sleep::a_paused_sandbox_wakes_on_exec", paused_wakes),
    ("sleep::a_hibernated_sandbox_wakes_on_exec", exec_wakes),
    ("sleep::a_hibernated_sandbox_wakes_on_a_file", file_wakes),
    ("sleep::a_hibernated_sandbox_wakes_on_a_port", port_wakes),
    (
        "sleep::many_requests_at_once_are_one_wake",
        many_are_one_wake,
    ),
    (
        "sleep::who_has_no_right_wakes_nothing",
        strangers_wake_nothing,
    ),
    (
        "sleep::hibernated_sandboxes_leave_nothing_on_the_machine",
        nothing_is_left,
    ),
    ("sleep::idleness_goes_down_the_rungs", idleness),
    ("sleep::a_hold_keeps_it_awake", holds),
    (
        "sleep::a_followed_command_goes_on_through_a_pause",
        output_goes_on,
    ),
    ("sleep::snapshots_are_started_from", snapshots),
    ("sleep::forks_are_independent", forks),
    (
        "sleep::a_copy_is_told_that_its_connections_are_not_its_own",
        copies_start_afresh,
    ),
    ("sleep::what_makes_no_sense_is_refused", nonsense),
];

/// Prints numbers into a file for ever, in the background.
const COUNTER: &str = "setsid -f bash -c 'exec -a counter bash -c \"i=0; while true; do i=\\$((i+1)); echo \\$i >> ~/count; sleep 0.05; done\"' >/dev/null 2>&1 </dev/null";

pub(crate) fn start_counter(server: &Server, id: &str) -> Result<()> {
    let started = server.exec(id, "user", COUNTER)?;
    check!(started.code == 0, "{started:?}");
    counts_on(server, id, 0).map(drop)
}

pub(crate) fn count(server: &Server, id: &str) -> Result<u64> {
    let seen = server.exec(id, "user", "tail -n 1 ~/count")?;
    seen.stdout
        .trim()
        .parse()
        .with_context(|| format!("{seen:?}"))
}

/// Waits until the counter is beyond `before`; every number must be there once.
pub(crate) fn counts_on(server: &Server, id: &str, before: u64) -> Result<u64> {
    let now = wait_for("the counter to go on", Duration::from_secs(30), || {
        count(server, id).ok().filter(|now| *now > before)
    })?;
    // It counts on meanwhile: how far it had come is read once.
    let whole = "n=$(tail -n1 ~/count); seq $n | cmp - <(head -n $n ~/count)";
    let compared = server.exec(id, "user", whole)?;
    check!(
        compared.code == 0,
        "numbers are lost or doubled: {compared:?}"
    );
    Ok(now)
}

/// How many counters run: one, whatever happened. Each leads a session of its own; what it forks
/// bears its name, too, until it becomes `sleep`.
pub(crate) fn counters(server: &Server, id: &str) -> Result<String> {
    let leaders = "ps -eo pid=,sid=,args= | awk '$1 == $2 && $3 == \"counter\"' | wc -l";
    let seen = server.exec(id, "user", leaders)?;
    Ok(seen.stdout.trim().to_owned())
}

pub(crate) fn state(server: &Server, id: &str) -> Result<String> {
    let shown = server.json(&["sandbox", "show", id])?;
    Ok(shown["state"].as_str().unwrap_or_default().to_owned())
}

/// A sandbox with a counter, put to sleep on disk; also how far it had counted.
fn asleep(server: &Server) -> Result<(String, u64)> {
    let id = server.create(&["base"])?;
    start_counter(server, &id)?;
    let before = count(server, &id)?;
    server.run(&["sandbox", "hibernate", &id])?;
    let state = state(server, &id)?;
    check!(state == "hibernated", "{state}");
    Ok((id, before))
}

fn paused_wakes(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    start_counter(server, &id)?;
    server.run(&["sandbox", "pause", &id])?;
    check!(state(server, &id)? == "paused", "it is not paused");
    let before = count(server, &id)?;
    check!(state(server, &id)? == "running", "it did not wake");
    counts_on(server, &id, before)?;
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn exec_wakes(context: &Context) -> Result<()> {
    let server = &context.server;
    let (id, before) = asleep(server)?;
    counts_on(server, &id, before)?;
    check!(counters(server, &id)? == "1", "{}", counters(server, &id)?);
    check!(state(server, &id)? == "running", "it did not wake");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn file_wakes(context: &Context) -> Result<()> {
    let server = &context.server;
    let (id, _) = asleep(server)?;
    let from = format!("{id}:/etc/passwd");
    let text = server.run(&["sandbox", "cp", &from, "-"])?;
    check!(text.contains("user:"), "{text}");
    check!(state(server, &id)? == "running", "it did not wake");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// A request to a port inside, without a key.
fn port(server: &Server, id: &str, headers: &[&str]) -> Result<(u16, String)> {
    let sandbox = format!("E2b-Sandbox-Id: {id}");
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "20", "-w", "\n%{http_code}"]);
    for header in headers.iter().chain(&[sandbox.as_str()]) {
        command.args(["-H", header]);
    }
    let output = command.arg(format!("{}/", server.url())).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (body, status) = text.rsplit_once('\n').unwrap_or((&text, "0"));
    Ok((status.parse()?, body.to_owned()))
}

const SERVE: &str = "mkdir -p ~/www; echo inside > ~/www/index.html; cd ~/www; setsid -f python3 -m http.server 8000 >/dev/null 2>&1 </dev/null; until curl -s localhost:8000; do :; done";

fn port_wakes(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    server.exec(&id, "user", SERVE)?;
    server.run(&["sandbox", "hibernate", &id])?;
    let (status, body) = port(server, &id, &["E2b-Sandbox-Port: 8000"])?;
    check!(status == 200 && body == "inside\n", "{status} {body}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// Entries of a sandbox's log of this kind.
pub(crate) fn events(server: &Server, id: &str, kind: &str) -> Result<usize> {
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    let output = Command::new("curl")
        .args([
            "-sS",
            "-m",
            "20",
            "-H",
            &format!("X-API-Key: {}", key.trim()),
        ])
        .arg(format!(
            "{}/api/v1/sandboxes/{id}/events?limit=1000",
            server.url()
        ))
        .output()?;
    let log: Value = serde_json::from_slice(&output.stdout)?;
    let items = log["items"].as_array().context("a log")?;
    Ok(items.iter().filter(|event| event["kind"] == kind).count())
}

fn many_are_one_wake(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    server.exec(&id, "user", SERVE)?;
    server.run(&["sandbox", "hibernate", &id])?;
    let sandbox = format!("E2b-Sandbox-Id: {id}");
    let requests: Vec<_> = (0..50)
        .map(|_| {
            Command::new("curl")
                .args([
                    "-sS",
                    "-m",
                    "30",
                    "-H",
                    &sandbox,
                    "-H",
                    "E2b-Sandbox-Port: 8000",
                ])
                .arg(format!("{}/", server.url()))
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect::<std::io::Result<_>>()?;
    for request in requests {
        let output = request.wait_with_output()?;
        check!(output.stdout == b"inside\n", "{output:?}");
    }
    let wakes = events(server, &id, "sandbox.woken")?;
    check!(wakes == 1, "{wakes} wakes");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn strangers_wake_nothing(context: &Context) -> Result<()> {
    let server = &context.server;
    let (id, _) = asleep(server)?;
    let wrong = "X-Access-Token: wrong";
    for headers in [
        ["E2b-Sandbox-Port: 49983", wrong],
        ["E2b-Sandbox-Port: 49983", "X-Other: 1"],
    ] {
        let (status, body) = port(server, &id, &headers)?;
        check!(status == 401, "{status} {body}");
    }
    check!(state(server, &id)? == "hibernated", "a stranger woke it");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn nothing_is_left(context: &Context) -> Result<()> {
    let server = &context.server;
    let mut before = Leftovers::count(server.data_dir());
    let ids = (0..3)
        .map(|_| server.create(&["base"]))
        .collect::<Result<Vec<_>>>()?;
    for id in &ids {
        start_counter(server, id)?;
    }
    let mut args = vec!["sandbox", "hibernate"];
    args.extend(ids.iter().map(String::as_str));
    server.run(&args)?;
    // Their files stay.
    before.0.remove("sandbox directories");
    let settled = wait_for(
        "everything but the files to go",
        Duration::from_secs(40),
        || {
            let mut now = Leftovers::count(server.data_dir());
            now.0.remove("sandbox directories");
            now.is_within(&before).then_some(())
        },
    );
    let now = Leftovers::count(server.data_dir());
    check!(settled.is_ok(), "before {before:?}\nnow    {now:?}");
    args[1] = "delete";
    server.run(&args)?;
    Ok(())
}

fn idleness(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&[
        "base",
        "--timeout",
        "0",
        "--pause-after",
        "10s",
        "--hibernate-after",
        "10s",
    ])?;
    let why = server.json(&["sandbox", "why", &id])?;
    check!(why["next"]["state"] == "paused", "{why}");
    wait_for("it to be hibernated", Duration::from_secs(120), || {
        (state(server, &id).ok()? == "hibernated").then_some(())
    })?;
    let paused = events(server, &id, "sandbox.paused")?;
    check!(paused == 1, "{paused} times paused on the way down");
    let shown = server.json(&["sandbox", "show", &id])?;
    check!(shown["sleep"]["cause"] == "idle", "{shown}");
    check!(shown["next"]["state"] == "deleted", "{shown}");
    let woken = server.exec(&id, "user", "echo woken")?;
    check!(woken.stdout == "woken\n", "{woken:?}");
    server.run(&["sandbox", "sleep-policy", &id, "--pause-after", "never"])?;
    let why = server.json(&["sandbox", "why", &id])?;
    check!(why["next"].is_null(), "{why}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn holds(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base", "--timeout", "0", "--pause-after", "10s"])?;
    server.run(&["sandbox", "hold", &id, "run-1"])?;
    let why = server.json(&["sandbox", "why", &id])?;
    check!(why["holds"][0]["name"] == "run-1", "{why}");
    check!(why["next"].is_null(), "{why}");
    server.run(&["sandbox", "hold", &id, "run-1", "--release"])?;
    wait_for("it to be paused", Duration::from_secs(60), || {
        (state(server, &id).ok()? == "paused").then_some(())
    })?;
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// Everything that the command prints arrives once, whatever happened to the sandbox meanwhile.
fn output_goes_on(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let line = "for i in $(seq 200); do echo $i; sleep 0.01; done";
    let args = ["sandbox", "exec", &id, "--", "bash", "-c", line];
    let mut following = server.cli(&args).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(following.stdout.take().context("its output")?);
    // From here on it is attached: nothing that it still asks for wakes the sandbox.
    let mut got = String::new();
    output.read_line(&mut got)?;
    server.run(&["sandbox", "pause", &id])?;
    check!(state(server, &id)? == "paused", "it is not paused");
    server.run(&["sandbox", "resume", &id])?;
    output.read_to_string(&mut got)?;
    following.wait()?;
    let wanted: String = (1..=200).map(|i| format!("{i}\n")).collect();
    check!(got == wanted, "{} bytes of {}", got.len(), wanted.len());
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn snapshots(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    start_counter(server, &id)?;
    let before = count(server, &id)?;
    let taken = server.json(&["sandbox", "checkpoint", &id, "--name", "mark", "-l", "a=b"])?;
    let snapshot = taken["id"].as_str().context("an id")?;
    check!(
        taken["labels"]["a"] == "b" && taken["state"] == "ready",
        "{taken}"
    );
    counts_on(server, &id, before)?;
    server.run(&["sandbox", "delete", &id])?;
    let listed = server.json(&["snapshot", "list", "--source", &id])?;
    check!(
        listed[0]["id"] == snapshot && listed[1].is_null(),
        "{listed}"
    );
    let copy = server.create(&["mark"])?;
    counts_on(server, &copy, before)?;
    check!(
        counters(server, &copy)? == "1",
        "{}",
        counters(server, &copy)?
    );
    let labeled = server.json(&["snapshot", "label", "mark", "c=d", "--remove", "a"])?;
    check!(
        labeled["labels"] == serde_json::json!({"c": "d"}),
        "{labeled}"
    );
    server.run(&["snapshot", "verify", snapshot])?;
    server.run(&["snapshot", "delete", "mark"])?;
    check!(
        server.run(&["snapshot", "show", snapshot]).is_err(),
        "it is still there"
    );
    check!(server.create(&["mark"]).is_err(), "made from nothing");
    counts_on(server, &copy, before)?;
    server.run(&["sandbox", "delete", &copy])?;
    server.run(&["snapshot", "gc"])?;
    Ok(())
}

fn forks(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    start_counter(server, &id)?;
    let before = count(server, &id)?;
    let made = server.run(&["sandbox", "fork", &id, "--count", "2"])?;
    let copies: Vec<&str> = made.split_whitespace().collect();
    check!(copies.len() == 2, "{made}");
    for (number, copy) in copies.iter().enumerate() {
        counts_on(server, copy, before)?;
        check!(
            counters(server, copy)? == "1",
            "{}",
            counters(server, copy)?
        );
        server.exec(copy, "user", &format!("echo {number} > ~/who"))?;
    }
    let first = server.exec(copies[0], "user", "cat ~/who; hostname")?;
    let second = server.exec(copies[1], "user", "cat ~/who; hostname")?;
    check!(first.stdout.starts_with("0\n"), "{first:?}");
    check!(
        first.stdout[2..] != second.stdout[2..],
        "{first:?} {second:?}"
    );
    let source = server.exec(&id, "user", "test ! -e ~/who")?;
    check!(source.code == 0, "the source has a copy's file");
    counts_on(server, &id, before)?;
    server.run(&["sandbox", "delete", &id, copies[0], copies[1]])?;
    Ok(())
}

/// Holds a connection to the name server, and writes down how that ends.
const TALKER: &str = "cat > ~/talk.py <<'END'
import socket
server = next(line.split()[1] for line in open('/etc/resolv.conf') if line.startswith('nameserver'))
end = ''
while not end:
    try:
        talk = socket.create_connection((server, 53))
        open('/home/user/up', 'w').close()
        # The name server lets go of who is silent for long: then once more.
        end = 'data' if talk.recv(1) else ''
    except OSError as error:
        end = str(error.errno)
open('/home/user/end', 'w').write(end + '\\n')
END
setsid -f python3 ~/talk.py >/dev/null 2>&1 </dev/null";

/// `ECONNABORTED`: what who holds a connection is told when the system ends it.
const ABORTED: &str = "103\n";

fn copies_start_afresh(context: &Context) -> Result<()> {
    const FRESH: &str = "cat /run/woodfrog/generation";
    let server = &context.server;
    let id = server.create(&["base"])?;
    server.exec(&id, "user", TALKER)?;
    wait_for("the connection", Duration::from_secs(30), || {
        let up = server.exec(&id, "user", "test -e ~/up").ok()?;
        (up.code == 0).then_some(())
    })?;
    let made = server.run(&["sandbox", "fork", &id])?;
    let copy = made.trim();
    let told = wait_for("the copy to be told", Duration::from_secs(30), || {
        let end = server.exec(copy, "user", "cat ~/end").ok()?;
        // The file is there before its line is.
        (end.code == 0 && end.stdout.ends_with('\n')).then_some(end.stdout)
    })?;
    check!(told == ABORTED, "{told:?}");
    let source = server.exec(&id, "user", "cat ~/end || true")?;
    check!(source.stdout != ABORTED, "{source:?}");
    let (one, other) = (
        server.exec(&id, "user", FRESH)?,
        server.exec(copy, "user", FRESH)?,
    );
    check!(one.stdout.len() == 32, "{one:?}");
    check!(one.stdout != other.stdout, "both are {one:?}");
    server.run(&["sandbox", "delete", &id, copy])?;
    Ok(())
}

fn nonsense(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    // What is so already is no error.
    server.run(&["sandbox", "resume", &id])?;
    server.run(&["sandbox", "pause", &id])?;
    server.run(&["sandbox", "pause", &id])?;
    server.run(&["sandbox", "resume", &id])?;
    for args in [
        &["sandbox", "fork", &id, "--count", "0"][..],
        &["sandbox", "fork", &id, "--count", "10000"],
        &["sandbox", "hold", &id, "no such name"],
        &["sandbox", "pause", "nosuch"],
        &["snapshot", "show", "nosuch"],
        &["snapshot", "delete", "nosuch"],
        &["snapshot", "verify", "nosuch"],
    ] {
        let failed = server.run(args);
        check!(failed.is_err(), "{args:?} worked");
    }
    let seen = server.exec(&id, "user", "echo fine")?;
    check!(seen.stdout == "fine\n", "{seen:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}
