//! What a report over a month of runs costs, beside a bare pass of SQLite over the same rows.
//!
//! `cargo run --release -p woodfrog-store-sqlite --example analytics_bench [DIR [RUNS]]`; one JSON
//! object per row of the benchmark's table.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, params};
use woodfrog_store::AnalyticsStore as _;
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::analytics::{GroupBy, RunQuery};
use woodfrog_types::{Timestamp, WorkspaceId};

const RUNS: i64 = 1_000_000;
const DAY: i64 = 86_400_000;
/// The window, and the first of its days since the epoch.
const DAYS: i64 = 30;
const FIRST: i64 = 20_000;
const ROUNDS: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let dir = match args.next() {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let runs = match args.next().and_then(|runs| runs.into_string().ok()) {
        Some(runs) => runs.parse()?,
        None => RUNS,
    };
    let file = dir.path().join("store.db");
    drop(SqliteStore::open(&file)?);
    let workspace = WorkspaceId::default_workspace();
    fill(&file, &workspace, runs)?;
    bare(&file)?;
    let store = SqliteStore::open(&file)?;
    let query = RunQuery {
        from: Timestamp::from_millis(FIRST * DAY),
        until: Timestamp::from_millis((FIRST + DAYS) * DAY),
        bucket: 3_600_000,
        thread: None,
        agent: None,
        model: None,
        user: None,
        by: Some(GroupBy::Agent),
    };
    timed("report over 30 days: the first one", 1, async || {
        ask(&store, &workspace, &query).await
    })
    .await?;
    timed("report over 30 days: again", ROUNDS, async || {
        ask(&store, &workspace, &query).await
    })
    .await?;
    let writer = Connection::open(&file)?;
    timed(
        "report over 30 days: a run of the last day ended",
        ROUNDS,
        async || {
            touch(&writer)?;
            ask(&store, &workspace, &query).await
        },
    )
    .await?;
    let narrow = RunQuery {
        thread: Some("thread 17".to_owned()),
        ..query.clone()
    };
    timed(
        "report over 30 days: one thread of a thousand",
        ROUNDS,
        async || ask(&store, &workspace, &narrow).await,
    )
    .await
}

async fn ask(
    store: &SqliteStore,
    workspace: &WorkspaceId,
    query: &RunQuery,
) -> Result<(), Box<dyn Error>> {
    let report = store.run_report(workspace, query).await?;
    match report.total.runs {
        0 => Err("no runs were counted".into()),
        _ => Ok(()),
    }
}

/// Facts as the triggers would write them.
fn fill(file: &Path, workspace: &WorkspaceId, runs: i64) -> Result<(), Box<dyn Error>> {
    let mut conn = Connection::open(file)?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    let transaction = conn.transaction()?;
    {
        let mut insert = transaction.prepare(
            "INSERT INTO run_facts (workspace, created_at, run, thread, agent, model, asked, \
             created_by, state, ended_at, duration_ms, error_code, error_message, input_tokens, \
             output_tokens, model_cost, compute_cost) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?;
        for run in 0..runs {
            let created = FIRST * DAY + run * (DAYS * DAY) / runs;
            let took = run * 7_919 % 120_000;
            let failed = run % 20 == 0;
            insert.execute(params![
                workspace.as_str(),
                created,
                format!("rn{run:030}"),
                format!("thread {}", run % 1_000),
                ["claude", "codex", "mock"][usize::try_from(run % 3)?],
                ["m1", "m2"][usize::try_from(run % 2)?],
                format!("user {}", run % 50),
                if failed { "failed" } else { "succeeded" },
                created + took,
                took,
                failed.then_some("timeout"),
                failed.then_some("it took too long"),
                run % 10_000,
                run % 1_000,
                run % 5_000,
                run % 100,
            ])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// A change as that of a run that ends.
fn touch(conn: &Connection) -> Result<(), Box<dyn Error>> {
    let changed = conn.execute(
        "UPDATE run_facts SET output_tokens = output_tokens + 1 WHERE run = \
         (SELECT run FROM run_facts ORDER BY created_at DESC LIMIT 1)",
        [],
    )?;
    match changed {
        1 => Ok(()),
        _ => Err("nothing was changed".into()),
    }
}

/// The floor of any report that reads the rows: SQLite alone, a few sums.
fn bare(file: &Path) -> Result<(), Box<dyn Error>> {
    let conn = Connection::open(file)?;
    let mut millis = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let sums: (i64, i64, i64) = conn.query_row(
            "SELECT COUNT(*), SUM(duration_ms), SUM(model_cost) FROM run_facts",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        assert!(sums.0 > 0);
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    print("SQLite alone, two sums over the same rows", millis);
    Ok(())
}

async fn timed(
    name: &str,
    rounds: usize,
    mut work: impl AsyncFnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut millis = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        work().await?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    print(name, millis);
    Ok(())
}

fn print(name: &str, mut millis: Vec<f64>) {
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis[(millis.len() * percent / 100).min(millis.len() - 1)];
    println!(
        "{}",
        serde_json::json!({
            "name": name, "per_second": 1e3 / at(50), "p50_ms": at(50), "p99_ms": at(99),
        })
    );
}
