//! What the WebSockets of this API have in common.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use woodfrog_types::Fault;

/// What a handler takes to be a WebSocket.
pub(super) type Upgrade = std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// The upgrade that a request asks for; a fault if it asks for none.
pub(super) fn upgrade(upgrade: Upgrade) -> Result<WebSocketUpgrade, Fault> {
    upgrade.map_err(|error| Fault::invalid("upgrade", error.body_text()))
}

/// Closes a socket that cannot go on; the reason is the fault's code.
pub(super) async fn close(mut socket: WebSocket, fault: &Fault) {
    let frame = CloseFrame {
        code: close_code::AWAY,
        reason: fault.code.as_str().into(),
    };
    // The peer may be gone already, and then there is nobody to tell.
    drop(socket.send(Message::Close(Some(frame))).await);
}
