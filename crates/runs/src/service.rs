//! What faces ask of runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Notify, RwLock, mpsc, oneshot, watch};
use woodfrog_artifacts::Files;
use woodfrog_core::artifact;
use woodfrog_core::run::queue::Queue;
use woodfrog_core::run::{Step, step, text};
use woodfrog_engine::Engine;
use woodfrog_sessions::Sessions;
use woodfrog_store::memory::MemoryStore;
use woodfrog_store::{Admitted, RunStore as _, RunWrite, Store, StoreError};
use woodfrog_types::key::Principal;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::run::{
    Boot, NewRunEvent, Outcome, Run, RunEvent, RunEventKind, RunFilter, RunLimits, RunPosition,
    RunSetup, RunState, RunStats, Work,
};
use woodfrog_types::usage::{Cost, Tokens};
use woodfrog_types::workspace::{Role, WorkspaceLimits};
use woodfrog_types::{Code, Fault, RunId, SandboxId, Timestamp, WorkspaceId};

use crate::hooks::{Prices, Purse, Traces};
use crate::options::Options;
use crate::owner::{self, Owner};
use crate::rates;
use crate::reader::{Ledger, RunReader};

/// Characters of a prompt or command. What is over [`text::INPUT_CHARS_MAX`] is carried out, and
/// cut off in the record.
const INPUT_CHARS_MAX: usize = 100_000;
/// Characters of an idempotency key.
const KEY_CHARS_MAX: usize = 255;
/// Commands that wait for an owner.
const COMMANDS_MAX: usize = 16;

/// What is to be done.
#[derive(Debug, Clone)]
pub enum RunWork {
    Prompt {
        agent: String,
        model: Option<String>,
    },
    Command,
}

/// A run that is asked for.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub work: RunWork,
    /// The prompt or the command.
    pub input: String,
    /// A thread of its own if `None`.
    pub thread: Option<String>,
    pub template: String,
    /// A sandbox to run in; one is made if `None`.
    pub sandbox: Option<SandboxId>,
    pub setup: RunSetup,
    pub priority: i32,
    /// `None` is the server's default.
    pub wall: Option<Duration>,
    pub idle: Option<Duration>,
    pub tokens: Option<u64>,
    pub cost: Option<u64>,
    pub metadata: BTreeMap<String, String>,
    pub idempotency_key: Option<String>,
    /// Whether it is recorded in the store.
    pub track: bool,
}

/// A run, and its place among those that wait.
#[derive(Debug, Clone)]
pub struct RunView {
    pub run: Run,
    /// 1 is next; `None` for one that does not wait.
    pub place: Option<usize>,
    pub tracked: bool,
}

/// What came of the wish to cancel.
#[derive(Debug, Clone)]
pub struct Canceled {
    /// Whether this call ended it.
    pub canceled: bool,
    /// Why not.
    pub message: Option<String>,
    pub run: Run,
}

/// Runs on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Those that wait for their turn.
    pub waiting: usize,
    /// Those whose turn has come.
    pub working: usize,
}

/// Runs. A cheap handle.
#[derive(Clone)]
pub struct Runs {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    /// The ledger of untracked runs.
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) engine: Engine,
    pub(crate) sessions: Sessions,
    pub(crate) prices: Arc<dyn Prices>,
    pub(crate) purse: Arc<dyn Purse>,
    pub(crate) options: Options,
    /// Who is told what runs did; `None`: nobody is.
    pub(crate) traces: Option<Arc<dyn Traces>>,
    /// Where artifacts are kept; `None`: none are.
    pub(crate) files: Option<Files>,
    pub(crate) owners: Mutex<HashMap<RunId, Handle>>,
    waiting: Mutex<Waiting>,
    /// Held for writing while an untracked run is counted, for reading while a tracked one is.
    starts: RwLock<()>,
    /// Untracked runs that are over, the oldest first.
    untracked: Mutex<VecDeque<RunId>>,
    /// Somebody may have room now.
    pub(crate) room: Notify,
}

#[derive(Default)]
struct Waiting {
    queue: Queue<RunId>,
    turns: HashMap<RunId, (WorkspaceId, Option<u32>, oneshot::Sender<()>)>,
    /// Runs that go on.
    busy: HashMap<WorkspaceId, usize>,
    total: usize,
}

/// The way to a run's owner.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::Sender<owner::Command>,
    pub(crate) last: watch::Receiver<u64>,
}

impl Runs {
    pub fn new(
        engine: &Engine,
        sessions: Sessions,
        prices: Arc<dyn Prices>,
        purse: Arc<dyn Purse>,
        options: Options,
        files: Option<Files>,
        traces: Option<Arc<dyn Traces>>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store: engine.store(),
                memory: Arc::new(MemoryStore::new()),
                engine: engine.clone(),
                sessions,
                prices,
                purse,
                options,
                traces,
                files,
                owners: Mutex::default(),
                waiting: Mutex::default(),
                starts: RwLock::new(()),
                untracked: Mutex::default(),
                room: Notify::new(),
            }),
        }
    }

    /// How they are held.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// How many runs wait and go on here now.
    pub fn queued(&self) -> Queued {
        let waiting = self.inner.waiting();
        Queued {
            waiting: waiting.queue.len(),
            working: waiting.total,
        }
    }

    /// How many tracked runs of all workspaces are in each state, by its name.
    pub async fn states(&self) -> Result<Vec<(String, u64)>, Fault> {
        self.inner.store.run_states().await.map_err(fault)
    }

    /// Records a run, and starts it when its turn has come. A known idempotency key gives the run
    /// that it was used for.
    pub async fn start(&self, principal: &Principal, new: NewRun) -> Result<RunView, Fault> {
        let inner = &self.inner;
        let limits = self.limits(&principal.workspace).await;
        let input = new.input.clone();
        let tracked = new.track;
        let run = self.record(principal, new).await?;
        {
            let waiting = inner.waiting();
            let room = inner.options.queue_max.min(limits.run_queue as usize);
            if waiting.queue.len() >= room {
                return Err(Fault::new(
                    Code::RateLimited,
                    format!("{room} runs wait already; try again later"),
                ));
            }
        }
        let ledger = inner.ledger(tracked);
        let prompt: serde_json::Value = input.as_str().into();
        let first = NewRunEvent {
            at: run.created_at,
            kind: RunEventKind::Start,
            data: serde_json::json!({"prompt": prompt}).to_string(),
        };
        inner.purse.admit(&run).await?;
        let admitted = self.admit(&run, first, &limits, tracked).await;
        let refused = match admitted {
            Ok(Admitted::New) => {
                inner.engage(run.clone(), Some(input), ledger, limits.runs_at_once);
                return Ok(self.view(run, tracked));
            }
            Ok(Admitted::Known(known)) => {
                inner.purse.release(&run.id).await;
                return known_run(&run, *known).map(|known| self.view(known, tracked));
            }
            Ok(Admitted::RateLimited { rate, .. }) => rates::refused(rate.whose, &limits),
            Err(fault) => fault,
        };
        inner.purse.release(&run.id).await;
        Err(refused)
    }

    /// Counts and records in one step, whatever the ledger.
    async fn admit(
        &self,
        run: &Run,
        first: NewRunEvent,
        limits: &WorkspaceLimits,
        tracked: bool,
    ) -> Result<Admitted, Fault> {
        let inner = &self.inner;
        let rates = rates::of(limits, run.created_at);
        if tracked {
            let _counted = inner.starts.read().await;
            let rates = rates::less(rates, run, &*inner.memory)
                .await
                .map_err(fault)?;
            let insert = inner.store.run_insert(run, vec![first], rates);
            return insert.await.map_err(fault);
        }
        let _alone = inner.starts.write().await;
        // The store may be out of reach: what needs no record is carried out all the same.
        let ledger = inner.ledger(true).store;
        let rates = match rates::less(rates.clone(), run, &*ledger).await {
            Ok(less) => less,
            Err(error) => {
                tracing::warn!(%error, "starts of tracked runs cannot be counted");
                rates
            }
        };
        let insert = inner.memory.run_insert(run, vec![first], rates);
        insert.await.map_err(fault)
    }

    /// What holds for the workspace: its own limits, or the server's.
    pub(crate) async fn limits(&self, workspace: &WorkspaceId) -> WorkspaceLimits {
        let limits = self.inner.engine.workspace_limits(workspace).await;
        limits.unwrap_or_else(|fault| {
            tracing::warn!(%fault, "limits cannot be read: the defaults hold");
            WorkspaceLimits::default()
        })
    }

    async fn record(&self, principal: &Principal, new: NewRun) -> Result<Run, Fault> {
        let options = &self.inner.options;
        let too_long =
            |field: &'static str, value: &str, max| match text::too_long(field, value, max) {
                Some(text) => Err(Fault::invalid(field, text)),
                None => Ok(()),
            };
        too_long("input", &new.input, INPUT_CHARS_MAX)?;
        if new.input.trim().is_empty() {
            return Err(Fault::invalid("input", "there is nothing to do"));
        }
        if let Some(thread) = &new.thread {
            too_long("thread", thread, text::THREAD_CHARS_MAX)?;
            if thread.is_empty() || thread.chars().any(char::is_control) {
                let text = "must have 1 to 100 characters and no control characters";
                return Err(Fault::invalid("thread", text));
            }
        }
        if let Some(key) = &new.idempotency_key {
            too_long("idempotency_key", key, KEY_CHARS_MAX)?;
        }
        let wall = new.wall.unwrap_or(options.wall);
        if wall.is_zero() || wall > options.wall_max {
            let max = options.wall_max.as_secs();
            let text = format!("must be more than 0 and at most {max} s");
            return Err(Fault::invalid("timeout", text));
        }
        if let RunWork::Prompt { agent, .. } = &new.work {
            self.inner.sessions.knows(agent)?;
        }
        for name in new.setup.secrets.values() {
            // One that is missing is told now and not once the sandbox is there.
            self.inner.engine.secret_fetch(principal, name).await?;
        }
        if let Some(policy) = &new.setup.artifacts {
            artifact::validate(policy)?;
            self.inner.files()?;
            if !new.track {
                let text = "a run that is not recorded leaves no artifacts";
                return Err(Fault::invalid("artifacts", text));
            }
        }
        if let Some(sandbox) = &new.sandbox {
            self.inner.engine.sandbox_fetch(principal, sandbox).await?;
        }
        let (id, now) = (RunId::generate(), Timestamp::now());
        Ok(Run {
            thread: new.thread.unwrap_or_else(|| id.to_string()),
            id,
            workspace: principal.workspace.clone(),
            created_by: principal.user.clone(),
            work: match new.work {
                RunWork::Prompt { agent, model } => Work::Prompt { agent, model },
                RunWork::Command => Work::Command,
            },
            input: Some(text::truncate(&new.input, text::INPUT_CHARS_MAX)),
            input_hash: sha256(&new.input),
            template: new.template,
            sandbox: new.sandbox,
            made_sandbox: false,
            session: None,
            process: None,
            state: RunState::Booting(Boot::Queued),
            held_for: Duration::ZERO,
            priority: new.priority,
            limits: RunLimits {
                wall,
                idle: new.idle,
                tokens: new.tokens,
                cost: new.cost,
            },
            setup: new.setup,
            metadata: new.metadata,
            idempotency_key: new.idempotency_key,
            generation: 1,
            created_at: now,
            heartbeat_at: now,
            tokens: Tokens::default(),
            cost: Cost::default(),
            position: RunPosition::default(),
            last_event: 0,
            stats: RunStats::default(),
            result: None,
            result_hash: None,
            trace_id: Some(trace_id()?),
        })
    }

    fn view(&self, run: Run, tracked: bool) -> RunView {
        let place = self.inner.waiting().queue.place(&run.id);
        RunView {
            run,
            place,
            tracked,
        }
    }

    /// One run of the workspace. `RunNotFound` if it is another's, or an untracked one that was
    /// forgotten.
    pub async fn show(&self, principal: &Principal, id: &RunId) -> Result<RunView, Fault> {
        let (run, tracked) = self.fetch(id).await?;
        if run.workspace != principal.workspace {
            return Err(not_found(id.as_str()));
        }
        Ok(self.view(run, tracked))
    }

    async fn fetch(&self, id: &RunId) -> Result<(Run, bool), Fault> {
        if let Some(run) = self.inner.memory.run_fetch(id).await.map_err(fault)? {
            return Ok((run, false));
        }
        let run = self.inner.store.run_fetch(id).await.map_err(fault)?;
        run.map(|run| (run, true))
            .ok_or_else(|| not_found(id.as_str()))
    }

    /// The workspace's tracked runs that match, newest first.
    pub async fn list(
        &self,
        principal: &Principal,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<Page<RunView>, Fault> {
        let listed = self
            .inner
            .store
            .run_list(&principal.workspace, filter, page);
        let listed = listed.await.map_err(fault)?;
        Ok(listed.map(|run| self.view(run, true)))
    }

    /// The run that a trace is of.
    pub async fn by_trace(&self, principal: &Principal, trace: &str) -> Result<RunView, Fault> {
        let store = &self.inner.store;
        let found = store.run_by_trace(&principal.workspace, trace).await;
        let run = found.map_err(fault)?.ok_or_else(|| not_found(trace))?;
        Ok(self.view(run, true))
    }

    /// Entries of its log after a place.
    pub async fn events(
        &self,
        view: &RunView,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<RunEvent>, Fault> {
        let ledger = self.inner.ledger(view.tracked);
        let read = ledger.store.run_events(&view.run.id, after, limit, bytes);
        read.await.map_err(fault)
    }

    /// Reads its log from after a place, and then what comes, to the end.
    pub fn follow(&self, view: &RunView, after: u64) -> RunReader {
        let ledger = self.inner.ledger(view.tracked);
        let owner = self.inner.owners().get(&view.run.id).cloned();
        // Of one that nobody carries out nothing comes: the other end is dropped here.
        let last = owner.map_or_else(|| watch::channel(0).1, |owner| owner.last);
        RunReader::new(ledger, view.run.id.clone(), after, last)
    }

    /// Waits until it is over.
    pub async fn wait(&self, principal: &Principal, id: &RunId) -> Result<RunView, Fault> {
        let view = self.show(principal, id).await?;
        if !view.run.state.is_terminal() {
            let owner = self.inner.owners().get(id).cloned();
            if let Some(mut owner) = owner {
                while owner.last.changed().await.is_ok() {}
            }
        }
        self.show(principal, id).await
    }

    /// Ends a run at any moment: its creator may, and admins. One that is over stays as it is.
    pub async fn cancel(
        &self,
        principal: &Principal,
        id: &RunId,
        reason: &str,
    ) -> Result<Canceled, Fault> {
        let view = self.show(principal, id).await?;
        if view.run.created_by != principal.user && principal.role < Role::Admin {
            let text = "Unauthorized: only its creator, admins and owners can cancel a run";
            return Err(Fault::new(Code::PermissionDenied, text));
        }
        if view.run.state.is_terminal() {
            return Ok(over(view.run));
        }
        let by = Some(principal.user.clone());
        let outcome = Outcome::Canceled {
            by,
            reason: text::truncate(reason, text::ERROR_CHARS_MAX),
        };
        let owner = self.inner.owners().get(id).cloned();
        if let Some(owner) = owner {
            let (reply, done) = oneshot::channel();
            let command = owner::Command::Cancel {
                outcome: outcome.clone(),
                reply,
            };
            if owner.commands.send(command).await.is_ok()
                && let Ok(canceled) = done.await
            {
                let run = self.show(principal, id).await?.run;
                return Ok(match canceled {
                    true => canceled_now(run),
                    false => over(run),
                });
            }
        }
        // Nobody here carries it out: whoever does finds it changed, and stops.
        let (run, tracked) = self.fetch(id).await?;
        let Ok(next) = step(&run, Step::End(outcome), Timestamp::now()) else {
            return Ok(over(run));
        };
        let mut write = RunWrite::of(&run);
        write.events = owner::end_events(&next);
        write.record = Some(next);
        match self.inner.ledger(tracked).store.run_write(write).await {
            Ok(_) => Ok(canceled_now(self.show(principal, id).await?.run)),
            Err(StoreError::Conflict { .. }) => {
                let text = "the run was changed at the same time; try again";
                Err(Fault::new(Code::Transitioning, text))
            }
            Err(error) => Err(fault(error)),
        }
    }
}

fn canceled_now(run: Run) -> Canceled {
    Canceled {
        canceled: true,
        message: None,
        run,
    }
}

fn over(run: Run) -> Canceled {
    let state = run.state.as_str();
    Canceled {
        canceled: false,
        message: Some(format!("Run already in terminal state '{state}'")),
        run,
    }
}

/// The run that a key was used for, if it was asked for the same.
fn known_run(asked: &Run, known: Run) -> Result<Run, Fault> {
    if asked.input_hash == known.input_hash && asked.work == known.work {
        return Ok(known);
    }
    Err(Fault::new(
        Code::IdempotencyMismatch,
        "the idempotency key was used for another run",
    ))
}

impl Inner {
    pub(crate) fn ledger(&self, tracked: bool) -> Ledger {
        let store = match tracked {
            true => Arc::clone(&self.store) as Arc<dyn woodfrog_store::RunStore>,
            false => Arc::clone(&self.memory) as Arc<dyn woodfrog_store::RunStore>,
        };
        Ledger { store, tracked }
    }

    pub(crate) fn owners(&self) -> MutexGuard<'_, HashMap<RunId, Handle>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a run its owner, which waits for its turn if the run has not begun.
    pub(crate) fn engage(
        self: &Arc<Self>,
        run: Run,
        input: Option<String>,
        ledger: Ledger,
        at_once: Option<u32>,
    ) {
        let (commands, heard) = mpsc::channel(COMMANDS_MAX);
        let (tell, last) = watch::channel(run.last_event);
        let id = run.id.clone();
        let turn = self.wait_for_turn(&run, at_once);
        self.owners().insert(id.clone(), Handle { commands, last });
        let owner = Owner::new(Arc::clone(self), run, input, ledger, heard, tell);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let (workspace, tracked) = (owner.workspace().clone(), owner.is_tracked());
            owner.carry_out(turn).await;
            inner.owners().remove(&id);
            inner.leave(&id, &workspace);
            if !tracked {
                inner.forget_untracked(id).await;
            }
        });
        self.pump();
    }

    /// Resolves when the run may begin. One that has begun is counted and does not wait.
    fn wait_for_turn(&self, run: &Run, at_once: Option<u32>) -> oneshot::Receiver<()> {
        let (turn, come) = oneshot::channel();
        let mut waiting = self.waiting();
        if matches!(run.state, RunState::Booting(Boot::Queued)) {
            waiting
                .queue
                .push(run.id.clone(), run.priority, run.created_at);
            let entry = (run.workspace.clone(), at_once, turn);
            waiting.turns.insert(run.id.clone(), entry);
        } else {
            *waiting.busy.entry(run.workspace.clone()).or_default() += 1;
            waiting.total += 1;
            let _told = turn.send(());
        }
        come
    }

    /// Lets those begin for whom there is room.
    fn pump(&self) {
        let mut waiting = self.waiting();
        let waiting = &mut *waiting;
        while waiting.total < self.options.at_once {
            let (turns, busy) = (&waiting.turns, &waiting.busy);
            let next = waiting.queue.pop(|id| match turns.get(id) {
                Some((workspace, Some(max), _)) => {
                    busy.get(workspace).is_none_or(|busy| *busy < *max as usize)
                }
                Some((_, None, _)) | None => true,
            });
            let Some(id) = next else { return };
            let Some((workspace, _, turn)) = waiting.turns.remove(&id) else {
                continue;
            };
            if turn.send(()).is_ok() {
                *waiting.busy.entry(workspace).or_default() += 1;
                waiting.total += 1;
            }
        }
    }

    /// A run is over, or gave up waiting.
    fn leave(&self, id: &RunId, workspace: &WorkspaceId) {
        {
            let mut waiting = self.waiting();
            let waited = waiting.queue.remove(id);
            waiting.turns.remove(id);
            if !waited && let Some(busy) = waiting.busy.get_mut(workspace) {
                *busy = busy.saturating_sub(1);
                if *busy == 0 {
                    waiting.busy.remove(workspace);
                }
                waiting.total = waiting.total.saturating_sub(1);
            }
        }
        self.pump();
        self.room.notify_waiters();
    }

    async fn forget_untracked(&self, id: RunId) {
        let oldest = {
            let mut kept = self
                .untracked
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            kept.push_back(id);
            match kept.len() > self.options.untracked_kept {
                true => kept.pop_front(),
                false => None,
            }
        };
        if let Some(oldest) = oldest {
            // Memory does not fail.
            let _ = self.memory.run_remove(&oldest).await;
        }
    }
}

/// A failed call of the store, as callers may see it.
pub(crate) fn fault(error: StoreError) -> Fault {
    match error {
        StoreError::InvalidCursor => Fault::invalid("cursor", "not a cursor of this list"),
        StoreError::NotFound { .. } => not_found("it"),
        StoreError::Conflict { .. } | StoreError::Fenced { .. } => Fault::new(
            Code::Transitioning,
            "the run was changed at the same time; try again",
        ),
        error @ (StoreError::Constraint { .. } | StoreError::Corrupt { .. }) => {
            Fault::internal(error)
        }
        error @ StoreError::Unavailable(_) => {
            Fault::new(Code::Unavailable, "the store is out of reach").because(error)
        }
    }
}

pub(crate) fn not_found(id: &str) -> Fault {
    let shown: String = id.chars().take(64).collect();
    Fault::new(
        Code::RunNotFound,
        format!("run `{shown}` does not exist, or belongs to another workspace"),
    )
}

pub(crate) fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// 32 hexadecimal digits that are no other run's.
fn trace_id() -> Result<String, Fault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Fault::internal(error.to_string()))?;
    Ok(hex::encode(bytes))
}
