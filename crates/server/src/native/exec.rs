//! Running processes.

mod control;
mod output;
mod pty;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::proto::{From, ProcessRef, PtySize, StartRequest, StdinMode};
use woodfrog_types::Fault;
use woodfrog_types::key::Principal;
use woodfrog_wire::native::exec::{
    AttachQuery, Exec, ExecQuery, Output, OutputEvent, PtyControl, Started,
};
use woodfrog_wire::native::problem::Problem;

use super::extract::{InPath, Json as Body, Params, Segments, sandbox_id};
use super::guest::{About, fault, lease};
use super::problem::Result;
use crate::state::App;
use output::Format;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(exec))
        .routes(routes!(attach))
        .merge(control::routes())
        .merge(pty::routes())
}

/// Arguments and the program's name.
const ARGS_MAX: usize = 4096;

/// Starts a process and streams its output until it ends. A client that goes away leaves the
/// process alone. While this answer is open the sandbox does not fall asleep by itself; if it is
/// put to sleep the answer goes on after the wake.
#[utoipa::path(
    post, path = "/sandboxes/{id}/exec", operation_id = "process_start", tag = "processes",
    request_body = Exec, params(("id" = String, Path), ExecQuery),
    responses(
        (status = 200, content(
            (OutputEvent = "application/x-ndjson"),
            (OutputEvent = "text/event-stream"),
            (String = "application/octet-stream"),
        )),
        (status = 201, description = "Detached", body = Started),
        (status = "default", body = Problem)
    )
)]
async fn exec(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<ExecQuery>,
    headers: HeaderMap,
    Body(request): Body<Exec>,
) -> Result<Response> {
    let request = start_request(request)?;
    let guest = lease(&app, &principal, &id).await?;
    let Some(format) = Format::of(query.output, &headers) else {
        let started = guest.start_detached(request).await;
        let started = started.map_err(|error| fault(error, About::File))?;
        let (process, pid) = (started.id, started.pid);
        return Ok((StatusCode::CREATED, Json(Started { process, pid })).into_response());
    };
    let followed = Followed::start(guest, request).await;
    let followed = followed.map_err(|error| fault(error, About::File))?;
    Ok(output::response(followed, format))
}

fn start_request(exec: Exec) -> std::result::Result<StartRequest, Fault> {
    let (cmd, args) = match (exec.command, exec.shell) {
        (Some(mut command), None) if !command.is_empty() && !command[0].is_empty() => {
            if command.len() > ARGS_MAX {
                let message = format!("a command has at most {ARGS_MAX} words");
                return Err(Fault::invalid("command", message));
            }
            (command.remove(0), command)
        }
        (None, Some(line)) => {
            let args = ["-l", "-c"].map(str::to_owned);
            (
                "/bin/bash".to_owned(),
                args.into_iter().chain([line]).collect(),
            )
        }
        _ => {
            let message =
                "exactly one of `command` (a list that is not empty) and `shell` is needed";
            return Err(Fault::invalid("command", message));
        }
    };
    Ok(StartRequest {
        cmd,
        args,
        env: exec.env,
        cwd: exec.cwd,
        user: exec.user,
        stdin: if exec.stdin {
            StdinMode::Open
        } else {
            StdinMode::Closed
        },
        pty: exec.pty.map(|size| PtySize {
            cols: size.cols,
            rows: size.rows,
        }),
        tag: exec.tag,
        timeout_ms: exec.timeout_ms,
        ..StartRequest::default()
    })
}

/// Reads a process's output from an offset, also after it ended, and follows it until it ends.
#[utoipa::path(
    get, path = "/sandboxes/{id}/processes/{process}/output", operation_id = "process_attach",
    tag = "processes",
    params(("id" = String, Path), ("process" = u64, Path), AttachQuery),
    responses(
        (status = 200, content(
            (OutputEvent = "application/x-ndjson"),
            (OutputEvent = "text/event-stream"),
            (String = "application/octet-stream"),
        )),
        (status = "default", body = Problem)
    )
)]
async fn attach(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((id, process)): Segments<(String, u64)>,
    Params(query): Params<AttachQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let id = sandbox_id(&id)?;
    let from = from(&query, &headers)?;
    let Some(format) = Format::of(query.output, &headers) else {
        return Err(Fault::invalid("output", "output must be `events` or `raw` here").into());
    };
    let guest = lease(&app, &principal, &id).await?;
    let followed = Followed::attach(&guest, ProcessRef::Id(process), from).await;
    let followed = followed.map_err(|error| fault(error, About::Process))?;
    Ok(output::response(followed, format))
}

fn from(query: &AttachQuery, headers: &HeaderMap) -> std::result::Result<From, Fault> {
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    match last.or(query.from.as_deref()) {
        None => Ok(From::Offset(0)),
        Some("latest") => Ok(From::Latest),
        Some(text) => text
            .parse()
            .map(From::Offset)
            .map_err(|_| Fault::invalid("from", "from must be an offset or `latest`")),
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(Output, OutputEvent, PtyControl)))]
pub(super) struct Schemas;
