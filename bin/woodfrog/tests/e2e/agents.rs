//! Agents in real sandboxes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use woodfrog_testkit::Server;

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("agents::every_user_has_the_mock_agent", mock),
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
