//! Replies, to the letter: fields that clients read must not change by accident.

use serde_json::{Value, json};

use crate::fixture::Server;

/// Replaces what differs from run to run by the name of its kind.
fn stable(value: Value, key: &str) -> Value {
    match value {
        Value::Object(map) => {
            let map = map.into_iter().map(|(key, value)| {
                let value = stable(value, &key);
                (key, value)
            });
            Value::Object(map.collect())
        }
        Value::Array(items) => items.into_iter().map(|item| stable(item, key)).collect(),
        Value::String(text) if key.ends_with("ID") && text.len() > 20 => json!("<id>"),
        Value::String(_) if key.ends_with("Token") => json!("<token>"),
        Value::String(text) if key.ends_with("At") && text.ends_with('Z') => json!("<time>"),
        other => other,
    }
}

#[tokio::test]
async fn e2b_replies() {
    let server = Server::start().await;
    let body = json!({
        "templateID": "base", "metadata": {"k": "v"},
        "network": {"denyOut": ["1.1.1.1"], "allowPublicTraffic": false},
    });
    let made = server
        .call("POST", "/v2/sandboxes", &body.to_string())
        .await
        .json();
    let id = made["sandboxID"].as_str().expect("an id").to_owned();
    assert_eq!(
        stable(made, ""),
        json!({
            "templateID": "<id>", "sandboxID": "<id>", "clientID": "woodfrog",
            "envdVersion": "0.6.13", "alias": "base", "envdAccessToken": "<token>",
            "trafficAccessToken": "<token>", "domain": "frog.test",
        })
    );
    let listed = json!({
        "templateID": "<id>", "sandboxID": "<id>", "clientID": "woodfrog", "alias": "base",
        "startedAt": "<time>", "endAt": "<time>", "cpuCount": 2, "memoryMB": 512,
        "diskSizeMB": 10240, "metadata": {"k": "v"}, "state": "running",
        "envdVersion": "0.6.13", "volumeMounts": [],
    });
    let list = server.call("GET", "/v2/sandboxes", "").await.json();
    assert_eq!(stable(list, ""), json!([listed]));
    let mut detail = listed;
    let more = json!({
        "envdAccessToken": "<token>", "allowInternetAccess": true, "domain": "frog.test",
        "network": {"allowPublicTraffic": false, "allowOut": [], "denyOut": ["1.1.1.1"]},
        "lifecycle": {"autoResume": false, "onTimeout": "kill"},
    });
    let fields = more.as_object().expect("an object").clone();
    detail.as_object_mut().expect("an object").extend(fields);
    let found = server
        .call("GET", &format!("/sandboxes/{id}"), "")
        .await
        .json();
    assert_eq!(stable(found, ""), detail);
}

#[tokio::test]
async fn e2b_errors() {
    let server = Server::start().await;
    let id = "sb00000000000000000000000000";
    let answer = server.call("DELETE", &format!("/sandboxes/{id}"), "").await;
    assert_eq!(
        answer.json(),
        json!({
            "code": 404, "error_code": "sandbox_not_found",
            "message": format!("Sandbox \"{id}\" doesn't exist or you don't have access to it"),
        })
    );
}
