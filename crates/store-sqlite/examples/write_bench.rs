//! What a durable write costs, beside what the disk alone would allow.
//!
//! `cargo run --release -p woodfrog-store-sqlite --example write_bench [DIR]`

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use woodfrog_store::conformance::fixture::{event, sandbox};
use woodfrog_store::{EventStore, SandboxStore};
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox::SandboxFilter;
use woodfrog_types::{SandboxId, WorkspaceId};

const SEQUENTIAL: usize = 2000;
const WRITERS: usize = 64;
const PER_WRITER: usize = 500;
/// About what one insert appends to the write-ahead log.
const FSYNC_BYTES: usize = 16 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    bare_fsync(dir.path())?;
    let store = Arc::new(SqliteStore::open(&dir.path().join("store.db"))?);
    sequential(&store).await?;
    concurrent_inserts(&store).await?;
    concurrent_events(&store).await?;
    reads(&store).await
}

/// The floor: appending to a file and `fdatasync`, nothing else.
fn bare_fsync(dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(dir.join("bare"))?;
    let block = vec![7_u8; FSYNC_BYTES];
    // Like the write-ahead log after its first round: blocks that are allocated already.
    for _ in 0..SEQUENTIAL {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut took = Vec::with_capacity(SEQUENTIAL);
    for number in 0..SEQUENTIAL {
        let start = Instant::now();
        file.write_all_at(&block, u64::try_from(number * FSYNC_BYTES)?)?;
        file.sync_data()?;
        took.push(start.elapsed());
    }
    print("bare 16 KiB write + fdatasync", took);
    Ok(())
}

async fn sequential(store: &SqliteStore) -> Result<(), Box<dyn Error>> {
    let ws = WorkspaceId::generate();
    let mut took = Vec::with_capacity(SEQUENTIAL);
    for number in 0..SEQUENTIAL {
        let one = sandbox(&ws, i64::try_from(number)?);
        let start = Instant::now();
        store.sandbox_insert(&one, vec![event(0, "made")]).await?;
        took.push(start.elapsed());
    }
    print("sandbox insert + event, one writer", took);
    Ok(())
}

async fn concurrent_inserts(store: &Arc<SqliteStore>) -> Result<(), Box<dyn Error>> {
    let ws = WorkspaceId::generate();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (store, ws) = (Arc::clone(store), ws.clone());
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(PER_WRITER);
            for number in 0..PER_WRITER {
                let one = sandbox(&ws, i64::try_from(number).unwrap_or(0));
                let start = Instant::now();
                store.sandbox_insert(&one, vec![event(0, "made")]).await?;
                took.push(start.elapsed());
            }
            Ok::<_, woodfrog_store::StoreError>(took)
        });
    }
    finish("sandbox insert + event, 64 writers", start, tasks).await
}

async fn concurrent_events(store: &Arc<SqliteStore>) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (store, id) = (Arc::clone(store), SandboxId::generate());
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(PER_WRITER);
            for _ in 0..PER_WRITER {
                let start = Instant::now();
                store.event_append(&id, vec![event(0, "x")]).await?;
                took.push(start.elapsed());
            }
            Ok::<_, woodfrog_store::StoreError>(took)
        });
    }
    finish("event append, 64 writers", start, tasks).await
}

type Timed = Result<Vec<Duration>, woodfrog_store::StoreError>;

async fn finish(
    name: &str,
    start: Instant,
    mut tasks: tokio::task::JoinSet<Timed>,
) -> Result<(), Box<dyn Error>> {
    let mut took = Vec::new();
    while let Some(task) = tasks.join_next().await {
        took.extend(task??);
    }
    let all = start.elapsed();
    println!(
        "{name}: {:.0}/s",
        f64::from(u32::try_from(took.len())?) / all.as_secs_f64()
    );
    print(name, took);
    Ok(())
}

async fn reads(store: &SqliteStore) -> Result<(), Box<dyn Error>> {
    let all = store.sandbox_all().await?;
    let mut took = Vec::with_capacity(SEQUENTIAL);
    for one in all.iter().step_by(all.len() / SEQUENTIAL) {
        let start = Instant::now();
        store.sandbox_fetch(&one.id).await?;
        took.push(start.elapsed());
    }
    print("sandbox fetch", took);
    let request = PageRequest {
        limit: 100,
        cursor: None,
    };
    let mut took = Vec::new();
    for one in all.iter().take(200) {
        let start = Instant::now();
        store
            .sandbox_list(&one.workspace, &SandboxFilter::default(), &request)
            .await?;
        took.push(start.elapsed());
    }
    print(&format!("first page of 100, {} stored", all.len()), took);
    Ok(())
}

fn print(name: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    println!(
        "{name}: p50 {:.3} ms, p99 {:.3} ms, n {}",
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        took.len()
    );
}
