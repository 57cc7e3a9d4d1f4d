//! Processes of the sandbox. The guest keeps them and what they print until they are deleted, so
//! they are the same after a restart of this server and after the sandbox has slept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use woodfrog_engine::GuestLease;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{
    ErrorCode, Keep, Pieces, ProcessInfo, ProcessRef, PtySize, SignalTarget, StartRequest,
    StdinMode,
};
use woodfrog_types::Fault;
use woodfrog_wire::agent::process::{
    Create, ListQuery, Owner, Process, ProcessConfig, Processes, SignalQuery,
};

use super::AgentHost;
use super::extract::Json as JsonBody;
use super::problem::{Failure, Result, fault};

mod input;
mod logs;
mod run;
mod settings;
mod table;
mod terminal;

pub(super) use settings::Settings;
use table::{Mark, find, wire};

/// Words of a command, its name included.
const WORDS_MAX: usize = 4096;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// How long `stop` and `kill` wait for the end if the request does not say.
const STOP_WAIT: Duration = Duration::from_millis(2000);
const KILL_WAIT: Duration = Duration::from_millis(1000);
/// The longest that they wait.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What a terminal is like until somebody says otherwise.
const SIZE: PtySize = PtySize { cols: 80, rows: 24 };

pub(super) fn routes() -> Router {
    Router::new()
        .route("/v1/processes", get(list).post(create))
        .route(
            "/v1/processes/config",
            get(settings::fetch).post(settings::change),
        )
        .route("/v1/processes/run", post(run::run))
        .route("/v1/processes/{id}", get(fetch).delete(remove))
        .route("/v1/processes/{id}/stop", post(stop))
        .route("/v1/processes/{id}/kill", post(kill))
        .route("/v1/processes/{id}/logs", get(logs::logs))
        .route("/v1/processes/{id}/input", post(input::input))
        .route("/v1/processes/{id}/terminal/resize", post(input::resize))
        .route("/v1/processes/{id}/terminal/ws", get(terminal::terminal))
}

async fn list(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Processes>> {
    let all = host.guest().await?.processes().await?;
    let mut processes: Vec<(u64, Process)> = all
        .into_iter()
        .filter_map(|info| Some((info.id, wire(info)?)))
        .filter(|(_, process)| query.owner.is_none_or(|owner| owner == process.owner))
        .collect();
    processes.sort_unstable_by_key(|(id, _)| *id);
    let processes = processes.into_iter().map(|(_, process)| process).collect();
    Ok(Json(Processes { processes }))
}

async fn create(
    Extension(host): Extension<AgentHost>,
    JsonBody(request): JsonBody<Create>,
) -> Result<Json<Process>> {
    let Create {
        command,
        args,
        cwd,
        env,
        tty,
        interactive,
    } = request;
    let settings = &host.state.processes;
    let config = settings.current();
    let mark = Mark {
        owner: Owner::User,
        interactive,
    };
    let start = StartRequest {
        stdin: StdinMode::Open,
        pty: tty.then_some(SIZE),
        tag: Some(mark.tag()),
        retention: Some(config.max_log_bytes_per_process),
        keep: Keep::UntilForgotten,
        pieces: Pieces::Apart,
        ..command_of(command, args, cwd, env)?
    };
    let guest = host.guest().await?;
    // Counted and started by one request at a time: the limit holds.
    let _turn = settings.starting().await;
    check_room(&guest, config).await?;
    let started = guest.start_detached(start).await.map_err(not_started)?;
    let info = find(&guest, started.id).await?;
    Ok(Json(info))
}

fn command_of(
    cmd: String,
    args: Vec<String>,
    cwd: Option<String>,
    env: BTreeMap<String, String>,
) -> Result<StartRequest> {
    if cmd.trim().is_empty() {
        return Err(Failure::invalid("command must not be empty"));
    }
    if args.len() >= WORDS_MAX {
        return Err(Failure::invalid(format_args!(
            "a command has at most {WORDS_MAX} words"
        )));
    }
    Ok(StartRequest {
        cmd,
        args,
        cwd,
        env,
        ..StartRequest::default()
    })
}

/// A program that is not there, or may not run, is the request's fault.
fn not_started(error: woodfrog_guest_client::GuestError) -> Failure {
    match error.code() {
        Some(ErrorCode::NotFound | ErrorCode::PermissionDenied) => {
            Failure::invalid(format_args!("failed to spawn process: {error}"))
        }
        _ => error.into(),
    }
}

async fn check_room(guest: &GuestLease, config: ProcessConfig) -> Result<()> {
    let all = guest.processes().await?;
    let ours = |info: &&ProcessInfo| info.end.is_none() && Mark::of(info).is_some();
    let running = all.iter().filter(ours).count() as u64;
    if running >= config.max_concurrent_processes {
        return Err(Failure::conflict(format_args!(
            "max concurrent process limit reached ({})",
            config.max_concurrent_processes
        )));
    }
    Ok(())
}

async fn fetch(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
) -> Result<Json<Process>> {
    let id = table::number(&id)?;
    Ok(Json(find(&host.guest().await?, id).await?))
}

/// Forgets a process that has ended, and what it printed.
async fn remove(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let id = table::number(&id)?;
    let guest = host.guest().await?;
    find(&guest, id).await?;
    match guest.forget(ProcessRef::Id(id)).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) if error.code() == Some(ErrorCode::Busy) => Err(Failure::conflict(
            "process is still running; stop or kill it before delete",
        )),
        Err(error) => Err(error.into()),
    }
}

async fn stop(
    host: Extension<AgentHost>,
    id: Path<String>,
    Query(query): Query<SignalQuery>,
) -> Result<Json<Process>> {
    signal(host, id, SIGTERM, wait(query, STOP_WAIT)).await
}

async fn kill(
    host: Extension<AgentHost>,
    id: Path<String>,
    Query(query): Query<SignalQuery>,
) -> Result<Json<Process>> {
    signal(host, id, SIGKILL, wait(query, KILL_WAIT)).await
}

fn wait(query: SignalQuery, default: Duration) -> Duration {
    query
        .wait_ms
        .map_or(default, Duration::from_millis)
        .min(WAIT_MAX)
}

/// Signals the process and those it leads, and waits a while for its end; ended already is fine.
async fn signal(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    signal: i32,
    wait: Duration,
) -> Result<Json<Process>> {
    let id = table::number(&id)?;
    let guest = host.guest().await?;
    find(&guest, id).await?;
    let target = SignalTarget::Group;
    match guest.signal(ProcessRef::Id(id), signal, target).await {
        Ok(()) => {
            // One that does not end in time is reported as running.
            if let Ok(ended) = tokio::time::timeout(wait, end_of(&guest, id)).await {
                ended?;
            }
        }
        Err(error) if error.code() == Some(ErrorCode::ProcessGone) => end_of(&guest, id).await?,
        Err(error) => return Err(error.into()),
    }
    Ok(Json(find(&guest, id).await?))
}

/// Waits for a process's end.
async fn end_of(guest: &GuestLease, id: u64) -> Result<()> {
    let from = woodfrog_guest_client::proto::From::Latest;
    let mut stream = Followed::attach(guest, ProcessRef::Id(id), from).await?;
    let end = async {
        loop {
            match stream.next().await {
                Ok(Some(ProcessEvent::End(_)) | None) => return Ok(()),
                Ok(Some(_)) => {}
                Err(error) => return Err(Failure::from(fault(error))),
            }
        }
    };
    tokio::select! {
        ended = end => ended,
        () = guest.ended() => Err(sandbox_ended()),
    }
}

fn sandbox_ended() -> Failure {
    Fault::new(woodfrog_types::Code::SandboxNotFound, "the sandbox ended").into()
}

/// A lock whose data no panic can leave half changed.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
