//! Getting a run its sandbox and its process, and what becomes of the sandbox afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use woodfrog_core::run::Step;
use woodfrog_engine::{CreateSandbox, ResumeRequest};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::page::PageRequest;
use woodfrog_types::run::{AtEnd, ErrorCategory, RUN_HOLD, RUN_LABEL, Run, RunFilter, Work};
use woodfrog_types::sandbox::OnTimeout;
use woodfrog_types::sleep::SleepChanges;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, Fault, SandboxId};

use super::{Ended, Owner, error, failed, fault_error, principal};
use crate::artifacts;
use crate::service::{Inner, sha256};
use crate::work;

/// The label of one that stays when its run is over.
const LABEL_KEPT: &str = "woodfrog.made-for-run";
/// Tries to remove a sandbox before that is left to the reconciler.
const TRIES: u32 = 4;
const TRY_PAUSE: Duration = Duration::from_millis(500);
/// Runs of a thread that are looked at for something to share.
const SHARED_MAX: usize = 20;

impl Owner {
    /// From a record to a process that runs. Whatever a try before left is used again.
    pub(super) async fn boot(&mut self) -> Result<(), Ended> {
        let input = match (&self.input, &self.run.input) {
            (Some(input), _) => input.clone(),
            (None, Some(input)) if sha256(input) == self.run.input_hash => input.clone(),
            (None, _) => {
                let text = "the server was restarted before the run began, and its input was \
                            too long to be recorded";
                return Err(failed(error(ErrorCategory::Unknown, "input_lost", text)));
            }
        };
        let refused = |fault: Fault| failed(fault_error(&fault));
        let sandbox = self.sandbox().await?;
        wake(&self.inner, &self.run).await.map_err(refused)?;
        let begun = artifacts::begin(&self.inner, &self.run, &sandbox).await;
        begun.map_err(refused)?;
        match self.run.work.clone() {
            Work::Command => {
                let id = work::command::start(&self.inner, &self.run, &sandbox, &input).await;
                self.run.process = Some(id.map_err(refused)?);
            }
            Work::Prompt { agent, model } => {
                let shared = self.shared(|run| {
                    let same = run.sandbox.as_ref() == Some(&sandbox);
                    run.session.clone().filter(|_| same)
                });
                let shared = shared.await;
                let wanted = work::prompt::Wanted {
                    sandbox: &sandbox,
                    agent: &agent,
                    model: model.as_deref(),
                    shared,
                };
                let session = work::prompt::session(&self.inner, &self.run, wanted).await;
                self.run.session = Some(session.map_err(refused)?);
                self.note(json!({"status": "booting", "session": self.run.session.as_ref().map(ToString::to_string)}))
                    .await?;
                let first = work::prompt::post(&self.inner, &self.run, &input).await;
                self.run.position.log = first.map_err(refused)?;
            }
        }
        let data = json!({"status": "running", "sandbox": sandbox.as_str()});
        let position = self.run.position;
        self.step(Step::Run, data).await?;
        self.write(Some(position), None).await?;
        Ok(())
    }

    /// Writes what is known of a run that has not begun.
    async fn note(&mut self, data: serde_json::Value) -> Result<(), Ended> {
        let mut next = self.run.clone();
        next.generation += 1;
        self.events.push(super::entry(
            woodfrog_types::run::RunEventKind::Status,
            &data,
        ));
        self.run_write(Some(next), None, None).await?;
        Ok(())
    }

    /// Its sandbox: the one it was given, its thread's, or a new one.
    async fn sandbox(&mut self) -> Result<SandboxId, Ended> {
        if let Some(sandbox) = &self.run.sandbox {
            return Ok(sandbox.clone());
        }
        if self.run.setup.share_sandbox {
            let found = self.shared(|run| run.sandbox.clone().filter(|_| run.setup.share_sandbox));
            if let Some(sandbox) = found.await
                && self.inner.engine.peek(&sandbox).await.is_ok()
            {
                self.run.sandbox = Some(sandbox.clone());
                self.note(json!({"status": "booting", "sandbox": sandbox.as_str()}))
                    .await?;
                return Ok(sandbox);
            }
        }
        let label = match goes_with(&self.run) {
            true => RUN_LABEL,
            false => LABEL_KEPT,
        };
        let request = CreateSandbox {
            template: self.run.template.clone(),
            timeout: None,
            on_timeout: OnTimeout::Kill,
            auto_resume: true,
            sleep: SleepChanges::default(),
            metadata: BTreeMap::from([(label.to_owned(), self.run.id.to_string())]),
            env: BTreeMap::new(),
            network: NetworkSpec::default(),
            secure: true,
            volumes: Vec::new(),
            resources: None,
            // A try after a crash gets the sandbox of the one before.
            idempotency_key: Some(self.run.id.to_string()),
        };
        let made = self
            .inner
            .engine
            .sandbox_create(&principal(&self.run), request)
            .await;
        let made = made.map_err(|fault| failed(fault_error(&fault)))?;
        let sandbox = made.sandbox.id;
        self.run.sandbox = Some(sandbox.clone());
        self.run.made_sandbox = true;
        self.note(json!({"status": "booting", "sandbox": sandbox.as_str()}))
            .await?;
        Ok(sandbox)
    }

    /// What the last run of the thread that has it has.
    async fn shared<T>(&self, pick: impl Fn(&Run) -> Option<T>) -> Option<T> {
        let filter = RunFilter {
            thread: Some(self.run.thread.clone()),
            agent: self.run.work.agent().map(str::to_owned),
            ..RunFilter::default()
        };
        let page = PageRequest {
            limit: SHARED_MAX,
            cursor: None,
        };
        let store = &self.ledger.store;
        let listed = store
            .run_list(&self.run.workspace, &filter, &page)
            .await
            .ok()?;
        let mut others = listed.items.iter().filter(|run| run.id != self.run.id);
        others.find_map(pick)
    }
}

fn hold_name(run: &Run) -> String {
    format!("{RUN_HOLD}{}", run.id)
}

/// Keeps its sandbox awake, and wakes it.
pub(crate) async fn wake(inner: &Inner, run: &Run) -> Result<(), Fault> {
    let Some(sandbox) = &run.sandbox else {
        return Ok(());
    };
    let principal = principal(run);
    let request = ResumeRequest {
        content: SnapshotContent::Memory,
        deadline: None,
        on_timeout: None,
    };
    inner
        .engine
        .sandbox_resume(&principal, sandbox, request)
        .await?;
    let hold = hold_name(run);
    let held = inner.engine.sandbox_hold(&principal, sandbox, &hold, None);
    held.await.map(drop)
}

/// Lets its sandbox sleep, its processes intact.
pub(super) async fn sleep(inner: &Inner, run: &Run) {
    let Some(sandbox) = &run.sandbox else { return };
    let principal = principal(run);
    let hold = hold_name(run);
    let unheld = inner.engine.sandbox_unhold(&principal, sandbox, &hold);
    if let Err(fault) = unheld.await {
        tracing::warn!(run = %run.id, %fault, "a sandbox is still held");
    }
    if let Err(fault) = inner.engine.sandbox_pause(&principal, sandbox).await {
        tracing::warn!(run = %run.id, %fault, "a sandbox cannot be put to sleep");
    }
}

/// Whether the run's sandbox goes with it.
pub(crate) fn removes(run: &Run) -> bool {
    run.made_sandbox && goes_with(run)
}

fn goes_with(run: &Run) -> bool {
    !run.setup.share_sandbox && run.setup.at_end == AtEnd::Remove
}

/// What becomes of the sandbox of a run that is over. What fails is done by the reconciler.
pub(super) async fn clean_up(inner: &Inner, run: &Run) {
    let Some(sandbox) = &run.sandbox else { return };
    let principal = principal(run);
    if removes(run) {
        for tries in 1..=TRIES {
            match inner.engine.sandbox_delete(&principal, sandbox).await {
                Ok(()) => return,
                Err(fault) if fault.code == Code::SandboxNotFound => return,
                Err(fault) => {
                    tracing::warn!(run = %run.id, %sandbox, tries, %fault, "a sandbox stays");
                    tokio::time::sleep(TRY_PAUSE * tries).await;
                }
            }
        }
        return;
    }
    match run.setup.at_end {
        AtEnd::Pause if run.made_sandbox => sleep(inner, run).await,
        AtEnd::Pause | AtEnd::Keep | AtEnd::Remove => {
            // One that is gone holds nothing.
            let _ = inner
                .engine
                .sandbox_unhold(&principal, sandbox, &hold_name(run))
                .await;
        }
    }
}
