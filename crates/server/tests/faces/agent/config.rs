//! MCP servers and skills of a directory.

use serde_json::json;

use super::{Agent, code, text};

#[tokio::test]
async fn entries_are_kept_in_the_directory() {
    let agent = Agent::start().await;
    let at = |name: &str| {
        format!(
            "/v1/config/mcp?directory={}&mcpName={name}",
            agent.server.path("p")
        )
    };
    let missing = agent.call("GET", &at("x")).await;
    assert_eq!(
        missing.json(),
        json!({
            "type": "urn:sandbox-agent:error:session_not_found", "title": "Session Not Found",
            "status": 404, "detail": "session not found: mcp:x", "sessionId": "mcp:x",
        })
    );
    let given = json!({"type": "stdio", "command": "x", "environment": {"A": "b"}});
    assert_eq!(agent.json("PUT", &at("x"), given).await.status, 204);
    let kept = json!({"type": "local", "command": "x", "args": [], "env": {"A": "b"}});
    assert_eq!(agent.call("GET", &at("x")).await.json(), kept);
    let remote = json!({"type": "remote", "url": "http://u", "oauth": false});
    assert_eq!(
        agent.json("PUT", &at("y"), remote.clone()).await.status,
        204
    );
    let file = agent.server.path("p/.sandbox-agent/config/mcp.json");
    let file = std::fs::read(file).expect("a file");
    let file: serde_json::Value = serde_json::from_slice(&file).expect("json");
    assert_eq!(file, json!({"x": kept, "y": remote}));
    for _ in 0..2 {
        assert_eq!(agent.call("DELETE", &at("x")).await.status, 204);
    }
    assert_eq!(agent.call("GET", &at("x")).await.status, 404);
    assert_eq!(agent.call("GET", &at("y")).await.status, 200);
}

#[tokio::test]
async fn skills_are_kept_by_name() {
    let agent = Agent::start().await;
    let at = |name: &str| format!("/v1/config/skills?directory=p&skillName={name}");
    let skills = json!({"sources": [
        {"type": "github", "source": "a/b", "skills": ["s"], "ref": "m", "subpath": "p"},
    ]});
    assert_eq!(
        agent.json("PUT", &at("x"), skills.clone()).await.status,
        204
    );
    assert_eq!(agent.call("GET", &at("x")).await.json(), skills);
    let missing = agent.call("GET", &at("y")).await;
    assert_eq!(missing.json()["sessionId"], "skills:y");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let agent = Agent::start().await;
    let put = async |query: &str, body| {
        agent
            .json("PUT", &format!("/v1/config/mcp?{query}"), body)
            .await
    };
    let good = json!({"type": "remote", "url": "http://x"});
    for (query, says) in [
        ("directory=&mcpName=q", "missing required 'directory'"),
        ("directory=p&mcpName=", "missing required 'mcpName'"),
        ("directory=../p&mcpName=q", "invalid relative path"),
    ] {
        let refused = put(query, good.clone()).await;
        assert_eq!(code(&refused), "invalid_request", "{query}");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains(says), "{detail}");
    }
    let bad = put("directory=p&mcp_name=q", json!({"type": "bogus"})).await;
    assert_eq!(bad.status, 422);
    assert!(text(&bad).contains("unknown variant `bogus`"), "{bad:?}");
    let unnamed = put("directory=p", good).await;
    assert_eq!(unnamed.status, 400);
    // A file that is none of ours is left alone.
    agent
        .put(
            "/v1/fs/file?path=p/.sandbox-agent/config/mcp.json",
            "{ mine",
        )
        .await;
    let put = put(
        "directory=p&mcpName=q",
        json!({"type": "remote", "url": "u"}),
    )
    .await;
    assert_eq!(code(&put), "conflict");
    let kept = agent
        .call("GET", "/v1/fs/file?path=p/.sandbox-agent/config/mcp.json")
        .await;
    assert_eq!(text(&kept), "{ mine");
}

#[tokio::test]
async fn changes_at_the_same_time_lose_nothing() {
    let agent = Agent::start().await;
    let put = |n: usize| {
        let path = format!("/v1/config/mcp?directory=p&mcpName=m{n}");
        let agent = &agent;
        async move {
            let entry = json!({"type": "local", "command": "x"});
            agent.json("PUT", &path, entry).await.status
        }
    };
    let all = futures_util::future::join_all((0..20).map(put)).await;
    assert!(all.iter().all(|status| *status == 204), "{all:?}");
    let file = agent.server.path("p/.sandbox-agent/config/mcp.json");
    let file = std::fs::read(file).expect("a file");
    let file: serde_json::Map<_, _> = serde_json::from_slice(&file).expect("json");
    assert_eq!(file.len(), 20);
}
