//! Sessions with agents, through sleep, kills and loss.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use woodfrog_testkit::http::Client;
use woodfrog_testkit::postgres::Postgres;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    ("sessions::a_prompt_is_watched_from_the_terminal", watched),
    ("sessions::sleep_is_not_noticed", asleep),
    (
        "sessions::a_killed_agent_is_told_what_was_said",
        agent_killed,
    ),
    (
        "sessions::another_sandbox_takes_the_place_of_a_lost_one",
        sandbox_lost,
    ),
    (
        "sessions::a_guest_that_stands_still_is_started_anew",
        guest_stopped,
    ),
    ("sessions::turns_can_be_gone_back_to", gone_back),
    ("sessions::a_turn_outlives_its_server", server_killed),
    ("sessions::kills_under_load_lose_nothing", crash_loop),
    (
        "sessions::kills_under_load_lose_nothing_in_postgres",
        crash_loop_in_postgres,
    ),
    ("sessions::they_are_kept_in_postgres", in_postgres),
];

const PATIENCE: Duration = Duration::from_secs(60);
/// Kills of the server, each a little later than the one before, up to [`LATEST`].
const ROUNDS: u64 = 6;
/// Likewise with Postgres.
const ROUNDS_IN_POSTGRES: u64 = 3;
/// Rounds after which others take the place of the sessions.
const FRESH: u64 = 20;
/// How many instead; set by `./x soak sessions`.
const ROUNDS_VARIABLE: &str = "WOODFROG_CRASH_ROUNDS";
/// The latest of these moments after the prompts.
const LATEST: Duration = Duration::from_millis(1500);
/// Sessions that are prompted meanwhile.
const SESSIONS: usize = 3;

fn create(server: &Server, flags: &[&str]) -> Result<String> {
    let mut args = vec!["session", "create", "mock"];
    args.extend_from_slice(flags);
    Ok(server.run(&args)?.trim().to_owned())
}

fn prompt(server: &Server, id: &str, text: &str) -> Result<String> {
    server.run(&["session", "prompt", id, text])
}

fn show(server: &Server, id: &str) -> Result<Value> {
    server.json(&["session", "show", id])
}

fn sandbox_of(server: &Server, id: &str) -> Result<String> {
    let shown = show(server, id)?;
    let sandbox = shown["sandbox"].as_str().context("its sandbox")?;
    Ok(sandbox.to_owned())
}

/// The log; every place must be there once.
fn log(server: &Server, id: &str) -> Result<Vec<Value>> {
    let text = server.run(&["session", "export", id])?;
    let events = text.lines().map(serde_json::from_str);
    let events: Vec<Value> = events.collect::<Result<_, _>>()?;
    for (event, place) in events.iter().zip(1_u64..) {
        check!(event["sequence"] == place, "{event} is not {place}");
    }
    Ok(events)
}

fn remove(server: &Server, id: &str) -> Result<()> {
    let sandbox = sandbox_of(server, id)?;
    server.run(&["session", "delete", id])?;
    server.run(&["sandbox", "delete", &sandbox])?;
    Ok(())
}

fn watched(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = create(server, &["--name", "first"])?;
    let said = prompt(server, &id, "hello")?;
    check!(said.trim() == "mock: hello", "{said}");
    let listed = server.json(&["session", "list", "--agent", "mock"])?;
    let listed = listed.as_array().context("a list")?;
    check!(
        listed.iter().any(|it| it["id"] == id.as_str()),
        "{listed:?}"
    );
    let events = server.run(&["session", "events", &id])?;
    check!(events.contains("turn.ended"), "{events}");
    server.run(&["session", "end", &id])?;
    let refused = prompt(server, &id, "hello");
    check!(refused.is_err(), "{refused:?}");
    remove(server, &id)
}

fn asleep(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = create(server, &[])?;
    prompt(server, &id, "remember the frog")?;
    let sandbox = sandbox_of(server, &id)?;
    server.run(&["sandbox", "hibernate", &sandbox])?;
    // The agent goes on in memory: nothing had to be told to it.
    let said = prompt(server, &id, "what did I say before?")?;
    check!(said.contains("remember the frog"), "{said}");
    check!(!said.contains("history"), "{said}");
    remove(server, &id)
}

fn agent_killed(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = create(server, &[])?;
    prompt(server, &id, "remember the frog")?;
    let sandbox = sandbox_of(server, &id)?;
    let killed = server.exec(&sandbox, "root", "pkill -9 -f mock-agent")?;
    check!(killed.code == 0, "{killed:?}");
    wait_for("the end of the agent to be known", PATIENCE, || {
        let log = log(server, &id).ok()?;
        log.iter()
            .any(|it| it["kind"] == "agent.exited")
            .then_some(())
    })?;
    let said = prompt(server, &id, "what did I say before?")?;
    check!(said.contains("characters of history"), "{said}");
    remove(server, &id)
}

fn gone_back(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = create(server, &["--keep-turns"])?;
    let first = sandbox_of(server, &id)?;
    for number in ["one", "two"] {
        prompt(
            server,
            &id,
            &format!("mock: write /home/user/file {number}"),
        )?;
    }
    wait_for("the snapshots of the turns", PATIENCE, || {
        let turns = server.json(&["session", "turns", &id]).ok()?;
        let kept = turns
            .as_array()?
            .iter()
            .filter(|turn| turn["snapshot"].is_string());
        (kept.count() == 2).then_some(())
    })?;
    let fork = server.run(&["session", "fork", &id, "--turn", "1"])?;
    let fork = fork.trim();
    let said = prompt(server, fork, "mock: read /home/user/file")?;
    check!(said.contains("one"), "{said}");
    let said = prompt(server, &id, "mock: read /home/user/file")?;
    check!(said.contains("two"), "{said}");
    let now = server.run(&["session", "rewind", &id, "--turn", "1"])?;
    check!(now.trim() != first, "the same sandbox");
    let said = prompt(server, &id, "mock: read /home/user/file")?;
    check!(said.contains("one"), "{said}");
    let log = log(server, &id)?;
    check!(
        log.iter().any(|it| it["kind"] == "session.rewound"),
        "{log:?}"
    );
    remove(server, fork)?;
    remove(server, &id)?;
    server.run(&["sandbox", "delete", &first])?;
    Ok(())
}

fn sandbox_lost(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = create(server, &[])?;
    prompt(server, &id, "remember the frog")?;
    let lost = sandbox_of(server, &id)?;
    server.run(&["sandbox", "delete", &lost])?;
    wait_for("the end of the agent to be known", PATIENCE, || {
        let log = log(server, &id).ok()?;
        log.iter()
            .any(|it| it["kind"] == "agent.exited")
            .then_some(())
    })?;
    let said = prompt(server, &id, "what did I say before?")?;
    check!(said.contains("characters of history"), "{said}");
    let now = sandbox_of(server, &id)?;
    check!(now != lost, "{now}");
    remove(server, &id)
}

/// The pid on this machine of a sandbox's first process.
fn first_process(sandbox: &str) -> Result<i32> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes come and go meanwhile.
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let status = read("status");
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let mut numbers = numbers.unwrap_or_default().split_whitespace();
        let (outside, inside) = (numbers.next(), numbers.next_back());
        if inside == Some("1") && read("cgroup").contains(sandbox) {
            return Ok(outside.context("its pid")?.parse()?);
        }
    }
    anyhow::bail!("no process of {sandbox}")
}

fn guest_stopped(_: &Context) -> Result<()> {
    let settings = "[health]\ninterval = \"1s\"\ntimeout = \"2s\"\n";
    let server = own_server_with("session-health", settings)?;
    let id = create(&server, &[])?;
    prompt(&server, &id, "remember the frog")?;
    let sandbox = sandbox_of(&server, &id)?;
    server.exec(&sandbox, "user", "echo kept > ~/file; sync")?;
    let pid = Pid::from_raw(first_process(&sandbox)?).context("a pid")?;
    // Another prompt is under way when it happens.
    let mut busy = in_background(&server, &id, "mock: delay 600000")?;
    wait_for("the prompt to be under way", PATIENCE, || {
        (show(&server, &id).ok()?["busy"] == true).then_some(())
    })?;
    kill_process(pid, Signal::STOP)?;
    wait_for("the session to know", PATIENCE, || {
        let log = log(&server, &id).ok()?;
        let exited = log.iter().find(|it| it["kind"] == "agent.exited")?;
        exited.to_string().contains("started anew").then_some(())
    })?;
    busy.wait()?;
    let said = prompt(&server, &id, "what did I say before?")?;
    check!(said.contains("characters of history"), "{said}");
    check!(sandbox_of(&server, &id)? == sandbox, "another sandbox");
    let kept = server.exec(&sandbox, "user", "cat ~/file")?;
    check!(kept.stdout.trim() == "kept", "{kept:?}");
    let path = format!("/api/v1/sandboxes/{sandbox}/events");
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    let head = format!("Authorization: Bearer {}\r\n", key.trim());
    let (_, events) = Client::connect(server.url())?.exchange("GET", &path, &head, b"")?;
    let events = String::from_utf8_lossy(&events);
    check!(events.contains("sandbox.unresponsive"), "{events}");
    server.remove()
}

fn own_server(name: &str) -> Result<Server> {
    own_server_with(name, "")
}

/// With these settings in its file.
pub(crate) fn own_server_with(name: &str, settings: &str) -> Result<Server> {
    let dir = data_dir(name);
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("woodfrog.toml");
    std::fs::write(&file, settings)?;
    let file = file.to_str().context("a path in UTF-8")?;
    let server = Server::start(&binary(), &dir, &["--config", file])?;
    server.run(&["template", "prepare", "base"])?;
    Ok(server)
}

fn in_background(server: &Server, id: &str, text: &str) -> Result<Child> {
    let child = server
        .cli(&["session", "prompt", id, text])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(child)
}

fn server_killed(_: &Context) -> Result<()> {
    let mut server = own_server("session-kill")?;
    let id = create(&server, &[])?;
    prompt(&server, &id, "remember the frog")?;
    let script = "mock: ask May I?\nmock: say it is done";
    let mut asking = in_background(&server, &id, script)?;
    let asked = |server: &Server| {
        wait_for("the question", PATIENCE, || {
            let asked = show(server, &id).ok()?["asked"][0].clone();
            asked.is_object().then_some(asked)
        })
    };
    asked(&server)?;
    server.kill()?;
    asking.wait()?;
    server.restart()?;
    // The question is there still, and whoever comes may answer it.
    let question = asked(&server)?;
    let request = question["id"].as_str().context("its id")?.to_owned();
    server.run(&["session", "answer", &id, &request, "allow_once"])?;
    wait_for("the end of the turn", PATIENCE, || {
        let log = log(&server, &id).ok()?;
        let ended = log.iter().filter(|it| it["kind"] == "turn.ended").count();
        (ended == 2).then_some(())
    })?;
    let said = prompt(&server, &id, "what did I say before?")?;
    check!(said.contains("2 prompts"), "{said}");
    check!(!said.contains("history"), "{said}");
    server.remove()
}

fn rounds(default: u64) -> Result<u64> {
    match std::env::var(ROUNDS_VARIABLE) {
        Ok(text) => text.parse().context(ROUNDS_VARIABLE),
        Err(_) => Ok(default),
    }
}

/// Settings of a server whose records are in a Postgres of the tests' own.
pub(crate) fn postgres(schema: &str) -> Result<String> {
    let url = Postgres::shared()?.socket_url();
    Ok(format!("[store]\nurl = \"{url}\"\nschema = \"{schema}\"\n"))
}

fn in_postgres(_: &Context) -> Result<()> {
    let settings = postgres("e2e_one")?;
    let mut server = own_server_with("session-postgres", &settings)?;
    let files = std::fs::read_dir(server.data_dir())?;
    let names: Vec<_> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .collect();
    check!(!names.iter().any(|name| name.ends_with(".db")), "{names:?}");
    let id = create(&server, &[])?;
    prompt(&server, &id, "remember the frog")?;
    let before = log(&server, &id)?;
    server.kill()?;
    server.restart()?;
    let after = log(&server, &id)?;
    check!(after[..before.len()] == before[..], "{after:?}");
    let said = prompt(&server, &id, "what did I say before?")?;
    check!(said.contains("remember the frog"), "{said}");
    check!(!said.contains("history"), "{said}");
    remove(&server, &id)?;
    server.remove()
}

fn crash_loop(_: &Context) -> Result<()> {
    kills(own_server("session-load")?, rounds(ROUNDS)?)
}

fn crash_loop_in_postgres(_: &Context) -> Result<()> {
    let settings = postgres("e2e_load")?;
    let server = own_server_with("session-load-postgres", &settings)?;
    kills(server, rounds(ROUNDS_IN_POSTGRES)?)
}

/// Kills the server again and again while agents speak: nothing that was shown is lost or changed,
/// and nothing comes twice.
fn kills(mut server: Server, rounds: u64) -> Result<()> {
    let several = |server: &Server| -> Result<Vec<String>> {
        (0..SESSIONS).map(|_| create(server, &[])).collect()
    };
    let mut ids = several(&server)?;
    let mut known: Vec<Vec<Value>> = vec![Vec::new(); SESSIONS];
    let mut longest = 0;
    for round in 0..rounds {
        if round % FRESH == FRESH - 1 {
            // Whole logs are compared: they must not grow for ever.
            for id in &ids {
                remove(&server, id)?;
            }
            ids = several(&server)?;
        }
        let mut prompts = Vec::new();
        for id in &ids {
            prompts.push(in_background(&server, id, "mock: chunks 200 500 1")?);
        }
        // What is shown now was acknowledged; a different moment each round.
        let span = u64::try_from(LATEST.as_millis())?;
        std::thread::park_timeout(Duration::from_millis(150 + round * 61 % span));
        for (id, known) in ids.iter().zip(&mut known) {
            *known = log(&server, id)?;
        }
        server.kill()?;
        for mut prompt in prompts {
            prompt.wait()?;
        }
        server.restart()?;
        for (id, known) in ids.iter().zip(&known) {
            let settled = wait_for("the turns to end", PATIENCE, || {
                let shown = show(&server, id).ok()?;
                (shown["busy"] == false).then_some(())
            });
            settled?;
            let now = log(&server, id)?;
            check!(now.len() >= known.len(), "{} of {}", now.len(), known.len());
            check!(
                now[..known.len()] == known[..],
                "the past of {id} has changed"
            );
            chunks_are_whole(&now)?;
            longest = longest.max(now.len());
        }
    }
    println!("{rounds} kills of {SESSIONS} sessions; the longest log has {longest} entries");
    server.remove()
}

/// In each turn that ended well, every chunk is there once and in order.
fn chunks_are_whole(log: &[Value]) -> Result<()> {
    let mut expected = 1;
    for event in log {
        if event["kind"] == "turn.started" {
            expected = 1;
        }
        let text = &event["payload"]["params"]["update"]["content"]["text"];
        let Some(text) = text.as_str().filter(|_| event["kind"] == "message") else {
            continue;
        };
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(number) = digits.parse::<u64>() {
            check!(number == expected, "chunk {number}, not {expected}");
            expected += 1;
        }
    }
    Ok(())
}
