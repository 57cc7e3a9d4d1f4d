//! Sums over runs and over the books.

use std::pin::pin;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use woodfrog_store::{AnalyticsStore, Result};
use woodfrog_store_rows::{Columns, count_column, get, usage_totals_from_row};
use woodfrog_types::analytics::{
    GroupBy, RunFact, RunQuery, RunReport, RunTally, ToolSum, UsageSums,
};
use woodfrog_types::usage::{Cost, Tokens};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all};
use crate::error::in_;
use crate::text::{TextBuf, unescape};

const RUNS: &str = "runs";
const TOOLS: &str = "tools";
const USAGE: &str = "usage";

const FACTS: &str = "SELECT created_at, thread, agent, model, created_by, state, ended_at, \
     duration_ms, error_code, error_message, input_tokens, output_tokens, cache_read_tokens, \
     cache_write_tokens, model_cost, compute_cost, unpriced FROM run_facts";

type Args = Vec<Box<dyn ToSql + Sync + Send>>;

#[async_trait]
impl AnalyticsStore for PostgresStore {
    async fn run_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<RunReport> {
        let (clause, args) = clause(workspace, query);
        let client = self.client().await?;
        let sql = format!("{FACTS} {clause}");
        let statement = client.prepare_cached(&sql).await.map_err(in_(RUNS))?;
        let args = args.iter().map(|arg| &**arg as &(dyn ToSql + Sync));
        let rows = client.query_raw(&statement, args.collect::<Vec<_>>()).await;
        let mut rows = pin!(rows.map_err(in_(RUNS))?);
        let mut tally = RunTally::new(query);
        while let Some(row) = rows.try_next().await.map_err(in_(RUNS))? {
            add(&mut tally, &row).map_err(in_(RUNS))?;
        }
        Ok(tally.report())
    }

    async fn tool_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<Vec<ToolSum>> {
        let (clause, args) = clause(workspace, query);
        let sql = format!(
            "SELECT tool, COUNT(*) AS runs, SUM(calls)::BIGINT AS calls, \
             SUM(errors)::BIGINT AS errors FROM run_facts JOIN run_tools USING (run) {clause} \
             GROUP BY tool ORDER BY SUM(calls) DESC, tool"
        );
        let args = args.iter().map(|arg| &**arg as Arg<'_>);
        let args: Vec<Arg<'_>> = args.collect();
        all(&self.client().await?, TOOLS, &sql, &args, |row| {
            Ok(ToolSum {
                tool: get(row, TOOLS, "tool")?,
                runs: count_column(row, TOOLS, "runs")?,
                calls: count_column(row, TOOLS, "calls")?,
                errors: count_column(row, TOOLS, "errors")?,
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
        let name = match by {
            GroupBy::Day => {
                "to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD') COLLATE \"C\""
            }
            GroupBy::Model => "model COLLATE \"C\"",
            GroupBy::User => "created_by COLLATE \"C\"",
            GroupBy::Thread => "thread COLLATE \"C\"",
            GroupBy::Agent => "agent COLLATE \"C\"",
        };
        let sums = [
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "cpu_millis_ms",
            "memory_mib_ms",
            "disk_mib_ms",
            "model_cost",
            "compute_cost",
        ]
        .map(|column| format!("SUM({column})::BIGINT AS {column}"))
        .join(", ");
        let sql = format!(
            "SELECT {name} AS name, {sums}, MAX(unpriced) AS unpriced, COUNT(*) AS entries \
             FROM usage_entries WHERE workspace = $1 AND at >= $2 AND at < $3 \
             GROUP BY 1 ORDER BY 1 NULLS FIRST"
        );
        let args: [Arg<'_>; 3] = [&workspace.as_str(), &from.as_millis(), &until.as_millis()];
        let convert = |row: &dyn Columns| {
            let name: Option<String> = get(row, USAGE, "name")?;
            Ok((name, usage_totals_from_row(row)?))
        };
        all(&self.client().await?, USAGE, &sql, &args, convert).await
    }

    async fn run_states(&self) -> Result<Vec<(String, u64)>> {
        let sql = "SELECT state, COUNT(*) AS n FROM run_facts GROUP BY state ORDER BY state";
        all(&self.client().await?, RUNS, sql, &[], |row| {
            Ok((get(row, RUNS, "state")?, count_column(row, RUNS, "n")?))
        })
        .await
    }
}

/// The condition of a query, and its parameters.
fn clause(workspace: &WorkspaceId, query: &RunQuery) -> (String, Args) {
    let mut sql = String::from("WHERE workspace = $1 AND created_at >= $2 AND created_at < $3");
    let mut args: Args = vec![
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
            args.push(Box::new(TextBuf(value.clone())));
            sql.push_str(&format!(" AND {column} = ${}", args.len()));
        }
    }
    (sql, args)
}

fn add(tally: &mut RunTally, row: &Row) -> std::result::Result<(), tokio_postgres::Error> {
    let text = |index: usize| {
        let text: Option<&str> = row.try_get(index)?;
        Ok::<_, tokio_postgres::Error>(text.map(unescape))
    };
    let count = |index: usize| {
        let value: i64 = row.try_get(index)?;
        Ok::<_, tokio_postgres::Error>(u64::try_from(value).unwrap_or(0))
    };
    let (thread, agent, model) = (text(1)?.unwrap_or_default(), text(2)?, text(3)?);
    let (user, state) = (text(4)?.unwrap_or_default(), text(5)?.unwrap_or_default());
    let (code, message) = (text(8)?, text(9)?.unwrap_or_default());
    let ended: Option<i64> = row.try_get(6)?;
    let took: Option<i64> = row.try_get(7)?;
    tally.add(&RunFact {
        created_at: Timestamp::from_millis(row.try_get(0)?),
        thread: &thread,
        agent: agent.as_deref(),
        model: model.as_deref(),
        user: &user,
        state: &state,
        ended_at: ended.map(Timestamp::from_millis),
        duration_ms: took.map(|took| u64::try_from(took).unwrap_or(0)),
        error: code.as_deref().map(|code| (code, message.as_str())),
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
    });
    Ok(())
}
