//! A terminal over a WebSocket: binary messages are input and output, text messages are control
//! ([`PtyControl`] from the client, [`woodfrog_wire::native::exec::OutputEvent`] from here).

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::GuestLease;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::proto::{From, ProcessRef, PtySize, StartRequest};
use woodfrog_guest_client::{GuestError, ProcessEvent};
use woodfrog_types::key::Principal;
use woodfrog_types::{Fault, SandboxId};
use woodfrog_wire::native::exec::{PtyControl, PtyQuery};
use woodfrog_wire::native::problem::Problem;

use super::output::wire;
use crate::door::Grant;
use crate::native::extract::{InPath, Params};
use crate::native::guest::{About, fault, lease};
use crate::native::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(pty))
}

/// Bytes of one message from a client.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages of input that wait for the process.
const INPUT_QUEUE: usize = 16;
/// How long a process may leave its input unread before the terminal takes no more.
const INPUT_PATIENCE: Duration = Duration::from_secs(3600);

/// Opens a login shell on a terminal, or joins a process's terminal. WebSocket.
#[utoipa::path(
    get, path = "/sandboxes/{id}/pty", operation_id = "process_pty", tag = "processes",
    params(("id" = String, Path), PtyQuery),
    responses((status = 101), (status = "default", body = Problem))
)]
async fn pty(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Extension(grant): Extension<Grant>,
    InPath(id): InPath,
    Params(query): Params<PtyQuery>,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = upgrade.map_err(|error| Fault::invalid("upgrade", error.body_text()))?;
    let guest = lease(&app, &principal, &id).await?;
    let stream = open(&guest, query).await;
    let stream = stream.map_err(|error| fault(error, About::Process))?;
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| grant.hold(serve(app, id, socket, stream))))
}

async fn open(guest: &GuestLease, query: PtyQuery) -> std::result::Result<Followed, GuestError> {
    if let Some(process) = query.process {
        let from = query.from.map_or(From::Latest, From::Offset);
        return Followed::attach(guest, ProcessRef::Id(process), from).await;
    }
    let size = PtySize {
        cols: query.cols.unwrap_or(80),
        rows: query.rows.unwrap_or(24),
    };
    let env = [
        ("TERM", "xterm-256color"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
    ];
    let request = StartRequest {
        cmd: "/bin/bash".to_owned(),
        args: vec!["-i".to_owned(), "-l".to_owned()],
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        cwd: query.cwd,
        user: query.user,
        pty: Some(size),
        ..StartRequest::default()
    };
    Followed::start(guest.clone(), request).await
}

async fn serve(app: App, id: SandboxId, mut socket: WebSocket, mut stream: Followed) {
    let process = ProcessRef::Id(stream.started().id);
    let guest = stream.lease().quiet();
    let (input, queue) = mpsc::channel(INPUT_QUEUE);
    let writer = tokio::spawn(write_input(app, id, process, queue));
    let reason = loop {
        tokio::select! {
            event = stream.next() => match event {
                Ok(Some(event)) => {
                    if socket.send(message(event)).await.is_err() {
                        break None;
                    }
                }
                Ok(None) => break Some((close_code::NORMAL, "the process ended")),
                Err(_) => break Some((close_code::ERROR, "the sandbox cannot be reached")),
            },
            // Input is taken only while there is room: output goes on if the process does not
            // read, and the client is held back.
            received = take(&input, &mut socket) => match received {
                Some((permit, message)) => permit.send(message),
                None => break None,
            },
            () = guest.ended() => break Some((close_code::AWAY, "the sandbox ended")),
        }
    };
    writer.abort();
    if let Some((code, reason)) = reason {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        // The peer may be gone already, and then there is nobody to tell.
        drop(socket.send(Message::Close(Some(frame))).await);
    }
}

async fn take<'a>(
    input: &'a mpsc::Sender<Message>,
    socket: &mut WebSocket,
) -> Option<(mpsc::Permit<'a, Message>, Message)> {
    let permit = input.reserve().await.ok()?;
    let message = socket.recv().await?.ok()?;
    Some((permit, message))
}

/// Output as it is, everything else as JSON.
fn message(event: ProcessEvent) -> Message {
    match event {
        ProcessEvent::Output { bytes, .. } => Message::Binary(bytes),
        other => Message::Text(
            serde_json::to_string(&wire(other))
                .unwrap_or_default()
                .into(),
        ),
    }
}

/// Ends at the first input that cannot be written; the stream of output says why. Input wakes a
/// sandbox that fell asleep under a quiet terminal.
async fn write_input(
    app: App,
    id: SandboxId,
    process: ProcessRef,
    mut queue: mpsc::Receiver<Message>,
) {
    while let Some(message) = queue.recv().await {
        let guest = match app.engine.guest(&id).await {
            Ok(guest) => guest,
            Err(error) => {
                tracing::debug!(%error, "a terminal's sandbox takes no input");
                return;
            }
        };
        let written = match message {
            Message::Binary(bytes) => write(&guest, &process, bytes).await,
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(PtyControl::Resize(size)) => {
                    let size = PtySize {
                        cols: size.cols,
                        rows: size.rows,
                    };
                    guest.resize(process.clone(), size).await
                }
                // Newer clients may say more; what is not known changes nothing.
                Err(_) => Ok(()),
            },
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => return,
        };
        if let Err(error) = written {
            tracing::debug!(%error, "input of a terminal was not taken");
            return;
        }
    }
}

async fn write(
    guest: &GuestLease,
    process: &ProcessRef,
    bytes: Bytes,
) -> std::result::Result<(), GuestError> {
    let patient = guest.with_deadline(INPUT_PATIENCE);
    let written = patient.write_stdin(process.clone(), None, &bytes).await;
    written.map(|_| ())
}
