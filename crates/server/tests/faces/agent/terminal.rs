//! Terminals, and the API on a sandbox's own host name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use woodfrog_server::agent::AgentFace;
use woodfrog_server::serve::{Faces, Listener, serve};

use super::{Agent, code, text};
use crate::fixture::Answer;

const PATIENCE: Duration = Duration::from_secs(30);

/// The whole server behind a socket.
struct Served {
    agent: Agent,
    address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

impl Served {
    async fn start() -> Self {
        let agent = Agent::start().await;
        let app = agent.server.app.clone();
        let control = woodfrog_server::control(&app);
        let plane = Arc::new(app.engine.clone());
        let faces =
            Faces::new(plane, control, Arc::clone(&app.options)).with_agent(AgentFace::new(app));
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let address = tcp.local_addr().expect("its address");
        let stop = CancellationToken::new();
        tokio::spawn(serve(
            faces,
            vec![Listener { tcp, tls: None }],
            stop.clone(),
            Duration::ZERO,
        ));
        Self {
            agent,
            address,
            _stop: stop.drop_guard(),
        }
    }

    fn host(&self) -> String {
        format!("2468-{}.frog.test", self.agent.sandbox)
    }

    /// A request to the sandbox's host name.
    async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let stream = TcpStream::connect(self.address).await.expect("connected");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let mut request = Request::builder().uri(path).header("host", self.host());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).expect("a request");
        let (parts, body) = sender
            .send_request(request)
            .await
            .expect("sent")
            .into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes().to_vec(),
        }
    }

    async fn terminal(&self, id: &str, token: &str) -> Result<Terminal, Error> {
        let stream = TcpStream::connect(self.address).await?;
        let path = format!("/v1/processes/{id}/terminal/ws?access_token={token}");
        let request = format!("ws://{}{path}", self.host()).into_client_request()?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Terminal {
            socket,
            output: String::new(),
        })
    }
}

struct Terminal {
    socket: WebSocketStream<TcpStream>,
    /// What was shown so far.
    output: String,
}

impl Terminal {
    async fn say(&mut self, message: Value) {
        let message = Message::text(message.to_string());
        self.socket.send(message).await.expect("sent");
    }

    /// The next text; output before it is gathered. `None` at the end.
    async fn text(&mut self) -> Option<Value> {
        loop {
            match self.message().await? {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Binary(bytes) => self.output += std::str::from_utf8(&bytes).expect("text"),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    async fn message(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.socket.next());
        next.await.expect("nothing comes")?.ok()
    }

    async fn until(&mut self, wanted: &str) {
        while !self.output.contains(wanted) {
            match self.message().await.expect("more") {
                Message::Binary(bytes) => self.output += std::str::from_utf8(&bytes).expect("text"),
                other => panic!("{other:?} instead of {wanted}"),
            }
        }
    }
}

fn terminal(script: &str) -> Value {
    json!({"command": "sh", "args": ["-c", script], "tty": true, "interactive": true})
}

#[tokio::test]
async fn a_sandbox_has_the_api_on_its_host() {
    let served = Served::start().await;
    let health = served
        .get("/v1/health", Some(&served.agent.server.admin))
        .await;
    assert_eq!(text(&health), r#"{"status":"ok"}"#);
    for wrong in [None, Some("wrong")] {
        let refused = served.get("/v1/health", wrong).await;
        assert_eq!(code(&refused), "token_invalid");
    }
    let foreign = served
        .get("/v1/health", Some(&served.agent.server.other))
        .await;
    assert_eq!(foreign.status, 404);
    // The sandbox's own token is one, too.
    let engine = &served.agent.server.app.engine;
    let id = served.agent.sandbox.parse().expect("an id");
    let token = engine.peek(&id).await.expect("there").access_token;
    let health = served.get("/v1/health", Some(&token)).await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn a_terminal_takes_input_and_says_how_it_ended() {
    let served = Served::start().await;
    let script = "stty -echo; echo early; read x; stty size; echo got $x; read y; exit 4";
    let id = served.agent.start_process(terminal(script)).await;
    let logs = format!("/v1/processes/{id}/logs");
    while served.agent.call("GET", &logs).await.json()["entries"] == json!([]) {
        tokio::task::yield_now().await;
    }
    let log = served.agent.call("GET", &logs).await.json();
    assert_eq!(log["stream"], "pty");
    let mut first = served
        .terminal(&id, &served.agent.server.admin)
        .await
        .expect("a terminal");
    assert_eq!(
        first.text().await,
        Some(json!({"type": "ready", "processId": id}))
    );
    // What was printed before anybody looked is there.
    first.until("early").await;
    first.socket.send(Message::binary("x")).await.expect("sent");
    assert_eq!(first.text().await.expect("an error")["type"], "error");
    first.say(json!({"type": "nonsense"})).await;
    assert_eq!(first.text().await.expect("an error")["type"], "error");
    first
        .say(json!({"type": "resize", "cols": 0, "rows": 1}))
        .await;
    assert_eq!(first.text().await.expect("an error")["type"], "error");
    first
        .say(json!({"type": "resize", "cols": 101, "rows": 33}))
        .await;
    first.say(json!({"type": "input", "data": "yo\n"})).await;
    first.until("33 101\r\ngot yo").await;
    // The process does not mind that nobody looks.
    first.say(json!({"type": "close"})).await;
    assert_eq!(first.text().await, None);
    let mut second = served
        .terminal(&id, &served.agent.server.admin)
        .await
        .expect("a terminal");
    second.text().await.expect("ready");
    second.until("got yo").await;
    second
        .say(json!({"type": "input", "data": "Cg==", "encoding": "base64"}))
        .await;
    assert_eq!(
        second.text().await,
        Some(json!({"type": "exit", "exitCode": 4}))
    );
    assert_eq!(second.text().await, None);
    // It is over: there is nothing to join any more.
    let over = served.terminal(&id, &served.agent.server.admin).await;
    assert_eq!(status(over), 409);
}

#[tokio::test]
async fn only_terminals_are_joined_and_only_with_a_token() {
    let served = Served::start().await;
    let admin = &served.agent.server.admin;
    let pipe = served.agent.start_process(json!({"command": "cat"})).await;
    assert_eq!(status(served.terminal(&pipe, admin).await), 409);
    let tty = served.agent.start_process(terminal("read x")).await;
    assert_eq!(status(served.terminal(&tty, "wrong").await), 401);
    let plain = format!("/v1/processes/{tty}/terminal/ws");
    let plain = served.get(&plain, Some(admin)).await;
    assert_eq!(plain.status, 400);
    let resize = json!({"cols": 120, "rows": 40});
    let path = format!("/v1/processes/{tty}/terminal/resize");
    let resized = served.agent.json("POST", &path, resize.clone()).await;
    assert_eq!(resized.json(), resize);
}

fn status(refused: Result<Terminal, Error>) -> u16 {
    match refused.map(drop) {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("not refused: {other:?}"),
    }
}
