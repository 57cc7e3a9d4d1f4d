//! A session over a WebSocket: its log as it comes, and what people do about it.

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use serde_json::json;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_sessions::{Batch, Ephemeral, Reader, acp};
use woodfrog_types::key::Principal;
use woodfrog_types::session::Stream;
use woodfrog_types::{Fault, SessionId, Timestamp};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::session::{LogQuery, SessionCommand, event_line};

use crate::door::Grant;

use super::super::socket::{Upgrade, close, upgrade};
use super::{App, Params, Result, Segments, answered, author, blocks, view};

/// Bytes of one message from a client.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Refusals that wait to be told.
const REFUSALS: usize = 16;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(socket))
}

/// Entries of the log after a place and then what comes, each a text message as in `events`;
/// what is no longer held is `{"kind":"gap","from","to"}`. Clients send commands; what is refused
/// is told as `{"kind":"error","code","message"}`. WebSocket.
#[utoipa::path(
    get, path = "/sessions/{id}/socket", operation_id = "session_socket", tag = "sessions",
    params(("id" = String, Path), LogQuery),
    responses((status = 101), (status = "default", body = Problem))
)]
async fn socket(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Extension(grant): Extension<Grant>,
    Segments(id): Segments<String>,
    Params(query): Params<LogQuery>,
    wanted: Upgrade,
) -> Result<Response> {
    let upgrade = upgrade(wanted)?;
    let session = view(&app, &principal, &id).await?.session;
    app.sessions.attend(&session).await;
    let after = query.after.unwrap_or(0);
    let reader = app
        .sessions
        .follow(&session.id, Stream::Log, after)
        .with_ephemeral();
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| grant.hold(serve(app, session.id, socket, reader))))
}

async fn serve(app: App, id: SessionId, mut socket: WebSocket, mut reader: Reader) {
    let (refuse, mut refusals) = mpsc::channel(REFUSALS);
    loop {
        let sent = tokio::select! {
            batch = reader.next() => match batch {
                Ok(batch) => tell(&mut socket, batch).await,
                Err(fault) => return close(socket, &fault).await,
            },
            Some(fault) = refusals.recv() => {
                socket.send(Message::Text(refusal(&fault).into())).await
            }
            received = socket.recv() => {
                let Some(Ok(message)) = received else { return };
                obey(&app, &id, message, &refuse);
                Ok(())
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn tell(socket: &mut WebSocket, batch: Batch) -> std::result::Result<(), axum::Error> {
    match batch {
        Batch::Events(events) => {
            for event in events {
                let mut line = String::new();
                event_line(&event, &mut line);
                socket.send(Message::Text(line.into())).await?;
            }
            Ok(())
        }
        Batch::Gap { from, to } => {
            let text = json!({"kind": "gap", "from": from, "to": to}).to_string();
            socket.send(Message::Text(text.into())).await
        }
        Batch::Ephemeral(said) => {
            let data: serde_json::Value = serde_json::from_str(&said.payload).unwrap_or_default();
            let text = json!({
                "kind": said.kind, "at": said.at.as_millis(), "author": said.author, "data": data,
            });
            socket.send(Message::Text(text.to_string().into())).await
        }
    }
}

/// Does what a client wants; nobody waits for it, and the log shows what comes of it.
fn obey(app: &App, id: &SessionId, message: Message, refuse: &mpsc::Sender<Fault>) {
    let text = match message {
        Message::Text(text) => text,
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return,
        Message::Binary(_) => {
            // A client that is told so often already learns it from those.
            let _ = refuse.try_send(Fault::invalid("message", "send text"));
            return;
        }
    };
    let (app, id, refuse) = (app.clone(), id.clone(), refuse.clone());
    tokio::spawn(async move {
        if let Err(fault) = command(&app, &id, &text).await {
            // The client may be gone.
            let _ = refuse.send(fault).await;
        }
    });
}

async fn command(app: &App, id: &SessionId, text: &str) -> std::result::Result<(), Fault> {
    let command: SessionCommand = serde_json::from_str(text)
        .map_err(|error| Fault::invalid("message", format!("not a command: {error}")))?;
    match command {
        SessionCommand::Prompt {
            text,
            blocks: given,
            author: who,
        } => {
            let prompt = acp::Prompt {
                blocks: blocks(text, given)?,
                author: author(who)?,
            };
            app.sessions.prompt(id, prompt).await.map(drop)
        }
        SessionCommand::Answer(answer) => answered(app, id, answer).await,
        SessionCommand::Cancel { author: who } => app.sessions.cancel(id, author(who)?).await,
        SessionCommand::Typing { author: who, data } => {
            say(app, id, "typing", author(who)?, &data);
            Ok(())
        }
        SessionCommand::Presence { author: who, data } => {
            say(app, id, "presence", author(who)?, &data);
            Ok(())
        }
    }
}

fn say(app: &App, id: &SessionId, kind: &str, author: Option<String>, data: &serde_json::Value) {
    let said = Ephemeral {
        at: Timestamp::now(),
        kind: kind.to_owned(),
        author,
        payload: data.to_string(),
    };
    app.sessions.say(id, said);
}

fn refusal(fault: &Fault) -> String {
    json!({"kind": "error", "code": fault.code.as_str(), "message": fault.message}).to_string()
}
