//! What appending to session logs costs in Postgres, with durable settings.
//!
//! `TMPDIR=DIR cargo run --release -p woodfrog-store-postgres --example postgres_bench` starts a
//! server of its own in DIR and prints one line of JSON per measurement.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use woodfrog_store::SessionStore;
use woodfrog_store::StoreError;
use woodfrog_store::conformance::fixture::{session, session_event};
use woodfrog_store::conformance::session_log::append;
use woodfrog_store_postgres::{PostgresStore, Settings};
use woodfrog_testkit::postgres::Postgres;
use woodfrog_types::session::Stream;
use woodfrog_types::{SessionId, WorkspaceId};

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const PAYLOAD: usize = 1024;
const SPAN: Duration = Duration::from_secs(6);

#[tokio::main]
async fn main() -> Fallible {
    let url = Postgres::shared()?.url();
    let store = Arc::new(PostgresStore::open(&Settings::new(url)).await?);
    let all = appends(
        &store,
        "Postgres: append, 64 writers, each its own session",
        64,
        false,
    );
    let (id, entries) = all.await?;
    appends(
        &store,
        "Postgres: append, 64 writers, one session",
        64,
        true,
    )
    .await?;
    appends(&store, "Postgres: append, one writer", 1, false).await?;
    replay(&store, &id, entries).await
}

async fn made(store: &PostgresStore) -> Result<(SessionId, u64), StoreError> {
    let one = session(&WorkspaceId::generate(), 0);
    store.session_insert(&one).await?;
    let (_, end) = store.session_claim(&one.id).await?;
    Ok((one.id, end.epoch))
}

/// Each writer appends one entry, waits until it is durable, and appends the next. One of the
/// sessions, and how many entries it has.
async fn appends(
    store: &Arc<PostgresStore>,
    name: &str,
    writers: usize,
    shared: bool,
) -> Fallible<(SessionId, usize)> {
    let first = made(store).await?;
    let mut targets = vec![first.clone()];
    while targets.len() < writers {
        targets.push(match shared {
            true => first.clone(),
            false => made(store).await?,
        });
    }
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (id, epoch) in targets {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD - 11));
            let mut took = Vec::new();
            while start.elapsed() < SPAN {
                let event = vec![session_event(Stream::Log, &payload)];
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
    let spent = start.elapsed();
    let entries = took.len();
    report(name, entries, spent, &mut took);
    let slice = store.session_read(&first.0, Stream::Log, 0, 1, 1).await?;
    Ok((first.0, usize::try_from(slice.end.log)?))
}

async fn replay(store: &PostgresStore, id: &SessionId, entries: usize) -> Fallible {
    let (start, mut took, mut after) = (Instant::now(), Vec::new(), 0);
    loop {
        let one = Instant::now();
        let slice = store
            .session_read(id, Stream::Log, after, 1000, 1 << 20)
            .await?;
        let Some(last) = slice.events.last() else {
            break;
        };
        after = last.sequence;
        took.push(one.elapsed());
    }
    report("Postgres: replay", entries, start.elapsed(), &mut took);
    Ok(())
}

/// One line of JSON.
fn report(name: &str, entries: usize, spent: Duration, took: &mut [Duration]) {
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let per_second = entries as f64 / spent.as_secs_f64();
    println!(
        "{{\"name\":\"{name}\",\"steps\":{},\"per_second\":{per_second},\"p50_ms\":{},\"p99_ms\":{},\
         \"max_ms\":{}}}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
