//! Agents of a sandbox.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{Agent, code};

#[tokio::test]
async fn agents_are_listed_as_the_sandbox_has_them() {
    let agent = Agent::start().await;
    // As anybody may put it there.
    let launcher = ".local/share/sandbox-agent/bin/agent_processes/codex-acp";
    agent
        .put(&format!("/v1/fs/file?path={launcher}"), "#!/bin/sh\n")
        .await;
    let launcher = agent.server.path(launcher);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&launcher, mode).expect("executable");
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
    assert!(mock["configError"].is_string(), "{mock}");
}

#[tokio::test]
async fn an_agent_that_is_there_is_not_installed_again() {
    let agent = Agent::start().await;
    let launcher = "/.local/share/sandbox-agent/bin/agent_processes/pi-acp";
    let path = agent.server.path(launcher.trim_start_matches('/'));
    agent
        .put(&format!("/v1/fs/file?path={path}"), "#!/bin/sh\n")
        .await;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("executable");
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
