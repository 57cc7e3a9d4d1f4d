//! From a socket to an attachment: making a sandbox, or finding one.

use std::time::Duration;

use tokio::sync::oneshot;
use woodfrog_core::access::Action;
use woodfrog_engine::{CreateSandbox, GuestLease, ResumeRequest};
use woodfrog_types::key::Principal;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{Resources, Sandbox, SandboxState};
use woodfrog_types::sleep::{Fallback, SleepChanges};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, Fault, SandboxId};
use woodfrog_wire::ws::{Create, Details, ServerFrame, Status};

use super::attachment::Attachment;
use super::audit::{Cause, Notes};
use super::courier::Mode;
use super::execution::{self, Execution, Left};
use super::idle::{Clock, Wishes, principal_of};
use super::link::{Link, Received};
use super::machine::{Close, Failed, Machine, bad_name};
use super::room::Occupied;
use super::vigil::Vigil;
use super::{Caller, failed};
use crate::state::App;

/// How long a client may take to say what sandbox it wants.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// What a sandbox is made from whose client does not say.
const TEMPLATE: &str = "base";

const NO_CHECKPOINTS: &str = "Checkpointing is not enabled on the server.";
const NO_SNAPSHOTS: &str = "Filesystem snapshot is not enabled on the server.";
const HANDOFF_NEEDS: &str = "Sandbox handoff requires checkpointing to be enabled.";
const NO_HANDOFF: &str = "Sandbox handoff is not enabled on the server.";
const AUTO_NEEDS: &str = "Idle timeout auto checkpoint requires checkpointing to be enabled.";

/// Serves a client that wants a new sandbox.
pub(super) async fn create(app: App, principal: Principal, caller: Caller, mut link: Link) {
    let wanted = match tokio::time::timeout(FIRST_FRAME, first(&mut link)).await {
        Ok(Some(wanted)) => wanted,
        // It left.
        Ok(None) => return,
        Err(_) => Err(Failed::new("The first message did not come in time.")),
    };
    link.say(&ServerFrame::status(Status::Creating)).await;
    let made = match wanted {
        Ok(wanted) => {
            let handoff = wanted.enable_sandbox_handoff;
            let made = make(&app, &principal, wanted).await;
            let notes = Notes {
                app: app.clone(),
                principal: principal.clone(),
                request_id: caller.request_id.clone(),
            };
            let (id, done) = match &made {
                Ok((sandbox, _)) => (Some(&sandbox.id), Ok(())),
                Err(failed) => (None, Err(failed)),
            };
            notes
                .note(Action::SandboxCreate, id, Cause::Client, done)
                .await;
            if handoff && made.is_ok() {
                // It is this server's from its first record on.
                for status in [Status::LockAcquiring, Status::LockAcquired] {
                    link.say(&ServerFrame::status(status)).await;
                }
            }
            made
        }
        Err(failed) => Err(failed),
    };
    let (sandbox, mode) = match made {
        Ok(made) => made,
        Err(failed) => return refuse(link, Status::CreationError, &failed, Close::Fatal).await,
    };
    let id = sandbox.id.clone();
    let named = ServerFrame::SandboxId {
        token: app.engine.socket_token(&id),
        id: id.to_string(),
    };
    let asked = match link.say(&named).await {
        true => link.ping().await,
        false => None,
    };
    if asked.is_none() {
        // Nobody knows of it, and nobody ever can.
        if let Err(fault) = app.engine.sandbox_delete(&principal, &id).await {
            crate::input::log(&fault);
        }
        return;
    }
    let Some(seat) = app.sockets.occupy(&id, &caller.client).await else {
        return refuse_seat(link).await;
    };
    let guest = match app.engine.guest(&id).await {
        Ok(guest) => guest,
        Err(fault) => {
            let failed = failed(fault);
            return refuse(link, Status::CreationError, &failed, Close::Fatal).await;
        }
    };
    // It is new: there is nothing to be found.
    seat.room.search();
    let arrival = Arrival {
        caller,
        mode,
        link,
        vigil: Vigil::new(asked),
    };
    enter(app, &sandbox, arrival, seat, guest).await;
}

async fn first(link: &mut Link) -> Option<Result<Create, Failed>> {
    loop {
        match link.next().await {
            Received::Text(text) => {
                let wanted = serde_json::from_str(&text);
                return Some(
                    wanted.map_err(|error| Failed::new(format!("Invalid first message: {error}"))),
                );
            }
            Received::Binary => {
                let message = "Invalid first message: only text frames are understood";
                return Some(Err(Failed::new(message)));
            }
            Received::Pong(_) | Received::Alive(_) | Received::Other => {}
            Received::Closed => return None,
        }
    }
}

async fn make(app: &App, principal: &Principal, wanted: Create) -> Result<(Sandbox, Mode), Failed> {
    let (engine, refused) = (&app.engine, |text: &str| Err(Failed::new(text)));
    if wanted.enable_sandbox_handoff && !wanted.enable_checkpoint {
        return refused(HANDOFF_NEEDS);
    }
    if wanted.enable_idle_timeout_auto_checkpoint && !wanted.enable_checkpoint {
        return refused(AUTO_NEEDS);
    }
    if wanted.enable_checkpoint && engine.can_save(SnapshotContent::Memory).is_err() {
        return refused(NO_CHECKPOINTS);
    }
    if wanted.enable_sandbox_handoff && !engine.can_hand_over() {
        return refused(NO_HANDOFF);
    }
    let template = match &wanted.filesystem_snapshot_name {
        None => wanted.template.clone().unwrap_or(TEMPLATE.to_owned()),
        Some(_) if wanted.template.is_some() => {
            return refused("A sandbox is made from a template or from a snapshot, not from both.");
        }
        Some(_) if engine.can_save(SnapshotContent::Filesystem).is_err() => {
            return refused(NO_SNAPSHOTS);
        }
        Some(name) => snapshot(app, principal, name).await?,
    };
    let wishes = Wishes {
        idle_timeout: wanted.idle_seconds(),
        checkpoint: wanted.enable_checkpoint,
        auto_checkpoint: wanted.enable_idle_timeout_auto_checkpoint,
        handoff: wanted.enable_sandbox_handoff,
    };
    let mut metadata = wanted.metadata.clone();
    wishes.note(&mut metadata);
    let request = CreateSandbox {
        template,
        timeout: wishes.timeout(),
        on_timeout: wishes.on_timeout(),
        auto_resume: true,
        // When it sleeps is decided here; what sleeps is kept as long as any.
        sleep: SleepChanges {
            pause_after: Some(None),
            hibernate_after: Some(None),
            archive_after: Some(None),
            // A checkpoint that cannot save memory destroys nothing.
            fallback: Some(Fallback::StayPaused),
            ..SleepChanges::default()
        },
        metadata,
        env: wanted.env.clone(),
        network: NetworkSpec::default(),
        secure: true,
        volumes: Vec::new(),
        resources: resources(&wanted),
        idempotency_key: None,
    };
    let view = engine.sandbox_create(principal, request).await;
    let mode = match wanted.cursors {
        true => Mode::Cursors,
        false => Mode::Guarded,
    };
    Ok((view.map_err(failed)?.sandbox, mode))
}

/// The id of the snapshot of this name, of the principal's own workspace.
async fn snapshot(app: &App, principal: &Principal, name: &str) -> Result<String, Failed> {
    if woodfrog_core::names::template_name(name).is_err() {
        return Err(Failed::new(bad_name(name)));
    }
    let found = app.engine.snapshot_fetch(principal, name).await;
    let found = found.map_err(|fault| match fault.code {
        Code::SnapshotNotFound => Failed {
            message: format!("Filesystem snapshot '{name}' not found."),
            code: Some(fault.code.as_str().to_owned()),
        },
        _ => failed(fault),
    })?;
    match found.content {
        SnapshotContent::Filesystem => Ok(found.id.to_string()),
        SnapshotContent::Memory => Err(Failed::new(format!(
            "'{name}' is a snapshot with memory, not of the filesystem alone."
        ))),
    }
}

fn resources(wanted: &Create) -> Option<Resources> {
    let Create {
        cpu_count,
        memory_mb,
        disk_mb,
        ..
    } = wanted;
    let asked = cpu_count.is_some() || memory_mb.is_some() || disk_mb.is_some();
    let (plain, mib) = (Resources::default(), 1 << 20);
    let bytes = |mb: Option<u64>, plain: u64| mb.map_or(plain, |mb| mb.saturating_mul(mib));
    asked.then(|| Resources {
        cpu_count: cpu_count.unwrap_or(plain.cpu_count),
        memory_bytes: bytes(*memory_mb, plain.memory_bytes),
        disk_bytes: bytes(*disk_mb, plain.disk_bytes),
        ..plain
    })
}

/// Serves a client that has a sandbox's id and token.
pub(super) async fn attach(
    app: App,
    sandbox: String,
    token: String,
    caller: Caller,
    mode: Mode,
    mut link: Link,
) {
    // The token comes first: nothing of the sandbox is touched for who does not have it.
    let id = sandbox.parse::<SandboxId>();
    let opens = match &id {
        Ok(id) => app.engine.socket_token_opens(id, &token),
        Err(_) => false,
    };
    let found = match &id {
        Ok(id) => app.engine.peek(id).await.ok(),
        Err(_) => None,
    };
    let (Ok(id), Some(access)) = (id, found) else {
        let failed = Failed {
            message: Fault::sandbox_not_found(&sandbox.chars().take(64).collect::<String>())
                .message,
            code: Some(Code::SandboxNotFound.as_str().to_owned()),
        };
        let status = ServerFrame::Status(Status::NotFound, details(&failed));
        link.say(&status).await;
        return link.close(Close::Refused).await;
    };
    if !opens {
        let failed = Failed::new(match token.is_empty() {
            true => "Sandbox token is missing.",
            false => "Invalid sandbox token.",
        });
        return refuse(link, Status::PermissionDenialError, &failed, Close::Fatal).await;
    }
    let Some(mut seat) = app.sockets.occupy(&id, &caller.client).await else {
        return refuse_seat(link).await;
    };
    let principal = principal_of(access.workspace);
    let roused = match asleep(&app, &principal, &id, &link).await {
        Ok((sandbox, comes)) => {
            let sleeps = !matches!(sandbox.state, SandboxState::Running { .. });
            let work = rouse(&app, &principal, sandbox);
            match attend(&mut link, &mut seat, work).await {
                Some(roused) => {
                    if sleeps {
                        woken(&app, &principal, &caller, &id, roused.as_ref().err()).await;
                    }
                    if comes && roused.is_ok() {
                        link.say(&ServerFrame::status(Status::LockAcquired)).await;
                    }
                    roused
                }
                // It left, or its place was given away; the sandbox wakes without it.
                None => {
                    if sleeps {
                        woken(&app, &principal, &caller, &id, None).await;
                    }
                    return;
                }
            }
        }
        Err(fault) => Err(fault),
    };
    match roused {
        Ok((sandbox, guest)) => {
            let arrival = Arrival {
                caller,
                mode,
                link,
                vigil: Vigil::new(None),
            };
            enter(app, &sandbox, arrival, seat, guest).await;
        }
        Err(fault) if fault.code == Code::SandboxNotFound => {
            drop(seat);
            let status = ServerFrame::Status(Status::NotFound, details(&failed(fault)));
            link.say(&status).await;
            link.close(Close::Refused).await;
        }
        Err(fault) => {
            drop(seat);
            let cause = failed(fault);
            let failed = Failed {
                message: format!("Failed to restore sandbox {id}: {}", cause.message),
                ..cause
            };
            refuse(link, Status::RestoreError, &failed, Close::Fatal).await;
        }
    }
}

/// Writes down that an attach woke a sandbox, or could not.
async fn woken(
    app: &App,
    principal: &Principal,
    caller: &Caller,
    id: &SandboxId,
    fault: Option<&Fault>,
) {
    let notes = Notes {
        app: app.clone(),
        principal: principal.clone(),
        request_id: caller.request_id.clone(),
    };
    let failed = fault.map(|fault| Failed {
        code: Some(fault.code.as_str().to_owned()),
        message: String::new(),
    });
    let done = failed.as_ref().map_or(Ok(()), Err);
    notes
        .note(Action::SandboxWake, Some(id), Cause::Client, done)
        .await;
}

/// The sandbox, and whether it comes from another server; its client is told what is done.
async fn asleep(
    app: &App,
    principal: &Principal,
    id: &SandboxId,
    link: &Link,
) -> Result<(Sandbox, bool), Fault> {
    let sandbox = app.engine.sandbox_fetch(principal, id).await?.sandbox;
    let comes = app.engine.is_elsewhere(id).await?;
    let on_disk = match sandbox.state {
        SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. } => true,
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Deleting { .. } => false,
    };
    if on_disk || comes {
        link.say(&ServerFrame::status(Status::Restoring)).await;
    }
    if comes {
        link.say(&ServerFrame::status(Status::LockAcquiring)).await;
    }
    Ok((sandbox, comes))
}

/// Brings a sandbox back that sleeps; its guest answers when this returns.
async fn rouse(
    app: &App,
    principal: &Principal,
    sandbox: Sandbox,
) -> Result<(Sandbox, GuestLease), Fault> {
    let engine = &app.engine;
    if !matches!(sandbox.state, SandboxState::Running { .. }) {
        let wanted = ResumeRequest {
            content: SnapshotContent::Memory,
            deadline: None,
            on_timeout: None,
        };
        engine
            .sandbox_resume(principal, &sandbox.id, wanted)
            .await?;
    }
    let guest = engine.guest(&sandbox.id).await?;
    Ok((sandbox, guest))
}

/// Does work that a client waits for. Who asks whether it lives is answered meanwhile, as after an
/// attach. `None`: it is gone.
async fn attend<T>(
    link: &mut Link,
    seat: &mut Occupied,
    work: impl Future<Output = T> + Send,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut knock: Option<(u64, oneshot::Sender<()>)> = None;
    loop {
        tokio::select! {
            biased;
            () = seat.leave.cancelled() => return None,
            done = &mut work => return Some(done),
            sign = link.next_sign() => match sign {
                Received::Closed => return None,
                Received::Alive(number) => {
                    if let Some((_, knock)) = knock.take_if(|(asked, _)| *asked == number) {
                        // Whoever asked may have gone.
                        let _gone = knock.send(());
                    }
                }
                Received::Text(_) | Received::Binary | Received::Pong(_) | Received::Other => {}
            },
            Some(asker) = seat.knocks.recv() => {
                knock = link.ping().await.map(|asked| (asked, asker));
            }
        }
    }
}

/// A client whose sandbox runs.
struct Arrival {
    caller: Caller,
    mode: Mode,
    link: Link,
    vigil: Vigil,
}

/// Attaches the client.
async fn enter(app: App, sandbox: &Sandbox, arrival: Arrival, seat: Occupied, guest: GuestLease) {
    let Arrival {
        caller,
        mode,
        link,
        vigil,
    } = arrival;
    if seat.room.search() {
        search(&app, &sandbox.id, &seat, &guest).await;
    }
    let found = seat.room.found();
    let settings = Wishes::of(sandbox).settings();
    let notes = Notes {
        app: app.clone(),
        principal: caller
            .principal
            .unwrap_or_else(|| principal_of(sandbox.workspace.clone())),
        request_id: caller.request_id,
    };
    let machine = Machine::new(settings, found, caller.kind);
    let clock = Clock::new(app.engine.clone(), sandbox);
    let attachment = Attachment {
        principal: principal_of(sandbox.workspace.clone()),
        id: sandbox.id.clone(),
        app,
        notes,
        link,
        seat,
        machine,
        clock,
        mode,
        vigil,
        guest: guest.quiet(),
    };
    drop(guest);
    attachment.serve().await;
}

/// Finds what an earlier server left running.
async fn search(app: &App, id: &SandboxId, seat: &Occupied, guest: &GuestLease) {
    let work = async {
        let noted = app.engine.socket_note_take(id).await.map_err(failed)?;
        let noted = noted.and_then(|text| text.parse().ok());
        let (cursor, repeats) = match execution::left_running(guest, noted).await? {
            None => return Ok(None),
            Some(Left::Known(cursor)) => (cursor, false),
            Some(Left::Repeated(cursor)) => (cursor, true),
        };
        let execution = Execution::take_up(&app.engine, id, cursor).await?;
        if repeats {
            execution.repeats();
        }
        Ok::<_, Failed>(Some(execution))
    };
    match work.await {
        Ok(Some(execution)) => seat.room.set_execution(Some(execution)),
        Ok(None) => {}
        Err(failed) => {
            let why = failed.message;
            tracing::warn!(sandbox = %id, why, "what runs in it could not be taken up");
        }
    }
}

fn details(failed: &Failed) -> Details {
    Details {
        code: failed.code.clone(),
        ..Details::message(failed.message.clone())
    }
}

async fn refuse(link: Link, status: Status, failed: &Failed, close: Close) {
    link.say(&ServerFrame::Status(status, details(failed)))
        .await;
    let message = failed.message.clone();
    link.say(&ServerFrame::Error { message }).await;
    link.close(close).await;
}

async fn refuse_seat(link: Link) {
    let why = Details::message("Another client is attached to this sandbox, and it is alive.");
    link.say(&ServerFrame::Status(Status::InUse, why)).await;
    link.close(Close::Refused).await;
}
