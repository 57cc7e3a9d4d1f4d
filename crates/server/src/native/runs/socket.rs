//! A run's log over a WebSocket.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::response::Response;
use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_runs::RunReader;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::run::{RunEvent, RunFollowQuery};

use super::super::socket::{Upgrade, close, upgrade};
use super::{App, KEEP_ALIVE, Params, Result, Segments, view};
use crate::door::Grant;

/// Bytes of one message from a client, which has nothing to say.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How long a client may take to answer the last word.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(socket))
}

/// Entries of a run's log after a place and then what comes, each a text message as in `events`.
/// Once the run is over and all was sent, the server closes with 1000; with 1001 and a code as the
/// reason if it cannot go on, and a client continues from the last `id` that it saw. What clients
/// send is not looked at. WebSocket.
#[utoipa::path(
    get, path = "/runs/{id}/socket", operation_id = "run_socket", tag = "runs",
    params(("id" = String, Path), RunFollowQuery),
    responses((status = 101), (status = "default", body = Problem))
)]
async fn socket(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Extension(grant): Extension<Grant>,
    Segments(id): Segments<String>,
    Params(query): Params<RunFollowQuery>,
    wanted: Upgrade,
) -> Result<Response> {
    let view = view(&app, &principal, &id).await?;
    let upgrade = upgrade(wanted)?;
    let reader = app.runs.follow(&view, query.after.unwrap_or(0));
    let told = async move |socket: WebSocket| {
        let Some(socket) = serve(socket, reader).await else {
            return;
        };
        // There is no more to tell also where nobody in this process carries the run out just now.
        match self::view(&app, &principal, &id).await {
            Ok(view) if view.run.state.is_terminal() => part(socket).await,
            Ok(_) => {
                let text = "the run goes on, but not here just now; continue from the last id";
                close(socket, &Fault::new(Code::Unavailable, text)).await;
            }
            Err(fault) => close(socket, &fault).await,
        }
    };
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| grant.hold(told(socket))))
}

/// Gives the connection back once there is no more to tell.
async fn serve(mut socket: WebSocket, mut reader: RunReader) -> Option<WebSocket> {
    // A peer that vanished is found out by a write that nobody takes.
    let mut silence = interval(KEEP_ALIVE);
    silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            read = reader.next() => match read {
                Ok(Some(events)) => tell(&mut socket, events).await,
                Ok(None) => return Some(socket),
                Err(fault) => {
                    close(socket, &fault).await;
                    return None;
                }
            },
            received = socket.recv() => {
                let Some(Ok(_)) = received else { return None };
                Ok(())
            }
            _ = silence.tick() => socket.send(Message::Ping(Bytes::new())).await,
        };
        if sent.is_err() {
            return None;
        }
    }
}

async fn tell(
    socket: &mut WebSocket,
    events: Vec<woodfrog_types::run::RunEvent>,
) -> std::result::Result<(), axum::Error> {
    for event in events {
        let text = serde_json::to_string(&RunEvent::from(event)).unwrap_or_default();
        socket.send(Message::Text(text.into())).await?;
    }
    Ok(())
}

/// The whole log was sent. The connection stays until the client has heard so: what it still
/// sends must not make its system throw away what it has not read.
async fn part(mut socket: WebSocket) {
    let frame = CloseFrame {
        code: close_code::NORMAL,
        reason: "over".into(),
    };
    if socket.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    let heard = async { while let Some(Ok(_)) = socket.recv().await {} };
    // One that does not answer has had its time.
    let _ = timeout(GOODBYE_MAX, heard).await;
}
