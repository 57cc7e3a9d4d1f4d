//! Sandboxes over a WebSocket, with real memory and a server that dies.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use woodfrog_testkit::websocket::Socket;
use woodfrog_testkit::{Leftovers, Server, wait_for};

use crate::cases::check;
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    ("websocket::five_checkpoints_keep_memory", cycles),
    (
        "websocket::a_checkpoint_of_a_running_process_is_taken_up",
        held_process,
    ),
    ("websocket::snapshots_have_no_processes", snapshots),
    ("websocket::c2_the_token_is_not_in_the_sandbox", token),
    ("websocket::c5_a_stop_keeps_what_runs", stop),
    (
        "websocket::the_end_of_what_ended_while_the_server_was_away_is_told",
        ended_meanwhile,
    ),
    (
        "websocket::c9_a_killed_server_loses_no_output",
        killed_server,
    ),
    ("websocket::c12_a_kill_leaves_nothing", nothing_is_left),
];

const COUNTER: &str = "cat > /tmp/counter.py <<'END'
import os, time
i = 0
while True:
    i += 1
    open('/tmp/next', 'w').write(str(i))
    os.replace('/tmp/next', '/tmp/count')
    time.sleep(0.02)
END
setsid -f python3 /tmp/counter.py >/dev/null 2>&1 </dev/null; echo kept > ~/file";

fn key(server: &Server) -> Result<String> {
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    Ok(key.trim().to_owned())
}

fn create(server: &Server, first: &serde_json::Value) -> Result<Socket> {
    Socket::create(server.url(), &key(server)?, first)
}

fn count(client: &mut Socket) -> Result<u64> {
    let code = "until [ -e /tmp/count ]; do sleep 0.05; done; cat /tmp/count";
    client.run("bash", code)?;
    client.stdout.trim().parse().context("a count")
}

fn cycles(context: &Context) -> Result<()> {
    let server = &context.server;
    let mut client = create(server, &json!({"enable_checkpoint": true}))?;
    client.run("bash", COUNTER)?;
    let mut before = count(&mut client)?;
    for cycle in 0..5 {
        client.say(&json!({"action": "checkpoint"}))?;
        let code = client.closed()?;
        check!(code == 1000, "{cycle}: closed with {code}");
        let wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"];
        check!(
            client.statuses.ends_with(&wanted.map(String::from)),
            "{:?}",
            client.statuses
        );
        let (id, token) = (client.id.clone(), client.token.clone());
        client = Socket::attach(server.url(), &id, &token, false)?;
        check!(
            client.statuses == ["RESTORING", "RUNNING"],
            "{:?}",
            client.statuses
        );
        let now = count(&mut client)?;
        check!(now >= before && before > 0, "{now} after {before}");
        before = now;
        client.run("bash", "cat ~/file; pgrep -fc '^python3 /tmp/counter'")?;
        check!(client.stdout == "kept\n1\n", "{}", client.stdout);
    }
    client.kill()
}

/// The native API puts a sandbox to sleep in which code runs: its client goes on after the wake.
fn held_process(context: &Context) -> Result<()> {
    let server = &context.server;
    let mut client = create(server, &json!({"enable_checkpoint": true}))?;
    client.say(&json!({"language": "bash", "code": "echo up; read x; echo got $x"}))?;
    client.until("EXECUTION_RUNNING")?;
    while client.stdout != "up\n" {
        client.read()?;
    }
    server.run(&["sandbox", "hibernate", &client.id])?;
    client.say(&json!({"event": "stdin", "data": "it\n"}))?;
    client.until("EXECUTION_DONE")?;
    check!(client.stdout == "up\ngot it\n", "{}", client.stdout);
    client.kill()
}

fn snapshots(context: &Context) -> Result<()> {
    let server = &context.server;
    let mut first = create(server, &json!({}))?;
    first.run(
        "bash",
        "echo in the snapshot > ~/file; setsid -f sleep 4321",
    )?;
    first.say(&json!({"action": "snapshot_filesystem", "name": "ws-e2e"}))?;
    first.until("FILESYSTEM_SNAPSHOT_CREATED")?;
    let mut second = create(server, &json!({"filesystem_snapshot_name": "ws-e2e"}))?;
    second.run("bash", "cat ~/file; pgrep -fc 'sleep 432[1]'")?;
    check!(second.stdout == "in the snapshot\n0\n", "{}", second.stdout);
    first.kill()?;
    second.kill()?;
    server.run(&["snapshot", "delete", "ws-e2e"])?;
    Ok(())
}

fn token(context: &Context) -> Result<()> {
    let server = &context.server;
    let mut client = create(server, &json!({}))?;
    let half = &client.token[..32].to_owned();
    let search = format!(
        "printf %s {half} > /dev/null; env | grep -c {half}; \
         grep -rsl {half} /etc /run /tmp /home /var /root 2>/dev/null | wc -l"
    );
    client.run("bash", &search)?;
    check!(client.stdout == "0\n0\n", "{}", client.stdout);
    client.kill()
}

fn own_server(name: &str) -> Result<Server> {
    let server = Server::start(&binary(), &data_dir(name), &["--spares", "0"])?;
    server.run(&["template", "prepare", "base"])?;
    Ok(server)
}

/// Says half of them and waits until it is told to go on: it is under way when its server ends,
/// however long that takes.
const NUMBERS: &str = "for i in $(seq 1 30000); do echo $i; done; \
                       until [ -e /tmp/on ]; do sleep 0.05; done; \
                       for i in $(seq 30001 60000); do echo $i; done; exit 5";

fn tell_to_go_on(server: &Server, id: &str) -> Result<()> {
    let told = server.exec(id, "root", "touch /tmp/on")?;
    check!(told.code == 0, "{told:?}");
    Ok(())
}

fn numbers() -> String {
    (1..=60_000).map(|number| format!("{number}\n")).collect()
}

fn stop(_: &Context) -> Result<()> {
    let mut server = own_server("ws-stop")?;
    let mut client = create(&server, &json!({"cursors": true}))?;
    client.say(&json!({"language": "bash", "code": NUMBERS}))?;
    while client.stdout.len() < 10_000 {
        client.read()?;
    }
    let before = client.stdout.clone();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| server.stop());
        // What was on its way arrives, and then why.
        client.until("EXECUTION_ERROR")?;
        client.until("EXECUTION_DONE")?;
        check!(client.last["detached"] == true, "{}", client.last);
        let code = client.closed()?;
        check!(code == 1012, "closed with {code}");
        stopping
            .join()
            .map_err(|_| anyhow::anyhow!("the stop panicked"))?
    })?;
    check!(client.stdout.starts_with(&before), "what came is changed");
    server.restart()?;
    let mut again = Socket::attach(server.url(), &client.id, &client.token, true)?;
    again.stdout = client.stdout.clone();
    tell_to_go_on(&server, &client.id)?;
    again.say(&json!({"action": "reconnect", "cursor": client.cursor}))?;
    again.until("EXECUTION_DONE")?;
    check!(again.last["exit_code"] == 5, "{}", again.last);
    check!(again.stdout == numbers(), "{} bytes", again.stdout.len());
    again.kill()?;
    server.remove()
}

/// Ends once it is told so from outside of its sandbox.
const PATIENT: &str = "# woodfrog-e2e-patient
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print('up')
signal.sigwait({signal.SIGUSR1})
print('tail')
sys.exit(7)";

/// The processes of this machine that run [`PATIENT`].
fn patient() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|it| it.file_name().into_string().ok());
    let mut numbers: Vec<_> = names.filter(|it| it.parse::<u32>().is_ok()).collect();
    numbers.retain(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("# woodfrog-e2e-patient")
    });
    numbers
}

/// A client without cursors, whose process ends while no server is there to tell it.
fn ended_meanwhile(_: &Context) -> Result<()> {
    let mut server = own_server("ws-tail")?;
    let mut client = create(&server, &json!({}))?;
    client.say(&json!({"language": "python", "code": PATIENT}))?;
    while client.stdout != "up\n" {
        client.read()?;
    }
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| server.stop());
        client.until("EXECUTION_DONE")?;
        check!(client.last["detached"] == true, "{}", client.last);
        let code = client.closed()?;
        check!(code == 1012, "closed with {code}");
        stopping
            .join()
            .map_err(|_| anyhow::anyhow!("the stop panicked"))?
    })?;
    check!(!patient().is_empty(), "it ended with the server");
    wait_for("the process to end", Duration::from_secs(30), || {
        let left = patient();
        // One that has just ended cannot be told; to one that is ending it is nothing.
        let _told = std::process::Command::new("kill")
            .arg("-USR1")
            .args(&left)
            .stderr(std::process::Stdio::null())
            .status();
        left.is_empty().then_some(())
    })?;
    server.restart()?;
    let mut again = Socket::attach(server.url(), &client.id, &client.token, false)?;
    again.say(&json!({"action": "reconnect"}))?;
    again.until("EXECUTION_DONE")?;
    check!(again.last["exit_code"] == 7, "{}", again.last);
    check!(again.stdout == "tail\n", "{:?}", again.stdout);
    again.kill()?;
    server.remove()
}

fn killed_server(_: &Context) -> Result<()> {
    let mut server = own_server("ws-kill")?;
    let mut client = create(&server, &json!({"cursors": true}))?;
    client.say(&json!({"language": "bash", "code": NUMBERS}))?;
    while client.stdout.len() < 10_000 {
        client.read()?;
    }
    server.kill()?;
    // The rest of what the server sent.
    while client.read().is_ok() {}
    server.restart()?;
    let mut again = Socket::attach(server.url(), &client.id, &client.token, true)?;
    again.stdout = client.stdout.clone();
    tell_to_go_on(&server, &client.id)?;
    again.say(&json!({"action": "reconnect", "cursor": client.cursor}))?;
    again.until("EXECUTION_DONE")?;
    check!(again.last["exit_code"] == 5, "{}", again.last);
    check!(again.stdout == numbers(), "{} bytes", again.stdout.len());
    again.kill()?;
    server.remove()
}

fn nothing_is_left(context: &Context) -> Result<()> {
    let server = &context.server;
    let before = Leftovers::count(server.data_dir());
    let mut client = create(server, &json!({"enable_checkpoint": true}))?;
    client.say(&json!({"action": "checkpoint"}))?;
    check!(client.closed()? == 1000, "{:?}", client.statuses);
    let began = Instant::now();
    let client = Socket::attach(server.url(), &client.id, &client.token, false)?;
    println!("attached to a sandbox on disk in {:?}", began.elapsed());
    client.kill()?;
    wait_for("everything to be gone", Duration::from_secs(30), || {
        Leftovers::count(server.data_dir())
            .is_within(&before)
            .then_some(())
    })
}
