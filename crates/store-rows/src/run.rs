//! The stored form of a run, its log, its part of the books, and its files.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::Timestamp;
use woodfrog_types::artifact::{Artifact, ArtifactKind, Review, ReviewState};
use woodfrog_types::run::{
    ArtifactPolicy, AtEnd, Boot, ErrorCategory, Held, NewRunEvent, Outcome, Run, RunError,
    RunEvent, RunEventKind, RunLimits, RunPosition, RunSetup, RunState, RunStats, Work,
};
use woodfrog_types::usage::{Cost, Quantity, Rung, Tokens, UsageEntry, UsageTotals};
use woodfrog_types::workspace::UserId;

use crate::{
    Columns, StringMap, corrupt, count_column, duration_to_millis, get, id_column, json_column,
    parse, time_column, time_column_opt, to_json,
};

const RUN: &str = "run";
const EVENT: &str = "run event";
const USAGE: &str = "usage entry";
const ARTIFACT: &str = "artifact";

/// What is not in a column of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum Body {
    #[serde(rename = "1")]
    V1(Box<BodyV1>),
}

#[derive(Debug, Serialize, Deserialize)]
struct BodyV1 {
    work: StoredWork,
    input_hash: String,
    template: String,
    made_sandbox: bool,
    session: Option<String>,
    process: Option<u64>,
    state: StoredState,
    held_for_ms: u64,
    priority: i32,
    limits: StoredLimits,
    setup: StoredSetup,
    metadata: StringMap,
    stats: StoredStats,
    result_hash: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredWork {
    Prompt {
        agent: String,
        model: Option<String>,
    },
    Command,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredState {
    Queued,
    Starting {
        since: i64,
    },
    Running {
        since: i64,
        held: Option<StoredHeld>,
    },
    Ended {
        since: Option<i64>,
        at: i64,
        outcome: StoredOutcome,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredHeld {
    since: i64,
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredOutcome {
    Succeeded,
    Failed {
        category: String,
        code: String,
        message: String,
        details: Option<String>,
    },
    Canceled {
        by: Option<String>,
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLimits {
    wall_ms: u64,
    idle_ms: Option<u64>,
    tokens: Option<u64>,
    cost: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSetup {
    env: StringMap,
    secrets: StringMap,
    cwd: Option<String>,
    at_end: String,
    share_sandbox: bool,
    artifacts: Option<StoredPolicy>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPolicy {
    /// Forms before `paths` had one folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(default)]
    paths: Vec<String>,
    exclude: Vec<String>,
    #[serde(default = "ten_mebibytes")]
    max_bytes: u64,
    #[serde(default = "fifty")]
    max_files: u32,
}

/// What held when it was not written down.
const fn ten_mebibytes() -> u64 {
    10 << 20
}

const fn fifty() -> u32 {
    50
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredStats {
    tool_calls: u64,
    turns: u64,
    files_created: u64,
    files_modified: u64,
}

/// The text of the `body` column.
pub fn run_to_json(run: &Run) -> Result<String> {
    let RunSetup {
        env,
        secrets,
        cwd,
        at_end,
        share_sandbox,
        artifacts,
    } = &run.setup;
    let body = Body::V1(Box::new(BodyV1 {
        work: match &run.work {
            Work::Command => StoredWork::Command,
            Work::Prompt { agent, model } => StoredWork::Prompt {
                agent: agent.clone(),
                model: model.clone(),
            },
        },
        input_hash: run.input_hash.clone(),
        template: run.template.clone(),
        made_sandbox: run.made_sandbox,
        session: run.session.as_ref().map(ToString::to_string),
        process: run.process,
        state: stored_state(&run.state),
        held_for_ms: duration_to_millis(run.held_for),
        priority: run.priority,
        limits: StoredLimits {
            wall_ms: duration_to_millis(run.limits.wall),
            idle_ms: run.limits.idle.map(duration_to_millis),
            tokens: run.limits.tokens,
            cost: run.limits.cost,
        },
        setup: StoredSetup {
            env: env.clone(),
            secrets: secrets.clone(),
            cwd: cwd.clone(),
            at_end: at_end.as_str().to_owned(),
            share_sandbox: *share_sandbox,
            artifacts: artifacts.as_ref().map(|policy| StoredPolicy {
                root: None,
                paths: policy.paths.clone(),
                exclude: policy.exclude.clone(),
                max_bytes: policy.max_bytes,
                max_files: policy.max_files,
            }),
        },
        metadata: run.metadata.clone(),
        stats: StoredStats {
            tool_calls: run.stats.tool_calls,
            turns: run.stats.turns,
            files_created: run.stats.files_created,
            files_modified: run.stats.files_modified,
        },
        result_hash: run.result_hash.clone(),
    }));
    to_json(RUN, &body)
}

/// When the run ended, if it has: a column of its own.
pub fn run_ended_at(run: &Run) -> Option<i64> {
    match &run.state {
        RunState::Ended { at, .. } => Some(at.as_millis()),
        RunState::Booting(_) | RunState::Running { .. } => None,
    }
}

fn stored_state(state: &RunState) -> StoredState {
    match state {
        RunState::Booting(Boot::Queued) => StoredState::Queued,
        RunState::Booting(Boot::Starting { since }) => StoredState::Starting {
            since: since.as_millis(),
        },
        RunState::Running { since, held } => StoredState::Running {
            since: since.as_millis(),
            held: held.as_ref().map(|held| StoredHeld {
                since: held.since.as_millis(),
                reason: held.reason.clone(),
            }),
        },
        RunState::Ended { since, at, outcome } => StoredState::Ended {
            since: since.map(Timestamp::as_millis),
            at: at.as_millis(),
            outcome: match outcome {
                Outcome::Succeeded => StoredOutcome::Succeeded,
                Outcome::Failed(error) => StoredOutcome::Failed {
                    category: error.category.as_str().to_owned(),
                    code: error.code.clone(),
                    message: error.message.clone(),
                    details: error.details.clone(),
                },
                Outcome::Canceled { by, reason } => StoredOutcome::Canceled {
                    by: by.as_ref().map(ToString::to_string),
                    reason: reason.clone(),
                },
            },
        },
    }
}

fn state(stored: StoredState) -> Result<RunState> {
    let time = Timestamp::from_millis;
    Ok(match stored {
        StoredState::Queued => RunState::Booting(Boot::Queued),
        StoredState::Starting { since } => {
            let since = time(since);
            RunState::Booting(Boot::Starting { since })
        }
        StoredState::Running { since, held } => RunState::Running {
            since: time(since),
            held: held.map(|held| Held {
                since: time(held.since),
                reason: held.reason,
            }),
        },
        StoredState::Ended { since, at, outcome } => RunState::Ended {
            since: since.map(time),
            at: time(at),
            outcome: match outcome {
                StoredOutcome::Succeeded => Outcome::Succeeded,
                StoredOutcome::Failed {
                    category,
                    code,
                    message,
                    details,
                } => Outcome::Failed(RunError {
                    category: named(RUN, &category, ErrorCategory::ALL, |one| one.as_str())?,
                    code,
                    message,
                    details,
                }),
                StoredOutcome::Canceled { by, reason } => Outcome::Canceled {
                    by: by.map(|by| user(RUN, &by)).transpose()?,
                    reason,
                },
            },
        },
    })
}

fn named<T: Copy, const N: usize>(
    what: &'static str,
    name: &str,
    all: [T; N],
    name_of: fn(&T) -> &'static str,
) -> Result<T> {
    let found = all.into_iter().find(|one| name_of(one) == name);
    found.ok_or_else(|| corrupt(what, format!("unknown name `{name}`")))
}

fn user(what: &'static str, name: &str) -> Result<UserId> {
    UserId::parse(name).ok_or_else(|| corrupt(what, "a user without a name"))
}

fn user_column(row: &dyn Columns, what: &'static str, column: &str) -> Result<UserId> {
    let name: String = get(row, what, column)?;
    user(what, &name)
}

/// A run from all columns of its row and of where its log stands.
pub fn run_from_row(row: &dyn Columns) -> Result<Run> {
    let Body::V1(body) = json_column(row, RUN, "body")?;
    let sandbox: Option<String> = get(row, RUN, "sandbox")?;
    let setup = body.setup;
    Ok(Run {
        id: id_column(row, RUN, "id")?,
        workspace: id_column(row, RUN, "workspace")?,
        thread: get(row, RUN, "thread")?,
        created_by: user_column(row, RUN, "created_by")?,
        work: match body.work {
            StoredWork::Command => Work::Command,
            StoredWork::Prompt { agent, model } => Work::Prompt { agent, model },
        },
        input: get(row, RUN, "input")?,
        input_hash: body.input_hash,
        template: body.template,
        sandbox: sandbox.map(|id| parse(RUN, &id)).transpose()?,
        made_sandbox: body.made_sandbox,
        session: body.session.map(|id| parse(RUN, &id)).transpose()?,
        process: body.process,
        state: state(body.state)?,
        held_for: Duration::from_millis(body.held_for_ms),
        priority: body.priority,
        limits: RunLimits {
            wall: Duration::from_millis(body.limits.wall_ms),
            idle: body.limits.idle_ms.map(Duration::from_millis),
            tokens: body.limits.tokens,
            cost: body.limits.cost,
        },
        setup: RunSetup {
            env: setup.env,
            secrets: setup.secrets,
            cwd: setup.cwd,
            at_end: named(RUN, &setup.at_end, AtEnd::ALL, |one| one.as_str())?,
            share_sandbox: setup.share_sandbox,
            artifacts: setup.artifacts.map(|policy| ArtifactPolicy {
                paths: policy.root.into_iter().chain(policy.paths).collect(),
                exclude: policy.exclude,
                max_bytes: policy.max_bytes,
                max_files: policy.max_files,
            }),
        },
        metadata: body.metadata,
        idempotency_key: get(row, RUN, "idempotency_key")?,
        generation: count_column(row, RUN, "generation")?,
        created_at: time_column(row, RUN, "created_at")?,
        heartbeat_at: time_column(row, RUN, "heartbeat_at")?,
        tokens: tokens(row, RUN)?,
        cost: cost(row, RUN)?,
        position: RunPosition {
            stdout: count_column(row, RUN, "at_stdout")?,
            stderr: count_column(row, RUN, "at_stderr")?,
            log: count_column(row, RUN, "at_log")?,
        },
        last_event: count_column(row, RUN, "last_event")?,
        stats: RunStats {
            tool_calls: body.stats.tool_calls,
            turns: body.stats.turns,
            files_created: body.stats.files_created,
            files_modified: body.stats.files_modified,
        },
        result: get(row, RUN, "result")?,
        result_hash: body.result_hash,
        trace_id: get(row, RUN, "trace_id")?,
    })
}

/// The columns `input_tokens` and its like.
pub fn tokens(row: &dyn Columns, what: &'static str) -> Result<Tokens> {
    Ok(Tokens {
        input: count_column(row, what, "input_tokens")?,
        output: count_column(row, what, "output_tokens")?,
        cache_read: count_column(row, what, "cache_read_tokens")?,
        cache_write: count_column(row, what, "cache_write_tokens")?,
    })
}

/// The columns `model_cost` and its like.
pub fn cost(row: &dyn Columns, what: &'static str) -> Result<Cost> {
    Ok(Cost {
        model: count_column(row, what, "model_cost")?,
        compute: count_column(row, what, "compute_cost")?,
        unpriced: get(row, what, "unpriced")?,
    })
}

pub fn run_event_from_row(row: &dyn Columns) -> Result<RunEvent> {
    let kind: String = get(row, EVENT, "kind")?;
    Ok(RunEvent {
        run: id_column(row, EVENT, "run")?,
        sequence: count_column(row, EVENT, "seq")?,
        event: NewRunEvent {
            at: time_column(row, EVENT, "at")?,
            kind: named(EVENT, &kind, RunEventKind::ALL, |one| one.as_str())?,
            data: get(row, EVENT, "data")?,
        },
    })
}

/// What an entry's quantity is in columns.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsageColumns<'a> {
    /// `None` for compute.
    pub model: Option<&'a str>,
    /// `None` for tokens.
    pub rung: Option<&'static str>,
    pub tokens: Tokens,
    pub cpu_millis_ms: u64,
    pub memory_mib_ms: u64,
    pub disk_mib_ms: u64,
}

/// The columns of a quantity.
pub fn usage_columns(quantity: &Quantity) -> UsageColumns<'_> {
    match quantity {
        Quantity::Tokens { model, tokens } => UsageColumns {
            model: Some(model),
            tokens: *tokens,
            ..UsageColumns::default()
        },
        Quantity::Compute {
            rung,
            cpu_millis_ms,
            memory_mib_ms,
            disk_mib_ms,
        } => UsageColumns {
            rung: Some(rung.as_str()),
            cpu_millis_ms: *cpu_millis_ms,
            memory_mib_ms: *memory_mib_ms,
            disk_mib_ms: *disk_mib_ms,
            ..UsageColumns::default()
        },
    }
}

pub fn usage_from_row(row: &dyn Columns) -> Result<UsageEntry> {
    let (model, rung): (Option<String>, Option<String>) =
        (get(row, USAGE, "model")?, get(row, USAGE, "rung")?);
    let quantity = match (model, rung) {
        (Some(model), None) => Quantity::Tokens {
            model,
            tokens: tokens(row, USAGE)?,
        },
        (None, Some(rung)) => Quantity::Compute {
            rung: named(USAGE, &rung, Rung::ALL, |one| one.as_str())?,
            cpu_millis_ms: count_column(row, USAGE, "cpu_millis_ms")?,
            memory_mib_ms: count_column(row, USAGE, "memory_mib_ms")?,
            disk_mib_ms: count_column(row, USAGE, "disk_mib_ms")?,
        },
        _ => return Err(corrupt(USAGE, "it has a model and a rung, or neither")),
    };
    let run: Option<String> = get(row, USAGE, "run")?;
    let sandbox: Option<String> = get(row, USAGE, "sandbox")?;
    Ok(UsageEntry {
        key: get(row, USAGE, "key")?,
        workspace: id_column(row, USAGE, "workspace")?,
        user: user_column(row, USAGE, "created_by")?,
        run: run.map(|id| parse(USAGE, &id)).transpose()?,
        thread: get(row, USAGE, "thread")?,
        agent: get(row, USAGE, "agent")?,
        sandbox: sandbox.map(|id| parse(USAGE, &id)).transpose()?,
        at: time_column(row, USAGE, "at")?,
        quantity,
        cost: cost(row, USAGE)?,
        price_version: count_column(row, USAGE, "price_version")?,
    })
}

pub fn usage_totals_from_row(row: &dyn Columns) -> Result<UsageTotals> {
    Ok(UsageTotals {
        tokens: tokens(row, USAGE)?,
        cpu_millis_ms: count_column(row, USAGE, "cpu_millis_ms")?,
        memory_mib_ms: count_column(row, USAGE, "memory_mib_ms")?,
        disk_mib_ms: count_column(row, USAGE, "disk_mib_ms")?,
        cost: cost(row, USAGE)?,
        entries: count_column(row, USAGE, "entries")?,
    })
}

pub fn artifact_from_row(row: &dyn Columns) -> Result<Artifact> {
    let (kind, state): (String, String) =
        (get(row, ARTIFACT, "kind")?, get(row, ARTIFACT, "state")?);
    let by: Option<String> = get(row, ARTIFACT, "reviewed_by")?;
    let review = match (by, time_column_opt(row, ARTIFACT, "reviewed_at")?) {
        (Some(by), Some(at)) => Some(Review {
            state: named(ARTIFACT, &state, ReviewState::ALL, |one| one.as_str())?,
            by: user(ARTIFACT, &by)?,
            at,
        }),
        _ => None,
    };
    Ok(Artifact {
        id: id_column(row, ARTIFACT, "id")?,
        workspace: id_column(row, ARTIFACT, "workspace")?,
        run: id_column(row, ARTIFACT, "run")?,
        thread: get(row, ARTIFACT, "thread")?,
        kind: named(ARTIFACT, &kind, ArtifactKind::ALL, |one| one.as_str())?,
        title: get(row, ARTIFACT, "title")?,
        path: get(row, ARTIFACT, "path")?,
        content_type: get(row, ARTIFACT, "content_type")?,
        size: count_column(row, ARTIFACT, "size")?,
        digest: get(row, ARTIFACT, "digest")?,
        review,
        created_at: time_column(row, ARTIFACT, "created_at")?,
    })
}
