//! After a restart, and all the time: runs and sandboxes that lost each other.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use woodfrog_store::RunStore as _;
use woodfrog_types::run::{Boot, RUN_HOLD, RUN_LABEL, Run, RunState};
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Code, Fault, RunId, SandboxId, Timestamp};

use crate::artifacts;
use crate::owner::{removes, workspace};
use crate::service::{Runs, fault};

/// Sandboxes that are looked at together.
const PAGE: usize = 200;
/// Between two tries to read what goes on, at the start.
const RETRY: Duration = Duration::from_secs(2);

/// Which runs are taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// All: this server has just begun.
    ByServerBefore,
    /// Those that have no owner any more.
    ByNobody,
}

impl Runs {
    /// Takes up the runs that a server before left, and goes on to look for runs without an owner
    /// and sandboxes without a run, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let watching = async {
            let mut left = Left::ByServerBefore;
            loop {
                let looked = self.reconcile(left).await;
                if looked.is_ok() {
                    left = Left::ByNobody;
                }
                let pause = match looked {
                    Ok(()) => self.options().reconcile,
                    Err(fault) => {
                        tracing::warn!(%fault, "runs and sandboxes cannot be compared now");
                        RETRY
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// One look. What it finds done already it leaves alone.
    async fn reconcile(&self, left: Left) -> Result<(), Fault> {
        let now = Timestamp::now();
        let here = self.inner.engine.runs_here().await?;
        for run in self.inner.store.run_unfinished().await.map_err(fault)? {
            let ours = here.as_ref().is_none_or(|here| here.contains(&run.id));
            // An owner says every few seconds that its run lives: of one that was silent for so
            // long there is none, on whatever server.
            let silent = now.since(run.heartbeat_at) > self.options().boot_max;
            let begun = !matches!(run.state, RunState::Booting(Boot::Queued));
            if (left == Left::ByServerBefore && ours) || (silent && begun) {
                self.take_up(run).await;
            }
        }
        self.sweep().await
    }

    /// Gives a run an owner that has none here.
    async fn take_up(&self, run: Run) {
        if self.inner.owners().contains_key(&run.id) {
            return;
        }
        tracing::info!(run = %run.id, state = run.state.as_str(), "a run is taken up");
        let at_once = self.limits(&run.workspace).await.runs_at_once;
        let ledger = self.inner.ledger(true);
        self.inner.engage(run, None, ledger, at_once);
    }

    /// Removes sandboxes that were made for runs which are over, or which nobody knows.
    async fn sweep(&self) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let found = self.inner.store.sandbox_of_runs(after.as_ref(), PAGE).await;
            let found = found.map_err(fault)?;
            let Some(last) = found.last() else {
                self.sweep_holds().await?;
                return self.sweep_baselines().await;
            };
            after = Some(last.id.clone());
            for sandbox in &found {
                if self.is_left(sandbox).await? {
                    self.remove(sandbox).await;
                }
            }
        }
    }

    /// Whether a sandbox was made for a run that has no use for it any more.
    async fn is_left(&self, sandbox: &Sandbox) -> Result<bool, Fault> {
        let id = sandbox.metadata.get(RUN_LABEL);
        let Some(Ok(id)) = id.map(|id| id.parse::<RunId>()) else {
            return Ok(false);
        };
        if self.inner.owners().contains_key(&id) {
            return Ok(false);
        }
        let of_memory = self.inner.memory.run_fetch(&id).await.map_err(fault)?;
        let run = match of_memory {
            Some(run) => Some(run),
            None => self.inner.store.run_fetch(&id).await.map_err(fault)?,
        };
        let Some(run) = run else {
            // An untracked run's, of a server before, or one of a run that was removed.
            return Ok(true);
        };
        // It may have been made after the run's end was written, and so is not in its record.
        let stray = run.sandbox.as_ref() != Some(&sandbox.id);
        Ok(run.state.is_terminal() && (removes(&run) || stray))
    }

    /// Releases what is held by runs that are over, or which nobody knows: their server ended
    /// between the end of a run and that of its hold.
    async fn sweep_holds(&self) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let found = self.inner.store.hold_of_runs(after.as_ref(), PAGE).await;
            let found = found.map_err(fault)?;
            let Some(last) = found.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (sandbox, run) in &found {
                if let Ok(run) = run.parse::<RunId>()
                    && self.is_over(&run).await?
                {
                    self.release(sandbox, &run).await?;
                }
            }
        }
    }

    async fn is_over(&self, id: &RunId) -> Result<bool, Fault> {
        if self.inner.owners().contains_key(id) {
            return Ok(false);
        }
        let of_memory = self.inner.memory.run_fetch(id).await.map_err(fault)?;
        let run = match of_memory {
            Some(run) => Some(run),
            None => self.inner.store.run_fetch(id).await.map_err(fault)?,
        };
        Ok(run.is_none_or(|run| run.state.is_terminal()))
    }

    async fn release(&self, id: &SandboxId, run: &RunId) -> Result<(), Fault> {
        let sandbox = self.inner.store.sandbox_fetch(id).await.map_err(fault)?;
        let Some(sandbox) = sandbox else {
            return Ok(());
        };
        let principal = workspace(&sandbox.workspace, UserId::operator());
        let name = format!("{RUN_HOLD}{run}");
        match self
            .inner
            .engine
            .sandbox_unhold(&principal, id, &name)
            .await
        {
            Ok(_) => tracing::info!(sandbox = %id, %run, "released what a run held"),
            Err(fault) if fault.code == Code::SandboxNotFound => {}
            Err(fault) => tracing::warn!(sandbox = %id, %run, %fault, "a sandbox is still held"),
        }
        Ok(())
    }

    /// Forgets what was written down for runs that are over, or which nobody knows.
    async fn sweep_baselines(&self) -> Result<(), Fault> {
        let Some(files) = self.inner.files.clone() else {
            return Ok(());
        };
        let names = tokio::task::spawn_blocking(move || files.baselines()).await;
        let names = names.map_err(Fault::internal)?.map_err(Fault::internal)?;
        for name in names {
            // One that is half written is named after its run as well.
            let name = name.strip_suffix(".new").unwrap_or(&name);
            let Ok(id) = name.parse::<RunId>() else {
                continue;
            };
            if self.inner.owners().contains_key(&id) {
                continue;
            }
            let run = self.inner.store.run_fetch(&id).await.map_err(fault)?;
            if run.is_none_or(|run| run.state.is_terminal()) {
                artifacts::forget(&self.inner, &id).await;
            }
        }
        Ok(())
    }

    async fn remove(&self, sandbox: &Sandbox) {
        let id = &sandbox.id;
        let principal = workspace(&sandbox.workspace, UserId::operator());
        match self.inner.engine.sandbox_delete(&principal, id).await {
            Ok(()) => tracing::info!(sandbox = %id, "removed what a run left"),
            Err(fault) if fault.code == Code::SandboxNotFound => {}
            Err(fault) => tracing::warn!(sandbox = %id, %fault, "what a run left stays for now"),
        }
    }
}
