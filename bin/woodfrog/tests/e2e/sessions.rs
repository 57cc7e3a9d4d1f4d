//! Sessions with agents, through sleep, kills and loss.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
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
    ("sessions::a_turn_outlives_its_server", server_killed),
    ("sessions::kills_under_load_lose_nothing", crash_loop),
];

const PATIENCE: Duration = Duration::from_secs(60);
/// Kills of the server, each a little later than the one before.
const ROUNDS: u64 = 6;
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

fn own_server(name: &str) -> Result<Server> {
    let server = Server::start(&binary(), &data_dir(name), &[])?;
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

fn crash_loop(_: &Context) -> Result<()> {
    let mut server = own_server("session-load")?;
    let ids: Vec<String> = (0..SESSIONS)
        .map(|_| create(&server, &[]))
        .collect::<Result<_>>()?;
    let mut known: Vec<Vec<Value>> = vec![Vec::new(); SESSIONS];
    for round in 0..ROUNDS {
        let mut prompts = Vec::new();
        for id in &ids {
            prompts.push(in_background(&server, id, "mock: chunks 200 500 1")?);
        }
        // What is shown now was acknowledged; a different moment each round.
        std::thread::park_timeout(Duration::from_millis(150 + round * 60));
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
        }
    }
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
