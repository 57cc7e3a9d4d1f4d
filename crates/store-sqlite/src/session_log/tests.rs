use woodfrog_store::conformance::fixture::{session, session_event};
use woodfrog_store::conformance::session_log::append;

use super::*;
use crate::migrate::plan;

fn open(dir: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(&dir.path().join("store.db")).unwrap()
}

async fn made(store: &SqliteStore) -> (SessionId, u64) {
    let one = session(&WorkspaceId::generate(), 0);
    store.session_insert(&one).await.unwrap();
    let (_, end) = store.session_claim(&one.id).await.unwrap();
    (one.id, end.epoch)
}

async fn fill(store: &SqliteStore, id: &SessionId, epoch: u64, count: usize) -> LogEnd {
    let events = vec![session_event(Stream::Log, "x"); count];
    let appended = store.session_append(append(id, epoch, events)).await;
    appended.unwrap()
}

async fn rows(store: &SqliteStore) -> i64 {
    let sql = "SELECT count(*) FROM session_events";
    let counted = store.read(|conn| {
        conn.query_row(sql, [], |row| row.get(0))
            .map_err(crate::error::in_("row"))
    });
    counted.await.unwrap()
}

/// Waits until nothing is left to delete.
async fn await_swept(store: &SqliteStore) {
    let waiting = async {
        while !store.read(trash).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, waiting).await.unwrap();
}

#[test]
fn keys_sort_by_log_stream_and_sequence() {
    let max = u64::MAX;
    let (one, two) = (Stream::Log, Stream::Universal);
    let sorted = [
        place(1, one, 0),
        place(1, one, 1),
        place(1, one, SEQUENCE_MAX),
        place(1, two, 0),
        place(1, two, max),
        place(2, one, 0),
        place((1 << 30) - 1, two, max),
    ];
    assert!(sorted.is_sorted_by(|a, b| a < b), "{sorted:?}");
    assert_eq!(sequence(place(7, two, 42)), 42);
    assert_eq!(sequence(place(7, two, max)), u64::from(u32::MAX));
    assert_eq!(sorted[6], i64::MAX);
}

#[test]
fn entries_and_ends_come_from_their_keys() {
    for (sql, how) in [
        (
            read::INDEXED,
            "SEARCH session_index USING INTEGER PRIMARY KEY",
        ),
        (
            read::INDEXED,
            "SEARCH session_events USING INTEGER PRIMARY KEY",
        ),
        (
            read::INDEXED_BACK,
            "SEARCH session_index USING INTEGER PRIMARY KEY",
        ),
        (
            read::TAIL,
            "SEARCH session_events USING INTEGER PRIMARY KEY",
        ),
        (
            read::TAIL_BACK,
            "SEARCH session_events USING INTEGER PRIMARY KEY",
        ),
    ] {
        let plan = plan(sql);
        assert!(plan.contains(how), "{sql}: {plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
    let find =
        plan("SELECT session_logs.* FROM sessions JOIN session_logs USING (log) WHERE id = ?1");
    assert!(!find.contains("SCAN"), "{find}");
}

/// What was removed or trimmed is unreadable at once and leaves the file a few entries at a
/// time, also if the server ends meanwhile; nothing else goes.
#[tokio::test]
async fn what_is_thrown_away_leaves_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let (gone, epoch) = made(&store).await;
    fill(&store, &gone, epoch, 5000).await;
    let (trimmed, epoch) = made(&store).await;
    fill(&store, &trimmed, epoch, 5000).await;
    let (kept, epoch) = made(&store).await;
    fill(&store, &kept, epoch, 100).await;
    assert!(store.session_remove(&gone).await.unwrap());
    let end = store.session_trim(&trimmed, Stream::Log, 4001).await;
    assert_eq!(end.unwrap().log_first, 4001);
    drop(store);
    let store = open(&dir);
    await_swept(&store).await;
    assert_eq!(rows(&store).await, 1100);
    let all = store.session_read(&trimmed, Stream::Log, 0, 9999, 9999);
    let all = all.await.unwrap().events;
    assert_eq!((all.len(), all[0].sequence), (1000, 4001));
}

fn trash(conn: &Connection) -> Result<Vec<i64>> {
    let sql = "SELECT low FROM session_trash";
    all(conn, "row", sql, [], |row| get(row, "row", "low"))
}

/// However much there is to delete, a transaction is held up by a few rows of it.
#[test]
fn one_sweep_deletes_a_few() {
    let mut conn = Connection::open_in_memory().unwrap();
    crate::migrate::run(&mut conn, crate::migrate::MIGRATIONS).unwrap();
    let one = session(&WorkspaceId::generate(), 0);
    sessions::insert(&conn, &one).unwrap();
    let mut logs = Logs::default();
    let events = vec![session_event(Stream::Log, "x"); 1000];
    let appended = logs.append(&conn, &append(&one.id, 0, events)).unwrap();
    assert_eq!(appended.unwrap().log, 1000);
    logs.settle(&conn, &one.id).unwrap();
    assert!(remove(&conn, &one.id).unwrap());
    let rows = |conn: &Connection| -> i64 {
        let sql = "SELECT count(*) FROM session_events";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    for left in [750, 500, 250, 0, 0] {
        assert!(logs.has_trash());
        logs.sweep(&conn).unwrap();
        assert_eq!(rows(&conn), left);
    }
    assert_eq!(trash(&conn).unwrap(), Vec::<i64>::new());
    logs.sweep(&conn).unwrap();
    assert!(!logs.has_trash());
}

/// Two servers with one file: each sees what the other wrote, and whoever claimed last writes.
#[tokio::test]
async fn another_writer_of_the_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(&dir), open(&dir));
    let (id, first) = made(&one).await;
    assert_eq!(fill(&one, &id, first, 1).await.log, 1);
    // Both may write under one epoch: places stay dense.
    assert_eq!(fill(&two, &id, first, 1).await.log, 2);
    assert_eq!(fill(&one, &id, first, 1).await.log, 3);
    let (_, end) = two.session_claim(&id).await.unwrap();
    assert_eq!(end.log, 3);
    let event = vec![session_event(Stream::Log, "x")];
    let stale = one.session_append(append(&id, first, event)).await;
    assert!(
        matches!(stale, Err(StoreError::Conflict { .. })),
        "{stale:?}"
    );
    assert_eq!(fill(&two, &id, end.epoch, 1).await.log, 4);
}

/// A transaction that is lost takes back what the writer thought it knew.
#[tokio::test]
async fn a_full_disk_leaves_no_hole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let (id, epoch) = made(&store).await;
    assert_eq!(fill(&store, &id, epoch, 1).await.log, 1);
    let limit = |pages: i64| {
        store.write(move |conn| {
            conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
                .map_err(crate::error::in_("limit"))
        })
    };
    limit(1).await.unwrap();
    let large = vec![session_event(Stream::Log, &"x".repeat(100_000)); 3];
    let full = store.session_append(append(&id, epoch, large)).await;
    assert!(matches!(full, Err(StoreError::Unavailable(_))), "{full:?}");
    limit(100_000).await.unwrap();
    assert_eq!(fill(&store, &id, epoch, 1).await.log, 2);
    let slice = store
        .session_read(&id, Stream::Log, 0, 9, 9999)
        .await
        .unwrap();
    let places: Vec<_> = slice.events.iter().map(|event| event.sequence).collect();
    assert_eq!(places, [1, 2]);
}
