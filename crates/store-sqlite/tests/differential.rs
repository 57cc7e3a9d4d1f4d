//! Random operations on the in-memory model and on SQLite give the same answers.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Debug;
use std::sync::Arc;

use proptest::prelude::*;
use woodfrog_store::Store;
use woodfrog_store::memory::MemoryStore;
use woodfrog_store_sqlite::SqliteStore;

#[path = "differential/operations.rs"]
mod operations;
#[path = "differential/sessions.rs"]
mod sessions;
#[path = "differential/snapshots.rs"]
mod snapshots;

use operations::{Cursors, Operation, World, operation};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        // Failures are turned into named tests instead.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn sqlite_answers_as_the_model(
        operations in prop::collection::vec(operation(), 1..160),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(operations))?;
    }
}

async fn compare(operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let world = World::new();
    let model: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut sqlite: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let (mut of_model, mut of_sqlite) = (Cursors::default(), Cursors::default());
    for operation in operations {
        if matches!(operation, Operation::Reopen) {
            drop(sqlite);
            sqlite = Arc::new(SqliteStore::open(&path).unwrap());
            continue;
        }
        let wanted = operation.run(&*model, &world, &mut of_model).await;
        let got = operation.run(&*sqlite, &world, &mut of_sqlite).await;
        prop_assert_eq!(&got, &wanted, "{:?}", operation);
    }
    let (wanted, got) = (dump(&*model).await, dump(&*sqlite).await);
    prop_assert_eq!(got, wanted);
    Ok(())
}

async fn dump(store: &dyn Store) -> Vec<String> {
    fn text(value: &impl Debug) -> String {
        format!("{value:?}")
    }
    vec![
        text(&store.sandbox_all().await),
        text(&store.snapshot_all().await),
        text(&store.build_unfinished().await),
        text(&store.layers_in_use().await),
        text(&store.key_list(None).await),
    ]
}
