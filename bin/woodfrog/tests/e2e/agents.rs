//! Agents in real sandboxes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use woodfrog_testkit::Server;

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("agents::every_user_has_the_mock_agent", mock),
    ("agents::the_store_of_the_server_supplies_sandboxes", stored),
    ("agents::a_real_agent_edits_files_without_a_network", real),
];

/// Seconds that OpenCode may take on a busy machine; it takes about ten.
const REAL_SECONDS_MAX: &str = "240";

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
    server.run(&["sandbox", "delete", &id])?;
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
