//! Runs of agents and commands.

mod socket;

use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_core::run::queue::PRIORITY_MAX;
use woodfrog_runs::{NewRun as Wanted, RunReader, RunView, RunWork};
use woodfrog_types::key::Principal;
use woodfrog_types::run::{RunFilter, RunSetup};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Code, Fault, RunId, Timestamp, limits};
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::run::{
    CancelRun, Canceled, Moment, NewRun, Run, RunEvent, RunEventQuery, RunEvents, RunQuery,
};

use super::extract::{Json as Body, OptionalJson, Params, Segments, sandbox_id};
use super::problem::Result;
use crate::session_stream::{frame, last_event_id};
use crate::state::App;

/// Entries of one answer.
const EVENTS_MAX: usize = 1000;
const EVENTS_DEFAULT: usize = 100;
/// Bytes of data of one answer.
const BYTES_MAX: usize = 16 << 20;
/// Between two comments on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(fetch, remove))
        .routes(routes!(cancel))
        .routes(routes!(events))
        .merge(socket::routes())
}

/// Starts a run: a prompt to an agent, or a command, in a sandbox of its own unless you name one.
/// It answers at once, or with `wait` once the run is over; with `Accept: text/event-stream` the
/// answer is the run's log as it comes.
#[utoipa::path(
    post, path = "/runs", operation_id = "run_start", tag = "runs", request_body = NewRun,
    responses(
        (status = 201, content((Run = "application/json"), (RunEvent = "text/event-stream"))),
        (status = "default", body = Problem)
    )
)]
async fn start(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Body(request): Body<NewRun>,
) -> Result<Response> {
    let wait = request.wait;
    let view = app.runs.start(&principal, wanted(request)?).await?;
    if streams(&headers) {
        let reader = app.runs.follow(&view, 0);
        let mut response = respond(reader);
        *response.status_mut() = StatusCode::CREATED;
        if let Ok(id) = HeaderValue::from_str(view.run.id.as_str()) {
            response.headers_mut().insert("x-run-id", id);
        }
        return Ok(response);
    }
    let view = match wait {
        true => app.runs.wait(&principal, &view.run.id).await?,
        false => view,
    };
    Ok((StatusCode::CREATED, Json(shown(view))).into_response())
}

/// Runs of the workspace, newest first.
#[utoipa::path(
    get, path = "/runs", operation_id = "run_list", tag = "runs", params(RunQuery),
    responses((status = 200, body = Page<Run>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<RunQuery>,
) -> Result<Json<Page<Run>>> {
    if let Some(trace) = &query.trace_id {
        let items = match app.runs.by_trace(&principal, trace).await {
            Ok(view) => vec![shown(view)],
            Err(fault) if fault.code == Code::RunNotFound => Vec::new(),
            Err(fault) => return Err(fault.into()),
        };
        return Ok(Json(Page { items, next: None }));
    }
    let user = |name: String| {
        UserId::parse(&name).ok_or_else(|| Fault::invalid("created_by", "not a user's name"))
    };
    let filter = RunFilter {
        thread: query.thread,
        created_by: query.created_by.map(user).transpose()?,
        state: query.status,
        sandbox: query.sandbox.as_deref().map(sandbox_id).transpose()?,
        agent: query.agent,
        from: query.from.map(Timestamp::from_millis),
        until: query.until.map(Timestamp::from_millis),
    };
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let listed = app.runs.list(&principal, &filter, &page.request()?).await?;
    let listed = listed.map(shown);
    Ok(Json(Page {
        items: listed.items,
        next: listed.next,
    }))
}

/// One run.
#[utoipa::path(
    get, path = "/runs/{id}", operation_id = "run_fetch", tag = "runs",
    params(("id" = String, Path)),
    responses((status = 200, body = Run), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<Json<Run>> {
    Ok(Json(shown(view(&app, &principal, &id).await?)))
}

/// Removes a run that is over, with its log and artifacts; what it used stays in the books. Its
/// creator may, and admins.
#[utoipa::path(
    delete, path = "/runs/{id}", operation_id = "run_delete", tag = "runs",
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<StatusCode> {
    app.runs.delete(&principal, &run_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a run at whatever moment. Its creator may, and admins. One that is over stays as it is.
#[utoipa::path(
    post, path = "/runs/{id}/cancel", operation_id = "run_cancel", tag = "runs",
    params(("id" = String, Path)), request_body = CancelRun,
    responses((status = 200, body = Canceled), (status = "default", body = Problem))
)]
async fn cancel(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    OptionalJson(request): OptionalJson<CancelRun>,
) -> Result<Json<Canceled>> {
    let id = view(&app, &principal, &id).await?.run.id;
    let reason = request
        .reason
        .unwrap_or_else(|| "canceled by request".to_owned());
    let canceled = app.runs.cancel(&principal, &id, &reason).await?;
    let after = app.runs.show(&principal, &id).await?;
    Ok(Json(Canceled {
        canceled: canceled.canceled,
        message: canceled.message,
        run: shown(after),
    }))
}

/// Entries of a run's log after a place, oldest first. With `Accept: text/event-stream` a stream of
/// them that ends with the run, each with its place as `id`; `Last-Event-ID` is where it begins
/// after a reconnect.
#[utoipa::path(
    get, path = "/runs/{id}/events", operation_id = "run_events", tag = "runs",
    params(("id" = String, Path), RunEventQuery),
    responses(
        (status = 200, content((RunEvents = "application/json"), (RunEvent = "text/event-stream"))),
        (status = "default", body = Problem)
    )
)]
async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Params(query): Params<RunEventQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let view = view(&app, &principal, &id).await?;
    let after = match last_event_id(&headers)? {
        Some(after) => after,
        None => query.after.unwrap_or(0),
    };
    if streams(&headers) {
        return Ok(respond(app.runs.follow(&view, after)));
    }
    let limit = query.limit.unwrap_or(EVENTS_DEFAULT);
    if !(1..=EVENTS_MAX).contains(&limit) {
        let text = format!("limit must be between 1 and {EVENTS_MAX}");
        return Err(Fault::invalid("limit", text).into());
    }
    let found = app.runs.events(&view, after, limit, BYTES_MAX).await?;
    let items: Vec<RunEvent> = found.into_iter().map(RunEvent::from).collect();
    let seen = items.last().map_or(0, |event| event.id);
    Ok(Json(RunEvents {
        last: view.run.last_event.max(seen),
        over: view.run.state.is_terminal(),
        items,
    })
    .into_response())
}

async fn view(app: &App, principal: &Principal, id: &str) -> std::result::Result<RunView, Fault> {
    app.runs.show(principal, &run_id(id)?).await
}

/// What is no id is the id of nothing.
pub(super) fn run_id(id: &str) -> std::result::Result<RunId, Fault> {
    id.parse().map_err(|_| {
        let shown: String = id.chars().take(64).collect();
        Fault::new(Code::RunNotFound, format!("run `{shown}` does not exist"))
    })
}

fn shown(view: RunView) -> Run {
    let worked = woodfrog_core::run::worked(&view.run, Timestamp::now());
    let moment = Moment {
        place: view.place,
        duration_ms: u64::try_from(worked.as_millis()).unwrap_or(u64::MAX),
        tracked: view.tracked,
    };
    Run::new(view.run, moment)
}

fn wanted(request: NewRun) -> std::result::Result<Wanted, Fault> {
    let (work, input) = match (request.prompt, request.command, request.agent) {
        (Some(prompt), None, Some(agent)) => {
            let model = request.model;
            (RunWork::Prompt { agent, model }, prompt)
        }
        (None, Some(command), None) => (RunWork::Command, command),
        (Some(_), None, None) => {
            return Err(Fault::invalid("agent", "say which agent is prompted"));
        }
        (_, _, _) => {
            let text = "give a prompt and its agent, or a command";
            return Err(Fault::invalid("prompt", text));
        }
    };
    if request.priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
        let text = format!("must be between -{PRIORITY_MAX} and {PRIORITY_MAX}");
        return Err(Fault::invalid("priority", text));
    }
    for (field, map, value_max) in [
        ("env", &request.env, limits::ENV_VALUE_BYTES_MAX),
        ("secrets", &request.secrets, limits::ENV_VALUE_BYTES_MAX),
        (
            "metadata",
            &request.metadata,
            limits::METADATA_VALUE_BYTES_MAX,
        ),
    ] {
        let fits = map.len() <= limits::MAP_ENTRIES_MAX
            && map.iter().all(|(key, value)| {
                (1..=limits::MAP_KEY_BYTES_MAX).contains(&key.len())
                    && value.len() <= value_max
                    && !key.contains(['=', '\0'])
                    && !value.contains('\0')
            });
        if !fits {
            return Err(Fault::invalid(
                field,
                "has too many entries, or one that is not allowed",
            ));
        }
    }
    Ok(Wanted {
        work,
        input,
        thread: request.thread,
        template: request.template.unwrap_or_else(|| "base".to_owned()),
        sandbox: request.sandbox.as_deref().map(sandbox_id).transpose()?,
        setup: RunSetup {
            env: request.env,
            secrets: request.secrets,
            cwd: request.cwd,
            at_end: request.at_end.into(),
            share_sandbox: request.share_sandbox,
            artifacts: request.artifacts.map(super::artifacts::policy),
        },
        priority: request.priority,
        wall: request.timeout.map(Duration::from_secs),
        idle: request.idle_timeout.map(Duration::from_secs),
        tokens: request.max_tokens,
        cost: request.max_cost,
        metadata: request.metadata,
        idempotency_key: request.idempotency_key,
        track: request.track,
    })
}

fn streams(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// The answer that streams a run's log to its end, or until the client goes.
fn respond(reader: RunReader) -> Response {
    let frames = futures_util::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match tokio::time::timeout(KEEP_ALIVE, reader.next()).await {
            Err(_) => Some((Ok(": heartbeat\n\n".to_owned()), Some(reader))),
            Ok(Ok(Some(events))) => {
                let mut frames = String::new();
                for event in events {
                    let event = RunEvent::from(event);
                    let data = serde_json::to_string(&event).unwrap_or_default();
                    frame(&mut frames, &event.kind, Some(event.id), &data);
                }
                Some((Ok::<_, std::io::Error>(frames), Some(reader)))
            }
            Ok(Ok(None)) => None,
            // The client must not take half of it for the whole.
            Ok(Err(fault)) => Some((Err(std::io::Error::other(fault.message)), None)),
        }
    });
    let mut response = Response::new(HttpBody::from_stream(frames));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
