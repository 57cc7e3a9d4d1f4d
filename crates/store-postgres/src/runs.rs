//! Runs and their logs. The books are in `usage`, files in `artifacts`.

mod artifacts;
mod usage;

pub(crate) use usage::book_for_runs;

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use woodfrog_store::cursor::List;
use woodfrog_store::{
    Admitted, Result, RunStore, RunWrite, RunWritten, StartRate, StoreError, Whose,
};
use woodfrog_store_rows::{
    Columns, cost, count_column, get, id_column, run_ended_at, run_event_from_row, run_from_row,
    run_to_json, time_column_opt, to_sql_int, tokens,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::run::{NewRunEvent, Run, RunEvent, RunFilter};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{RunId, SandboxId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, Cells, all, begin, change, commit, first, name_culprit, rows};
use crate::listing::Listing;
use crate::text::Text;

const WHAT: &str = "run";
const EVENT: &str = "run event";
const TABLE: &str = "runs JOIN run_logs ON run = id";

#[async_trait]
impl RunStore for PostgresStore {
    async fn run_insert(
        &self,
        run: &Run,
        events: Vec<NewRunEvent>,
        rates: Vec<StartRate>,
    ) -> Result<Admitted> {
        if run.generation != 1 {
            return Err(StoreError::Conflict { what: WHAT });
        }
        insert(&mut self.client().await?, run, &events, &rates).await
    }

    async fn run_write(&self, write: RunWrite) -> Result<RunWritten> {
        written(&mut self.client().await?, &write).await
    }

    async fn run_fetch(&self, id: &RunId) -> Result<Option<Run>> {
        let sql = "SELECT * FROM runs JOIN run_logs ON run = id WHERE id = $1";
        let client = self.client().await?;
        first(&client, WHAT, sql, &[&id.as_str()], run_from_row).await
    }

    async fn run_by_trace(&self, workspace: &WorkspaceId, trace: &str) -> Result<Option<Run>> {
        let sql = "SELECT * FROM runs JOIN run_logs ON run = id \
                   WHERE workspace = $1 AND trace_id = $2 LIMIT 1";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(trace)];
        first(&self.client().await?, WHAT, sql, &args, run_from_row).await
    }

    async fn run_list(
        &self,
        workspace: &WorkspaceId,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<Page<Run>> {
        let RunFilter {
            thread,
            created_by,
            state,
            sandbox,
            agent,
            from,
            until,
        } = filter;
        let mut list = Listing::new(WHAT, List::Runs, TABLE, "created_at", true)
            .text("workspace", workspace.as_str());
        let wanted = [
            ("thread", thread.as_deref()),
            ("created_by", created_by.as_ref().map(UserId::as_str)),
            ("state", state.as_deref()),
            ("sandbox", sandbox.as_ref().map(SandboxId::as_str)),
            ("agent", agent.as_deref()),
        ];
        for (column, value) in wanted {
            if let Some(value) = value {
                list = list.text(column, value);
            }
        }
        for (condition, value) in [("created_at >=", from), ("created_at <", until)] {
            if let Some(value) = value {
                list = list.with(condition, Box::new(value.as_millis()));
            }
        }
        let convert = |row: &dyn Columns| run_from_row(row).map(Some);
        list.page(&self.client().await?, page, convert, |last| {
            (last.created_at.as_millis(), last.id.to_string())
        })
        .await
    }

    async fn run_unfinished(&self) -> Result<Vec<Run>> {
        let sql = "SELECT * FROM runs JOIN run_logs ON run = id \
                   WHERE ended_at IS NULL ORDER BY created_at, id";
        let found = rows(&self.client().await?, WHAT, sql, &[]).await?;
        Ok(found
            .iter()
            .filter_map(|row| readable(&Cells(row)))
            .collect())
    }

    async fn run_starts(
        &self,
        run: &Run,
        whose: Whose,
        after: Timestamp,
    ) -> Result<(u64, Option<Timestamp>)> {
        starts(&self.client().await?, run, whose, after).await
    }

    async fn run_ended(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<RunId>> {
        let sql = "SELECT id FROM runs WHERE workspace = $1 AND ended_at IS NOT NULL \
                   AND ended_at < $2 ORDER BY ended_at, id LIMIT $3";
        let args: [Arg<'_>; 3] = [&workspace.as_str(), &before.as_millis(), &to_sql_int(limit)];
        let client = self.client().await?;
        all(&client, WHAT, sql, &args, |row| id_column(row, WHAT, "id")).await
    }

    async fn run_events(
        &self,
        id: &RunId,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<RunEvent>> {
        let sql = "SELECT * FROM run_events WHERE run = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let args: [Arg<'_>; 3] = [&id.as_str(), &to_sql_int(after), &to_sql_int(limit)];
        let mut found = all(&self.client().await?, EVENT, sql, &args, run_event_from_row).await?;
        let mut left = bytes;
        let fits = found.iter().enumerate().take_while(|(place, event)| {
            let size = event.event.data.len();
            let fits = *place == 0 || size <= left;
            left = left.saturating_sub(size);
            fits
        });
        let count = fits.count();
        found.truncate(count);
        Ok(found)
    }

    async fn run_forget(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let sql = "UPDATE runs SET input = NULL, result = NULL, generation = generation + 1 \
                   WHERE id IN (SELECT id FROM runs WHERE workspace = $1 AND ended_at IS NOT NULL \
                   AND input IS NOT NULL AND ended_at < $2 ORDER BY ended_at LIMIT $3) \
                   RETURNING id";
        let args: [Arg<'_>; 3] = [&workspace.as_str(), &before.as_millis(), &to_sql_int(limit)];
        let due: Vec<String> =
            all(&transaction, WHAT, sql, &args, |row| get(row, WHAT, "id")).await?;
        let sql = "DELETE FROM run_events WHERE run = ANY($1)";
        change(&transaction, EVENT, sql, &[&due]).await?;
        commit(transaction, WHAT).await?;
        Ok(u64::try_from(due.len()).unwrap_or(u64::MAX))
    }

    async fn run_remove(&self, id: &RunId) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        // First the row that every write of the run locks first.
        let sql = "DELETE FROM runs WHERE id = $1";
        let removed = change(&transaction, WHAT, sql, &[&id.as_str()]).await?;
        for sql in [
            "DELETE FROM run_events WHERE run = $1",
            "DELETE FROM run_logs WHERE run = $1",
            "DELETE FROM artifacts WHERE run = $1",
        ] {
            change(&transaction, WHAT, sql, &[&id.as_str()]).await?;
        }
        commit(transaction, WHAT).await?;
        Ok(removed > 0)
    }
}

/// A damaged record must not keep the others from being recovered.
fn readable(row: &dyn Columns) -> Option<Run> {
    run_from_row(row)
        .map_err(|error| name_culprit(row, error))
        .inspect_err(|error| tracing::error!(%error, "a run is left out"))
        .ok()
}

async fn starts(
    client: &impl GenericClient,
    run: &Run,
    whose: Whose,
    after: Timestamp,
) -> Result<(u64, Option<Timestamp>)> {
    let (sql, who) = match whose {
        Whose::User => (
            "SELECT count(*) AS n, min(created_at) AS oldest FROM runs \
             WHERE created_by = $1 AND created_at > $2",
            run.created_by.as_str(),
        ),
        Whose::Workspace => (
            "SELECT count(*) AS n, min(created_at) AS oldest FROM runs \
             WHERE workspace = $1 AND created_at > $2",
            run.workspace.as_str(),
        ),
    };
    let args: [Arg<'_>; 2] = [&Text(who), &after.as_millis()];
    let found = first(client, WHAT, sql, &args, |row| {
        let count = count_column(row, WHAT, "n")?;
        Ok((count, time_column_opt(row, WHAT, "oldest")?))
    })
    .await?;
    Ok(found.unwrap_or((0, None)))
}

/// Until the end of the transaction nobody else has the lock of that name.
async fn lock(client: &impl GenericClient, name: &str) -> Result<()> {
    let sql = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || $1, 0))";
    rows(client, WHAT, sql, &[&Text(name)]).await.map(drop)
}

async fn insert(
    client: &mut Client,
    run: &Run,
    events: &[NewRunEvent],
    rates: &[StartRate],
) -> Result<Admitted> {
    let transaction = begin(client, WHAT).await?;
    if let Some(key) = &run.idempotency_key {
        lock(&transaction, &format!(" run key {} {key}", run.workspace)).await?;
        let sql = "SELECT * FROM runs JOIN run_logs ON run = id \
                   WHERE workspace = $1 AND idempotency_key = $2";
        let args: [Arg<'_>; 2] = [&run.workspace.as_str(), &Text(key)];
        if let Some(known) = first(&transaction, WHAT, sql, &args, run_from_row).await? {
            return Ok(Admitted::Known(Box::new(known)));
        }
    }
    // Those who start for this user or in this workspace take turns: each sees the run of the one
    // before. All take the locks in the same order.
    let of = |whose| rates.iter().any(|rate| rate.whose == whose);
    if of(Whose::User) {
        lock(&transaction, &format!(" run user {}", run.created_by)).await?;
    }
    if of(Whose::Workspace) {
        lock(&transaction, &format!(" run workspace {}", run.workspace)).await?;
    }
    for rate in rates {
        let (count, oldest) = starts(&transaction, run, rate.whose, rate.after).await?;
        if count >= rate.max {
            let (rate, oldest) = (*rate, oldest.unwrap_or(run.created_at));
            return Ok(Admitted::RateLimited { rate, oldest });
        }
    }
    let sql = "INSERT INTO runs (id, workspace, thread, created_by, agent, sandbox, state, \
               trace_id, idempotency_key, generation, created_at, ended_at, input, result, body) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    write_row(&transaction, sql, run).await?;
    let sql = "INSERT INTO run_logs (run, heartbeat_at) VALUES ($1, $2)";
    let args: [Arg<'_>; 2] = [&run.id.as_str(), &run.created_at.as_millis()];
    change(&transaction, WHAT, sql, &args).await?;
    let nothing = usage::Booked::default();
    advance(&transaction, &RunWrite::of(run), events, &nothing).await?;
    commit(transaction, WHAT).await?;
    Ok(Admitted::New)
}

async fn write_row(client: &impl GenericClient, sql: &str, run: &Run) -> Result<()> {
    let body = run_to_json(run)?;
    let args: [Arg<'_>; 15] = [
        &run.id.as_str(),
        &run.workspace.as_str(),
        &Text(&run.thread),
        &Text(run.created_by.as_str()),
        &run.work.agent().map(Text),
        &run.sandbox.as_ref().map(SandboxId::as_str),
        &run.state.as_str(),
        &run.trace_id.as_deref().map(Text),
        &run.idempotency_key.as_deref().map(Text),
        &to_sql_int(run.generation),
        &run.created_at.as_millis(),
        &run_ended_at(run),
        &run.input.as_deref().map(Text),
        &run.result.as_deref().map(Text),
        &body,
    ];
    change(client, WHAT, sql, &args).await.map(drop)
}

async fn written(client: &mut Client, write: &RunWrite) -> Result<RunWritten> {
    let conflict = StoreError::Conflict { what: WHAT };
    let transaction = begin(client, WHAT).await?;
    let sql = "SELECT generation, ended_at FROM runs WHERE id = $1 FOR UPDATE";
    let stored = first(&transaction, WHAT, sql, &[&write.run.as_str()], |row| {
        let ended = time_column_opt(row, WHAT, "ended_at")?;
        Ok((count_column(row, WHAT, "generation")?, ended))
    })
    .await?;
    let (generation, ended) = stored.ok_or(StoreError::NotFound { what: WHAT })?;
    if generation != write.generation || ended.is_some() {
        return Err(conflict);
    }
    if let Some(record) = &write.record {
        if record.id != write.run || record.generation != generation + 1 {
            return Err(conflict);
        }
        let sql = "UPDATE runs SET workspace = $2, thread = $3, created_by = $4, agent = $5, \
                   sandbox = $6, state = $7, trace_id = $8, idempotency_key = $9, \
                   generation = $10, created_at = $11, ended_at = $12, input = $13, result = $14, \
                   body = $15 WHERE id = $1";
        write_row(&transaction, sql, record).await?;
    }
    let booked = usage::book(&transaction, &write.usage).await?;
    let mut written = advance(&transaction, write, &write.events, &booked).await?;
    let totals = booked.totals.into_iter();
    written.totals = totals.map(|(_, month, totals)| (month, totals)).collect();
    commit(transaction, WHAT).await?;
    Ok(written)
}

/// Appends to the log and moves what stands beside it.
async fn advance(
    client: &impl GenericClient,
    write: &RunWrite,
    events: &[NewRunEvent],
    booked: &usage::Booked,
) -> Result<RunWritten> {
    let position = write.position;
    let sql = "UPDATE run_logs SET last_event = last_event + $2, \
               heartbeat_at = greatest(heartbeat_at, $3), \
               at_stdout = coalesce($4, at_stdout), at_stderr = coalesce($5, at_stderr), \
               at_log = coalesce($6, at_log), input_tokens = input_tokens + $7, \
               output_tokens = output_tokens + $8, cache_read_tokens = cache_read_tokens + $9, \
               cache_write_tokens = cache_write_tokens + $10, model_cost = model_cost + $11, \
               compute_cost = compute_cost + $12, unpriced = greatest(unpriced, $13) \
               WHERE run = $1 RETURNING *";
    let args: [Arg<'_>; 13] = [
        &write.run.as_str(),
        &to_sql_int(events.len()),
        &write.heartbeat_at.map(Timestamp::as_millis),
        &position.map(|at| to_sql_int(at.stdout)),
        &position.map(|at| to_sql_int(at.stderr)),
        &position.map(|at| to_sql_int(at.log)),
        &to_sql_int(booked.tokens.input),
        &to_sql_int(booked.tokens.output),
        &to_sql_int(booked.tokens.cache_read),
        &to_sql_int(booked.tokens.cache_write),
        &to_sql_int(booked.cost.model),
        &to_sql_int(booked.cost.compute),
        &i64::from(booked.cost.unpriced),
    ];
    let written = first(client, WHAT, sql, &args, |row| {
        Ok(RunWritten {
            last_event: count_column(row, WHAT, "last_event")?,
            tokens: tokens(row, WHAT)?,
            cost: cost(row, WHAT)?,
            totals: Vec::new(),
        })
    })
    .await?;
    let written = written.ok_or(StoreError::NotFound { what: WHAT })?;
    if !events.is_empty() {
        let before = written.last_event - u64::try_from(events.len()).unwrap_or(0);
        append(client, write.run.as_str(), before, events).await?;
    }
    Ok(written)
}

/// In one statement, however many.
async fn append(
    client: &impl GenericClient,
    run: &str,
    before: u64,
    events: &[NewRunEvent],
) -> Result<()> {
    let sql = "INSERT INTO run_events (run, seq, at, kind, data) \
               SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[])";
    let places = (before + 1..).take(events.len());
    let places: Vec<i64> = places.map(to_sql_int).collect();
    let times: Vec<i64> = events.iter().map(|event| event.at.as_millis()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let data: Vec<Text<'_>> = events.iter().map(|event| Text(&event.data)).collect();
    let args: [Arg<'_>; 5] = [&run, &places, &times, &kinds, &data];
    change(client, EVENT, sql, &args).await.map(drop)
}
