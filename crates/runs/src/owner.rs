//! The one task that carries out a run and writes its record.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use woodfrog_core::run::event::Said;
use woodfrog_core::run::{self, Due, Step, categorize, text};
use woodfrog_store::{RunWrite, StoreError};
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::run::{
    Boot, ErrorCategory, NewRunEvent, Outcome, Run, RunError, RunEventKind, RunState,
};
use woodfrog_types::usage::{Month, Quantity, Tokens, UsageEntry, UsageTotals};
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{Fault, Timestamp, WorkspaceId};

use crate::artifacts::{self, Capture};
use crate::hooks::Judgement;
use crate::reader::Ledger;
use crate::service::{Inner, sha256};
use crate::work::{self, Heard, Link, WorkEnd};

mod boot;
mod summary;
mod trace;

pub(crate) use boot::{removes, wake};

use summary::Summary;
use trace::{Age, Trace};

/// Entries that are written in one transaction.
const GROUP_MAX: usize = 256;
/// Entries that are kept while the store is out of reach; then the run's output waits.
const UNWRITTEN_MAX: usize = 20_000;
/// Between two tries to write, at most.
const RETRY_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(100);
/// How long one look at a process may take.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// What an owner is told.
pub(crate) enum Command {
    /// End it so. Answered with whether this ended it.
    Cancel {
        outcome: Outcome,
        reply: oneshot::Sender<bool>,
    },
}

/// Somebody else changed the run: it is not this owner's any more.
#[derive(Debug)]
struct Lost;

/// When those who pay are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Now,
    /// Only if something was booked since they were asked.
    IfBooked,
}

/// How the wait for something ended.
enum Ended {
    By(Outcome, Option<oneshot::Sender<bool>>),
    Lost,
}

impl From<Lost> for Ended {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

/// A run's owner.
pub(crate) struct Owner {
    inner: Arc<Inner>,
    run: Run,
    /// The whole of it, where the record has a part only.
    input: Option<String>,
    ledger: Ledger,
    commands: mpsc::Receiver<Command>,
    tell: watch::Sender<u64>,
    summary: Summary,
    trace: Trace,
    /// Keeps its files while it goes on.
    capture: Option<Capture>,
    /// What is not written yet.
    events: Vec<NewRunEvent>,
    usage: Vec<UsageEntry>,
    /// What the workspace used, as of the last booking that nobody judged.
    totals: Vec<(Month, UsageTotals)>,
    tracked: bool,
}

impl Owner {
    pub(crate) fn new(
        inner: Arc<Inner>,
        run: Run,
        input: Option<String>,
        ledger: Ledger,
        commands: mpsc::Receiver<Command>,
        tell: watch::Sender<u64>,
    ) -> Self {
        let tracked = ledger.tracked;
        let trace = Trace::new(inner.traces.clone(), &run);
        Self {
            inner,
            run,
            input,
            ledger,
            commands,
            tell,
            summary: Summary::default(),
            trace,
            capture: None,
            events: Vec::new(),
            usage: Vec::new(),
            totals: Vec::new(),
            tracked,
        }
    }

    pub(crate) fn workspace(&self) -> &WorkspaceId {
        &self.run.workspace
    }

    pub(crate) fn is_tracked(&self) -> bool {
        self.tracked
    }

    /// Carries the run out to its end.
    pub(crate) async fn carry_out(mut self, turn: oneshot::Receiver<()>) {
        let mut link = None;
        let ended = match self.live(turn, &mut link).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        let reply = match ended {
            Ended::Lost => {
                self.end_capture().await;
                self.give_up(link.as_ref()).await;
                None
            }
            Ended::By(outcome, reply) => {
                if !matches!(outcome, Outcome::Succeeded) {
                    self.stop(link.as_ref()).await;
                }
                self.end_capture().await;
                self.keep_files().await;
                let written = self.finish(outcome).await.is_ok();
                if written {
                    artifacts::forget(&self.inner, &self.run.id).await;
                }
                reply.map(|reply| (reply, written))
            }
        };
        self.inner.purse.release(&self.run.id).await;
        if let Some((reply, written)) = reply {
            // Whoever asked may have gone.
            let _gone = reply.send(written);
        }
        // Readers learn that nothing more comes.
        let Self {
            tell, inner, run, ..
        } = self;
        drop(tell);
        boot::clean_up(&inner, &run).await;
    }

    /// Somebody else changed the run. If they ended it, its process ends here.
    async fn give_up(&mut self, link: Option<&Link>) {
        let found = self.ledger.store.run_fetch(&self.run.id).await;
        let state = found.ok().flatten();
        tracing::info!(run = %self.run.id, "the run was changed by somebody else");
        match state {
            Some(run) if run.state.is_terminal() => {
                self.stop(link).await;
                self.run = run;
                self.trace.end(&self.run);
            }
            // Removed, or another's now: what it has is not this owner's to end.
            Some(_) | None => self.run.sandbox = None,
        }
    }

    /// Never returns but by an end.
    async fn live(
        &mut self,
        turn: oneshot::Receiver<()>,
        link: &mut Option<Link>,
    ) -> Result<std::convert::Infallible, Ended> {
        self.recall().await;
        self.queue(turn).await?;
        if matches!(self.run.state, RunState::Booting(Boot::Queued)) {
            self.step(Step::Start, json!({"status": "booting"})).await?;
        }
        if matches!(self.run.state, RunState::Booting(_)) {
            self.boot_in_time().await?;
        }
        self.capture = Capture::start(&self.inner, &self.run);
        if self.is_held() {
            // One that was on hold when the server ended stays so until it may go on; its sandbox
            // may not have come to sleep.
            boot::sleep(&self.inner, &self.run).await;
            self.judge(Ask::Now).await?;
        }
        let mut heard = match work::listen(&self.inner, &self.run).await {
            Ok((taken, heard)) => {
                *link = Some(taken);
                heard
            }
            Err(fault) => return Err(failed(fault_error(&fault))),
        };
        self.attend(&mut heard, link.as_ref()).await
    }

    /// What a log that was written before says, after a restart of the server.
    async fn recall(&mut self) {
        let mut after = 0;
        while after < self.run.last_event {
            let read = self
                .ledger
                .store
                .run_events(&self.run.id, after, 1000, 16 << 20);
            let Ok(events) = read.await else { return };
            let Some(last) = events.last() else { return };
            after = last.sequence;
            for event in &events {
                let NewRunEvent { at, kind, data } = &event.event;
                let data = serde_json::from_str(data).unwrap_or_default();
                self.summary.note(*kind, &data);
                self.trace.note(&self.run, *kind, &data, *at, Age::Recalled);
            }
        }
    }

    async fn queue(&mut self, turn: oneshot::Receiver<()>) -> Result<(), Ended> {
        if !matches!(self.run.state, RunState::Booting(Boot::Queued)) {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(Command::Cancel { outcome, reply }) = self.commands.recv() => {
                Err(Ended::By(outcome, Some(reply)))
            }
            _come = turn => Ok(()),
        }
    }

    async fn boot_in_time(&mut self) -> Result<(), Ended> {
        let deadline = run::deadline(&self.run, self.inner.options.boot_max);
        let at = deadline.map_or_else(Timestamp::now, |(at, _)| at);
        let left = at.since(Timestamp::now());
        let (nobody, mut heard) = mpsc::channel(1);
        drop(nobody);
        std::mem::swap(&mut heard, &mut self.commands);
        let booted = tokio::select! {
            biased;
            Some(Command::Cancel { outcome, reply }) = heard.recv() => {
                Err(Ended::By(outcome, Some(reply)))
            }
            booted = tokio::time::timeout(left, self.boot()) => match booted {
                Ok(booted) => booted,
                Err(_) => Err(failed(run::due_error(Due::Booting, &self.run))),
            }
        };
        self.commands = heard;
        booted
    }

    /// Listens until it is over.
    async fn attend(
        &mut self,
        heard: &mut mpsc::Receiver<Heard>,
        link: Option<&Link>,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut look = tokio::time::interval(self.inner.options.heartbeat);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = run::deadline(&self.run, self.inner.options.boot_max);
            let left = due.map(|(at, _)| at.since(Timestamp::now()));
            let full = self.events.len() >= UNWRITTEN_MAX;
            tokio::select! {
                biased;
                Some(Command::Cancel { outcome, reply }) = self.commands.recv() => {
                    return Err(Ended::By(outcome, Some(reply)));
                }
                () = after(left) => {
                    let due = due.map_or(Due::Wall, |(_, due)| due);
                    return Err(failed(run::due_error(due, &self.run)));
                }
                said = heard.recv(), if !full => {
                    let Some(said) = said else {
                        let text = "its output is out of reach";
                        return Err(failed(error(ErrorCategory::Sandbox, "lost", text)));
                    };
                    self.take(said, heard).await?;
                }
                _ = look.tick() => {
                    self.look(link).await?;
                    // Others of the workspace may have spent what there was.
                    self.judge(Ask::Now).await?;
                }
            }
            self.judge(Ask::IfBooked).await?;
        }
    }

    /// What came, and what came right behind it, in one write.
    async fn take(&mut self, first: Heard, more: &mut mpsc::Receiver<Heard>) -> Result<(), Ended> {
        let mut next = Some(first);
        let mut position = None;
        while let Some(heard) = next.take() {
            match heard {
                Heard::Said { said, at, used } => {
                    for said in said {
                        self.say(said);
                    }
                    position = Some(at);
                    if let Some((key, tokens)) = used {
                        self.use_tokens(&key, tokens);
                    }
                }
                Heard::End(end) => {
                    self.write(position, None).await?;
                    return Err(self.ended(end));
                }
            }
            if self.events.len() < GROUP_MAX {
                next = more.try_recv().ok();
            }
        }
        self.write(position, None).await.map_err(Ended::from)
    }

    fn say(&mut self, said: Said) {
        self.summary.note(said.kind, &said.data);
        let now = Timestamp::now();
        self.trace
            .note(&self.run, said.kind, &said.data, now, Age::New);
        match said.kind {
            // Both are the server's words here; each is said once.
            RunEventKind::Start | RunEventKind::Complete => return,
            RunEventKind::Result => {
                if let Some(tokens) = said.data.get("usage").and_then(run::event::tokens) {
                    let key = format!("result/{}", self.summary.results);
                    self.use_tokens(&key, tokens);
                }
            }
            _ => {}
        }
        self.events.push(entry(said.kind, &said.data));
    }

    /// Books tokens under a key of this run's own.
    fn use_tokens(&mut self, key: &str, tokens: Tokens) {
        let model = match &self.run.work {
            woodfrog_types::run::Work::Prompt { model, .. } => model.clone(),
            woodfrog_types::run::Work::Command => None,
        };
        let model = model.or_else(|| self.summary.model.clone());
        let quantity = Quantity::Tokens {
            model: model.unwrap_or_else(|| "unknown".to_owned()),
            tokens,
        };
        let (cost, price_version) = self.inner.prices.cost(&quantity);
        self.usage.push(UsageEntry {
            key: format!("run/{}/{key}", self.run.id),
            workspace: self.run.workspace.clone(),
            user: self.run.created_by.clone(),
            run: Some(self.run.id.clone()),
            thread: Some(self.run.thread.clone()),
            agent: self.run.work.agent().map(str::to_owned),
            sandbox: self.run.sandbox.clone(),
            at: Timestamp::now(),
            quantity,
            cost,
            price_version,
        });
    }

    fn is_held(&self) -> bool {
        matches!(self.run.state, RunState::Running { held: Some(_), .. })
    }

    /// Asks whether its process lives.
    async fn look(&mut self, link: Option<&Link>) -> Result<(), Ended> {
        let Some(link) = link.filter(|_| !self.is_held()) else {
            return Ok(());
        };
        let Ok(look) = tokio::time::timeout(LOOK_MAX, link.lives(&self.inner)).await else {
            return Ok(());
        };
        match look {
            // Its last words are on their way.
            work::Look::Lives | work::Look::Unknown => {}
            work::Look::SandboxGone => {
                let text = "its sandbox is gone";
                return Err(failed(error(ErrorCategory::Sandbox, "sandbox_gone", text)));
            }
            work::Look::Gone => {
                let text = "its process is gone, and said nothing of its end";
                return Err(failed(error(ErrorCategory::Sandbox, "process_gone", text)));
            }
        }
        if matches!(look, work::Look::Lives) {
            let now = Timestamp::now();
            self.write(None, Some(now)).await?;
        }
        Ok(())
    }

    /// Limits of its own, then those of who pays.
    async fn judge(&mut self, ask: Ask) -> Result<(), Ended> {
        if let Some(error) = run::over_limit(&self.run) {
            return Err(failed(error));
        }
        if ask == Ask::IfBooked && self.totals.is_empty() {
            return Ok(());
        }
        let totals = std::mem::take(&mut self.totals);
        loop {
            let judged = self.inner.purse.judge(&self.run.workspace, &totals).await;
            let judged = judged.unwrap_or_else(|fault| {
                tracing::warn!(run = %self.run.id, %fault, "nobody says whether a run may go on");
                Judgement::Go
            });
            let held = self.is_held();
            match judged {
                Judgement::Go if held => return self.release().await,
                Judgement::Go => return Ok(()),
                Judgement::End { reason } => {
                    return Err(failed(error(
                        ErrorCategory::Api,
                        "budget_exceeded",
                        &reason,
                    )));
                }
                Judgement::Hold { reason } if !held => self.hold(reason).await?,
                Judgement::Hold { .. } => {}
            }
            let poll = self.inner.options.hold_poll;
            tokio::select! {
                Some(Command::Cancel { outcome, reply }) = self.commands.recv() => {
                    return Err(Ended::By(outcome, Some(reply)));
                }
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    async fn hold(&mut self, reason: String) -> Result<(), Ended> {
        let data = json!({"status": "running", "held": reason});
        self.step(Step::Hold { reason }, data).await?;
        boot::sleep(&self.inner, &self.run).await;
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Ended> {
        if let Err(fault) = boot::wake(&self.inner, &self.run).await {
            return Err(failed(fault_error(&fault)));
        }
        let data = json!({"status": "running", "held": null});
        self.step(Step::Release, data).await?;
        self.write(None, Some(Timestamp::now())).await?;
        Ok(())
    }

    /// How the end of its work is the run's.
    fn ended(&mut self, end: WorkEnd) -> Ended {
        match end {
            WorkEnd::Exited { code: Some(0), .. } => Ended::By(Outcome::Succeeded, None),
            WorkEnd::Exited { code, status } => {
                let stderr = self.summary.stderr();
                let category = categorize(code, &stderr);
                let code = match category {
                    ErrorCategory::Timeout => "timeout",
                    _ if code.is_some() => "exit_status",
                    _ => "signal",
                };
                failed(RunError {
                    details: Some(stderr).filter(|text| !text.is_empty()),
                    ..error(category, code, &status)
                })
            }
            WorkEnd::Turn { outcome, answer } => {
                self.summary.turns += 1;
                if self.summary.result.is_none() {
                    self.summary.result = Some(answer);
                }
                match outcome.as_str() {
                    "end_turn" => Ended::By(Outcome::Succeeded, None),
                    other => {
                        let stderr = self.summary.stderr();
                        let text = format!("the agent's turn ended with `{other}`");
                        let category = match other {
                            "max_tokens" | "max_turn_requests" | "refusal" => ErrorCategory::Api,
                            _ => categorize(None, &stderr),
                        };
                        failed(RunError {
                            details: Some(stderr).filter(|text| !text.is_empty()),
                            ..error(category, other, &text)
                        })
                    }
                }
            }
            WorkEnd::Lost { reason } => failed(error(ErrorCategory::Sandbox, "lost", &reason)),
        }
    }

    /// Asks its process to end; what it says to that is not waited for.
    async fn stop(&self, link: Option<&Link>) {
        if let Some(link) = link {
            link.stop(&self.inner).await;
        }
    }

    /// From now on only the look at the end keeps files.
    async fn end_capture(&mut self) {
        if let Some(capture) = self.capture.take() {
            capture.end().await;
        }
    }

    /// Keeps the files that it left, and tells of them in the log, before it is over.
    async fn keep_files(&mut self) {
        if let Some(report) = artifacts::keep(&self.inner, &self.run).await {
            self.events
                .push(entry(RunEventKind::Status, &report.data()));
            self.summary.files_created = report.created;
            self.summary.files_modified = report.modified;
        }
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), Lost> {
        let outcome = match outcome {
            Outcome::Failed(error) => Outcome::Failed(RunError {
                code: text::truncate(&error.code, text::ERROR_CODE_CHARS_MAX),
                message: text::truncate(&error.message, text::ERROR_CHARS_MAX),
                details: error
                    .details
                    .map(|it| text::truncate(&it, text::ERROR_DETAILS_CHARS_MAX)),
                ..error
            }),
            other => other,
        };
        let now = Timestamp::now();
        let Ok(mut next) = run::step(&self.run, Step::End(outcome), now) else {
            return Err(Lost);
        };
        self.summary.last_words();
        if let Some(tokens) = self.summary.last_line_tokens.take() {
            self.use_tokens("result/last", tokens);
        }
        let result = self.summary.result.clone();
        next.result_hash = result.as_deref().map(sha256);
        next.result = result.map(|it| text::truncate(&it, text::RESULT_CHARS_MAX));
        next.stats.tool_calls = self.summary.tool_calls;
        next.stats.turns = self.summary.turns;
        next.stats.files_created = self.summary.files_created;
        next.stats.files_modified = self.summary.files_modified;
        if next.result.is_some() && self.summary.results == 0 {
            self.events.push(result_event(&next, now, &self.usage));
        }
        self.events.extend(end_events(&next));
        self.run_write(Some(next), None, None).await?;
        self.trace.end(&self.run);
        Ok(())
    }

    /// The next version of the record, told in the log.
    async fn step(&mut self, step: Step, data: serde_json::Value) -> Result<(), Lost> {
        let next = run::step(&self.run, step, Timestamp::now()).map_err(|refused| {
            tracing::error!(run = %self.run.id, %refused, "a step of a run");
            Lost
        })?;
        self.events.push(entry(RunEventKind::Status, &data));
        self.run_write(Some(next), None, None).await
    }

    /// Writes what there is, if the store can be reached; what cannot be written waits.
    async fn write(
        &mut self,
        position: Option<woodfrog_types::run::RunPosition>,
        heartbeat: Option<Timestamp>,
    ) -> Result<(), Lost> {
        self.run_write(None, position, heartbeat).await
    }

    async fn run_write(
        &mut self,
        record: Option<Run>,
        position: Option<woodfrog_types::run::RunPosition>,
        heartbeat: Option<Timestamp>,
    ) -> Result<(), Lost> {
        let mut pause = RETRY_MIN;
        let write = RunWrite {
            record,
            events: std::mem::take(&mut self.events),
            usage: std::mem::take(&mut self.usage),
            heartbeat_at: heartbeat.or_else(|| position.map(|_| Timestamp::now())),
            position,
            ..RunWrite::of(&self.run)
        };
        let written = loop {
            match self.ledger.store.run_write(write.clone()).await {
                Ok(written) => break written,
                Err(StoreError::Unavailable(error)) => {
                    tracing::warn!(run = %self.run.id, %error, "a run cannot be recorded now");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                    return Err(Lost);
                }
                Err(error) => {
                    tracing::error!(run = %self.run.id, %error, "a run cannot be recorded");
                    return Err(Lost);
                }
            }
        };
        if let Some(next) = write.record {
            self.run = next;
        }
        if let Some(at) = write.heartbeat_at {
            self.run.heartbeat_at = self.run.heartbeat_at.max(at);
        }
        if let Some(position) = write.position {
            self.run.position = position;
        }
        self.run.tokens = written.tokens;
        self.run.cost = written.cost;
        self.run.last_event = written.last_event;
        if !written.totals.is_empty() {
            self.totals = written.totals;
        }
        self.tell.send_replace(written.last_event);
        Ok(())
    }
}

/// Resolves after that time; never without one.
async fn after(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// The workspace itself, in the name of who made the run: it goes on when their key is gone.
pub(crate) fn principal(run: &Run) -> Principal {
    workspace(&run.workspace, run.created_by.clone())
}

/// A workspace itself, in somebody's name.
pub(crate) fn workspace(workspace: &WorkspaceId, user: UserId) -> Principal {
    Principal {
        workspace: workspace.clone(),
        user,
        role: Role::Owner,
        key: None,
        scope: Scope::Workspace,
    }
}

fn failed(error: RunError) -> Ended {
    Ended::By(Outcome::Failed(error), None)
}

fn error(category: ErrorCategory, code: &str, message: &str) -> RunError {
    RunError {
        category,
        code: code.to_owned(),
        message: message.to_owned(),
        details: None,
    }
}

fn fault_error(fault: &Fault) -> RunError {
    error(ErrorCategory::Sandbox, fault.code.as_str(), &fault.message)
}

pub(crate) fn entry(kind: RunEventKind, data: &serde_json::Value) -> NewRunEvent {
    NewRunEvent {
        at: Timestamp::now(),
        kind,
        data: data.to_string(),
    }
}

/// Micro-dollars as the contract has costs.
fn dollars(micros: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact below nine billion dollars"
    )]
    let micros = micros as f64;
    micros / 1_000_000.0
}

fn result_event(next: &Run, now: Timestamp, unwritten: &[UsageEntry]) -> NewRunEvent {
    let mut tokens = next.tokens;
    let mut cost = next.cost;
    for entry in unwritten {
        if let Quantity::Tokens { tokens: more, .. } = &entry.quantity {
            tokens = tokens.plus(*more);
        }
        cost = cost.plus(entry.cost);
    }
    let data = json!({
        "result": next.result,
        "duration_ms": u64::try_from(run::worked(next, now).as_millis()).unwrap_or(u64::MAX),
        "cost": dollars(cost.total()),
        "num_turns": next.stats.turns,
        "usage": {
            "input_tokens": tokens.input,
            "output_tokens": tokens.output,
            "cache_read_input_tokens": tokens.cache_read,
            "cache_creation_input_tokens": tokens.cache_write,
        },
    });
    entry(RunEventKind::Result, &data)
}

/// The last entries of a run that is over.
pub(crate) fn end_events(next: &Run) -> Vec<NewRunEvent> {
    let mut events = Vec::new();
    if let RunState::Ended {
        outcome: Outcome::Failed(error),
        ..
    } = &next.state
    {
        let data = json!({
            "error": error.category.as_str(), "code": error.code, "message": error.message,
        });
        events.push(entry(RunEventKind::Error, &data));
    }
    let data = json!({"status": next.state.as_str(), "result": next.result});
    events.push(entry(RunEventKind::Complete, &data));
    events
}
