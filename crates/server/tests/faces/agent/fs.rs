//! Files.

use axum::body::Body;
use serde_json::json;

use super::{Agent, code, text};

#[tokio::test]
async fn files_come_back_as_they_went() {
    let agent = Agent::start().await;
    let absolute = agent.server.path("a/b.bin");
    // More than the two megabytes that others take.
    let content: Vec<u8> = (0..5_000_003_u32).map(|n| (n % 251) as u8).collect();
    let written = agent.put("/v1/fs/file?path=a/b.bin", content.clone()).await;
    assert_eq!(
        written.json(),
        json!({"path": absolute, "bytesWritten": content.len()})
    );
    let read = agent.call("GET", "/v1/fs/file?path=a/b.bin").await;
    assert_eq!(read.headers["content-type"], "application/octet-stream");
    assert!(read.body == content, "the content differs");
    let stat = agent.call("GET", "/v1/fs/stat?path=a/b.bin").await.json();
    assert_eq!(
        (&stat["path"], &stat["entryType"], &stat["size"]),
        (&json!(absolute), &json!("file"), &json!(content.len()))
    );
    let modified = stat["modified"].as_str().expect("a time");
    assert!(modified.ends_with("+00:00"), "{modified}");
    modified.parse::<jiff::Timestamp>().expect("RFC 3339");
    let entries = agent.call("GET", "/v1/fs/entries?path=a").await.json();
    assert_eq!(entries[0]["name"], "b.bin");
    assert_eq!(entries[0]["path"], json!(absolute));
    // Shorter content leaves nothing of the longer one.
    agent
        .put(&format!("/v1/fs/file?path={absolute}"), "x")
        .await;
    let read = agent.call("GET", "/v1/fs/file?path=a/b.bin").await;
    assert_eq!(text(&read), "x");
}

#[tokio::test]
async fn a_file_of_proc_is_read_to_its_end() {
    let agent = Agent::start().await;
    let read = agent
        .call("GET", "/v1/fs/file?path=/proc/self/status")
        .await;
    assert!(text(&read).starts_with("Name:"), "{read:?}");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let agent = Agent::start().await;
    agent.put("/v1/fs/file?path=d/file", "x").await;
    for (method, path, status, wanted) in [
        ("GET", "/v1/fs/stat?path=none", 404, "not_found"),
        ("GET", "/v1/fs/file?path=none", 404, "not_found"),
        ("GET", "/v1/fs/entries?path=none", 404, "not_found"),
        ("DELETE", "/v1/fs/entry?path=none", 404, "not_found"),
        ("GET", "/v1/fs/stat?path=../x", 400, "invalid_request"),
        ("GET", "/v1/fs/file?path=d", 400, "invalid_request"),
        ("PUT", "/v1/fs/file?path=d", 400, "invalid_request"),
        ("GET", "/v1/fs/entries?path=d/file", 400, "invalid_request"),
        ("POST", "/v1/fs/mkdir?path=d/file", 409, "conflict"),
        ("DELETE", "/v1/fs/entry?path=d", 409, "conflict"),
    ] {
        let answer = agent.call(method, path).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {answer:?}");
        assert_eq!(code(&answer), wanted, "{method} {path}");
    }
    let missing = agent.call("GET", "/v1/fs/stat").await;
    assert_eq!(missing.status, 400);
    assert_eq!(
        text(&missing),
        "Failed to deserialize query string: missing field `path`"
    );
    let file = agent.call("GET", "/v1/fs/file?path=d/file").await;
    assert_eq!(text(&file), "x", "nothing was changed");
    let shown = agent.call("GET", "/v1/fs/stat?path=none").await.json();
    let wanted = format!("not found: path not found: {}", agent.server.path("none"));
    assert_eq!(shown["detail"], json!(wanted));
}

#[tokio::test]
async fn directories_are_made_moved_and_removed() {
    let agent = Agent::start().await;
    for _ in 0..2 {
        let made = agent.call("POST", "/v1/fs/mkdir?path=d/e").await;
        assert_eq!(made.json(), json!({"path": agent.server.path("d/e")}));
    }
    agent.put("/v1/fs/file?path=d/e/f", "f").await;
    agent.put("/v1/fs/file?path=g", "g").await;
    let rename = |from: &str, to: &str, overwrite: bool| {
        let body = json!({"from": from, "to": to, "overwrite": overwrite});
        let agent = &agent;
        async move { agent.json("POST", "/v1/fs/move", body).await }
    };
    let taken = rename("g", "d/e/f", false).await;
    assert_eq!(taken.status, 400);
    let detail = taken.json()["detail"].to_string();
    assert!(detail.contains("destination already exists"), "{detail}");
    assert_eq!(rename("g", "d/e/f", true).await.status, 200);
    assert_eq!(rename("g", "h", true).await.status, 404);
    let read = agent.call("GET", "/v1/fs/file?path=d/e/f").await;
    assert_eq!(text(&read), "g");
    // Neither into itself nor over what it is in: that would lose it.
    for (from, to) in [("d", "d/e"), ("d/e", "d")] {
        assert_eq!(rename(from, to, true).await.status, 400, "{from} {to}");
    }
    let moved = rename("d/e", "new/place", false).await;
    assert_eq!(
        moved.json(),
        json!({"from": agent.server.path("d/e"), "to": agent.server.path("new/place")})
    );
    let removed = agent
        .call("DELETE", "/v1/fs/entry?path=new&recursive=true")
        .await;
    assert_eq!(removed.json(), json!({"path": agent.server.path("new")}));
    let gone = agent.call("GET", "/v1/fs/stat?path=new").await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn links_are_what_they_lead_to() {
    let agent = Agent::start().await;
    agent.put("/v1/fs/file?path=file", "12345").await;
    let link = |name: &str, to: &str| {
        std::os::unix::fs::symlink(to, agent.server.path(name)).expect("a link");
    };
    link("short", "file");
    link("broken", "nothing");
    let stat = agent.call("GET", "/v1/fs/stat?path=short").await.json();
    assert_eq!(
        (&stat["entryType"], &stat["size"]),
        (&json!("file"), &json!(5))
    );
    let broken = agent.call("GET", "/v1/fs/stat?path=broken").await;
    assert_eq!(broken.status, 404);
    let removed = agent.call("DELETE", "/v1/fs/entry?path=broken").await;
    assert_eq!(removed.status, 200);
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o750);
        // Unchecked, as a stranger would write it.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("a file");
    }
    builder.into_inner().expect("an archive")
}

async fn upload(agent: &Agent, path: &str, kind: &str, body: Vec<u8>) -> crate::fixture::Answer {
    let path = format!("/v1/fs/upload-batch?path={path}");
    let request = agent.request("POST", &path).header("content-type", kind);
    // As a stream: nobody knows its length.
    let pieces = body.chunks(700).map(|piece| Ok(piece.to_vec()));
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = pieces.collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    agent.send(request, body).await
}

#[tokio::test]
async fn archives_are_unpacked_below_their_directory() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::start().await;
    let big = "z".repeat(100_000);
    let files = archive(&[("./x/one", "1"), ("two", &big)]);
    let done = upload(&agent, "up", "application/x-tar", files).await;
    assert_eq!(
        done.json(),
        json!({
            "paths": [agent.server.path("up/x/one"), agent.server.path("up/two")],
            "truncated": false,
        })
    );
    let two = agent.server.path("up/two");
    assert_eq!(std::fs::read_to_string(&two).expect("two"), big);
    let mode = std::fs::metadata(&two).expect("two").permissions().mode();
    assert_eq!(mode & 0o7777, 0o750);
    let other = upload(&agent, "up", "text/plain", archive(&[("x", "x")])).await;
    assert_eq!(other.status, 400);
    for name in ["../out", "/abs", "a/../../out"] {
        let refused = upload(&agent, "up", "application/x-tar", archive(&[(name, "x")])).await;
        assert_eq!(code(&refused), "invalid_request", "{name}");
    }
    assert!(!std::path::Path::new(&agent.server.path("out")).exists());
    let broken = upload(&agent, "up", "application/x-tar", b"xyz".to_vec()).await;
    assert_eq!(broken.status, 400);
}

#[tokio::test]
async fn an_answer_lists_only_so_many_paths() {
    let agent = Agent::start().await;
    let names: Vec<String> = (0..1030).map(|n| format!("f{n}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let done = upload(&agent, "many", "application/x-tar", archive(&files)).await;
    let done = done.json();
    assert_eq!(done["paths"].as_array().map(Vec::len), Some(1024));
    assert_eq!(done["truncated"], true);
    let entries = agent.call("GET", "/v1/fs/entries?path=many").await.json();
    assert_eq!(entries.as_array().map(Vec::len), Some(1030));
}
