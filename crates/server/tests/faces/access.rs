//! Who may do what, on every face.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use woodfrog_server::door;
use woodfrog_server::e2b::{Access, table};

use crate::fixture::{Answer, Server, fill, native_routes};

/// A workspace with a key for each of some people, whose name is their role.
struct Team {
    server: Server,
    id: String,
}

impl Team {
    async fn start() -> Self {
        let server = Server::start().await;
        let body = r#"{"name":"team","owner":"owner"}"#;
        let made = server.call("POST", "/api/v1/workspaces", body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        let team = Self { server, id };
        for role in ["viewer", "member", "admin"] {
            let body = json!({ "user": role, "role": role }).to_string();
            let added = team.at("POST", "/members", &team.server.admin, &body).await;
            assert_eq!(added.status, 201, "{added:?}");
        }
        team
    }

    /// A key for one of them.
    async fn key(&self, user: &str) -> String {
        let role = if user == "stranger" { "member" } else { user };
        let body = json!({
            "name": user, "workspace": self.id, "user": user, "role": role,
        });
        let body = body.to_string();
        let made = self.server.call("POST", "/api/v1/keys", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["secret"].as_str().expect("a secret").to_owned()
    }

    async fn at(&self, method: &str, path: &str, key: &str, body: &str) -> Answer {
        let path = format!("/api/v1/workspaces/{}{path}", self.id);
        self.server.send(method, &path, Some(key), body).await
    }
}

fn detail(answer: &Answer) -> String {
    answer.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn viewers_read_everywhere_and_write_nowhere() {
    let team = Team::start().await;
    let (viewer, member) = (team.key("viewer").await, team.key("member").await);
    let e2b = table().into_iter().filter(|one| one.access == Access::Key);
    let e2b = e2b.map(|one| (one.method.to_owned(), one.path.to_owned()));
    let mut refused = 0;
    for (method, path) in e2b.chain(native_routes()) {
        // Those of all workspaces together, which only the operator sees.
        if path == "/api/v1/budgets" {
            continue;
        }
        let native = path.strip_prefix("/api/v1");
        let action = match native {
            Some(route) => door::native_action(&method, route),
            None => door::e2b_action(&method, &path),
        };
        let action = action.unwrap_or_else(|| panic!("no action: {method} {path}"));
        let filled = fill(
            &path.replace("{workspace}", &team.id),
            "sb00000000000000000000000000",
        );
        let answer = team
            .server
            .send(&method, &filled, Some(&viewer), "{}")
            .await;
        let may = woodfrog_core::access::allows(woodfrog_types::workspace::Role::Viewer, action);
        assert_eq!(answer.status != 403, may, "{method} {path}: {answer:?}");
        refused += usize::from(!may);
    }
    assert!(refused > 50, "{refused}");
    // The same with somebody who may.
    let made = team
        .server
        .send(
            "POST",
            "/v2/sandboxes",
            Some(&member),
            r#"{"templateID":"base"}"#,
        )
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["sandboxID"].as_str().expect("an id").to_owned();
    // Who only reads gets no token with which one could write.
    for (key, empty) in [(&viewer, true), (&member, false)] {
        let path = format!("/sandboxes/{id}");
        let seen = team.server.send("GET", &path, Some(key), "").await;
        assert_eq!(seen.status, 200);
        let token = seen.json()["envdAccessToken"].as_str().map(str::to_owned);
        assert_eq!(token.unwrap_or_default().is_empty(), empty);
    }
    // tRPC: a query is answered, a mutation is not.
    let input = format!(r#"{{"json":{{"sandboxId":"{id}"}}}}"#);
    let path = "/api/trpc/sandbox.updateActivity";
    let answer = team.server.send("POST", path, Some(&viewer), &input).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let path = "/api/trpc/sandbox.getUserSessions";
    let answer = team.server.send("GET", path, Some(&viewer), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // The agent API.
    let path = format!("/agent/{id}/v1/processes/run");
    let answer = team.server.send("POST", &path, Some(&viewer), "{}").await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test]
async fn the_rules_about_members_are_those_of_the_contract() {
    let team = Team::start().await;
    let (owner, admin) = (team.key("owner").await, team.key("admin").await);
    let add = |key: String, user: &'static str, role: &'static str| {
        let body = json!({ "user": user, "role": role }).to_string();
        let team = &team;
        async move { team.at("POST", "/members", &key, &body).await }
    };
    let refused = add(admin.clone(), "bob", "admin").await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        detail(&refused),
        "Unauthorized: only owners can add admin members"
    );
    assert_eq!(add(owner.clone(), "bob", "admin").await.status, 201);
    let again = add(owner.clone(), "bob", "member").await;
    assert_eq!(again.status, 409);
    assert_eq!(detail(&again), "User is already a member of this workspace");
    let member = r#"{"role":"member"}"#;
    let refused = team.at("PATCH", "/members/owner", &owner, member).await;
    assert_eq!(detail(&refused), "Cannot change the workspace owner's role");
    let refused = team.at("PATCH", "/members/bob", &admin, member).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        detail(&refused),
        "Unauthorized: only owners can change admin privileges"
    );
    let refused = team.at("DELETE", "/members/owner", &owner, "").await;
    assert_eq!(detail(&refused), "Cannot remove the workspace owner");
    assert_eq!(
        team.at("DELETE", "/members/bob", &admin, "").await.status,
        403
    );
    assert_eq!(
        team.at("DELETE", "/members/bob", &owner, "").await.status,
        204
    );
    let long = json!({ "name": "x".repeat(101) }).to_string();
    let refused = team.at("PATCH", "", &owner, &long).await;
    assert_eq!(
        detail(&refused),
        "name exceeds maximum length of 100 characters (got 101)"
    );
    let named = r#"{"name":"renamed"}"#;
    assert_eq!(team.at("PATCH", "", &admin, named).await.status, 403);
    let renamed = team.at("PATCH", "", &owner, named).await;
    assert_eq!(renamed.json()["name"], "renamed");
    // Somebody else's workspace is not there.
    let other = Some(team.server.other.as_str());
    for path in ["", "/members", "/limits", "/audit", "/audit/verify"] {
        let path = format!("/api/v1/workspaces/{}{path}", team.id);
        let answer = team.server.send("GET", &path, other, "").await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn each_call_that_changes_something_leaves_one_entry() {
    let team = Team::start().await;
    let (owner, viewer) = (team.key("owner").await, team.key("viewer").await);
    let me = Some(owner.as_str());
    let server = &team.server;
    let made = server
        .send("POST", "/v2/sandboxes", me, r#"{"templateID":"base"}"#)
        .await;
    let id = made.json()["sandboxID"].as_str().expect("an id").to_owned();
    let path = format!("/sandboxes/{id}");
    assert_eq!(server.send("GET", &path, me, "").await.status, 200);
    let refused = server.send("DELETE", &path, Some(&viewer), "").await;
    assert_eq!(refused.status, 403);
    assert_eq!(server.send("DELETE", &path, me, "").await.status, 204);
    assert_eq!(server.send("DELETE", &path, me, "").await.status, 404);
    let listed = team.at("GET", "/audit?action=sandbox.", &owner, "").await;
    let seen: Vec<[String; 4]> = listed.json()["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|one| {
            ["actor", "action", "target", "outcome"]
                .map(|name| one[name].as_str().expect("text").to_owned())
        })
        .collect();
    let entry =
        |actor: &str, action: &str, outcome: &str| [actor, action, &id, outcome].map(str::to_owned);
    let expected = [
        entry("owner", "sandbox.delete", "failed"),
        entry("owner", "sandbox.delete", "done"),
        entry("viewer", "sandbox.delete", "refused"),
        entry("owner", "sandbox.create", "done"),
    ];
    assert_eq!(seen, expected);
    // The report's total is its rows' sum and the log's length.
    let report = team.at("GET", "/audit/report", &owner, "").await.json();
    let rows = report["rows"].as_array().expect("rows").iter();
    let sum: u64 = rows
        .map(|row| row["count"].as_u64().expect("a count"))
        .sum();
    assert_eq!(report["total"].as_u64(), Some(sum));
    let check = team.at("GET", "/audit/verify", &owner, "").await.json();
    assert_eq!(check["intact"], true, "{check}");
    assert_eq!(check["entries"].as_u64(), Some(sum));
    let lines = team.at("GET", "/audit/export", &owner, "").await;
    let text = String::from_utf8(lines.body).expect("text");
    assert_eq!(text.lines().count() as u64, sum);
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(entry["workspace"], team.id);
    }
    let csv = team.at("GET", "/audit/export?format=csv", &owner, "").await;
    let text = String::from_utf8(csv.body).expect("text");
    assert_eq!(text.lines().count() as u64, sum + 1);
    assert_eq!(team.at("GET", "/audit", &viewer, "").await.status, 403);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let team = Team::start().await;
    let owner = team.key("owner").await;
    let before = team.at("GET", "/limits", &owner, "").await;
    assert!(!before.headers.contains_key("ratelimit-limit"));
    let mut limits = before.json()["limits"].clone();
    limits["user_requests_per_minute"] = json!(10);
    limits["request_burst"] = json!(2);
    let body = json!({ "limits": limits, "generation": 0 }).to_string();
    let set = team.at("PUT", "/limits", &owner, &body).await;
    assert_eq!(set.status, 200, "{set:?}");
    // Whoever saw an older one is told so.
    let stale = team.at("PUT", "/limits", &owner, &body).await;
    assert_eq!(stale.status, 409);
    let mut last = None;
    for _ in 0..20 {
        let answer = team.at("GET", "/members", &owner, "").await;
        assert_eq!(answer.headers["ratelimit-limit"], "10");
        assert_eq!(answer.headers["ratelimit-policy"], "10;w=60;burst=2");
        last = Some(answer);
    }
    let last = last.expect("some");
    assert_eq!(last.status, 429);
    assert_eq!(last.headers["ratelimit-remaining"], "0");
    let wait = last.headers["retry-after"].to_str().expect("text");
    let wait: u64 = wait.parse().expect("seconds");
    assert!((1..=62).contains(&wait), "{wait}");
    assert_eq!(last.headers["retry-after"], last.headers["ratelimit-reset"]);
    // Others are not held back.
    let admin = team.key("admin").await;
    assert_eq!(team.at("GET", "/members", &admin, "").await.status, 200);
}

#[tokio::test]
async fn a_workspace_says_when_its_sandboxes_sleep() {
    let team = Team::start().await;
    let (admin, member) = (team.key("admin").await, team.key("member").await);
    let shown = async || team.at("GET", "/sleep", &member, "").await.json();
    let before = shown().await;
    assert_eq!(before["sleep"], json!({}), "{before}");
    assert_eq!(before["generation"], 0);
    assert_eq!(before["effective"], before["server"]);
    let server = before["server"].clone();
    // Administrators say it.
    let put = async |key: &str, body: Value| team.at("PUT", "/sleep", key, &body.to_string()).await;
    let said = json!({ "pause_after_seconds": 77, "delete_after_seconds": null,
        "fallback": "filesystem" });
    let change = json!({ "sleep": said, "generation": 0 });
    assert_eq!(put(&member, change.clone()).await.status, 403);
    let set = put(&admin, change.clone()).await;
    assert_eq!(set.status, 200, "{set:?}");
    let stale = put(&admin, change).await;
    assert_eq!(stale.status, 409, "{stale:?}");
    let now = shown().await;
    assert_eq!(now["sleep"], said, "{now}");
    assert_eq!(now["generation"], 1);
    assert_eq!(now["server"], server);
    let effective = &now["effective"];
    assert_eq!(effective["pause_after_seconds"], 77, "{now}");
    assert_eq!(effective["delete_after_seconds"], Value::Null, "{now}");
    let kept = "hibernate_after_seconds";
    assert_eq!(effective[kept], server[kept], "{now}");
    // Over the server's settings, under what a request says; whatever the face.
    let make = async |path: &str, body: Value| {
        let body = body.to_string();
        let made = team.server.send("POST", path, Some(&member), &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.json();
        let id = id["id"].as_str().or(id["sandboxID"].as_str());
        let path = format!("/api/v1/sandboxes/{}", id.expect("an id"));
        let seen = team.server.send("GET", &path, Some(&member), "").await;
        seen.json()["sleep_policy"].clone()
    };
    let plain = make("/api/v1/sandboxes", json!({})).await;
    assert_eq!(&plain, effective);
    let e2b = make("/v2/sandboxes", json!({ "templateID": "base" })).await;
    assert_eq!(&e2b, effective);
    let own = json!({ "sleep": { "pause_after_seconds": 5, "fallback": "stay_paused" } });
    let own = make("/api/v1/sandboxes", own).await;
    assert_eq!(own["pause_after_seconds"], 5, "{own}");
    assert_eq!(own["fallback"], "stay_paused", "{own}");
    assert_eq!(own["delete_after_seconds"], Value::Null, "{own}");
    // Nonsense is refused and changes nothing.
    for bad in [
        json!({ "sleep": { "pause_after_seconds": 0 } }),
        json!({ "sleep": { "hibernate_after_seconds": 315_360_001u64 } }),
        json!({ "sleep": { "checkpoint_every_seconds": 1 } }),
        json!({ "sleep": { "sometimes": 1 } }),
        json!({ "sleep": { "archive_after_seconds": 60 } }),
        json!({}),
    ] {
        let refused = put(&admin, bad).await;
        assert!(
            matches!(refused.status.as_u16(), 400 | 422 | 501),
            "{refused:?}"
        );
        assert!(!detail(&refused).is_empty(), "{refused:?}");
    }
    assert_eq!(shown().await, now);
    // Taken back, the server's settings hold again.
    let reset = put(&admin, json!({ "sleep": {} })).await;
    assert_eq!(reset.status, 200, "{reset:?}");
    assert_eq!(make("/api/v1/sandboxes", json!({})).await, server);
    // Who did it is in the log.
    let owner = team.key("owner").await;
    let log = team.at("GET", "/audit?limit=100", &owner, "").await.json();
    let entries = log["items"].as_array().expect("entries");
    let of = |action: &str, outcome: &str| {
        let same = |entry: &&Value| {
            entry["action"] == action && entry["actor"] == "admin" && entry["outcome"] == outcome
        };
        entries.iter().filter(same).count()
    };
    assert_eq!(of("sleep_defaults.write", "done"), 2, "{entries:?}");
}

#[tokio::test]
async fn a_quota_refuses_the_sandbox_that_is_too_much() {
    let team = Team::start().await;
    let owner = team.key("owner").await;
    let mut limits = team.at("GET", "/limits", &owner, "").await.json()["limits"].clone();
    limits["sandboxes"] = json!(1);
    let body = json!({ "limits": limits }).to_string();
    assert_eq!(team.at("PUT", "/limits", &owner, &body).await.status, 200);
    let make = || {
        let body = r#"{"templateID":"base"}"#;
        team.server
            .send("POST", "/v2/sandboxes", Some(&owner), body)
    };
    assert_eq!(make().await.status, 201);
    let refused = make().await;
    assert_eq!(refused.status, 429, "{refused:?}");
    limits["sandboxes"] = Value::Null;
    limits["memory_bytes"] = json!(1);
    let body = json!({ "limits": limits }).to_string();
    assert_eq!(team.at("PUT", "/limits", &owner, &body).await.status, 200);
    assert_eq!(make().await.status, 429);
}

#[tokio::test]
async fn a_key_is_turned_over_and_ended() {
    let team = Team::start().await;
    let owner = team.key("owner").await;
    let keys = team
        .server
        .send("GET", "/api/v1/keys", Some(&owner), "")
        .await
        .json();
    let id = keys["items"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/keys/{id}/rotate");
    let body = r#"{"grace_seconds":3600}"#;
    let rotated = team.server.send("POST", &path, Some(&owner), body).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let fresh = rotated.json()["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    for key in [&owner, &fresh] {
        assert_eq!(team.at("GET", "", key, "").await.status, 200);
    }
    let again = team
        .server
        .send("POST", &path, Some(&fresh), r#"{"grace_seconds":0}"#)
        .await;
    let last = again.json()["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    for key in [&owner, &fresh] {
        assert_eq!(team.at("GET", "", key, "").await.status, 401);
    }
    // A stream that is open ends when its key does.
    let made = team.server.send(
        "POST",
        "/v2/sandboxes",
        Some(&last),
        r#"{"templateID":"base"}"#,
    );
    let made = made.await.json();
    let sandbox = made["sandboxID"].as_str().expect("an id");
    let request = Request::builder()
        .uri(format!("/api/v1/sandboxes/{sandbox}/events"))
        .header("accept", "text/event-stream")
        .header("x-api-key", &last)
        .body(Body::empty())
        .expect("a request");
    let stream = team.server.open(request).await;
    let reading = tokio::spawn(async move { stream.into_body().collect().await.is_ok() });
    let path = format!("/api/v1/keys/{id}");
    assert_eq!(team.server.call("DELETE", &path, "").await.status, 204);
    let ended = tokio::time::timeout(Duration::from_secs(60), reading).await;
    assert!(ended.expect("the stream ends").expect("no panic"));
    assert_eq!(team.at("GET", "", &last, "").await.status, 401);
}

#[tokio::test]
async fn nobody_makes_a_key_that_is_more_than_they_are() {
    let team = Team::start().await;
    let admin = team.key("admin").await;
    for (body, status) in [
        (json!({ "name": "a", "role": "owner" }), 403),
        (json!({ "name": "a", "scope": "admin" }), 403),
        (json!({ "name": "a", "user": "owner" }), 403),
        (json!({ "name": "a", "reach": "user" }), 400),
        (
            json!({ "name": "a", "role": "admin", "user": "admin", "reach": "user" }),
            201,
        ),
    ] {
        let body = body.to_string();
        let answer = team
            .server
            .send("POST", "/api/v1/keys", Some(&admin), &body)
            .await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    let member = team.key("member").await;
    let body = r#"{"name":"a"}"#;
    let answer = team
        .server
        .send("POST", "/api/v1/keys", Some(&member), body)
        .await;
    assert_eq!(answer.status, 403);
    // Whoever is put out is out at once.
    assert_eq!(
        team.at("DELETE", "/members/member", &admin, "")
            .await
            .status,
        204
    );
    assert_eq!(team.at("GET", "", &member, "").await.status, 401);
}

#[tokio::test]
async fn a_key_for_a_user_goes_where_the_header_says() {
    let team = Team::start().await;
    let body = json!({ "name": "everywhere", "user": "owner", "role": "owner",
                       "reach": "user", "workspace": team.id });
    let made = team
        .server
        .call("POST", "/api/v1/keys", &body.to_string())
        .await;
    let key = made.json()["secret"].as_str().expect("a secret").to_owned();
    let second = team.server.send(
        "POST",
        "/api/v1/workspaces",
        Some(&key),
        r#"{"name":"second"}"#,
    );
    assert_eq!(second.await.status, 201);
    let listed = team
        .server
        .send("GET", "/api/v1/workspaces", Some(&key), "")
        .await
        .json();
    assert_eq!(
        listed["items"].as_array().map(Vec::len),
        Some(2),
        "{listed}"
    );
    let at = async |workspace: &str| {
        let request = Request::builder()
            .uri("/api/v1/workspaces/current")
            .header("x-api-key", &key)
            .header("x-woodfrog-workspace", workspace)
            .body(Body::empty())
            .expect("a request");
        team.server.send_request(request).await
    };
    assert_eq!(at("second").await.json()["name"], "second");
    assert_eq!(at(&team.id).await.json()["name"], "team");
    assert_eq!(at("default").await.status, 404);
}

#[tokio::test]
async fn a_workspace_goes_with_all_that_is_in_it() {
    let team = Team::start().await;
    let owner = team.key("owner").await;
    let made = team.server.send(
        "POST",
        "/v2/sandboxes",
        Some(&owner),
        r#"{"templateID":"base"}"#,
    );
    let made = made.await.json();
    let sandbox = made["sandboxID"].as_str().expect("an id").to_owned();
    assert_eq!(team.at("DELETE", "", &owner, "").await.status, 202);
    // At once.
    let path = format!("/sandboxes/{sandbox}");
    let answer = team.server.send("GET", &path, Some(&owner), "").await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(team.at("GET", "", &team.server.admin, "").await.status, 404);
    // And then really.
    let gone = async {
        loop {
            let left = team
                .server
                .call("GET", "/api/v1/workspaces/removals", "")
                .await;
            if left.json()["items"] == json!([]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
    gone.expect("the workspace goes");
    assert_eq!(team.server.call("GET", &path, "").await.status, 404);
    let refused = team
        .server
        .call("DELETE", "/api/v1/workspaces/default", "")
        .await;
    assert_eq!(refused.status, 409, "{refused:?}");
}
