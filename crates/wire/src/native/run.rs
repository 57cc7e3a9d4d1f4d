//! Runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::run as domain;
use woodfrog_types::run::{Outcome, RunState};

use super::artifact::NewArtifactPolicy;

/// A run to be started: a prompt to an agent, or a command.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// What to tell the agent: at most 100,000 characters. Either this or `command`.
    #[serde(default)]
    pub prompt: Option<String>,
    /// What to run, by `/bin/sh -c`. Lines that are events are read as events.
    #[serde(default)]
    pub command: Option<String>,
    /// `mock`, `claude`, `opencode`, …; with `prompt`.
    #[serde(default)]
    pub agent: Option<String>,
    /// Which model the agent is to use; its own default if absent.
    #[serde(default)]
    pub model: Option<String>,
    /// Runs of one thread share a session; a thread of its own if absent. At most 100 characters.
    #[serde(default)]
    pub thread: Option<String>,
    /// What its sandbox is made from; `base` if absent.
    #[serde(default)]
    pub template: Option<String>,
    /// A sandbox to run in; one is made for the run if absent.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// Whether runs of the thread share one sandbox, which stays.
    #[serde(default)]
    pub share_sandbox: bool,
    /// What becomes of the sandbox that was made for the run; `remove` if absent.
    #[serde(default)]
    pub at_end: AtEnd,
    /// Environment of the process.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// More of it: the name of a variable to the name of a secret of the workspace. Values are in
    /// no record and no log.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Where it works; the template's directory if absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Seconds that it may work; 120 if absent.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// Seconds without a sign of life of its process; no limit if absent. Silence is not death.
    #[serde(default)]
    pub idle_timeout: Option<u64>,
    /// Tokens of all kinds that it may use.
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// Micro-dollars that it may cost.
    #[serde(default)]
    pub max_cost: Option<u64>,
    /// −100 to 100; higher goes first, and waiting counts. 0 if absent.
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The same key gives the same run: at most 255 characters.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// Which of the files that it creates or changes are kept; none if absent.
    #[serde(default)]
    pub artifacts: Option<NewArtifactPolicy>,
    /// Whether it is recorded; `true` if absent. One that is not is carried out in the same way,
    /// and known for a while only.
    #[serde(default = "yes")]
    pub track: bool,
    /// Answer once it is over, and not at once.
    #[serde(default)]
    pub wait: bool,
}

const fn yes() -> bool {
    true
}

/// What becomes of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    #[default]
    Remove,
    /// It sleeps, its processes intact.
    Pause,
    Keep,
}

impl From<AtEnd> for domain::AtEnd {
    fn from(at_end: AtEnd) -> Self {
        match at_end {
            AtEnd::Remove => Self::Remove,
            AtEnd::Pause => Self::Pause,
            AtEnd::Keep => Self::Keep,
        }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    pub id: String,
    pub thread: String,
    pub created_by: String,
    /// `prompt` or `command`.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// `booting`, `running`, `succeeded`, `failed` or `canceled`.
    pub status: String,
    /// Its place among those that wait, from 1; absent once its turn has come.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queue_place: Option<usize>,
    /// Why it is on hold, its sandbox asleep; absent while it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<String>,
    /// The prompt or the command: its first 50,000 characters. Absent once retention removed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prompt: Option<String>,
    /// SHA-256 of the whole of it.
    pub prompt_hash: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sandbox: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    pub template: String,
    pub created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<i64>,
    /// The last sign of life of its process.
    pub last_activity_at: i64,
    /// How long it worked; time on hold does not count.
    pub duration_ms: u64,
    /// Milliseconds.
    pub max_duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub idle_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<RunError>,
    pub tokens: RunTokens,
    pub cost: RunCost,
    pub stats: RunStats,
    /// Its first 10,000 characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metadata: BTreeMap<String, String>,
    pub priority: i32,
    /// The place of the last event of its log.
    pub last_event: u64,
    pub tracked: bool,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    /// `timeout`, `api_error`, `tool_error`, `sandbox_error` or `unknown`.
    pub category: String,
    /// Stable: `timeout`, `idle_timeout`, `exit_status`, `stuck_booting`, …
    pub code: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub details: Option<String>,
}

/// Tokens by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunTokens {
    /// Without the cached ones.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
}

/// Micro-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunCost {
    pub model: u64,
    pub compute: u64,
    pub total: u64,
    /// Tokens were used of a model that has no price: it cost more than this.
    pub unpriced: bool,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunStats {
    pub tool_calls: u64,
    pub turns: u64,
    pub files_created: u64,
    pub files_modified: u64,
}

/// What a run is at a moment, beside its record.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub place: Option<usize>,
    pub duration_ms: u64,
    pub tracked: bool,
}

impl Run {
    /// As this API shows it.
    pub fn new(run: domain::Run, moment: Moment) -> Self {
        let (started, finished, outcome) = match &run.state {
            RunState::Booting(_) => (None, None, None),
            RunState::Running { since, .. } => (Some(since.as_millis()), None, None),
            RunState::Ended { since, at, outcome } => (
                since.map(|at| at.as_millis()),
                Some(at.as_millis()),
                Some(outcome),
            ),
        };
        let error = match outcome {
            Some(Outcome::Failed(error)) => Some(RunError {
                category: error.category.as_str().to_owned(),
                code: error.code.clone(),
                message: error.message.clone(),
                details: error.details.clone(),
            }),
            Some(Outcome::Canceled { reason, .. }) => Some(RunError {
                category: "unknown".to_owned(),
                code: "canceled".to_owned(),
                message: reason.clone(),
                details: None,
            }),
            Some(Outcome::Succeeded) | None => None,
        };
        let held = match &run.state {
            RunState::Running {
                held: Some(held), ..
            } => Some(held.reason.clone()),
            _ => None,
        };
        let millis =
            |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let model = match &run.work {
            domain::Work::Prompt { model, .. } => model.clone(),
            domain::Work::Command => None,
        };
        Self {
            id: run.id.to_string(),
            kind: run.work.as_str().to_owned(),
            agent: run.work.agent().map(str::to_owned),
            model,
            status: run.state.as_str().to_owned(),
            thread: run.thread,
            created_by: run.created_by.to_string(),
            queue_place: moment.place,
            held,
            prompt: run.input,
            prompt_hash: run.input_hash,
            sandbox: run.sandbox.map(|id| id.to_string()),
            session: run.session.map(|id| id.to_string()),
            template: run.template,
            created_at: run.created_at.as_millis(),
            started_at: started,
            finished_at: finished,
            last_activity_at: run.heartbeat_at.as_millis(),
            duration_ms: moment.duration_ms,
            max_duration_ms: millis(run.limits.wall),
            idle_timeout_ms: run.limits.idle.map(millis),
            error,
            tokens: RunTokens {
                input: run.tokens.input,
                output: run.tokens.output,
                cache_read: run.tokens.cache_read,
                cache_write: run.tokens.cache_write,
            },
            cost: RunCost {
                model: run.cost.model,
                compute: run.cost.compute,
                total: run.cost.total(),
                unpriced: run.cost.unpriced,
            },
            stats: RunStats {
                tool_calls: run.stats.tool_calls,
                turns: run.stats.turns,
                files_created: run.stats.files_created,
                files_modified: run.stats.files_modified,
            },
            result: run.result,
            result_hash: run.result_hash,
            trace_id: run.trace_id,
            metadata: run.metadata,
            priority: run.priority,
            last_event: run.last_event,
            tracked: moment.tracked,
        }
    }
}

/// One entry of a run's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunEvent {
    /// Its place: dense, from 1.
    pub id: u64,
    pub at: i64,
    /// `start`, `text`, `thinking`, `tool_use`, `tool_result`, `error`, `result`, `complete`,
    /// `raw`, `status` or `usage`.
    #[serde(rename = "type")]
    pub kind: String,
    pub data: Value,
}

impl From<domain::RunEvent> for RunEvent {
    fn from(event: domain::RunEvent) -> Self {
        Self {
            id: event.sequence,
            at: event.event.at.as_millis(),
            kind: event.event.kind.as_str().to_owned(),
            data: serde_json::from_str(&event.event.data).unwrap_or_default(),
        }
    }
}

/// A piece of a run's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunEvents {
    pub items: Vec<RunEvent>,
    /// The place of the last entry there is.
    pub last: u64,
    /// Whether the run is over: once `items` is empty nothing more comes.
    pub over: bool,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunEventQuery {
    /// Only entries after this place; 0 if absent.
    pub after: Option<u64>,
    /// At most this many, 1 to 1000; 100 if absent.
    pub limit: Option<usize>,
}

/// From where a log is followed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunFollowQuery {
    /// Only entries after this place; 0 if absent.
    pub after: Option<u64>,
}

/// Which runs a list wants, and which page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    pub thread: Option<String>,
    pub created_by: Option<String>,
    pub status: Option<String>,
    pub sandbox: Option<String>,
    pub agent: Option<String>,
    /// The run that this trace is of.
    pub trace_id: Option<String>,
    /// Created at or after, milliseconds.
    pub from: Option<i64>,
    /// Created before, milliseconds.
    pub until: Option<i64>,
    /// Items of the page, 1 to 100; 100 if absent.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// Why a run is to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRun {
    #[serde(default)]
    pub reason: Option<String>,
}

/// What came of the wish to cancel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Canceled {
    /// Whether this call ended it.
    pub canceled: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    pub run: Run,
}
