//! A client of the WebSocket sandbox, as tests need one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use woodfrog_server::serve::{Faces, Listener, serve};

use crate::fixture::Server;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The whole server behind a socket.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

impl Served {
    /// With a real guest, which does not sleep though its sandbox does.
    pub(crate) async fn start() -> Self {
        Self::over(Server::with_guest().await).await
    }

    pub(super) async fn over(server: Server) -> Self {
        let app = server.app.clone();
        let control = woodfrog_server::control(&app);
        let plane = Arc::new(app.engine.clone());
        let faces = Faces::new(plane, control, Arc::clone(&app.options));
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
            server,
            address,
            _stop: stop.drop_guard(),
        }
    }

    /// A socket, with these headers.
    pub(super) async fn open(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, Error> {
        let stream = TcpStream::connect(self.address).await?;
        let mut request = format!("ws://{}/ws{path}", self.address).into_client_request()?;
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, value.parse().expect("a header"));
        }
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
        let cookie = response.headers()["set-cookie"].to_str().expect("text");
        Ok(Client {
            socket,
            cookie: cookie.to_owned(),
            id: String::new(),
            token: String::new(),
            stdout: String::new(),
            stderr: String::new(),
            cursor: None,
        })
    }

    /// A client whose sandbox runs.
    pub(super) async fn create(&self, first: Value) -> Client {
        let key = self.server.admin.clone();
        let opened = self.open("/create", &[("x-api-key", &key)]).await;
        let mut client = opened.expect("a socket");
        client.say(first).await;
        assert_eq!(client.status().await, "CREATING");
        let named = client.frame().await;
        assert_eq!(named["event"], "sandbox_id", "{named}");
        client.id = named["sandbox_id"].as_str().expect("id").to_owned();
        client.token = named["sandbox_token"].as_str().expect("token").to_owned();
        assert_eq!(client.status().await, "RUNNING");
        client
    }

    /// Why a client gets no sandbox.
    pub(super) async fn create_refused(&self, first: Value) -> String {
        let key = self.server.admin.clone();
        let opened = self.open("/create", &[("x-api-key", &key)]).await;
        let mut client = opened.expect("a socket");
        client.say(first).await;
        assert_eq!(client.status().await, "CREATING");
        client.failure("CREATION_ERROR").await
    }

    pub(super) async fn plain(&self) -> Client {
        self.create(json!({"idle_timeout": 60, "enable_checkpoint": true}))
            .await
    }

    /// Another client of the sandbox of this one; nothing was read from it yet.
    pub(super) async fn attach(&self, to: &Client, headers: &[(&'static str, &str)]) -> Client {
        let path = format!("/attach/{}?sandbox_token={}", to.id, to.token);
        let mut client = self.open(&path, headers).await.expect("a socket");
        (client.id, client.token) = (to.id.clone(), to.token.clone());
        client
    }

    /// As its own reconnecting would have it.
    pub(super) async fn return_of(&self, gone: &Client) -> Client {
        let mut client = self.attach(gone, &[("cookie", &gone.cookie)]).await;
        assert_eq!(client.status().await, "RUNNING");
        client.stdout = gone.stdout.clone();
        client.stderr = gone.stderr.clone();
        client.cursor = gone.cursor.clone();
        client
    }
}

pub(super) struct Client {
    socket: WebSocketStream<TcpStream>,
    pub(super) cookie: String,
    pub(super) id: String,
    pub(super) token: String,
    /// What came of a process's output so far.
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) cursor: Option<String>,
}

impl Client {
    pub(super) async fn say(&mut self, frame: Value) {
        self.say_text(&frame.to_string()).await;
    }

    pub(super) async fn say_text(&mut self, text: &str) {
        let sent = self.socket.send(Message::text(text)).await;
        sent.expect("sent");
    }

    pub(super) async fn exec(&mut self, language: &str, code: &str) {
        self.say(json!({"language": language, "code": code})).await;
    }

    pub(super) async fn act(&mut self, action: &str) {
        self.say(json!({ "action": action })).await;
    }

    /// The next frame that is no output; `Err` with the code when the socket was closed.
    pub(super) async fn next(&mut self) -> Result<Value, u16> {
        loop {
            let text = self.message().await?;
            let frame: Value = serde_json::from_str(&text).expect("json");
            let Some(data) = frame["data"].as_str() else {
                return Ok(frame);
            };
            match frame["event"].as_str() {
                Some("stdout") => self.stdout.push_str(data),
                Some("stderr") => self.stderr.push_str(data),
                _ => panic!("{frame}"),
            }
            if let Some(cursor) = frame["cursor"].as_str() {
                self.cursor = Some(cursor.to_owned());
            }
        }
    }

    /// One text message.
    pub(super) async fn message(&mut self) -> Result<String, u16> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match message.expect("something comes") {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(Some(close)))) => return Err(close.code.into()),
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(1006),
                Some(Ok(_)) => {}
            }
        }
    }

    pub(super) async fn frame(&mut self) -> Value {
        self.next().await.expect("a frame")
    }

    /// The next status without its prefix.
    pub(super) async fn status(&mut self) -> String {
        let frame = self.frame().await;
        let status = frame["status"]
            .as_str()
            .unwrap_or_else(|| panic!("{frame}"));
        status.trim_start_matches("SANDBOX_").to_owned()
    }

    pub(super) async fn statuses(&mut self, wanted: &[&str]) {
        for status in wanted {
            assert_eq!(self.status().await, *status);
        }
    }

    /// A status that says why, and its error frame.
    pub(super) async fn failure(&mut self, status: &str) -> String {
        let frame = self.frame().await;
        assert_eq!(frame["status"], format!("SANDBOX_{status}"), "{frame}");
        let error = self.frame().await;
        assert_eq!(error["event"], "error", "{error}");
        assert_eq!(frame["message"], error["message"]);
        error["message"].as_str().expect("a message").to_owned()
    }

    pub(super) async fn closed(&mut self, wanted: u16) {
        match self.next().await {
            Err(code) => assert_eq!(code, wanted),
            Ok(frame) => panic!("{frame}"),
        }
    }

    /// Runs code to its end; its exit code.
    pub(super) async fn run(&mut self, language: &str, code: &str) -> i64 {
        self.stdout.clear();
        self.stderr.clear();
        self.exec(language, code).await;
        assert_eq!(self.status().await, "EXECUTION_RUNNING");
        self.done().await
    }

    pub(super) async fn done(&mut self) -> i64 {
        let done = self.frame().await;
        assert_eq!(done["status"], "SANDBOX_EXECUTION_DONE", "{done}");
        done["exit_code"].as_i64().unwrap_or(-1)
    }

    /// Waits until the output contains this.
    pub(super) async fn until(&mut self, wanted: &str) {
        while !self.stdout.contains(wanted) {
            let text = self.message().await.expect("output");
            let frame: Value = serde_json::from_str(&text).expect("json");
            let data = frame["data"].as_str().unwrap_or_else(|| panic!("{frame}"));
            match frame["event"].as_str() {
                Some("stderr") => self.stderr.push_str(data),
                _ => self.stdout.push_str(data),
            }
            if let Some(cursor) = frame["cursor"].as_str() {
                self.cursor = Some(cursor.to_owned());
            }
        }
    }
}
