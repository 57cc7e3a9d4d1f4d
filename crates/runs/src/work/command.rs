//! A command: a process of the run's sandbox.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use woodfrog_core::run::event::{self, From as Stream, Said};
use woodfrog_engine::GuestLease;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::proto::{
    Channel, ErrorCode, Exit, Follow, From, Keep, ProcessRef, SignalTarget, StartRequest,
};
use woodfrog_guest_client::{GuestError, ProcessEvent};
use woodfrog_types::run::{Run, RunEventKind};
use woodfrog_types::{Code, Fault, SandboxId};

use super::lines::Lines;
use super::{Heard, Look, WorkEnd};
use crate::service::Inner;

/// Output that the guest keeps while nobody reads; the most it offers.
const RETENTION: u64 = 64 << 20;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

fn tag(run: &Run) -> String {
    format!("run:{}", run.id)
}

/// The process's environment. Values of secrets are in it, and nowhere else.
pub(crate) async fn environment(
    inner: &Inner,
    run: &Run,
) -> Result<BTreeMap<String, String>, Fault> {
    let mut env = run.setup.env.clone();
    for (variable, secret) in &run.setup.secrets {
        let value = inner.engine.secret_reveal(&run.workspace, secret).await?;
        env.insert(variable.clone(), value);
    }
    env.insert("WOODFROG_RUN_ID".to_owned(), run.id.to_string());
    if let Some(trace) = &run.trace_id {
        env.insert("WOODFROG_TRACE_ID".to_owned(), trace.clone());
    }
    Ok(env)
}

/// Starts the run's process, unless a try before did.
pub(crate) async fn start(
    inner: &Inner,
    run: &Run,
    sandbox: &SandboxId,
    input: &str,
) -> Result<u64, Fault> {
    let lease = inner.engine.guest(sandbox).await?;
    let known = lease.processes().await.map_err(guest_fault)?;
    let tag = tag(run);
    if let Some(process) = known.iter().find(|it| it.tag.as_deref() == Some(&tag)) {
        return Ok(process.id);
    }
    let access = inner.engine.access(sandbox).await?;
    let request = StartRequest {
        cmd: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), input.to_owned()],
        env: environment(inner, run).await?,
        cwd: run.setup.cwd.clone().or(access.default_workdir),
        user: Some(access.default_user),
        tag: Some(tag),
        retention: Some(RETENTION),
        follow: Follow::Detach,
        keep: Keep::UntilForgotten,
        ..StartRequest::default()
    };
    let started = lease.start_detached(request).await;
    started.map(|started| started.id).map_err(guest_fault)
}

/// Listens to the process from where the run's log ends.
pub(super) async fn listen(
    inner: &Inner,
    run: &Run,
    sandbox: &SandboxId,
    id: u64,
    tell: mpsc::Sender<Heard>,
) -> Result<impl Future<Output = ()> + Send + use<>, Fault> {
    let lines = Lines::new(run.position);
    let lease = inner.engine.guest(sandbox).await?;
    let from = From::Offset(lines.begin());
    let followed = Followed::attach(&lease, ProcessRef::Id(id), from).await;
    let followed = match followed {
        Ok(followed) => Ok(followed),
        Err(error) if is_gone(&error) => Err("its process is gone, and so is what it said"),
        Err(error) => return Err(guest_fault(error)),
    };
    let sandbox = sandbox.clone();
    Ok(async move {
        let end = match followed {
            Ok(followed) => read(followed, lines, &tell).await,
            Err(reason) => lost(reason),
        };
        tracing::debug!(%sandbox, process = id, ?end, "the process of a run ended");
        // Nobody may listen any more.
        let _ = tell.send(Heard::End(end)).await;
    })
}

fn lost(reason: &str) -> WorkEnd {
    WorkEnd::Lost {
        reason: reason.to_owned(),
    }
}

async fn read(mut followed: Followed, mut lines: Lines, tell: &mpsc::Sender<Heard>) -> WorkEnd {
    let lease = followed.lease().clone();
    loop {
        let event = tokio::select! {
            event = followed.next() => event,
            () = lease.ended() => return lost("its sandbox ended"),
        };
        let mut said: Vec<Said> = Vec::new();
        let mut end = None;
        match event {
            Ok(Some(ProcessEvent::Output {
                stream,
                offset,
                bytes,
            })) => {
                let from = match stream {
                    Channel::Stderr => Stream::Stderr,
                    _ => Stream::Stdout,
                };
                lines.push(from, offset, &bytes, |line| {
                    said.push(event::line(from, line))
                });
            }
            Ok(Some(ProcessEvent::Gap(gap))) => {
                lines.gap(gap.to, |from, line| said.push(event::line(from, line)));
                let data = json!({"gap": {"from": gap.from, "to": gap.to}});
                said.push(Said::new(RunEventKind::Status, data));
            }
            Ok(Some(ProcessEvent::Started(_))) => continue,
            Ok(Some(ProcessEvent::End(ended))) => {
                lines.rest(|from, line| said.push(event::line(from, line)));
                end = Some(WorkEnd::Exited {
                    code: match ended.exit {
                        Exit::Exited { code } => Some(code),
                        Exit::Signaled { .. } => None,
                    },
                    status: ended.status,
                });
            }
            Ok(None) => return lost("its output ended without an end of its process"),
            Err(error) => return lost(&format!("its output is out of reach: {error}")),
        }
        let at = lines.position();
        let heard = Heard::Said {
            said,
            at,
            used: None,
        };
        if tell.send(heard).await.is_err() {
            return lost("nobody listens");
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// Asks the guest whether it lives. One that ended will tell by itself.
pub(super) async fn lives(inner: &Inner, sandbox: &SandboxId, id: u64) -> Look {
    let Ok(lease) = inner.engine.guest(sandbox).await else {
        return Look::Unknown;
    };
    match lease.quiet().processes().await {
        Ok(all) => match all.iter().find(|process| process.id == id) {
            Some(process) if process.end.is_none() => Look::Lives,
            Some(_) => Look::Unknown,
            None => Look::Gone,
        },
        Err(_) => Look::Unknown,
    }
}

/// Asks the process and its group to end, and after a moment does not ask.
pub(super) async fn stop(inner: &Inner, sandbox: &SandboxId, id: u64) {
    let Ok(lease) = inner.engine.guest(sandbox).await else {
        return;
    };
    let reference = ProcessRef::Id(id);
    let asked = lease.signal(reference.clone(), SIGTERM, SignalTarget::Group);
    if asked.await.is_ok() && tokio::time::timeout(GRACE, over(&lease, id)).await.is_ok() {
        return;
    }
    let killed = lease.signal(reference, SIGKILL, SignalTarget::Group).await;
    if let Err(error) = killed
        && !is_gone(&error)
    {
        tracing::warn!(%sandbox, process = id, %error, "the process of a run could not be ended");
    }
}

async fn over(lease: &GuestLease, id: u64) {
    let Ok(mut followed) = lease.attach(ProcessRef::Id(id), From::Latest).await else {
        return;
    };
    while let Ok(Some(event)) = followed.next().await {
        if matches!(event, ProcessEvent::End(_)) {
            return;
        }
    }
}

fn is_gone(error: &GuestError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::ProcessGone | ErrorCode::NotFound)
    )
}

fn guest_fault(error: GuestError) -> Fault {
    match error.code() {
        Some(ErrorCode::NotFound | ErrorCode::InvalidArgument | ErrorCode::UnknownUser) => {
            let text = format!("the command cannot be started: {error}");
            Fault::new(Code::InvalidArgument, text)
        }
        Some(_) => Fault::new(Code::Conflict, error.to_string()),
        None => Fault::new(
            Code::GuestUnresponsive,
            "the guest in the sandbox does not answer",
        )
        .because(error),
    }
}
