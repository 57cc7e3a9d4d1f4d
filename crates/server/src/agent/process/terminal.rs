//! A process's terminal over a WebSocket: binary messages are output, text messages are JSON.

use std::time::Duration;

use axum::Extension;
use axum::extract::Path;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{From, ProcessRef};
use woodfrog_wire::agent::process::{TerminalCommand, TerminalEvent};

use super::{input, table};
use crate::agent::AgentHost;
use crate::agent::problem::Failure;
use crate::door::Grant;

/// Bytes of one message from a client.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages of input that wait for the process, and complaints that wait for the client.
const QUEUE: usize = 16;
/// How long a process may leave its input unread before it is given up.
const INPUT_PATIENCE: Duration = Duration::from_secs(3600);

/// Joins a process's terminal, from the oldest output that is kept. The process lives on when the
/// socket closes.
pub(super) async fn terminal(
    Extension(host): Extension<AgentHost>,
    grant: Option<Extension<Grant>>,
    Path(id): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Response> {
    let upgrade = upgrade.map_err(IntoResponse::into_response)?;
    let id = table::number(&id).map_err(IntoResponse::into_response)?;
    let stream = open(&host, id).await.map_err(IntoResponse::into_response)?;
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(async move |socket| match grant {
            Some(Extension(grant)) => grant.hold(serve(host, id, socket, stream)).await,
            // Who came with the sandbox's own token has it for as long as the sandbox lives.
            None => serve(host, id, socket, stream).await,
        }))
}

async fn open(host: &AgentHost, id: u64) -> Result<Followed, Failure> {
    let guest = host.guest().await?;
    let info = table::info(&guest, id).await?;
    if info.pty.is_none() || info.end.is_some() {
        return Err(input::no_terminal());
    }
    let stream = Followed::attach(&guest, ProcessRef::Id(id), From::Offset(info.kept)).await?;
    Ok(stream)
}

async fn serve(host: AgentHost, id: u64, mut socket: WebSocket, mut stream: Followed) {
    let guest = stream.lease().quiet();
    let (commands, queue) = mpsc::channel(QUEUE);
    let (complain, mut complaints) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(obey(host, id, queue, complain));
    let ready = TerminalEvent::Ready {
        process_id: table::name(id),
    };
    let mut open = socket.send(text(&ready)).await.is_ok();
    let mut reason = None;
    while open {
        tokio::select! {
            event = stream.next() => match event {
                Ok(Some(ProcessEvent::Output { bytes, .. })) => {
                    open = socket.send(Message::Binary(bytes)).await.is_ok();
                }
                Ok(Some(ProcessEvent::End(end))) => {
                    let exit = TerminalEvent::Exit { exit_code: table::exit_code(&end) };
                    drop(socket.send(text(&exit)).await);
                    reason = Some((close_code::NORMAL, "the process ended"));
                    open = false;
                }
                Ok(Some(ProcessEvent::Started(_) | ProcessEvent::Gap(_))) => {}
                Ok(None) => open = false,
                Err(_) => {
                    reason = Some((close_code::ERROR, "the sandbox cannot be reached"));
                    open = false;
                }
            },
            // Input is taken only while there is room: output goes on if the process does not
            // read, and the client is held back.
            received = take(&commands, &mut socket) => match received {
                Some((_, Message::Close(_))) | None => open = false,
                Some((_, Message::Binary(_))) => {
                    let message = "binary messages are not input; send JSON text".to_owned();
                    open = socket.send(text(&TerminalEvent::Error { message })).await.is_ok();
                }
                Some((permit, Message::Text(said))) => match serde_json::from_str(&said) {
                    Ok(TerminalCommand::Close) => {
                        reason = Some((close_code::NORMAL, "closed"));
                        open = false;
                    }
                    Ok(command) => permit.send(command),
                    Err(error) => {
                        let message = format!("invalid terminal message: {error}");
                        open = socket.send(text(&TerminalEvent::Error { message })).await.is_ok();
                    }
                },
                Some((_, Message::Ping(_) | Message::Pong(_))) => {}
            },
            Some(message) = complaints.recv() => {
                open = socket.send(text(&TerminalEvent::Error { message })).await.is_ok();
            }
            () = guest.ended() => {
                reason = Some((close_code::AWAY, "the sandbox ended"));
                open = false;
            }
        }
    }
    writer.abort();
    if let Some((code, reason)) = reason {
        let reason = reason.into();
        // The peer may be gone already, and then there is nobody to tell.
        drop(
            socket
                .send(Message::Close(Some(CloseFrame { code, reason })))
                .await,
        );
    }
}

async fn take<'a>(
    commands: &'a mpsc::Sender<TerminalCommand>,
    socket: &mut WebSocket,
) -> Option<(mpsc::Permit<'a, TerminalCommand>, Message)> {
    let permit = commands.reserve().await.ok()?;
    let message = socket.recv().await?.ok()?;
    Some((permit, message))
}

fn text(event: &TerminalEvent) -> Message {
    Message::Text(serde_json::to_string(event).unwrap_or_default().into())
}

/// Does what the client says, in its order. Each command wakes a sandbox that fell asleep under a
/// quiet terminal. What is refused is told, and the next command has its chance.
async fn obey(
    host: AgentHost,
    id: u64,
    mut queue: mpsc::Receiver<TerminalCommand>,
    complain: mpsc::Sender<String>,
) {
    while let Some(command) = queue.recv().await {
        if let Err(failure) = obey_one(&host, id, command).await
            && complain.send(failure.detail().to_owned()).await.is_err()
        {
            return;
        }
    }
}

async fn obey_one(host: &AgentHost, id: u64, command: TerminalCommand) -> Result<(), Failure> {
    match command {
        TerminalCommand::Input { data, encoding } => {
            let most = host.state.processes.current().max_input_bytes_per_request;
            // Unlike the request's: what is typed is text.
            let encoding = encoding.as_deref().unwrap_or("text");
            let bytes = input::decode(&data, Some(encoding), most)?;
            let guest = host.guest().await?;
            let patient = guest.with_deadline(INPUT_PATIENCE);
            let written = patient.write_stdin(ProcessRef::Id(id), None, &bytes).await;
            written?;
        }
        TerminalCommand::Resize { cols, rows } => {
            let size = input::size(cols, rows)?;
            host.guest().await?.resize(ProcessRef::Id(id), size).await?;
        }
        TerminalCommand::Close => {}
    }
    Ok(())
}
