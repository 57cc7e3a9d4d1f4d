//! Sums over runs and over the books.

mod days;

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, Row, ToSql, params};
use woodfrog_store::{AnalyticsStore, Result};
use woodfrog_types::analytics::{
    GroupBy, RunFact, RunQuery, RunReport, RunTally, ToolSum, UsageSums,
};
use woodfrog_types::usage::{Cost, Tokens};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::error::in_;
use crate::reader::all;
use crate::stored::{count_column, get, usage_totals_from_row};

pub(crate) use days::Days;
use days::{Key, Part};

const RUNS: &str = "runs";
const TOOLS: &str = "tools";
const USAGE: &str = "usage";

/// Integers of up to 64 bits are stored as they fit: see [`crate::stored::to_sql_int`].
const FACTS: &str = "SELECT created_at, thread, agent, model, created_by, state, ended_at, \
     duration_ms, error_code, error_message, input_tokens, output_tokens, cache_read_tokens, \
     cache_write_tokens, model_cost, compute_cost, unpriced FROM run_facts";

#[async_trait]
impl AnalyticsStore for SqliteStore {
    async fn run_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<RunReport> {
        let (workspace, query) = (workspace.clone(), query.clone());
        let known = Arc::clone(&self.days);
        self.read(move |conn| report(conn, &known, &workspace, &query).map_err(in_(RUNS)))
            .await
    }

    async fn tool_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<Vec<ToolSum>> {
        let (clause, args) = clause(workspace, query);
        self.read(move |conn| {
            let sql = format!(
                "SELECT tool, COUNT(*) AS runs, SUM(calls) AS calls, SUM(errors) AS errors \
                 FROM run_facts CROSS JOIN run_tools USING (run) {clause} \
                 GROUP BY tool ORDER BY calls DESC, tool"
            );
            let args: Vec<&dyn ToSql> = args.iter().map(|arg| &**arg as &dyn ToSql).collect();
            all(conn, TOOLS, &sql, args.as_slice(), |row| {
                Ok(ToolSum {
                    tool: get(row, TOOLS, "tool")?,
                    runs: count_column(row, TOOLS, "runs")?,
                    calls: count_column(row, TOOLS, "calls")?,
                    errors: count_column(row, TOOLS, "errors")?,
                })
            })
        })
        .await
    }

    async fn usage_report(
        &self,
        workspace: &WorkspaceId,
        from: Timestamp,
        until: Timestamp,
        by: GroupBy,
    ) -> Result<UsageSums> {
        let workspace = workspace.clone();
        let name = match by {
            GroupBy::Day => "strftime('%Y-%m-%d', at / 1000.0, 'unixepoch')",
            GroupBy::Model => "model",
            GroupBy::User => "created_by",
            GroupBy::Thread => "thread",
            GroupBy::Agent => "agent",
        };
        self.read(move |conn| {
            let sql = format!(
                "SELECT {name} AS name, SUM(input_tokens) AS input_tokens, \
                 SUM(output_tokens) AS output_tokens, \
                 SUM(cache_read_tokens) AS cache_read_tokens, \
                 SUM(cache_write_tokens) AS cache_write_tokens, \
                 SUM(cpu_millis_ms) AS cpu_millis_ms, SUM(memory_mib_ms) AS memory_mib_ms, \
                 SUM(disk_mib_ms) AS disk_mib_ms, SUM(model_cost) AS model_cost, \
                 SUM(compute_cost) AS compute_cost, MAX(unpriced) AS unpriced, \
                 COUNT(*) AS entries FROM usage_entries \
                 WHERE workspace = ?1 AND at >= ?2 AND at < ?3 GROUP BY 1 ORDER BY 1"
            );
            let params = params![workspace.as_str(), from.as_millis(), until.as_millis()];
            all(conn, USAGE, &sql, params, |row| {
                Ok((get(row, USAGE, "name")?, usage_totals_from_row(row)?))
            })
        })
        .await
    }

    async fn run_states(&self) -> Result<Vec<(String, u64)>> {
        self.read(|conn| {
            let sql = "SELECT state, COUNT(*) AS n FROM run_facts GROUP BY state ORDER BY state";
            all(conn, RUNS, sql, [], |row| {
                Ok((get(row, RUNS, "state")?, count_column(row, RUNS, "n")?))
            })
        })
        .await
    }
}

/// The condition of a query, and its parameters.
fn clause(workspace: &WorkspaceId, query: &RunQuery) -> (String, Vec<Box<dyn ToSql + Send>>) {
    let mut sql = String::from("WHERE workspace = ? AND created_at >= ? AND created_at < ?");
    let mut args: Vec<Box<dyn ToSql + Send>> = vec![
        Box::new(workspace.to_string()),
        Box::new(query.from.as_millis()),
        Box::new(query.until.as_millis()),
    ];
    let filters = [
        ("thread", &query.thread),
        ("agent", &query.agent),
        ("model", &query.model),
        ("created_by", &query.user),
    ];
    for (column, value) in filters {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            args.push(Box::new(value.clone()));
        }
    }
    (sql, args)
}

fn report(
    conn: &Connection,
    known: &Days,
    workspace: &WorkspaceId,
    query: &RunQuery,
) -> rusqlite::Result<RunReport> {
    // One state of the file, whatever is written meanwhile.
    let state = conn.unchecked_transaction()?;
    let mut tally = RunTally::new(query);
    for part in days::parts(query) {
        match part {
            Part::Some(query) => tally.merge(&count(&state, workspace, &query)?),
            Part::Day(day, query) => {
                let key = Key::new(workspace, &query, day);
                let version = days::version(&state, workspace, day)?;
                let counted = match known.get(&key, version) {
                    Some(counted) => counted,
                    None => {
                        let counted = Arc::new(count(&state, workspace, &query)?);
                        known.put(key, version, Arc::clone(&counted));
                        counted
                    }
                };
                tally.merge(&counted);
            }
        }
    }
    Ok(tally.report())
}

/// One pass over the facts.
fn count(
    conn: &Connection,
    workspace: &WorkspaceId,
    query: &RunQuery,
) -> rusqlite::Result<RunTally> {
    let (clause, args) = clause(workspace, query);
    let mut statement = conn.prepare_cached(&format!("{FACTS} {clause}"))?;
    let args: Vec<&dyn ToSql> = args.iter().map(|arg| &**arg as &dyn ToSql).collect();
    let mut rows = statement.query(args.as_slice())?;
    let mut tally = RunTally::new(query);
    while let Some(row) = rows.next()? {
        tally.add(&fact(row)?);
    }
    Ok(tally)
}

fn fact<'a>(row: &'a Row<'_>) -> rusqlite::Result<RunFact<'a>> {
    let text = |index| {
        let value = row.get_ref(index)?.as_str_or_null();
        value.map_err(rusqlite::Error::from)
    };
    let must = |index| {
        let value = row.get_ref(index)?.as_str();
        value.map_err(rusqlite::Error::from)
    };
    let count = |index| {
        row.get::<_, i64>(index)
            .map(|value| u64::try_from(value).unwrap_or(0))
    };
    let (code, message): (Option<&str>, Option<&str>) = (text(8)?, text(9)?);
    Ok(RunFact {
        created_at: Timestamp::from_millis(row.get(0)?),
        thread: must(1)?,
        agent: text(2)?,
        model: text(3)?,
        user: must(4)?,
        state: must(5)?,
        ended_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
        duration_ms: row
            .get::<_, Option<i64>>(7)?
            .map(|value| u64::try_from(value).unwrap_or(0)),
        error: code.map(|code| (code, message.unwrap_or_default())),
        tokens: Tokens {
            input: count(10)?,
            output: count(11)?,
            cache_read: count(12)?,
            cache_write: count(13)?,
        },
        cost: Cost {
            model: count(14)?,
            compute: count(15)?,
            unpriced: count(16)? != 0,
        },
    })
}
