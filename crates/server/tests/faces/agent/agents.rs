//! Agents of a sandbox.

use std::path::Path;

use serde_json::{Value, json};

use super::{Agent, code};

/// Puts a launcher where anybody may put one.
fn launcher(agent: &Agent, name: &str, script: &str) -> String {
    let path = format!(".local/share/sandbox-agent/bin/agent_processes/{name}-acp");
    let path = agent.server.path(&path);
    woodfrog_testkit::program::write(Path::new(&path), script).expect("written");
    path
}

#[tokio::test]
async fn agents_are_listed_as_the_sandbox_has_them() {
    let agent = Agent::start().await;
    let launcher = launcher(&agent, "codex", "#!/bin/sh\n");
    let listed = agent.call("GET", "/v1/agents").await.json();
    let all = listed["agents"].as_array().expect("a list");
    let ids: Vec<&Value> = all.iter().map(|one| &one["id"]).collect();
    let wanted = [
        "claude", "codex", "opencode", "amp", "pi", "cursor", "gemini", "mock",
    ];
    assert_eq!(ids, wanted);
    let codex = agent.call("GET", "/v1/agents/codex").await.json();
    assert_eq!(codex, all[1]);
    assert_eq!(
        (&codex["installed"], &codex["path"]),
        (&json!(true), &json!(launcher))
    );
    let mock = agent
        .call("GET", "/v1/agents/mock?config=true")
        .await
        .json();
    assert_eq!(mock["credentialsAvailable"], true);
    assert_eq!(mock["capabilities"]["planMode"], true);
    assert_eq!(mock["capabilities"]["sharedProcess"], false);
    assert_eq!(
        mock["capabilities"].as_object().map(serde_json::Map::len),
        Some(18)
    );
    // The launcher above is none that answers.
    let codex = agent
        .call("GET", "/v1/agents/codex?config=true")
        .await
        .json();
    let error = codex["configError"].as_str().expect("an error");
    assert!(error.contains("ended"), "{error}");
}

#[tokio::test]
async fn an_agent_is_asked_for_what_can_be_chosen() {
    let agent = Agent::start().await;
    let script = r#"#!/bin/sh
read line
echo '{"jsonrpc":"2.0","method":"noise","params":{}}'
echo 'no json'
echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}'
read line
echo '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s","configOptions":[{"id":"model"}]}}'
exec sleep 100000
"#;
    launcher(&agent, "gemini", script);
    let path = "/v1/agents/gemini?config=true&no_cache=true";
    let gemini = agent.call("GET", path).await.json();
    assert_eq!(gemini["configOptions"], json!([{"id": "model"}]));
    assert!(gemini.get("configError").is_none(), "{gemini}");
    let brief = agent.call("GET", "/v1/agents/gemini").await.json();
    assert!(brief.get("configOptions").is_none(), "{brief}");
    let refusing = "#!/bin/sh\nread line\n\
        echo '{\"id\":1,\"error\":{\"code\":1,\"message\":\"log in first\"}}'\nread line\n";
    launcher(&agent, "amp", refusing);
    let amp = agent.call("GET", "/v1/agents/amp?config=true").await.json();
    let error = amp["configError"].as_str().expect("an error");
    assert!(error.ends_with("log in first"), "{error}");
}

#[tokio::test]
async fn an_agent_that_is_there_is_not_installed_again() {
    let agent = Agent::start().await;
    let path = launcher(&agent, "pi", "#!/bin/sh\n");
    let done = agent.json("POST", "/v1/agents/pi/install", json!({})).await;
    assert_eq!(
        done.json(),
        json!({
            "already_installed": true,
            "artifacts": [{"kind": "agent_process", "path": path, "source": "local_path"}],
        })
    );
}

#[tokio::test]
async fn unknown_agents_are_refused() {
    let agent = Agent::start().await;
    let unknown = agent.call("GET", "/v1/agents/zzz").await;
    assert_eq!(
        unknown.json(),
        json!({
            "type": "urn:sandbox-agent:error:unsupported_agent", "title": "Unsupported Agent",
            "status": 400, "detail": "unsupported agent: zzz", "agent": "zzz",
        })
    );
    let install = agent
        .json("POST", "/v1/agents/zzz/install", json!({}))
        .await;
    assert_eq!(code(&install), "unsupported_agent");
    let version = json!({"agentProcessVersion": "; rm -rf /"});
    let version = agent.json("POST", "/v1/agents/pi/install", version).await;
    assert_eq!(code(&version), "invalid_request");
}
