//! Processes and files of the native API, with a real guest.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::fixture::Server;

fn events(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).expect("text");
    let parse = |line| serde_json::from_str(line).expect("json");
    text.lines().map(parse).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_comes_with_offsets_and_can_be_read_again() {
    let server = Server::with_guest().await;
    let base = format!("/api/v1/sandboxes/{}", server.sandbox().await);
    let body = json!({"command": ["/bin/sh", "-c", "printf abc; printf def >&2; exit 3"]});
    let ran = server
        .call("POST", &format!("{base}/exec"), &body.to_string())
        .await;
    let seen = events(&ran.body);
    let end = seen.last().expect("an end");
    assert_eq!(
        (&end["event"], &end["exit_code"]),
        (&json!("end"), &json!(3)),
        "{seen:?}"
    );
    assert_eq!(end["offset"], 6);
    let process = &seen[0]["process"];
    let again = server
        .call(
            "GET",
            &format!("{base}/processes/{process}/output?from=0"),
            "",
        )
        .await;
    assert_eq!(events(&again.body).last(), Some(end));
    let raw = json!({"command": ["head", "-c", "3000000", "/dev/zero"]}).to_string();
    let raw = server
        .call("POST", &format!("{base}/exec?output=raw"), &raw)
        .await;
    assert_eq!(raw.body.len(), 3_000_000);
    assert_eq!(
        raw.headers["trailer"],
        "woodfrog-exit-code, woodfrog-status"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_process_takes_input_and_signals() {
    let server = Server::with_guest().await;
    let base = format!("/api/v1/sandboxes/{}", server.sandbox().await);
    let body = json!({"command": ["cat"], "stdin": true, "tag": "it"}).to_string();
    let started = server
        .call("POST", &format!("{base}/exec?output=detach"), &body)
        .await;
    assert_eq!(started.status, 201, "{started:?}");
    let process = format!("{base}/processes/{}", started.json()["process"]);
    let listed = server
        .call("GET", &format!("{base}/processes"), "")
        .await
        .json();
    assert_eq!(listed["items"][0]["tag"], "it", "{listed}");
    for _ in 0..2 {
        // The same offset twice: the second is not doubled.
        let sent = server
            .call("POST", &format!("{process}/stdin?offset=0"), "hello")
            .await;
        assert_eq!(sent.json(), json!({"offset": 5}), "{sent:?}");
    }
    let closed = server.call("DELETE", &format!("{process}/stdin"), "").await;
    assert_eq!(closed.status, 204, "{closed:?}");
    let raw = server
        .call("GET", &format!("{process}/output?output=raw"), "")
        .await;
    assert_eq!(raw.body, b"hello");
    let unknown = format!("{base}/processes/999/signal");
    let lost = server.call("POST", &unknown, r#"{"signal":"KILL"}"#).await;
    assert_eq!(
        (lost.status.as_u16(), &lost.json()["code"]),
        (404, &json!("process_not_found"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_in_and_out() {
    let server = Server::with_guest().await;
    let base = format!("/api/v1/sandboxes/{}/files", server.sandbox().await);
    let file = server.path("deep/file");
    let content: String = (0..300_000).map(|n| format!("{n:08}")).collect();
    for extra in ["", "&atomic=true"] {
        let put = format!("{base}/content?path={file}{extra}");
        let put = server.call("PUT", &put, &content).await;
        assert_eq!(put.status, 200, "{put:?}");
        assert_eq!(put.json()["size"], content.len());
        let got = server
            .call("GET", &format!("{base}/content?path={file}"), "")
            .await;
        assert!(got.body == content.as_bytes(), "{} bytes", got.body.len());
    }
    let part = Request::get(format!("{base}/content?path={file}"))
        .header("x-api-key", &server.admin)
        .header("range", "bytes=8-15")
        .body(Body::empty())
        .expect("a request");
    let part = server.send_request(part).await;
    assert_eq!(
        (part.status.as_u16(), &part.body[..]),
        (206, &b"00000001"[..])
    );
    let moved = json!({"from": file, "to": server.path("other")}).to_string();
    assert_eq!(
        server
            .call("POST", &format!("{base}/move"), &moved)
            .await
            .status,
        200
    );
    let gone = server
        .call("GET", &format!("{base}/content?path={file}"), "")
        .await;
    assert_eq!(
        (gone.status.as_u16(), &gone.json()["code"]),
        (404, &json!("file_not_found"))
    );
    let proc = server
        .call(
            "GET",
            &format!("{base}/content?path=/proc/sys/kernel/ostype"),
            "",
        )
        .await;
    assert_eq!(proc.body, b"Linux\n");
    let directory = server
        .call("GET", &format!("{base}/content?path=/"), "")
        .await;
    assert_eq!(directory.status, 400, "{directory:?}");
}
