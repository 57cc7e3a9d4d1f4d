//! Runs and their logs. The books are in `usage`, files in `artifacts`.

mod artifacts;
mod usage;

pub(crate) use usage::book_for_runs;

use async_trait::async_trait;
use rusqlite::{Connection, ToSql, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{
    Admitted, Result, RunStore, RunWrite, RunWritten, StartRate, StoreError, Whose,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::run::{NewRunEvent, Run, RunEvent, RunFilter};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{RunId, SandboxId, Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::error::in_;
use crate::reader::{Cells, all, first, name_culprit};
use crate::stored::{
    Columns, cost, count_column, get, id_column, run_ended_at, run_event_from_row, run_from_row,
    run_to_json, time_column_opt, to_sql_int, tokens,
};
use crate::writer::change;

const WHAT: &str = "run";
const EVENT: &str = "run event";

const BY_ID: &str = "SELECT * FROM runs JOIN run_logs ON run = id WHERE id = ?1";
const BY_KEY: &str = "SELECT * FROM runs JOIN run_logs ON run = id \
     WHERE workspace = ?1 AND idempotency_key = ?2";
const BY_TRACE: &str = "SELECT * FROM runs JOIN run_logs ON run = id \
     WHERE workspace = ?1 AND trace_id = ?2 LIMIT 1";
const STARTS: &str = "SELECT count(*) AS n, min(created_at) AS oldest FROM runs \
     WHERE created_by = ?1 AND created_at > ?2";
const STARTS_IN: &str = "SELECT count(*) AS n, min(created_at) AS oldest FROM runs \
     WHERE workspace = ?1 AND created_at > ?2";
const ENDED: &str = "SELECT id FROM runs WHERE workspace = ?1 AND ended_at IS NOT NULL \
     AND ended_at < ?2 ORDER BY ended_at, id LIMIT ?3";
const UNFINISHED: &str = "SELECT * FROM runs JOIN run_logs ON run = id \
     WHERE ended_at IS NULL ORDER BY created_at, id";
const EVENTS: &str = "SELECT * FROM run_events WHERE run = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
/// By the index of those with texts: there are ever more without, which the other one would have
/// to pass by each time.
const WITH_TEXT: &str = "SELECT id FROM runs INDEXED BY runs_with_text \
     WHERE workspace = ?1 AND ended_at IS NOT NULL AND input IS NOT NULL \
     AND ended_at < ?2 ORDER BY ended_at LIMIT ?3";

#[async_trait]
impl RunStore for SqliteStore {
    async fn run_insert(
        &self,
        run: &Run,
        events: Vec<NewRunEvent>,
        rates: Vec<StartRate>,
    ) -> Result<Admitted> {
        let run = run.clone();
        self.write(move |conn| insert(conn, &run, &events, &rates))
            .await
    }

    async fn run_write(&self, write: RunWrite) -> Result<RunWritten> {
        self.write(move |conn| written(conn, &write)).await
    }

    async fn run_fetch(&self, id: &RunId) -> Result<Option<Run>> {
        let id = id.clone();
        self.read(move |conn| first(conn, WHAT, BY_ID, [id.as_str()], run_from_row))
            .await
    }

    async fn run_by_trace(&self, workspace: &WorkspaceId, trace: &str) -> Result<Option<Run>> {
        let (workspace, trace) = (workspace.clone(), trace.to_owned());
        self.read(move |conn| {
            let params = params![workspace.as_str(), trace];
            first(conn, WHAT, BY_TRACE, params, run_from_row)
        })
        .await
    }

    async fn run_list(
        &self,
        workspace: &WorkspaceId,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<Page<Run>> {
        let (workspace, filter, page) = (workspace.clone(), filter.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &filter, &page))
            .await
    }

    async fn run_unfinished(&self) -> Result<Vec<Run>> {
        self.read(|conn| {
            let found = all(conn, WHAT, UNFINISHED, [], |row| {
                Ok(run_from_row(row).map_err(|error| name_culprit(row, error)))
            })?;
            Ok(found.into_iter().filter_map(readable).collect())
        })
        .await
    }

    async fn run_starts(
        &self,
        run: &Run,
        whose: Whose,
        after: Timestamp,
    ) -> Result<(u64, Option<Timestamp>)> {
        let run = run.clone();
        self.read(move |conn| starts(conn, &run, whose, after))
            .await
    }

    async fn run_ended(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<RunId>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let params = params![workspace.as_str(), before.as_millis(), to_sql_int(limit)];
            all(conn, WHAT, ENDED, params, |row| id_column(row, WHAT, "id"))
        })
        .await
    }

    async fn run_events(
        &self,
        id: &RunId,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<RunEvent>> {
        let id = id.clone();
        self.read(move |conn| events(conn, &id, after, limit, bytes))
            .await
    }

    async fn run_forget(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let workspace = workspace.clone();
        self.write(move |conn| {
            let params = params![workspace.as_str(), before.as_millis(), to_sql_int(limit)];
            let due: Vec<RunId> = all(conn, WHAT, WITH_TEXT, params, |row| {
                id_column(row, WHAT, "id")
            })?;
            for id in &due {
                for sql in [
                    "UPDATE runs SET input = NULL, result = NULL, generation = generation + 1 \
                     WHERE id = ?1",
                    "DELETE FROM run_events WHERE run = ?1",
                ] {
                    change(conn, WHAT, sql, [id.as_str()])?;
                }
            }
            Ok(u64::try_from(due.len()).unwrap_or(u64::MAX))
        })
        .await
    }

    async fn run_remove(&self, id: &RunId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            for sql in [
                "DELETE FROM run_events WHERE run = ?1",
                "DELETE FROM run_logs WHERE run = ?1",
                "DELETE FROM artifacts WHERE run = ?1",
            ] {
                change(conn, WHAT, sql, [id.as_str()])?;
            }
            let sql = "DELETE FROM runs WHERE id = ?1";
            Ok(change(conn, WHAT, sql, [id.as_str()])? > 0)
        })
        .await
    }
}

/// A damaged record must not keep the others from being recovered.
fn readable(run: Result<Run>) -> Option<Run> {
    run.inspect_err(|error| tracing::error!(%error, "a run is left out"))
        .ok()
}

fn starts(
    conn: &Connection,
    run: &Run,
    whose: Whose,
    after: Timestamp,
) -> Result<(u64, Option<Timestamp>)> {
    let (sql, who) = match whose {
        Whose::User => (STARTS, run.created_by.as_str()),
        Whose::Workspace => (STARTS_IN, run.workspace.as_str()),
    };
    let found = first(conn, WHAT, sql, params![who, after.as_millis()], |row| {
        let count = count_column(row, WHAT, "n")?;
        Ok((count, time_column_opt(row, WHAT, "oldest")?))
    })?;
    Ok(found.unwrap_or((0, None)))
}

fn insert(
    conn: &Connection,
    run: &Run,
    events: &[NewRunEvent],
    rates: &[StartRate],
) -> Result<Admitted> {
    if run.generation != 1 {
        return Err(StoreError::Conflict { what: WHAT });
    }
    if let Some(key) = &run.idempotency_key {
        let params = params![run.workspace.as_str(), key];
        if let Some(known) = first(conn, WHAT, BY_KEY, params, run_from_row)? {
            return Ok(Admitted::Known(Box::new(known)));
        }
    }
    for rate in rates {
        // The only writer counts: nobody starts between this and the insert.
        let (count, oldest) = starts(conn, run, rate.whose, rate.after)?;
        if count >= rate.max {
            let (rate, oldest) = (*rate, oldest.unwrap_or(run.created_at));
            return Ok(Admitted::RateLimited { rate, oldest });
        }
    }
    let sql = "INSERT INTO runs (id, workspace, thread, created_by, agent, sandbox, state, \
               trace_id, idempotency_key, generation, created_at, ended_at, input, result, body) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    write_row(conn, sql, run)?;
    let sql = "INSERT INTO run_logs (run, heartbeat_at) VALUES (?1, ?2)";
    let params = params![run.id.as_str(), run.created_at.as_millis()];
    change(conn, WHAT, sql, params)?;
    advance(conn, &RunWrite::of(run), events, &usage::Booked::default())?;
    Ok(Admitted::New)
}

fn write_row(conn: &Connection, sql: &str, run: &Run) -> Result<()> {
    let params = params![
        run.id.as_str(),
        run.workspace.as_str(),
        run.thread,
        run.created_by.as_str(),
        run.work.agent(),
        run.sandbox.as_ref().map(SandboxId::as_str),
        run.state.as_str(),
        run.trace_id,
        run.idempotency_key,
        to_sql_int(run.generation),
        run.created_at.as_millis(),
        run_ended_at(run),
        run.input,
        run.result,
        run_to_json(run)?,
    ];
    change(conn, WHAT, sql, params).map(drop)
}

fn written(conn: &Connection, write: &RunWrite) -> Result<RunWritten> {
    let conflict = StoreError::Conflict { what: WHAT };
    let sql = "SELECT generation, ended_at FROM runs WHERE id = ?1";
    let stored = first(conn, WHAT, sql, [write.run.as_str()], |row| {
        let ended = time_column_opt(row, WHAT, "ended_at")?;
        Ok((count_column(row, WHAT, "generation")?, ended))
    })?;
    let (generation, ended) = stored.ok_or(StoreError::NotFound { what: WHAT })?;
    if generation != write.generation || ended.is_some() {
        return Err(conflict);
    }
    if let Some(record) = &write.record {
        if record.id != write.run || record.generation != generation + 1 {
            return Err(conflict);
        }
        let sql = "UPDATE runs SET workspace = ?2, thread = ?3, created_by = ?4, agent = ?5, \
                   sandbox = ?6, state = ?7, trace_id = ?8, idempotency_key = ?9, \
                   generation = ?10, created_at = ?11, ended_at = ?12, input = ?13, result = ?14, \
                   body = ?15 WHERE id = ?1";
        write_row(conn, sql, record)?;
    }
    let booked = usage::book(conn, &write.usage)?;
    let mut written = advance(conn, write, &write.events, &booked)?;
    for (workspace, month) in &booked.months {
        let totals = usage::totals(conn, workspace, *month)?;
        written.totals.push((*month, totals));
    }
    Ok(written)
}

/// Appends to the log and moves what stands beside it.
fn advance(
    conn: &Connection,
    write: &RunWrite,
    events: &[NewRunEvent],
    booked: &usage::Booked,
) -> Result<RunWritten> {
    let position = write.position;
    let sql = "UPDATE run_logs SET last_event = last_event + ?2, \
               heartbeat_at = max(heartbeat_at, coalesce(?3, heartbeat_at)), \
               at_stdout = coalesce(?4, at_stdout), at_stderr = coalesce(?5, at_stderr), \
               at_log = coalesce(?6, at_log), input_tokens = input_tokens + ?7, \
               output_tokens = output_tokens + ?8, cache_read_tokens = cache_read_tokens + ?9, \
               cache_write_tokens = cache_write_tokens + ?10, model_cost = model_cost + ?11, \
               compute_cost = compute_cost + ?12, unpriced = max(unpriced, ?13) \
               WHERE run = ?1 RETURNING *";
    let params = params![
        write.run.as_str(),
        to_sql_int(events.len()),
        write.heartbeat_at.map(Timestamp::as_millis),
        position.map(|at| to_sql_int(at.stdout)),
        position.map(|at| to_sql_int(at.stderr)),
        position.map(|at| to_sql_int(at.log)),
        to_sql_int(booked.tokens.input),
        to_sql_int(booked.tokens.output),
        to_sql_int(booked.tokens.cache_read),
        to_sql_int(booked.tokens.cache_write),
        to_sql_int(booked.cost.model),
        to_sql_int(booked.cost.compute),
        booked.cost.unpriced,
    ];
    let written = first(conn, WHAT, sql, params, |row| {
        Ok(RunWritten {
            last_event: count_column(row, WHAT, "last_event")?,
            tokens: tokens(row, WHAT)?,
            cost: cost(row, WHAT)?,
            totals: Vec::new(),
        })
    })?;
    let written = written.ok_or(StoreError::NotFound { what: WHAT })?;
    let before = written.last_event - u64::try_from(events.len()).unwrap_or(0);
    for (seq, event) in (before + 1..).zip(events) {
        let sql = "INSERT INTO run_events (run, seq, at, kind, data) VALUES (?1, ?2, ?3, ?4, ?5)";
        let params = params![
            write.run.as_str(),
            to_sql_int(seq),
            event.at.as_millis(),
            event.kind.as_str(),
            event.data,
        ];
        change(conn, EVENT, sql, params)?;
    }
    Ok(written)
}

fn events(
    conn: &Connection,
    id: &RunId,
    after: u64,
    limit: usize,
    bytes: usize,
) -> Result<Vec<RunEvent>> {
    let mut statement = conn.prepare_cached(EVENTS).map_err(in_(EVENT))?;
    let params = params![id.as_str(), to_sql_int(after), to_sql_int(limit)];
    let mut rows = statement.query(params).map_err(in_(EVENT))?;
    let (mut found, mut left) = (Vec::new(), bytes);
    while let Some(row) = rows.next().map_err(in_(EVENT))? {
        let event = run_event_from_row(&Cells(row))?;
        let size = event.event.data.len();
        if !found.is_empty() && size > left {
            break;
        }
        left = left.saturating_sub(size);
        found.push(event);
    }
    Ok(found)
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &RunFilter,
    page: &PageRequest,
) -> Result<Page<Run>> {
    let (sql, params) = list_query(workspace, filter, page)?;
    let key = |run: &Run| (run.created_at.as_millis(), run.id.to_string());
    cut_list(conn, WHAT, &sql, &params, page, run_from_row, |last| {
        let (at, id) = key(last);
        cursor::encode(List::Runs, &at.to_string(), &id)
    })
}

/// Walks a query's rows until the page is full. A damaged row costs itself and not the list.
fn cut_list<T>(
    conn: &Connection,
    what: &'static str,
    sql: &str,
    params: &[Box<dyn ToSql>],
    page: &PageRequest,
    convert: fn(&dyn Columns) -> Result<T>,
    cursor_of: impl Fn(&T) -> String,
) -> Result<Page<T>> {
    let limit = cursor::page_items(page);
    let params: Vec<&dyn ToSql> = params.iter().map(AsRef::as_ref).collect();
    let mut statement = conn.prepare_cached(sql).map_err(in_(what))?;
    let mut rows = statement.query(params.as_slice()).map_err(in_(what))?;
    let mut items: Vec<T> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next().map_err(in_(what))? {
        let row = &Cells(row);
        match convert(row) {
            Ok(item) if items.len() < limit => items.push(item),
            Ok(_) => {
                next = items.last().map(cursor_of);
                break;
            }
            Err(error) => {
                let id = get::<String>(row, what, "id").unwrap_or_default();
                tracing::error!(%error, id, "a {what} is left out of a list");
            }
        }
    }
    Ok(Page { items, next })
}

type Query = (String, Vec<Box<dyn ToSql>>);

fn list_query(workspace: &WorkspaceId, filter: &RunFilter, page: &PageRequest) -> Result<Query> {
    let mut sql = String::from("SELECT * FROM runs JOIN run_logs ON run = id WHERE workspace = ?");
    let mut params: Vec<Box<dyn ToSql>> = vec![Box::new(workspace.as_str().to_owned())];
    let RunFilter {
        thread,
        created_by,
        state,
        sandbox,
        agent,
        from,
        until,
    } = filter;
    // The sign keeps the planner from an index with another order.
    let wanted = [
        ("thread = ?", thread.as_deref()),
        ("+created_by = ?", created_by.as_ref().map(UserId::as_str)),
        ("+state = ?", state.as_deref()),
        ("sandbox = ?", sandbox.as_ref().map(SandboxId::as_str)),
        ("+agent = ?", agent.as_deref()),
    ];
    for (condition, value) in wanted {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {condition}"));
            params.push(Box::new(value.to_owned()));
        }
    }
    for (condition, value) in [("created_at >= ?", from), ("created_at < ?", until)] {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {condition}"));
            params.push(Box::new(value.as_millis()));
        }
    }
    if let Some(cursor) = &page.cursor {
        let (at, id) = cursor::decode_time(List::Runs, cursor)?;
        sql.push_str(" AND (created_at, id) < (?, ?)");
        params.push(Box::new(at));
        params.push(Box::new(id));
    }
    sql.push_str(" ORDER BY created_at DESC, id DESC");
    Ok((sql, params))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::plan;

    /// No look-up reads all runs, and no list sorts.
    #[test]
    fn runs_come_from_an_index() {
        let workspace = WorkspaceId::default_workspace();
        let page = PageRequest {
            limit: 1,
            cursor: Some(cursor::encode(List::Runs, "5", "id")),
        };
        let list = |filter: RunFilter| list_query(&workspace, &filter, &page).unwrap().0;
        let any = RunFilter::default;
        let of_thread = RunFilter {
            thread: Some("t".to_owned()),
            ..any()
        };
        let of_user = RunFilter {
            created_by: Some(UserId::operator()),
            state: Some("running".to_owned()),
            agent: Some("mock".to_owned()),
            from: Some(Timestamp::from_millis(1)),
            until: Some(Timestamp::from_millis(2)),
            ..any()
        };
        for (sql, index) in [
            (BY_KEY.to_owned(), "runs_by_key"),
            (BY_TRACE.to_owned(), "runs_by_trace"),
            (STARTS.to_owned(), "COVERING INDEX runs_by_user"),
            (STARTS_IN.to_owned(), "COVERING INDEX runs_by_age"),
            (ENDED.to_owned(), "COVERING INDEX runs_by_end"),
            (UNFINISHED.to_owned(), "runs_unfinished"),
            (WITH_TEXT.to_owned(), "runs_with_text"),
            (EVENTS.to_owned(), "sqlite_autoindex_run_events_1"),
            (list(any()), "runs_by_age"),
            (list(of_user), "runs_by_age"),
            (list(of_thread), "runs_by_thread"),
        ] {
            let plan = plan(&sql);
            assert!(plan.contains(index), "{sql}: {plan}");
            assert!(
                !plan.contains("SCAN") || plan.contains("SCAN runs USING INDEX runs_unfinished"),
                "{sql}: {plan}"
            );
            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
