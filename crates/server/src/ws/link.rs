//! The socket of one client: made by hand, since messages are held open, which axum's cannot.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use woodfrog_wire::ws::ServerFrame;

use super::courier::Part;
use super::machine::Close;

/// Bytes of one message from a client.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Messages that wait to be written; output leaves room for what is said besides.
const QUEUE: usize = 64;
const QUEUE_OUTPUT: usize = 16;
/// How long a client may take to make room for a status.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that are kept of a client that has to wait, and bytes of them; then it is not read.
const AHEAD: usize = 64;
const AHEAD_BYTES: usize = MESSAGE_BYTES_MAX;
/// How long a client may take to answer a close.
const FAREWELL: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A request for a WebSocket, checked.
pub(super) struct Handshake {
    accept: HeaderValue,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// Fails with an answer if this is no request for a WebSocket.
    pub(super) fn of(parts: &mut Parts) -> Result<Self, (StatusCode, &'static str)> {
        let bad = |text| (StatusCode::BAD_REQUEST, text);
        if parts.method != Method::GET
            || !has(&parts.headers, header::CONNECTION, "upgrade")
            || !has(&parts.headers, header::UPGRADE, "websocket")
        {
            let text = "this is a WebSocket: connect with ws:// or wss://";
            return Err((StatusCode::UPGRADE_REQUIRED, text));
        }
        if !has(&parts.headers, header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(bad("Sec-WebSocket-Version must be 13"));
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| bad("Sec-WebSocket-Key is missing"))?;
        let accept = derive_accept_key(key.as_bytes());
        let accept = accept.parse().map_err(|_| bad("Sec-WebSocket-Key"))?;
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| bad("this connection cannot be upgraded"))?;
        Ok(Self { accept, upgrade })
    }

    /// The answer that opens the socket, with a cookie; the socket comes when that was sent.
    pub(super) fn accept(
        self,
        cookie: HeaderValue,
    ) -> (Response, impl Future<Output = Option<Link>> + Send) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        headers.insert(header::SET_COOKIE, cookie);
        let upgrade = self.upgrade;
        let link = async {
            let io = TokioIo::new(upgrade.await.ok()?);
            let config = WebSocketConfig::default()
                .max_message_size(Some(MESSAGE_BYTES_MAX))
                .max_frame_size(Some(MESSAGE_BYTES_MAX));
            let socket = Socket::from_raw_socket(io, Role::Server, Some(config)).await;
            Some(Link::new(socket))
        };
        (response, link)
    }
}

fn has(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut words = texts.flat_map(|text| text.split(',')).map(str::trim);
    words.any(|word| word.eq_ignore_ascii_case(wanted))
}

/// What a client sends.
#[derive(Debug)]
pub(super) enum Received {
    Text(String),
    Binary,
    /// With the number that the courier's ping had.
    Pong(u64),
    /// The answer to [`Link::ping`], with its number.
    Alive(u64),
    Other,
    /// The connection is over.
    Closed,
}

/// Pings of the courier have this before their number, others [`KEEP`].
const OUTPUT: u8 = b'o';
const KEEP: u8 = b'k';

/// A client's socket. Writing never holds up reading.
pub(super) struct Link {
    reader: SplitStream<Socket>,
    /// What was read before its time.
    ahead: VecDeque<Received>,
    /// The number of the last ping that was no courier's.
    asked: u64,
    writer: mpsc::Sender<Message>,
}

impl Link {
    fn new(socket: Socket) -> Self {
        let (sink, reader) = socket.split();
        let (writer, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write(sink, queue));
        Self {
            reader,
            ahead: VecDeque::new(),
            asked: 0,
            writer,
        }
    }

    /// What comes next. Safe to cancel.
    pub(super) async fn next(&mut self) -> Received {
        match self.ahead.pop_front() {
            Some(received) => received,
            None => self.read().await,
        }
    }

    /// What comes next, if it is no message: those are kept for [`Self::next`]. Resolves for them,
    /// too, with [`Received::Other`]. Safe to cancel.
    pub(super) async fn next_sign(&mut self) -> Received {
        let bytes = |kept: &Received| match kept {
            Received::Text(text) => text.len(),
            Received::Binary
            | Received::Pong(_)
            | Received::Alive(_)
            | Received::Other
            | Received::Closed => 0,
        };
        if self.ahead.len() >= AHEAD || self.ahead.iter().map(bytes).sum::<usize>() >= AHEAD_BYTES {
            // It has said more than it may: what else it says waits in its own queue.
            return std::future::pending().await;
        }
        match self.read().await {
            message @ (Received::Text(_) | Received::Binary) => {
                self.ahead.push_back(message);
                Received::Other
            }
            sign
            @ (Received::Pong(_) | Received::Alive(_) | Received::Other | Received::Closed) => sign,
        }
    }

    async fn read(&mut self) -> Received {
        match self.reader.next().await {
            Some(Ok(Message::Text(text))) => Received::Text(text.as_str().to_owned()),
            Some(Ok(Message::Binary(_))) => Received::Binary,
            Some(Ok(Message::Pong(payload))) => pong(&payload),
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => Received::Other,
            Some(Ok(Message::Close(_)) | Err(_)) | None => Received::Closed,
        }
    }

    /// Says something. `false`: the client is gone, or takes nothing.
    pub(super) async fn say(&self, frame: &ServerFrame) -> bool {
        self.put(Message::text(frame.to_text())).await
    }

    /// Asks for a sign of life: [`Received::Alive`] with this number. `None`: the client is gone,
    /// or takes nothing.
    pub(super) async fn ping(&mut self) -> Option<u64> {
        self.asked += 1;
        let sent = self.put(ping(KEEP, self.asked)).await;
        sent.then_some(self.asked)
    }

    async fn put(&self, message: Message) -> bool {
        let sent = self.writer.send_timeout(message, PATIENCE).await;
        sent.is_ok()
    }

    /// Resolves when output can be sent; `false` if it never can again.
    pub(super) fn ready(&self) -> impl Future<Output = bool> + Send + use<> {
        let writer = self.writer.clone();
        async move { writer.reserve_many(QUEUE - QUEUE_OUTPUT).await.is_ok() }
    }

    /// Sends output.
    pub(super) async fn output(&self, parts: Vec<Part>) -> bool {
        for part in parts {
            let message = match part {
                Part::Whole(text) => Message::text(text),
                Part::Open(text) => fragment(text, OpCode::Data(Data::Text), false),
                Part::End(text) => fragment(text, OpCode::Data(Data::Continue), true),
                Part::Ping(number) => ping(OUTPUT, number),
            };
            if !self.put(message).await {
                return false;
            }
        }
        true
    }

    /// Says good-bye and waits a moment for the answer.
    pub(super) async fn close(mut self, why: Close) {
        let frame = CloseFrame {
            code: CloseCode::from(why.code()),
            reason: "".into(),
        };
        if !self.put(Message::Close(Some(frame))).await {
            return;
        }
        let answered = async { while !matches!(self.next().await, Received::Closed) {} };
        // A client that does not answer is gone.
        let _ = tokio::time::timeout(FAREWELL, answered).await;
    }
}

fn fragment(text: String, opcode: OpCode, is_final: bool) -> Message {
    Message::Frame(Frame::message(text, opcode, is_final))
}

fn ping(kind: u8, number: u64) -> Message {
    let mut payload = vec![kind];
    payload.extend_from_slice(&number.to_be_bytes());
    Message::Ping(Bytes::from(payload))
}

fn pong(payload: &[u8]) -> Received {
    let Some((kind, number)) = payload.split_first() else {
        return Received::Other;
    };
    match (*kind, number.try_into().map(u64::from_be_bytes)) {
        (OUTPUT, Ok(number)) => Received::Pong(number),
        (KEEP, Ok(number)) => Received::Alive(number),
        (_, Ok(_) | Err(_)) => Received::Other,
    }
}

/// Writes what is put into the queue, until that or the connection ends.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        if sink.feed(message).await.is_err() {
            return;
        }
        while let Ok(message) = queue.try_recv() {
            if sink.feed(message).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}
