//! Agents in real sandboxes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use woodfrog_testkit::collector::wait_for_spans_of;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::{COLLECTOR, Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("agents::every_user_has_the_mock_agent", mock),
    ("agents::the_store_of_the_server_supplies_sandboxes", stored),
    ("agents::a_real_agent_edits_files_without_a_network", real),
];

/// Seconds that OpenCode may take on a busy machine; it takes about ten.
const REAL_SECONDS_MAX: &str = "240";
const REAL_TIMEOUT: &str = "240s";
const REAL_PATIENCE: Duration = Duration::from_secs(300);

fn mock(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    // One line in, one line out; the guest that runs the sandbox goes on as before.
    let script = "echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}' \
        | /usr/lib/woodfrog/guest mock-agent";
    for user in ["user", "root"] {
        let seen = server.exec(&id, user, script)?;
        check!(seen.code == 0, "{user}: {seen:?}");
        check!(
            seen.stdout.contains("\"name\":\"mock\""),
            "{user}: {seen:?}"
        );
        check!(seen.stdout.lines().count() == 1, "{user}: {seen:?}");
    }
    let seen = server.exec(&id, "user", "cat /proc/1/comm; pgrep -c guest")?;
    check!(seen.stdout == "guest\n1\n", "{seen:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// A sandbox without internet gets an agent that the server has in store, over the agent API, and
/// the agent tells what it can be set to.
fn stored(context: &Context) -> Result<()> {
    let server = &context.server;
    let store = server.data_dir().join("agents/opencode");
    let program = store.join("1.0.0/node_modules/opencode-ai/bin/opencode.exe");
    std::fs::create_dir_all(program.parent().context("its directory")?)?;
    std::fs::write(
        &program,
        "#!/bin/sh\nexec /usr/lib/woodfrog/guest mock-agent\n",
    )?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(store.join("current.json"), r#"{"version":"1.0.0"}"#)?;

    let id = server.create(&["base", "--no-internet"])?;
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    let head = format!(
        "X-API-Key: {}\r\nContent-Type: application/json\r\n",
        key.trim()
    );
    let mut client = woodfrog_testkit::http::Client::connect(server.url())?;
    let mut call = |method: &str, path: &str, body: &str| -> Result<Value> {
        let path = format!("/agent/{id}/v1/agents{path}");
        let (status, bytes) = client.exchange(method, &path, &head, body.as_bytes())?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        check!(status == 200, "{method} {path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    };
    let before = call("GET", "/opencode?config=true", "")?;
    check!(before["installed"] == false, "{before}");
    let installed = call("POST", "/opencode/install", "{}")?;
    check!(installed["already_installed"] == false, "{installed}");
    check!(
        installed["artifacts"][0]["version"] == "1.0.0",
        "{installed}"
    );
    let after = call("GET", "/opencode?config=true", "")?;
    check!(after["version"] == "1.0.0", "{after}");
    let options: Vec<&Value> = after["configOptions"]
        .as_array()
        .context("options")?
        .iter()
        .map(|option| &option["id"])
        .collect();
    check!(options == ["model", "mode", "thought_level"], "{after}");
    let all = call("GET", "?config=true", "")?;
    check!(all["agents"].as_array().map(Vec::len) == Some(8), "{all}");
    server.run(&["sandbox", "delete", &id])?;
    std::fs::remove_dir_all(store)?;
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn real(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base", "--memory", "3GiB", "--no-internet"])?;
    let program = root().join("target/sdk/agents/node_modules/opencode-ai/bin/opencode.exe");
    check!(program.is_file(), "run `./x setup --tests` first");
    copy(server, &program, &id, "opencode")?;
    for name in ["model_endpoint.mjs", "opencode.json", "real_agent.mjs"] {
        copy(server, &root().join("tests/agents").join(name), &id, name)?;
    }
    // OpenCode's program is also the runtime that the programs around it need.
    let script = "chmod +x opencode && BUN_BE_BUN=1 ./opencode real_agent.mjs ./opencode";
    let mut command = server.cli(&["sandbox", "exec", &id, "--timeout", REAL_SECONDS_MAX]);
    command.args(["--", "bash", "-c", script]);
    let seen = output(&mut command)?;
    check!(seen.contains("real agent: 4 tool calls done"), "{seen}");
    tracked(server, &id)?;
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// The same agent and model in a run: what it used, cost and left, who asked, and its trace.
fn tracked(server: &Server, sandbox: &str) -> Result<()> {
    let prepare = "mkdir w && install -m 755 opencode /usr/local/bin/opencode && \
                   (BUN_BE_BUN=1 setsid opencode model_endpoint.mjs 8900 > model.log 2>&1 &) && \
                   until grep -q listening model.log; do sleep 0.1; done";
    let prepared = server.exec(
        sandbox,
        "root",
        &format!("cd /home/user && {prepare} && chown user w"),
    )?;
    check!(prepared.code == 0, "{prepared:?}");
    let price = ["--input", "1000", "--output", "2000", "--cache-read", "0"];
    server.run(&[&["price", "set", "scripted/scripted"], &price[..]].concat())?;
    let prompt =
        "do: write new.txt \"from the model\\n\"\ndo: read new.txt\ndo: run \"cat new.txt > all\"";
    let mut args = vec!["run", "start", "--detach", "--artifacts", "--cwd", "w"];
    args.extend(["--sandbox", sandbox, "--timeout", REAL_TIMEOUT]);
    args.extend(["--agent", "opencode", "--model", "scripted/scripted"]);
    args.extend(["--prompt", prompt]);
    for variable in [
        "OPENCODE_CONFIG=/home/user/opencode.json",
        "SCRIPTED_MODEL_URL=http://127.0.0.1:8900/v1",
        "OPENCODE_DISABLE_MODELS_FETCH=1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD=1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS=1",
    ] {
        args.extend(["--env", variable]);
    }
    let id = server.run(&args)?.trim().to_owned();
    let run = wait_for("the run's end", REAL_PATIENCE, || {
        let run = server.json(&["run", "show", &id]).ok()?;
        run["finished_at"].is_i64().then_some(run)
    })?;
    check!(run["status"] == "succeeded", "{run}");
    check!(run["stats"]["tool_calls"] == 3, "{run}");
    let tokens = ["input", "output"].map(|kind| run["tokens"][kind].as_u64().unwrap_or(0));
    check!(tokens[0] > 0 && tokens[1] > 0, "{run}");
    // A thousand dollars for a million is a thousandth for one.
    let cost = tokens[0] * 1_000 + tokens[1] * 2_000;
    check!(run["cost"]["model"] == cost, "{run}");
    check!(run["cost"]["unpriced"] == false, "{run}");
    let kept = server.json(&["artifact", "list", "--run", &id])?;
    let kept = kept.as_array().context("a list")?.iter();
    let mut paths: Vec<&str> = kept.filter_map(|one| one["path"].as_str()).collect();
    paths.sort_unstable();
    check!(
        paths == ["/home/user/w/all", "/home/user/w/new.txt"],
        "{paths:?}"
    );
    let audit = server.json(&["audit", "list", "--action", "run.create"])?;
    let audit = audit.as_array().context("a list")?;
    let noted = audit
        .iter()
        .any(|entry| entry["target"] == id.as_str() && entry["outcome"] == "done");
    check!(noted, "{audit:?}");
    let trace = run["trace_id"].as_str().context("a trace")?;
    let spans = wait_for_spans_of(&COLLECTOR, trace, 4, REAL_PATIENCE)?;
    let whole = spans.last().context("spans")?;
    check!(
        whole.name == "invoke_agent opencode" && spans.len() == 4,
        "{spans:?}"
    );
    let of_trace = |name: &str| whole.attributes.get(name).map(String::as_str);
    check!(
        of_trace("gen_ai.usage.output_tokens") == Some(&tokens[1].to_string()),
        "{spans:?}"
    );
    check!(
        of_trace("gen_ai.request.model") == Some("scripted/scripted"),
        "{spans:?}"
    );
    Ok(())
}

fn copy(server: &Server, file: &Path, id: &str, name: &str) -> Result<()> {
    let from = file.to_str().context("a path that is text")?;
    server.run(&["sandbox", "cp", from, &format!("{id}:{name}")])?;
    Ok(())
}

/// Both streams.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let text = [&output.stdout[..], &output.stderr].concat();
    Ok(format!(
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&text)
    ))
}
