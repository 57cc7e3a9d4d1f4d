//! A run's log over a WebSocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::ws::client::Served;

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TcpStream>;

async fn open(served: &Served, id: &str, after: u64, key: &str) -> Result<Socket, Error> {
    let stream = TcpStream::connect(served.address).await?;
    let url = format!(
        "ws://{}/api/v1/runs/{id}/socket?after={after}",
        served.address
    );
    let mut request = url.into_client_request()?;
    let key = key.parse().expect("a header");
    request.headers_mut().insert("x-api-key", key);
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// The next entry, or how the server closed.
async fn next(socket: &mut Socket) -> Result<Value, Option<CloseFrame>> {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await;
        match message.expect("nothing comes") {
            Some(Ok(Message::Text(text))) => {
                return Ok(serde_json::from_str(&text).expect("JSON"));
            }
            Some(Ok(Message::Close(frame))) => return Err(frame),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
    }
}

async fn rest(socket: &mut Socket) -> (Vec<Value>, Option<CloseFrame>) {
    let mut items = Vec::new();
    loop {
        match next(socket).await {
            Ok(item) => items.push(item),
            Err(frame) => return (items, frame),
        }
    }
}

async fn run(served: &Served, body: &Value) -> String {
    let body = body.to_string();
    let made = served.server.call("POST", "/api/v1/runs", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn the_log_is_read_from_any_place_to_its_end() {
    let served = Served::start().await;
    let body = json!({"command": "for i in 1 2 3; do echo $i; done", "wait": true});
    let id = run(&served, &body).await;
    let path = format!("/api/v1/runs/{id}/events?limit=1000");
    let whole = served.server.call("GET", &path, "");
    let whole = whole.await.json()["items"]
        .as_array()
        .expect("items")
        .clone();
    assert!(whole.len() > 4, "{whole:?}");
    for after in [0, 3, whole.len()] {
        let place = u64::try_from(after).expect("small");
        let opened = open(&served, &id, place, &served.server.admin).await;
        let mut socket = opened.expect("a socket");
        // What clients say is not looked at.
        let said = socket.send(Message::Text("hello".into())).await;
        said.expect("sent");
        let (items, closed) = rest(&mut socket).await;
        assert_eq!(items, whole[after..]);
        let closed = closed.expect("the server says that it is over");
        assert_eq!(u16::from(closed.code), 1000);
    }
}

#[tokio::test]
async fn what_comes_is_sent_as_it_comes() {
    let served = Served::start().await;
    let go = served.server.path("go");
    let script = format!("echo first; while [ ! -e {go} ]; do sleep 0.05; done; echo last");
    let id = run(&served, &json!({"command": script})).await;
    let opened = open(&served, &id, 0, &served.server.admin).await;
    let mut socket = opened.expect("a socket");
    let mut seen = 0;
    loop {
        let item = next(&mut socket).await.expect("the run goes on");
        seen += 1;
        assert_eq!(item["id"], seen, "{item}");
        if item["data"]["text"] == "first" {
            break;
        }
    }
    std::fs::write(&go, "").expect("written");
    let (items, closed) = rest(&mut socket).await;
    let texts = items.iter().filter(|item| item["data"]["text"] == "last");
    assert_eq!(texts.count(), 1, "{items:?}");
    assert_eq!(items.last().expect("an end")["type"], "complete");
    assert_eq!(u16::from(closed.expect("a close").code), 1000);
}

#[tokio::test]
async fn those_who_may_not_read_it_do_not_and_a_revoked_key_ends_it() {
    let served = Served::start().await;
    let server = &served.server;
    let id = run(&served, &json!({"command": "echo on; sleep 600"})).await;
    for (key, status) in [(server.other.as_str(), 404), ("wf_nonsense", 401)] {
        match open(&served, &id, 0, key).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), status, "{answer:?}"),
            other => panic!("{other:?}"),
        }
    }
    let made = server.call("POST", "/api/v1/keys", r#"{"name":"x"}"#);
    let made = made.await.json();
    let secret = made["secret"].as_str().expect("a secret");
    let mut socket = open(&served, &id, 0, secret).await.expect("a socket");
    assert_eq!(next(&mut socket).await.expect("an entry")["id"], 1);
    let path = format!("/api/v1/keys/{}", made["id"].as_str().expect("an id"));
    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    // What was on its way may come; the run goes on, its stream does not.
    let (items, closed) = rest(&mut socket).await;
    assert!(
        items.iter().all(|item| item["type"] != "complete"),
        "{items:?}"
    );
    assert_eq!(closed, None, "nobody says that the run is over");
    let shown = server.call("GET", &format!("/api/v1/runs/{id}"), "").await;
    assert_ne!(shown.json()["status"], "succeeded");
    let path = format!("/api/v1/runs/{id}/cancel");
    assert_eq!(server.call("POST", &path, "{}").await.status, 200);
}
