//! The client side of a WebSocket, over a connection that the HTTP client made.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use reqwest::{RequestBuilder, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tungstenite::handshake::{client::generate_key, derive_accept_key};
use tungstenite::protocol::{Role, WebSocketConfig};

use super::{Client, ClientError};

/// Bytes of one message from the server.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Binary(Bytes),
    Text(String),
    /// The last one, with the reason.
    Close(String),
}

/// An open WebSocket.
pub struct Socket {
    stream: WebSocketStream<Upgraded>,
}

impl Client {
    /// Opens the WebSocket that a GET request asks for.
    ///
    /// # Errors
    /// As [`Client::send`], or the server does not speak WebSocket.
    pub async fn socket(&self, request: RequestBuilder) -> Result<Socket, ClientError> {
        let key = generate_key();
        let request = request
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        let answer = self.send(request).await?;
        let accepted = answer
            .headers()
            .get("sec-websocket-accept")
            .is_some_and(|accept| {
                accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes()
            });
        if answer.status() != 101 || !accepted {
            let message = format!("the server answered {} to the upgrade", answer.status());
            return Err(ClientError::Socket(message));
        }
        let connection = answer.upgrade().await.map_err(ClientError::Broken)?;
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
        let stream = WebSocketStream::from_raw_socket(connection, Role::Client, Some(config)).await;
        Ok(Socket { stream })
    }
}

impl Socket {
    /// Sends one message; waits while the server takes no more.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        let message = match message {
            Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
            Message::Text(text) => tungstenite::Message::Text(text.into()),
            Message::Close(_) => tungstenite::Message::Close(None),
        };
        self.stream.send(message).await.map_err(broken)
    }

    /// The next message; `None` when the connection is over.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            let Some(message) = self.stream.next().await else {
                return Ok(None);
            };
            match message.map_err(broken)? {
                tungstenite::Message::Binary(bytes) => return Ok(Some(Message::Binary(bytes))),
                tungstenite::Message::Text(text) => {
                    return Ok(Some(Message::Text(text.as_str().to_owned())));
                }
                tungstenite::Message::Close(frame) => {
                    let reason = frame.map(|frame| frame.reason.as_str().to_owned());
                    return Ok(Some(Message::Close(reason.unwrap_or_default())));
                }
                tungstenite::Message::Ping(_)
                | tungstenite::Message::Pong(_)
                | tungstenite::Message::Frame(_) => {}
            }
        }
    }
}

fn broken(error: tungstenite::Error) -> ClientError {
    ClientError::Socket(error.to_string())
}
