//! Opening, several servers on one database, and losing the connection.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};
use woodfrog_store::conformance::fixture::{sandbox, session, session_event};
use woodfrog_store::conformance::session_log::append;
use woodfrog_store::{SandboxStore, SessionAppend, SessionStore, StoreError};
use woodfrog_store_postgres::{OpenError, PostgresStore, Settings};
use woodfrog_types::session::{LogEnd, Stream};
use woodfrog_types::{SessionId, WorkspaceId};

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection behind the store's back.
async fn meddler(settings: &Settings) -> Client {
    let (client, connection) = tokio_postgres::connect(&settings.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let path = format!("SET search_path = {}", settings.schema);
    client.batch_execute(&path).await.unwrap();
    client
}

async fn count(client: &Client, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

async fn made(store: &PostgresStore) -> (SessionId, u64) {
    let one = session(&WorkspaceId::generate(), 0);
    store.session_insert(&one).await.unwrap();
    let (_, end) = store.session_claim(&one.id).await.unwrap();
    (one.id, end.epoch)
}

fn entries(id: &SessionId, epoch: u64, count: usize) -> SessionAppend {
    append(id, epoch, vec![session_event(Stream::Log, "x"); count])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_together_make_the_schema_once() {
    let (_, settings) = common::fresh().await;
    let settings = Arc::new(Settings {
        schema: format!("{}_again", settings.schema),
        connections: 2,
        ..settings
    });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let settings = Arc::clone(&settings);
        tasks.spawn(async move { PostgresStore::open(&settings).await });
    }
    while let Some(opened) = tasks.join_next().await {
        opened.unwrap().unwrap();
    }
    let client = meddler(&settings).await;
    assert_eq!(count(&client, "schema_migrations").await, migrations());
}

/// How many there are.
fn migrations() -> i64 {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let files = std::fs::read_dir(dir).unwrap();
    i64::try_from(files.count()).unwrap()
}

#[tokio::test]
async fn a_changed_or_newer_schema_is_refused_and_left_alone() {
    let (store, settings) = common::fresh().await;
    drop(store);
    let client = meddler(&settings).await;
    let newer = "INSERT INTO schema_migrations VALUES (1000, 'new', '', 0)";
    client.batch_execute(newer).await.unwrap();
    let error = PostgresStore::open(&settings).await.unwrap_err();
    let future = matches!(error, OpenError::FutureVersion { found: 1000, .. });
    assert!(future, "{error:?}");
    let changed = "DELETE FROM schema_migrations WHERE version = 1000; \
                   UPDATE schema_migrations SET checksum = 'other' WHERE version = 1";
    client.batch_execute(changed).await.unwrap();
    let error = PostgresStore::open(&settings).await.unwrap_err();
    let changed = matches!(error, OpenError::ChangedMigration { version: 1, .. });
    assert!(changed, "{error:?}");
    assert_eq!(count(&client, "schema_migrations").await, migrations());
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error() {
    let (_, settings) = common::fresh().await;
    for schema in ["", "a b", "a;b", "1a", "A", "\"", &"a".repeat(64)] {
        let wrong = Settings {
            schema: schema.to_owned(),
            ..settings.clone()
        };
        let error = PostgresStore::open(&wrong).await.unwrap_err();
        assert!(matches!(error, OpenError::Schema(_)), "{schema}: {error:?}");
    }
    for url in ["http://x", "host=/nonexistent user=postgres"] {
        let wrong = Settings {
            url: url.to_owned(),
            ..settings.clone()
        };
        PostgresStore::open(&wrong).await.unwrap_err();
    }
    // We do not encrypt: whoever asks for it is told, and not connected without it.
    let demanding = Settings {
        url: format!("{} sslmode=require", settings.url),
        ..settings
    };
    PostgresStore::open(&demanding).await.unwrap_err();
}

/// A commit is on disk when it is answered, whatever the database's or the URL's default is.
#[tokio::test]
async fn commits_are_synchronous() {
    let (_, settings) = common::fresh().await;
    let settings = Settings {
        url: format!(
            "{} options='-c synchronous_commit=off -c woodfrog.mark=yes'",
            settings.url
        ),
        ..settings
    };
    let store = PostgresStore::open(&settings).await.unwrap();
    let client = meddler(&settings).await;
    let spy = "CREATE TABLE spy (said TEXT); \
               CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               INSERT INTO spy VALUES (current_setting('synchronous_commit') || ' ' || \
               current_setting('woodfrog.mark')); RETURN NEW; END $$; \
               CREATE TRIGGER spy AFTER INSERT ON sandboxes FOR EACH ROW EXECUTE FUNCTION spy()";
    client.batch_execute(spy).await.unwrap();
    let one = sandbox(&WorkspaceId::generate(), 0);
    store.sandbox_insert(&one, vec![]).await.unwrap();
    let said: String = client
        .query_one("SELECT said FROM spy", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(said, "on yes");
}

/// Two servers append to the same sessions at the same time: places are dense, nobody waits for
/// ever, and whoever claims a session last is the only one that writes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_a_database() {
    const EACH: u64 = 30;
    let (one, settings) = common::fresh().await;
    let two = PostgresStore::open(&settings).await.unwrap();
    let stores = [Arc::new(one), Arc::new(two)];
    let mut targets = Vec::new();
    for _ in 0..4 {
        targets.push(made(&stores[0]).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for store in &stores {
        for (id, epoch) in targets.iter().cloned() {
            let store = Arc::clone(store);
            tasks.spawn(async move {
                let mut last = LogEnd::default();
                for _ in 0..EACH {
                    let end = store.session_append(entries(&id, epoch, 1)).await.unwrap();
                    assert!(end.log > last.log);
                    last = end;
                }
            });
        }
    }
    let all = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap()
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    for (id, epoch) in &targets {
        let slice = stores[1]
            .session_read(id, Stream::Log, 0, 1000, 1 << 20)
            .await;
        let slice = slice.unwrap();
        let places: Vec<_> = slice.events.iter().map(|event| event.sequence).collect();
        assert_eq!(places, (1..=2 * EACH).collect::<Vec<_>>());
        let (_, end) = stores[1].session_claim(id).await.unwrap();
        let stale = stores[0].session_append(entries(id, *epoch, 1)).await;
        assert!(
            matches!(stale, Err(StoreError::Conflict { .. })),
            "{stale:?}"
        );
        let next = stores[1].session_append(entries(id, end.epoch, 1)).await;
        assert_eq!(next.unwrap().log, 2 * EACH + 1);
    }
}

/// What was removed or trimmed leaves the tables, and nothing else does.
#[tokio::test]
async fn what_is_thrown_away_leaves_the_tables() {
    let (store, settings) = common::fresh().await;
    let (gone, epoch) = made(&store).await;
    store
        .session_append(entries(&gone, epoch, 5000))
        .await
        .unwrap();
    let (trimmed, epoch) = made(&store).await;
    store
        .session_append(entries(&trimmed, epoch, 50))
        .await
        .unwrap();
    assert!(store.session_remove(&gone).await.unwrap());
    store.session_trim(&trimmed, Stream::Log, 41).await.unwrap();
    let client = meddler(&settings).await;
    let swept = async {
        while count(&client, "session_trash").await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, swept).await.unwrap();
    assert_eq!(count(&client, "session_events").await, 10);
    let slice = store.session_read(&trimmed, Stream::Log, 0, 99, 9999).await;
    assert_eq!(slice.unwrap().events.len(), 10);
}

/// The database ends every connection: calls that were under way fail, later ones work, and what
/// was acknowledged is there.
#[tokio::test]
async fn a_lost_connection_is_not_the_end() {
    let (_, settings) = common::fresh().await;
    let client = meddler(&settings).await;
    let settings = Settings {
        url: format!("{} application_name=lost", settings.url),
        ..settings
    };
    let store = PostgresStore::open(&settings).await.unwrap();
    let (id, epoch) = made(&store).await;
    store.session_append(entries(&id, epoch, 1)).await.unwrap();
    let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = 'lost'";
    assert!(client.execute(all, &[]).await.unwrap() > 0);
    let works = async {
        loop {
            match store.session_append(entries(&id, epoch, 1)).await {
                Ok(end) => return end,
                Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let end = tokio::time::timeout(PATIENCE, works).await.unwrap();
    let slice = store.session_read(&id, Stream::Log, 0, 99, 9999).await;
    let slice = slice.unwrap();
    assert_eq!(slice.end, end);
    assert_eq!(slice.events.len() as u64, end.log);
    assert!(end.log >= 2);
}
