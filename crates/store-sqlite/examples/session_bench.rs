//! What appending to and replaying session logs costs, beside what the disk and SQLite allow.
//!
//! `cargo run --release -p woodfrog-store-sqlite --example session_bench [DIR]` prints one line
//! of JSON per measurement; `./x bench sessions` shows them as a table.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use serde_json::json;
use woodfrog_store::conformance::fixture::{session, session_event};
use woodfrog_store::conformance::session_log::append;
use woodfrog_store::{SessionStore, StoreError};
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::session::Stream;
use woodfrog_types::{SessionId, WorkspaceId};

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const WRITERS: usize = 64;
const PAYLOAD: usize = 1024;
/// How long each measurement of appends runs.
const SPAN: Duration = Duration::from_secs(4);
const REPLAY: usize = 1_000_000;

fn main() -> Fallible {
    let runtime = tokio::runtime::Runtime::new()?;
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    bare_writes(dir.path())?;
    for layout in LAYOUTS {
        raw_inserts(dir.path(), layout)?;
    }
    let path = dir.path().join("store.db");
    let store = Arc::new(SqliteStore::open(&path)?);
    runtime.block_on(appends(&store, "append", WRITERS, false))?;
    runtime.block_on(appends(&store, "append to one session", WRITERS, true))?;
    runtime.block_on(appends(&store, "append", 1, false))?;
    runtime.block_on(replay(&store))?;
    let name = "append while 1,000,000 entries are deleted";
    runtime.block_on(appends(&store, name, 1, false))
}

fn payload() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD - 11))
}

/// The floor: as many bytes as a batch of payloads, written over and over, and `fdatasync`.
fn bare_writes(dir: &Path) -> Fallible {
    let mut file = File::create(dir.join("bare"))?;
    let block = vec![7_u8; WRITERS * PAYLOAD];
    for _ in 0..1000 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < SPAN {
        let one = Instant::now();
        let place = took.len() % 1000 * block.len();
        file.write_all_at(&block, u64::try_from(place)?)?;
        file.sync_data()?;
        took.push(one.elapsed());
    }
    report("bare write + fdatasync of 64 x 1 KB", WRITERS, start, took)
}

/// A way to lay out entries: name, table, insert by log, sequence and payload.
type Layout = (&'static str, &'static str, &'static str);

const LAYOUTS: [Layout; 4] = [
    (
        "raw SQLite, 64 inserts a commit: in the order of arrival, no index",
        "CREATE TABLE e (n INTEGER PRIMARY KEY NOT NULL, log INTEGER, seq INTEGER, at INTEGER, \
         kind TEXT, payload TEXT)",
        "INSERT INTO e (log, seq, at, kind, payload) VALUES (?1, ?2, 1, 'message', ?3)",
    ),
    (
        "raw SQLite, 64 inserts a commit: one integer key",
        "CREATE TABLE e (place INTEGER PRIMARY KEY NOT NULL, at INTEGER, kind TEXT, payload TEXT)",
        "INSERT INTO e VALUES (?1 << 33 | ?2, 1, 'message', ?3)",
    ),
    (
        "raw SQLite, 64 inserts a commit: rowid and unique index",
        "CREATE TABLE e (log INTEGER, seq INTEGER, at INTEGER, kind TEXT, payload TEXT); \
         CREATE UNIQUE INDEX i ON e (log, seq)",
        "INSERT INTO e VALUES (?1, ?2, 1, 'message', ?3)",
    ),
    (
        "raw SQLite, 64 inserts a commit: WITHOUT ROWID",
        "CREATE TABLE e (log INTEGER, seq INTEGER, at INTEGER, kind TEXT, payload TEXT, \
         PRIMARY KEY (log, seq)) WITHOUT ROWID",
        "INSERT INTO e VALUES (?1, ?2, 1, 'message', ?3)",
    ),
];

/// One thread, one transaction for an entry of each of 64 logs, with the store's settings.
fn raw_inserts(dir: &Path, (name, table, insert): Layout) -> Fallible {
    let path = dir.join("raw.db");
    let conn = Connection::open(&path)?;
    conn.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full;")?;
    conn.execute_batch(table)?;
    let payload = payload();
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < SPAN {
        let one = Instant::now();
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut statement = conn.prepare_cached(insert)?;
        for log in 0..WRITERS {
            statement.execute(params![i64::try_from(log)?, took.len() as i64, payload])?;
        }
        conn.prepare_cached("COMMIT")?.execute([])?;
        took.push(one.elapsed());
    }
    report(name, WRITERS, start, took)?;
    drop(conn);
    std::fs::remove_file(path)?;
    Ok(())
}

async fn made(store: &SqliteStore) -> Result<(SessionId, u64), StoreError> {
    let one = session(&WorkspaceId::generate(), 0);
    store.session_insert(&one).await?;
    let (_, end) = store.session_claim(&one.id).await?;
    Ok((one.id, end.epoch))
}

/// Each writer appends one entry, waits until it is durable, and appends the next.
async fn appends(store: &Arc<SqliteStore>, name: &str, writers: usize, shared: bool) -> Fallible {
    let mut targets = Vec::new();
    for _ in 0..writers {
        targets.push(match targets.first().cloned() {
            Some(first) if shared => first,
            _ => made(store).await?,
        });
    }
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (id, epoch) in targets {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut took = Vec::new();
            while start.elapsed() < SPAN {
                let event = vec![session_event(Stream::Log, &payload())];
                let one = Instant::now();
                store.session_append(append(&id, epoch, event)).await?;
                took.push(one.elapsed());
            }
            Ok::<_, StoreError>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(task) = tasks.join_next().await {
        took.extend(task??);
    }
    report(&format!("{name}, writers: {writers}"), 1, start, took)
}

/// Reads a log of a million entries in pages, from its beginning and from places within.
async fn replay(store: &SqliteStore) -> Fallible {
    let (id, epoch) = made(store).await?;
    let page = vec![session_event(Stream::Log, &payload()); 1000];
    for _ in 0..REPLAY / page.len() {
        store
            .session_append(append(&id, epoch, page.clone()))
            .await?;
    }
    let (start, mut first) = (Instant::now(), Vec::new());
    for number in 0..200 {
        let after = number * 4999 % REPLAY;
        let one = Instant::now();
        let page = store.session_read(&id, Stream::Log, u64::try_from(after)?, 100, 1 << 20);
        page.await?;
        first.push(one.elapsed());
    }
    report(
        "first 100 entries after any place of 1,000,000",
        100,
        start,
        first,
    )?;
    let (start, mut took, mut after) = (Instant::now(), Vec::new(), 0);
    loop {
        let one = Instant::now();
        let slice = store
            .session_read(&id, Stream::Log, after, 1000, 1 << 20)
            .await?;
        let Some(last) = slice.events.last() else {
            break;
        };
        after = last.sequence;
        took.push(one.elapsed());
    }
    let per_page = REPLAY / took.len().max(1);
    report("replay of 1,000,000 entries", per_page, start, took)?;
    let start = Instant::now();
    store.session_remove(&id).await?;
    let removed = vec![start.elapsed()];
    report(
        "removal of a session with 1,000,000 entries",
        1,
        start,
        removed,
    )
}

/// One line of JSON. `each` is how many entries one measured step has.
fn report(name: &str, each: usize, start: Instant, mut took: Vec<Duration>) -> Fallible {
    let all = start.elapsed();
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let entries = (took.len() * each) as f64;
    let line = json!({
        "name": name,
        "steps": took.len(),
        "per_second": entries / all.as_secs_f64(),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    });
    println!("{line}");
    Ok(())
}
