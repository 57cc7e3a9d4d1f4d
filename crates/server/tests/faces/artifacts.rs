//! Files that runs leave, over a real guest on this machine and a directory as its layer.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Answer, Server};

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs that are looked at often.
fn quick() -> woodfrog_runs::Options {
    woodfrog_runs::Options {
        capture: Duration::from_millis(10),
        heartbeat: Duration::from_millis(50),
        ..woodfrog_runs::Options::default()
    }
}

/// A sandbox, and what its layer has at `/out`.
async fn sandbox(server: &Server) -> (String, String) {
    let id = server.sandbox().await;
    let out = server.path(&format!("{id}/out"));
    std::fs::create_dir_all(&out).expect("made");
    (id, out)
}

/// Runs a command to its end that keeps what is at `/out`.
async fn run(server: &Server, sandbox: &str, command: &str, policy: Value) -> Value {
    let mut artifacts = json!({"paths": ["/out"]});
    for (name, value) in policy.as_object().into_iter().flatten() {
        artifacts[name] = value.clone();
    }
    let body = json!({
        "command": command, "sandbox": sandbox, "artifacts": artifacts, "wait": true,
    });
    let answer = server.call("POST", "/api/v1/runs", &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()
}

async fn list(server: &Server, query: &str) -> Vec<Value> {
    let path = format!("/api/v1/artifacts?{query}");
    let listed = server.call("GET", &path, "").await.json();
    listed["items"].as_array().expect("items").clone()
}

fn paths(artifacts: &[Value]) -> Vec<&str> {
    let paths = artifacts.iter().filter_map(|one| one["path"].as_str());
    let mut paths: Vec<&str> = paths.collect();
    paths.sort_unstable();
    paths
}

/// What the log says of the files.
async fn told(server: &Server, run: &Value) -> Value {
    let id = run["id"].as_str().expect("id");
    let path = format!("/api/v1/runs/{id}/events?limit=1000");
    let log = server.call("GET", &path, "").await.json();
    let events = log["items"].as_array().expect("items");
    let mut told = events
        .iter()
        .filter(|one| one["data"]["artifacts"].is_object());
    let found = told.next().expect("told").clone();
    assert!(told.next().is_none(), "told twice: {log}");
    found["data"]["artifacts"].clone()
}

async fn content(server: &Server, id: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder()
        .uri(format!("/api/v1/artifacts/{id}/content"))
        .header("host", "api.frog.test")
        .header("x-api-key", &server.admin);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    server.send_request(request).await
}

#[tokio::test]
async fn what_a_run_changed_is_kept_and_what_was_there_is_not() {
    let server = Server::with_guest().await;
    let (sandbox, out) = sandbox(&server).await;
    std::fs::write(format!("{out}/old"), "old").expect("written");
    std::fs::write(format!("{out}/changed"), "old").expect("written");
    let command = format!(
        "cd {out}; echo hello > a.txt; mkdir d; echo more >> changed; printf x > d/b.png; \
         mkdir .git; echo no > .git/config; exit 3"
    );
    let run = run(&server, &sandbox, &command, json!({})).await;
    assert_eq!(run["status"], "failed", "{run}");
    assert_eq!(run["stats"]["files_created"], 2, "{run}");
    assert_eq!(run["stats"]["files_modified"], 1, "{run}");
    let id = run["id"].as_str().expect("id");
    let kept = list(&server, &format!("run={id}")).await;
    assert_eq!(paths(&kept), ["/out/a.txt", "/out/changed", "/out/d/b.png"]);
    let text = kept
        .iter()
        .find(|one| one["title"] == "a.txt")
        .expect("there");
    assert_eq!(text["content_type"], "text/plain; charset=utf-8");
    assert_eq!(text["review"], "pending");
    assert_eq!(text["size"], 6);
    let got = content(&server, text["id"].as_str().expect("id"), &[]).await;
    assert_eq!(got.body, b"hello\n");
    let told = told(&server, &run).await;
    assert_eq!(told["kept"], 3, "{told}");
    assert_eq!(told["excluded"], 1, "{told}");
    assert_eq!(told["left_out_count"], 0, "{told}");
    let path = format!("/api/v1/runs/{id}/artifacts?limit=2");
    let of_run = server.call("GET", &path, "").await.json();
    assert_eq!(
        of_run["items"].as_array().map(Vec::len),
        Some(2),
        "{of_run}"
    );
    assert!(of_run["next"].is_string(), "{of_run}");
}

#[tokio::test]
async fn what_is_left_out_is_told_with_the_reason() {
    let server = Server::with_guest().await;
    let (sandbox, out) = sandbox(&server).await;
    let command = format!(
        "cd {out}; echo a > a; head -c 200 /dev/zero > big; echo b > b; echo c > c; echo o > x.o"
    );
    let policy = json!({"max_bytes": 100, "max_files": 2, "exclude": ["*.o"]});
    let run = run(&server, &sandbox, &command, policy).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    let told = told(&server, &run).await;
    assert_eq!(told["kept"], 2, "{told}");
    assert_eq!(told["excluded"], 1, "{told}");
    let expected = json!([
        {"path": "/out/big", "size": 200, "reason": "too_large"},
        {"path": "/out/c", "size": 2, "reason": "too_many"},
    ]);
    assert_eq!(told["left_out"], expected);
    let id = run["id"].as_str().expect("id");
    let kept = list(&server, &format!("run={id}")).await;
    assert_eq!(paths(&kept), ["/out/a", "/out/b"]);
}

#[tokio::test]
async fn content_is_sent_in_parts_and_not_twice() {
    let server = Server::with_guest().await;
    let (sandbox, out) = sandbox(&server).await;
    let command = format!("printf 0123456789 > {out}/n.html; : > {out}/empty");
    run(&server, &sandbox, &command, json!({})).await;
    let kept = list(&server, "").await;
    let id = |title: &str| {
        let one = kept.iter().find(|one| one["title"] == title);
        one.expect("there")["id"].as_str().expect("id").to_owned()
    };
    let (page, empty) = (id("n.html"), id("empty"));
    let whole = content(&server, &page, &[]).await;
    assert_eq!(whole.status, StatusCode::OK);
    assert_eq!(whole.body, b"0123456789");
    // What a run wrote must not act in this server's name.
    assert_eq!(whole.headers["x-content-type-options"], "nosniff");
    let disposition = whole.headers["content-disposition"].to_str();
    assert!(disposition.expect("text").starts_with("attachment;"));
    let tag = whole.headers["etag"].to_str().expect("text").to_owned();
    let part = content(&server, &page, &[("range", "bytes=2-4")]).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.body, b"234");
    assert_eq!(part.headers["content-range"], "bytes 2-4/10");
    let end = content(&server, &page, &[("range", "bytes=-3"), ("if-range", &tag)]).await;
    assert_eq!(end.body, b"789");
    let other = [("range", "bytes=-3"), ("if-range", "\"other\"")];
    let other = content(&server, &page, &other).await;
    assert_eq!((other.status, other.body.len()), (StatusCode::OK, 10));
    let beyond = content(&server, &page, &[("range", "bytes=10-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers["content-range"], "bytes */10");
    let known = content(&server, &page, &[("if-none-match", &tag)]).await;
    assert_eq!(
        (known.status, known.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    let nothing = content(&server, &empty, &[]).await;
    assert_eq!((nothing.status, nothing.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn artifacts_are_reviewed_and_deleted_and_go_with_their_run() {
    let server = Server::with_guest().await;
    let (sandbox, out) = sandbox(&server).await;
    let command = format!("echo a > {out}/a; echo b > {out}/b");
    let run = run(&server, &sandbox, &command, json!({})).await;
    let kept = list(&server, "review=pending").await;
    assert_eq!(kept.len(), 2);
    let (first, second) = (&kept[0]["id"], &kept[1]["id"]);
    let (first, second) = (first.as_str().expect("id"), second.as_str().expect("id"));
    let review = async |state: &str| {
        let path = format!("/api/v1/artifacts/{first}/review");
        let body = json!({"review": state}).to_string();
        server.call("POST", &path, &body).await
    };
    for state in ["rejected", "approved"] {
        let reviewed = review(state).await.json();
        assert_eq!(reviewed["review"], state, "{reviewed}");
        assert!(reviewed["reviewed_by"].is_string(), "{reviewed}");
    }
    assert_eq!(review("fine").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(list(&server, "review=pending").await.len(), 1);
    assert_eq!(list(&server, "review=approved").await.len(), 1);
    let audit = "/api/v1/workspaces/current/audit?action=artifact.review";
    let entries = server.call("GET", audit, "").await.json();
    let done = entries["items"].as_array().expect("items").iter();
    let done = done.filter(|one| one["outcome"] == "done" && one["target"] == first);
    assert_eq!(done.count(), 2, "{entries}");
    // Another workspace knows nothing of it.
    for path in ["", "/content"] {
        let path = format!("/api/v1/artifacts/{first}{path}");
        let answer = server.send("GET", &path, Some(&server.other), "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
        assert_eq!(answer.json()["code"], "artifact_not_found");
    }
    let path = format!("/api/v1/artifacts/{second}");
    assert_eq!(
        server.call("DELETE", &path, "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        server.call("GET", &path, "").await.status,
        StatusCode::NOT_FOUND
    );
    let id = run["id"].as_str().expect("id");
    let path = format!("/api/v1/runs/{id}");
    assert_eq!(
        server.call("DELETE", &path, "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        server.call("GET", &path, "").await.status,
        StatusCode::NOT_FOUND
    );
    assert!(list(&server, "").await.is_empty());
    let bytes = server.path("artifacts/bytes");
    let left = std::fs::read_dir(bytes).expect("there");
    let files = left.flat_map(|workspace| {
        std::fs::read_dir(workspace.expect("an entry").path()).expect("a directory")
    });
    assert_eq!(files.count(), 0, "bytes stay");
}

#[tokio::test]
async fn a_policy_that_cannot_be_followed_is_refused() {
    let server = Server::with_guest().await;
    for (policy, field) in [
        (json!({"max_bytes": 0}), "artifacts.max_bytes"),
        (json!({"max_files": 5000}), "artifacts.max_files"),
        (json!({"paths": ["../.."]}), "artifacts.paths"),
        (json!({"exclude": ["["]}), "artifacts.exclude"),
    ] {
        let body = json!({"command": "true", "artifacts": policy}).to_string();
        let answer = server.call("POST", "/api/v1/runs", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        let text = answer.json().to_string();
        let pointer = format!("#/{}", field.replace('.', "/"));
        assert!(text.contains(&pointer), "{text}");
    }
    let body = json!({"command": "true", "artifacts": {}, "track": false}).to_string();
    let answer = server.call("POST", "/api/v1/runs", &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
}

/// Starts a run that keeps what is at `/out`.
async fn begin(server: &Server, sandbox: &str, command: &str) -> String {
    let body = json!({
        "command": command, "sandbox": sandbox, "artifacts": {"paths": ["/out"], "max_files": 2},
    });
    let answer = server.call("POST", "/api/v1/runs", &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// Waits until the run's files are as `check` wants them.
async fn until(server: &Server, run: &str, check: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let waited = async {
        loop {
            let found = list(server, &format!("run={run}")).await;
            if check(&found) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.expect("the files never were so")
}

async fn until_over(server: &Server, run: &str) -> Value {
    let path = format!("/api/v1/runs/{run}");
    let waited = async {
        loop {
            let shown = server.call("GET", &path, "").await.json();
            if shown["finished_at"].is_i64() {
                return shown;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.expect("the run never ended")
}

#[tokio::test]
async fn files_are_kept_while_the_run_goes_on_and_its_end_decides() {
    let server = Server::with_guest().await.with_run_options(quick());
    let (sandbox, out) = sandbox(&server).await;
    let go = server.path("go");
    let command = format!(
        "cd {out}; echo 1 > b; echo 1 > c; while [ ! -e {go} ]; do sleep 0.05; done; \
         echo 2 >> b; rm c; echo 1 > a"
    );
    let run = begin(&server, &sandbox, &command).await;
    let kept = until(&server, &run, |found| paths(found) == ["/out/b", "/out/c"]).await;
    let id = |found: &[Value], path: &str| {
        let one = found.iter().find(|one| one["path"] == path);
        one.expect("there")["id"].as_str().expect("id").to_owned()
    };
    let b = id(&kept, "/out/b");
    assert_eq!(content(&server, &b, &[]).await.body, b"1\n");
    let path = format!("/api/v1/artifacts/{b}/review");
    let reviewed = server.call("POST", &path, r#"{"review":"approved"}"#).await;
    assert_eq!(reviewed.status, StatusCode::OK);
    std::fs::write(&go, "").expect("written");
    let shown = until_over(&server, &run).await;
    assert_eq!(shown["status"], "succeeded", "{shown}");
    // Two may be kept: what is gone made room for what came.
    let found = list(&server, &format!("run={run}")).await;
    assert_eq!(paths(&found), ["/out/a", "/out/b"]);
    assert_eq!(id(&found, "/out/b"), b, "one file, one artifact");
    assert_eq!(content(&server, &b, &[]).await.body, b"1\n2\n");
    let b = found.iter().find(|one| one["path"] == "/out/b");
    assert_eq!(b.expect("there")["review"], "pending", "it is another now");
    let told = told(&server, &shown).await;
    assert_eq!(told["kept"], 2, "{told}");
    assert_eq!(shown["stats"]["files_created"], 2, "{shown}");
}

#[tokio::test]
async fn what_was_kept_stays_when_the_sandbox_is_lost() {
    let server = Server::with_guest().await.with_run_options(quick());
    let (sandbox, out) = sandbox(&server).await;
    let command = format!("echo 1 > {out}/a; sleep 600");
    let run = begin(&server, &sandbox, &command).await;
    until(&server, &run, |found| paths(found) == ["/out/a"]).await;
    let path = format!("/api/v1/sandboxes/{sandbox}");
    let gone = server.call("DELETE", &path, "").await;
    assert!(gone.status.is_success(), "{gone:?}");
    let shown = until_over(&server, &run).await;
    assert_eq!(shown["status"], "failed", "{shown}");
    let found = list(&server, &format!("run={run}")).await;
    assert_eq!(paths(&found), ["/out/a"]);
    let told = told(&server, &shown).await;
    assert_eq!(told["kept_before"], 1, "{told}");
    assert!(told["incomplete"].is_string(), "{told}");
    let id = found[0]["id"].as_str().expect("id");
    assert_eq!(content(&server, id, &[]).await.body, b"1\n");
}
