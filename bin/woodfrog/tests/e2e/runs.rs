//! Runs in real sandboxes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use woodfrog_testkit::collector::wait_for_spans_of;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::{COLLECTOR, Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    ("runs::a_command_is_carried_out_and_leaves_nothing", command),
    ("runs::an_agent_is_prompted_and_a_thread_remembers", agent),
    ("runs::a_run_ends_at_its_time_or_when_it_is_canceled", ended),
    (
        "runs::a_run_over_budget_sleeps_and_goes_on_when_the_limit_is_raised",
        frozen,
    ),
    ("runs::a_run_outlives_its_server", server_killed),
];

const PATIENCE: Duration = Duration::from_secs(60);

fn show(server: &Server, id: &str) -> Result<Value> {
    server.json(&["run", "show", id])
}

fn start(server: &Server, flags: &[&str]) -> Result<String> {
    let mut args = vec!["run", "start", "--detach"];
    args.extend_from_slice(flags);
    Ok(server.run(&args)?.trim().to_owned())
}

fn until(server: &Server, id: &str, status: &str) -> Result<Value> {
    wait_for("the run's status", PATIENCE, || {
        show(server, id).ok().filter(|run| run["status"] == status)
    })
}

/// The log as it is told to programs; every place must be there once.
fn log(server: &Server, id: &str) -> Result<Vec<Value>> {
    let mut command = server.cli(&["run", "watch", id, "--json"]);
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    let events = text.lines().map(serde_json::from_str);
    let events: Vec<Value> = events.collect::<Result<_, _>>()?;
    for (event, place) in events.iter().zip(1_u64..) {
        check!(event["id"] == place, "{event} is not {place}");
    }
    Ok(events)
}

fn sandbox_is_gone(server: &Server, run: &Value) -> Result<()> {
    let sandbox = run["sandbox"].as_str().context("its sandbox")?.to_owned();
    wait_for("its sandbox to go", PATIENCE, || {
        server.run(&["sandbox", "show", &sandbox]).err()
    })?;
    Ok(())
}

fn command(context: &Context) -> Result<()> {
    let server = &context.server;
    let said = server.run(&["run", "start", "--env", "A=b", "--", "echo $A; id -un; pwd"])?;
    check!(said == "b\nuser\n/home/user\n", "{said}");
    let listed = server.json(&["run", "list", "--status", "succeeded", "--limit", "1"])?;
    let id = listed[0]["id"].as_str().context("an id")?;
    let run = show(server, id)?;
    check!(run["stats"]["tool_calls"] == 0, "{run}");
    sandbox_is_gone(server, &run)?;
    let failed = server
        .cli(&["run", "start", "--", "echo no >&2; exit 3"])
        .output()?;
    check!(failed.status.code() == Some(1), "{failed:?}");
    Ok(())
}

fn agent(context: &Context) -> Result<()> {
    let server = &context.server;
    let prompt = |text: &str| {
        let flags = [
            "--agent",
            "mock",
            "--prompt",
            text,
            "--thread",
            "t",
            "--share-sandbox",
        ];
        start(server, &flags)
    };
    let id =
        prompt("mock: think hm\nmock: tool a execute ls\nmock: tool-done a fine\nmock: say frog")?;
    let run = until(server, &id, "succeeded")?;
    check!(run["result"] == "frog", "{run}");
    check!(run["stats"]["tool_calls"] == 1, "{run}");
    check!(run["tokens"]["output"].as_u64() > Some(0), "{run}");
    let log = log(server, &id)?;
    let kinds = log.iter().filter_map(|event| event["type"].as_str());
    let kinds: Vec<&str> = kinds.filter(|kind| *kind != "status").collect();
    let expected = [
        "start",
        "thinking",
        "tool_use",
        "tool_result",
        "text",
        "result",
        "complete",
    ];
    check!(kinds == expected, "{log:?}");
    // A collector was told of it.
    let trace = run["trace_id"].as_str().context("a trace")?;
    let spans = wait_for_spans_of(&COLLECTOR, trace, 2, PATIENCE)?;
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    check!(
        names == ["execute_tool ls", "invoke_agent mock"],
        "{spans:?}"
    );
    let (tool, whole) = (&spans[0], &spans[1]);
    check!(tool.parent == whole.id, "{spans:?}");
    let output = run["tokens"]["output"].to_string();
    check!(
        whole.attributes.get("gen_ai.usage.output_tokens") == Some(&output),
        "{spans:?}"
    );
    // The next run of the thread speaks to the same agent.
    let second = prompt("what did I say before?")?;
    let second = until(server, &second, "succeeded")?;
    check!(second["session"] == run["session"], "{second}");
    let said = second["result"].as_str().context("a result")?;
    check!(said.contains("say frog"), "{said}");
    let sandbox = run["sandbox"].as_str().context("a sandbox")?;
    server.run(&["sandbox", "delete", sandbox])?;
    Ok(())
}

fn ended(context: &Context) -> Result<()> {
    let server = &context.server;
    let late = start(server, &["--timeout", "2s", "--", "sleep 600"])?;
    let long = start(server, &["--", "echo begun; sleep 600"])?;
    until(server, &long, "running")?;
    server.run(&["run", "cancel", &long, "--reason", "enough"])?;
    let canceled = show(server, &long)?;
    check!(canceled["status"] == "canceled", "{canceled}");
    sandbox_is_gone(server, &canceled)?;
    let late = until(server, &late, "failed")?;
    check!(late["error"]["code"] == "timeout", "{late}");
    sandbox_is_gone(server, &late)
}

/// Pieces that the agent says, and the time between two: together longer than it takes until a
/// running run is looked at.
const PIECES: u32 = 160;
const PIECE_MS: u32 = 250;

/// In a workspace of its own; what comes after `--` is a command's.
fn of_workspace<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let flags = args.iter().position(|arg| *arg == "--");
    let (flags, command) = args.split_at(flags.unwrap_or(args.len()));
    [flags, &["--workspace", "frozen"], command].concat()
}

fn frozen(context: &Context) -> Result<()> {
    let server = &context.server;
    server.run(&["workspace", "create", "frozen"])?;
    // Nobody else uses this model. A token is a dollar.
    let dollars = "1000000";
    let price = ["--input", dollars, "--output", dollars, "--cache-read", "0"];
    server.run(&[&["price", "set", "mock-fast"], &price[..]].concat())?;
    let run = |args: &[&str]| server.run(&of_workspace(args));
    let show = |id: &str| server.json(&of_workspace(&["run", "show", id]));
    run(&["budget", "set", "--amount", "100", "--policy", "freeze"])?;
    // What spends it all need not wait for a sandbox.
    let ready = server.create(&["base", "--timeout", "0", "--workspace", "frozen"])?;
    let script = format!("mock: chunks {PIECES} 8 {PIECE_MS}");
    let flags = [
        "--agent",
        "mock",
        "--model",
        "mock-fast",
        "--prompt",
        &script,
    ];
    let id = run(&[&["run", "start", "--detach"], &flags[..]].concat())?;
    let id = id.trim();
    wait_for("the run to begin", PATIENCE, || {
        show(id).ok().filter(|run| run["status"] == "running")
    })?;
    // Another run of the workspace spends it all, and sleeps as well or is over before.
    let spends = r#"echo '{"type":"result","data":{"result":"x","model":"mock-fast","usage":{"input_tokens":200}}}'"#;
    let other = run(&[
        "run",
        "start",
        "--detach",
        "--sandbox",
        &ready,
        "--",
        spends,
    ])?;
    let held = wait_for("the run to be held", PATIENCE, || {
        show(id).ok().filter(|run| !run["held"].is_null())
    })?;
    check!(held["held"] == "budget", "{held}");
    check!(held["status"] == "running", "{held}");
    let sandbox = held["sandbox"].as_str().context("a sandbox")?;
    wait_for("its sandbox to sleep", PATIENCE, || {
        let shown = of_workspace(&["sandbox", "show", sandbox]);
        let shown = server.json(&shown).ok()?;
        (shown["state"] == "paused").then_some(())
    })?;
    let refused = server
        .cli(&of_workspace(&["run", "start", "--", "true"]))
        .output()?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    check!(!refused.status.success() && why.contains("budget"), "{why}");
    run(&["budget", "set", "--amount", "1000000"])?;
    let over = wait_for("the run to end", PATIENCE, || {
        show(id).ok().filter(|run| run["finished_at"].is_i64())
    })?;
    check!(over["status"] == "succeeded", "{over}");
    check!(over["held"].is_null(), "{over}");
    // The agent went on in the middle of what it said: its memory was intact.
    let log = server
        .cli(&of_workspace(&["run", "watch", id, "--json"]))
        .output()?;
    let log = String::from_utf8(log.stdout)?;
    let events = log.lines().map(serde_json::from_str::<Value>);
    let events = events.collect::<Result<Vec<_>, _>>()?;
    let pieces = events.iter().filter(|event| event["type"] == "text");
    check!(pieces.count() == PIECES as usize, "{log}");
    let holds = events
        .iter()
        .filter(|event| event["data"]["held"] == "budget");
    check!(holds.count() == 1, "{log}");
    let tokens = ["input", "output"].map(|kind| over["tokens"][kind].as_u64().unwrap_or(0));
    let cost = (tokens[0] + tokens[1]) * 1_000_000;
    check!(tokens[1] > 0 && over["cost"]["model"] == cost, "{over}");
    let other = wait_for("the other run to end", PATIENCE, || {
        show(other.trim())
            .ok()
            .filter(|run| run["finished_at"].is_i64())
    })?;
    check!(other["status"] == "succeeded", "{other}");
    check!(other["cost"]["model"] == 200_000_000, "{other}");
    run(&["budget", "clear"])?;
    run(&["sandbox", "delete", &ready])?;
    Ok(())
}

fn server_killed(_: &Context) -> Result<()> {
    let mut server = Server::start(&binary(), &data_dir("runs"), &[])?;
    server.run(&["template", "prepare", "base"])?;
    let script = "for i in $(seq 1 200); do echo $i; sleep 0.05; done; test ! -e /nowhere";
    let id = start(&server, &["--", script])?;
    until(&server, &id, "running")?;
    wait_for("its first lines", PATIENCE, || {
        show(&server, &id)
            .ok()
            .filter(|run| run["last_event"].as_u64() > Some(10))
    })?;
    server.kill()?;
    server.restart()?;
    let run = until(&server, &id, "succeeded")?;
    let log = log(&server, &id)?;
    let lines = log.iter().filter(|event| event["type"] == "raw");
    let lines: Vec<&str> = lines
        .filter_map(|event| event["data"]["text"].as_str())
        .collect();
    let expected: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
    check!(lines == expected, "{lines:?}");
    sandbox_is_gone(&server, &run)?;
    // One whose sandbox was lost meanwhile fails, with the reason.
    let lost = start(&server, &["--", "sleep 600"])?;
    let run = until(&server, &lost, "running")?;
    let sandbox = run["sandbox"].as_str().context("a sandbox")?;
    server.run(&["sandbox", "delete", sandbox])?;
    let run = until(&server, &lost, "failed")?;
    check!(run["error"]["category"] == "sandbox_error", "{run}");
    server.remove()
}
