//! Requests to ports inside. The guests of these tests share the machine's network, so "inside"
//! is a server of the test.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::any;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use woodfrog_types::network::NetworkSpec;

use crate::common::{PATIENCE, Setup, World};

/// A server "inside".
async fn inside(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// A server "inside" that shows the bytes it gets and answers with given ones.
async fn raw(answer: &'static [u8]) -> (u16, tokio::sync::oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        tell.send(String::from_utf8(head).unwrap()).unwrap();
        stream.write_all(answer).await.unwrap();
    });
    (port, told)
}

#[tokio::test]
async fn bodies_go_through_both_ways() {
    let world = World::start().await;
    let echo = any(async |request: Request| {
        let method = request.method().to_string();
        (
            [
                ("x-method", method),
                ("x-query", request.uri().query().unwrap_or("").to_owned()),
            ],
            request.into_body(),
        )
    });
    let port = inside(Router::new().route("/{*rest}", echo)).await;
    let body = vec![7_u8; 3_000_000];
    let request = world
        .to_port(port, "PUT", "/a?b=c")
        .body(Body::from(body.clone()))
        .unwrap();
    let answer = world.fetch(request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-method"), Some("PUT"));
    assert_eq!(answer.header("x-query"), Some("b=c"));
    assert!(answer.body == body);
}

#[tokio::test]
async fn names_are_written_in_title_case_and_hosts_masked() {
    let network = NetworkSpec {
        mask_request_host: Some("localhost:${PORT}".into()),
        ..NetworkSpec::default()
    };
    let world = World::with(Setup {
        network,
        ..Setup::default()
    })
    .await;
    let (port, told) = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let request = world.to_port(port, "GET", "/x").header("x-some-name", "1");
    let answer = world.fetch(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.text(), "ok");
    let head = told.await.unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
    for line in [
        format!("Host: localhost:{port}"),
        format!("X-Forwarded-Host: {}", world.address),
        "X-Forwarded-For: 127.0.0.1".to_owned(),
        "X-Forwarded-Proto: http".to_owned(),
        "X-Some-Name: 1".to_owned(),
    ] {
        assert!(
            head.contains(&format!("\r\n{line}\r\n")),
            "{line} is not in\n{head}"
        );
    }
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let world = World::start().await;
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new(Some(wait)));
    let events = any(async move || {
        let wait = wait.lock().await.take().unwrap();
        let first = futures_util::stream::once(async { Ok::<_, std::io::Error>("data: 1\n\n") });
        let second = futures_util::stream::once(async {
            wait.await.unwrap();
            Ok("data: 2\n\n")
        });
        (
            [("content-type", "text/event-stream")],
            Body::from_stream(first.chain(second)),
        )
    });
    let port = inside(Router::new().route("/", events)).await;
    let response = world
        .send(world.to_port(port, "GET", "/").body(Body::empty()).unwrap())
        .await;
    let mut body = Body::new(response.into_body()).into_data_stream();
    // The second event is not sent before the first was seen.
    let first = tokio::time::timeout(PATIENCE, body.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first, "data: 1\n\n");
    go.send(()).unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "data: 2\n\n");
}

#[tokio::test]
async fn upgrades_become_pipes() {
    let world = World::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.contains("Upgrade: websocket") && head.contains("Connection: Upgrade"),
            "{head}"
        );
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut client = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {port}-{}.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        world.id()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let work = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 101") && head.contains("sec-websocket-accept: x"),
            "{head}"
        );
        client.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"ping");
        world.plane.ended.cancel();
        assert_eq!(client.read(&mut pong).await.unwrap_or(0), 0);
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("the pipe is stuck");
}

#[tokio::test]
async fn closed_ports_and_unknown_sandboxes_are_told() {
    let world = World::start().await;
    // Bound and not listening: no other program of this machine answers there.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = closed.local_addr().unwrap().port();
    let answer = world
        .fetch(world.to_port(port, "GET", "/").body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.status, 502);
    assert_eq!(
        answer.json(),
        json!({"sandboxId": world.id(), "message": "The sandbox is running but port is not open", "port": port, "code": 502})
    );
    let browser = world
        .to_port(port, "GET", "/")
        .header("user-agent", "Mozilla/5.0")
        .header("accept", "text/html,*/*");
    let answer = world.fetch(browser.body(Body::empty()).unwrap()).await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let at = |host: &str| {
        let request = http::Request::builder().uri("/").header("host", host);
        world.fetch(request.body(Body::empty()).unwrap())
    };
    let answer = at("3000-sb00unknown.localhost").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["message"], "The sandbox was not found");
    assert_eq!(answer.header("should-retry"), Some("false"));
    let answer = at("99999-sb1.localhost").await;
    assert_eq!(
        (answer.status, answer.json()["message"].as_str()),
        (400, Some("Invalid sandbox port"))
    );
}

#[tokio::test]
async fn private_traffic_needs_its_token() {
    let world = World::with(Setup {
        traffic_token: Some("secret".into()),
        ..Setup::default()
    })
    .await;
    let port = inside(Router::new().route(
        "/",
        any(async |request: Request| {
            format!("{:?}", request.headers().get("e2b-traffic-access-token"))
        }),
    ))
    .await;
    let with = async |token: Option<&str>| {
        let mut request = world.to_port(port, "GET", "/");
        if let Some(token) = token {
            request = request.header("e2b-traffic-access-token", token);
        }
        world.fetch(request.body(Body::empty()).unwrap()).await
    };
    let missing = with(None).await;
    assert_eq!(missing.status, 403);
    assert!(
        missing.json()["message"]
            .as_str()
            .unwrap()
            .ends_with("'e2b-traffic-access-token' is missing")
    );
    assert!(
        with(Some("wrong")).await.json()["message"]
            .as_str()
            .unwrap()
            .ends_with("is invalid")
    );
    assert_eq!(with(Some("secret")).await.text(), "None");
    // The daemon has a token of its own.
    assert_eq!(world.get("/health").await.status, 204);
}
