//! Processes that run: listing, input, signals.

use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use futures_util::StreamExt;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_guest_client::proto::{ProcessInfo, ProcessRef, PtySize, SignalTarget};
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::exec::{Process, Processes, Signal, Size, StdinPosition, StdinQuery};
use woodfrog_wire::native::problem::Problem;

use super::output::ended;
use crate::native::extract::{InPath, Json as JsonBody, Params, Segments, sandbox_id};
use crate::native::guest::{About, fault, lease};
use crate::native::problem::{Failure, Result};
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(write_stdin, close_stdin))
        .routes(routes!(signal))
        .routes(routes!(resize))
}

fn failed(error: woodfrog_guest_client::GuestError) -> Failure {
    fault(error, About::Process).into()
}

/// Running processes and those that ended lately.
#[utoipa::path(
    get, path = "/sandboxes/{id}/processes", operation_id = "process_list", tag = "processes",
    params(("id" = String, Path)),
    responses((status = 200, body = Processes), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<Json<Processes>> {
    let guest = lease(&app, &principal, &id).await?;
    let processes = guest.processes().await.map_err(failed)?;
    let items = processes.into_iter().map(wire).collect();
    Ok(Json(Processes { items }))
}

fn wire(info: ProcessInfo) -> Process {
    Process {
        process: info.id,
        pid: info.pid,
        tag: info.tag,
        command: std::iter::once(info.cmd).chain(info.args).collect(),
        cwd: info.cwd,
        user: info.user,
        pty: info.pty.map(|size| Size {
            cols: size.cols,
            rows: size.rows,
        }),
        started_at: i64::try_from(info.started_ms).unwrap_or(i64::MAX),
        kept: info.kept,
        offset: info.offset,
        end: info.end.map(ended),
    }
}

/// Writes the body to a process's stdin (or terminal); answers when the process has taken it.
#[utoipa::path(
    post, path = "/sandboxes/{id}/processes/{process}/stdin", operation_id = "process_stdin",
    tag = "processes",
    request_body(content = String, content_type = "application/octet-stream"),
    params(("id" = String, Path), ("process" = u64, Path), StdinQuery),
    responses((status = 200, body = StdinPosition), (status = "default", body = Problem))
)]
async fn write_stdin(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((id, process)): Segments<(String, u64)>,
    Params(query): Params<StdinQuery>,
    body: Body,
) -> Result<Json<StdinPosition>> {
    let guest = lease(&app, &principal, &sandbox_id(&id)?).await?;
    let writer = guest
        .open_stdin(ProcessRef::Id(process), query.offset)
        .await;
    let mut writer = writer.map_err(failed)?;
    let mut chunks = body.into_data_stream();
    let send = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                let message = "the body could not be read to its end";
                Failure::from(Fault::new(Code::InvalidArgument, message).because(error))
            })?;
            writer.write(&chunk).await.map_err(failed)?;
        }
        let offset = writer.finish().await.map_err(failed)?;
        Ok(Json(StdinPosition { offset }))
    };
    tokio::select! {
        done = send => done,
        () = guest.ended() => Err(Fault::sandbox_not_found(&id).into()),
    }
}

/// Closes a process's stdin. Closed already is fine.
#[utoipa::path(
    delete, path = "/sandboxes/{id}/processes/{process}/stdin",
    operation_id = "process_stdin_close", tag = "processes",
    params(("id" = String, Path), ("process" = u64, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn close_stdin(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((id, process)): Segments<(String, u64)>,
) -> Result<StatusCode> {
    let guest = lease(&app, &principal, &sandbox_id(&id)?).await?;
    guest
        .close_stdin(ProcessRef::Id(process))
        .await
        .map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a signal.
#[utoipa::path(
    post, path = "/sandboxes/{id}/processes/{process}/signal", operation_id = "process_signal",
    tag = "processes", request_body = Signal,
    params(("id" = String, Path), ("process" = u64, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn signal(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((id, process)): Segments<(String, u64)>,
    JsonBody(request): JsonBody<Signal>,
) -> Result<StatusCode> {
    let number = number(&request.signal)?;
    let target = if request.group {
        SignalTarget::Group
    } else {
        SignalTarget::Process
    };
    let guest = lease(&app, &principal, &sandbox_id(&id)?).await?;
    let sent = guest.signal(ProcessRef::Id(process), number, target).await;
    sent.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

fn number(name: &str) -> std::result::Result<i32, Fault> {
    let upper = name.to_ascii_uppercase();
    let number = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "CHLD" => 17,
        "CONT" => 18,
        "STOP" => 19,
        "TSTP" => 20,
        "WINCH" => 28,
        other => other
            .parse()
            .ok()
            .filter(|number| (1..=64).contains(number))
            .ok_or_else(|| Fault::invalid("signal", "unknown signal"))?,
    };
    Ok(number)
}

/// Changes the size of a process's terminal.
#[utoipa::path(
    put, path = "/sandboxes/{id}/processes/{process}/size", operation_id = "process_resize",
    tag = "processes", request_body = Size,
    params(("id" = String, Path), ("process" = u64, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn resize(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((id, process)): Segments<(String, u64)>,
    JsonBody(size): JsonBody<Size>,
) -> Result<StatusCode> {
    let guest = lease(&app, &principal, &sandbox_id(&id)?).await?;
    let size = PtySize {
        cols: size.cols,
        rows: size.rows,
    };
    guest
        .resize(ProcessRef::Id(process), size)
        .await
        .map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, wanted) in [("SIGTERM", 15), ("kill", 9), ("12", 12)] {
            assert_eq!(number(text).expect(text), wanted);
        }
        assert!(number("SIGFROG").is_err());
        assert!(number("0").is_err());
    }
}
