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
use tokio::runtime::Runtime;
use woodfrog_store::conformance::fixture::{session, session_event};
use woodfrog_store::conformance::session_log::append;
use woodfrog_store::{SessionStore, StoreError};
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::session::Stream;
use woodfrog_types::{SessionId, WorkspaceId};

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const WRITERS: usize = 64;
const PAYLOAD: usize = 1024;
/// What is compared takes turns, so that whatever else the disk is busy with is in all of it.
const ROUNDS: usize = 6;
const TURN: Duration = Duration::from_secs(1);
const REPLAY: usize = 1_000_000;

fn main() -> Fallible {
    let runtime = Runtime::new()?;
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let store = Arc::new(SqliteStore::open(&dir.path().join("store.db"))?);
    let mut lines = vec![bare_writes(dir.path())?];
    for (number, layout) in LAYOUTS.into_iter().enumerate() {
        lines.push(raw_inserts(
            &dir.path().join(format!("raw{number}.db")),
            layout,
        )?);
    }
    for (name, writers, shared) in [
        ("append, 64 writers, each its own session", WRITERS, false),
        ("append, 64 writers, one session", WRITERS, true),
        ("append, one writer", 1, false),
    ] {
        lines.push(appends(&runtime, &store, name, writers, shared)?);
    }
    for _ in 0..ROUNDS {
        for line in &mut lines {
            let start = Instant::now();
            line.took.extend((line.turn)(start)?);
            line.spent += start.elapsed();
        }
    }
    for line in &mut lines {
        report(line.name, line.each, line.spent, &mut line.took)?;
    }
    runtime.block_on(replay(&store))?;
    let name = "append, one writer, while 1,000,000 entries are deleted";
    let mut line = appends(&runtime, &store, name, 1, false)?;
    let start = Instant::now();
    let mut took = (line.turn)(start)?;
    report(name, 1, start.elapsed(), &mut took)
}

/// One of the things that are compared.
struct Line<'a> {
    name: &'static str,
    /// Entries in each step.
    each: usize,
    /// Works until [`TURN`] is over; how long each step took.
    turn: Box<dyn FnMut(Instant) -> Fallible<Vec<Duration>> + 'a>,
    took: Vec<Duration>,
    spent: Duration,
}

impl<'a> Line<'a> {
    fn new(
        name: &'static str,
        each: usize,
        turn: impl FnMut(Instant) -> Fallible<Vec<Duration>> + 'a,
    ) -> Self {
        Self {
            name,
            each,
            turn: Box::new(turn),
            took: Vec::new(),
            spent: Duration::ZERO,
        }
    }
}

/// Repeats a step until the turn is over.
fn steps(start: Instant, mut step: impl FnMut() -> Fallible) -> Fallible<Vec<Duration>> {
    let mut took = Vec::new();
    while start.elapsed() < TURN {
        let one = Instant::now();
        step()?;
        took.push(one.elapsed());
    }
    Ok(took)
}

fn payload() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD - 11))
}

/// The floor: as many bytes as a batch of payloads, written over and over, and `fdatasync`.
fn bare_writes(dir: &Path) -> Fallible<Line<'static>> {
    let mut file = File::create(dir.join("bare"))?;
    let block = vec![7_u8; WRITERS * PAYLOAD];
    for _ in 0..1000 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut number = 0;
    let name = "bare write + fdatasync of 64 x 1 KB";
    Ok(Line::new(name, WRITERS, move |start| {
        steps(start, || {
            number += 1;
            let place = number % 1000 * block.len();
            file.write_all_at(&block, u64::try_from(place)?)?;
            file.sync_data()?;
            Ok(())
        })
    }))
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
fn raw_inserts(path: &Path, (name, table, insert): Layout) -> Fallible<Line<'static>> {
    let conn = Connection::open(path)?;
    conn.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full;")?;
    conn.execute_batch(table)?;
    let (payload, mut sequence) = (payload(), 0_i64);
    Ok(Line::new(name, WRITERS, move |start| {
        steps(start, || {
            conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let mut statement = conn.prepare_cached(insert)?;
            for log in 0..i64::try_from(WRITERS)? {
                statement.execute(params![log, sequence, payload])?;
            }
            sequence += 1;
            conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(())
        })
    }))
}

async fn made(store: &SqliteStore) -> Result<(SessionId, u64), StoreError> {
    let one = session(&WorkspaceId::generate(), 0);
    store.session_insert(&one).await?;
    let (_, end) = store.session_claim(&one.id).await?;
    Ok((one.id, end.epoch))
}

/// Each writer appends one entry, waits until it is durable, and appends the next.
fn appends<'a>(
    runtime: &'a Runtime,
    store: &'a Arc<SqliteStore>,
    name: &'static str,
    writers: usize,
    shared: bool,
) -> Fallible<Line<'a>> {
    let mut targets = Vec::new();
    for _ in 0..writers {
        targets.push(match targets.first().cloned() {
            Some(first) if shared => first,
            _ => runtime.block_on(made(store))?,
        });
    }
    Ok(Line::new(name, 1, move |start| {
        runtime.block_on(append_turn(store, &targets, start))
    }))
}

async fn append_turn(
    store: &Arc<SqliteStore>,
    targets: &[(SessionId, u64)],
    start: Instant,
) -> Fallible<Vec<Duration>> {
    let mut tasks = tokio::task::JoinSet::new();
    for (id, epoch) in targets.iter().cloned() {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut took = Vec::new();
            while start.elapsed() < TURN {
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
    Ok(took)
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
        start.elapsed(),
        &mut first,
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
    report(
        "replay of 1,000,000 entries",
        per_page,
        start.elapsed(),
        &mut took,
    )?;
    let start = Instant::now();
    store.session_remove(&id).await?;
    let mut removed = vec![start.elapsed()];
    report(
        "removal of a session with 1,000,000 entries",
        1,
        start.elapsed(),
        &mut removed,
    )
}

/// One line of JSON. `each` is how many entries one measured step has.
fn report(name: &str, each: usize, spent: Duration, took: &mut [Duration]) -> Fallible {
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let entries = (took.len() * each) as f64;
    let line = json!({
        "name": name,
        "steps": took.len(),
        "per_second": entries / spent.as_secs_f64(),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    });
    println!("{line}");
    Ok(())
}
