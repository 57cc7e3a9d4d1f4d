//! Opening, closing and damage.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use woodfrog_store::conformance::fixture::{event, page, sandbox, template};
use woodfrog_store::{EventStore, SandboxStore, StoreError, TemplateStore};
use woodfrog_store_sqlite::{OpenError, SqliteStore};
use woodfrog_types::sandbox::{Sandbox, SandboxFilter};
use woodfrog_types::{SandboxId, WorkspaceId};

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    (dir, path)
}

/// Changes the file behind the store's back.
fn meddle(path: &Path, sql: &str, id: &str) {
    let conn = Connection::open(path).unwrap();
    let changed = conn.execute(sql, [id]).unwrap();
    assert_eq!(changed, 1, "{sql}");
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let (dir, path) = fresh();
    std::fs::write(&path, b"").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let one = sandbox(&WorkspaceId::generate(), 0);
    store.sandbox_insert(&one, vec![]).await.unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
        seen += 1;
    }
    assert_eq!(seen, 3, "database, log and index of the log");
}

#[tokio::test]
async fn reopening_finds_everything_and_closing_folds_the_log() {
    let (_dir, path) = fresh();
    let one = sandbox(&WorkspaceId::generate(), 0);
    for round in 0..3 {
        let store = SqliteStore::open(&path).unwrap();
        if round == 0 {
            store.sandbox_insert(&one, vec![]).await.unwrap();
        }
        let found = store.sandbox_fetch(&one.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&one));
        drop(store);
        assert!(!path.with_extension("db-wal").exists());
    }
}

/// Writes whose callers are gone are still written when the store is dropped.
#[tokio::test]
async fn drop_waits_for_the_queue() {
    let (_dir, path) = fresh();
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    let id = SandboxId::generate();
    for _ in 0..100 {
        let append = store.event_append(&id, vec![event(0, "x")]);
        let mut append = std::pin::pin!(append);
        // One poll puts it in the queue; then the caller goes away.
        let first = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::future::Future::poll(append.as_mut(), context))
        });
        let _pending = first.await;
    }
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.event_list(&id, 0, 1000).await.unwrap().len(), 100);
}

/// Many writes in one transaction, every third of which fails: the others are kept.
#[tokio::test]
async fn a_failing_write_takes_only_itself_back() {
    let (_dir, path) = fresh();
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    let taken = sandbox(&WorkspaceId::generate(), 0);
    store.sandbox_insert(&taken, vec![]).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..90 {
        let (store, taken) = (Arc::clone(&store), taken.clone());
        tasks.spawn(async move {
            let one = match number % 3 {
                0 => taken,
                _ => sandbox(&taken.workspace, number),
            };
            let events = vec![event(0, "made")];
            let result = store.sandbox_insert(&one, events).await;
            match (number % 3, result) {
                (0, Err(StoreError::Constraint { .. })) | (1 | 2, Ok(())) => {}
                (_, other) => panic!("{number}: {other:?}"),
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(store.sandbox_all().await.unwrap().len(), 61);
    assert_eq!(store.event_list(&taken.id, 0, 10).await.unwrap(), []);
}

async fn three(store: &SqliteStore, ws: &WorkspaceId) -> Vec<Sandbox> {
    let mut all = Vec::new();
    for number in 0..3 {
        let one = sandbox(ws, number);
        store.sandbox_insert(&one, vec![]).await.unwrap();
        all.push(one);
    }
    all
}

#[tokio::test]
async fn a_damaged_sandbox_is_reported_and_hides_no_other() {
    let ws = WorkspaceId::generate();
    let damages = [
        "UPDATE sandboxes SET body = '{\"v\":\"1\",' WHERE id = ?1",
        "UPDATE sandboxes SET body = replace(body, '\"v\":\"2\"', '\"v\":\"9\"') WHERE id = ?1",
        "UPDATE sandboxes SET body = '' WHERE id = ?1",
        "UPDATE sandboxes SET metadata = '[1]' WHERE id = ?1",
        "UPDATE sandboxes SET state = 'running' WHERE id = ?1",
        "UPDATE sandboxes SET template = 'x' WHERE id = ?1",
        "UPDATE sandboxes SET generation = -1 WHERE id = ?1",
        "UPDATE sandboxes SET body = CAST(x'ff' AS TEXT) WHERE id = ?1",
    ];
    for damage in damages {
        let (_dir, path) = fresh();
        let store = SqliteStore::open(&path).unwrap();
        let all = three(&store, &ws).await;
        let bad = &all[1].id;
        meddle(&path, damage, bad.as_str());

        let fetched = store.sandbox_fetch(bad).await;
        assert!(
            matches!(fetched, Err(StoreError::Corrupt { .. })),
            "{damage}: {fetched:?}"
        );
        for good in [&all[0], &all[2]] {
            let found = store.sandbox_fetch(&good.id).await.unwrap();
            assert_eq!(found.as_ref(), Some(good));
        }
        let filter = SandboxFilter::default();
        for limit in [1, 2, 10] {
            let mut ids = Vec::new();
            let mut cursor = None;
            loop {
                let request = page(limit, cursor);
                let part = store.sandbox_list(&ws, &filter, &request).await.unwrap();
                ids.extend(part.items.into_iter().map(|sandbox| sandbox.id));
                cursor = part.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(ids, [all[2].id.clone(), all[0].id.clone()], "{damage}");
        }
        // Recovery is told which one.
        let error = store.sandbox_all().await.unwrap_err();
        assert!(error.to_string().contains(bad.as_str()), "{error}");
        let recovery = store.sandbox_recover().await.unwrap();
        let damaged: Vec<_> = recovery.damaged.into_iter().map(|one| one.id).collect();
        assert_eq!(damaged, [Some(bad.clone())], "{damage}");
        assert_eq!(recovery.sandboxes.len(), 2);
        // It can be removed.
        store.sandbox_remove(bad, vec![]).await.unwrap();
        assert_eq!(store.sandbox_all().await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_damaged_build_stops_the_removal_of_layers() {
    let (_dir, path) = fresh();
    let store = SqliteStore::open(&path).unwrap();
    let owner = template(None, "base");
    store.template_insert(&owner).await.unwrap();
    let build = woodfrog_store::conformance::fixture::build(&owner.id, 0);
    store.build_insert(&build).await.unwrap();
    let damage = "UPDATE builds SET layers = '[7]' WHERE id = ?1";
    meddle(&path, damage, &build.id.to_string());
    let error = store.layers_in_use().await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let (_dir, path) = fresh();
    let text = "not a database, but a text of some length. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Sqlite(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let missing = SqliteStore::open(Path::new("/nonexistent/dir/store.db")).unwrap_err();
    assert!(matches!(missing, OpenError::File { .. }), "{missing:?}");
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let (_dir, path) = fresh();
    drop(SqliteStore::open(&path).unwrap());
    meddle(
        &path,
        "INSERT INTO schema_migrations VALUES (9999, ?1, '', 0)",
        "future",
    );
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(
        matches!(error, OpenError::FutureVersion { found: 9999, .. }),
        "{error:?}"
    );
}

#[test]
fn a_file_made_by_other_migrations_is_refused() {
    let (_dir, path) = fresh();
    drop(SqliteStore::open(&path).unwrap());
    meddle(
        &path,
        "UPDATE schema_migrations SET checksum = ?1 WHERE version = 1",
        "0",
    );
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(
        matches!(error, OpenError::ChangedMigration { version: 1, .. }),
        "{error:?}"
    );
}
