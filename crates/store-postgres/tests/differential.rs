//! Random operations on the in-memory model and on Postgres give the same answers: the operations
//! are those that SQLite is compared with.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/mod.rs"]
mod common;
#[path = "../../store-sqlite/tests/differential/operations.rs"]
mod operations;
#[path = "../../store-sqlite/tests/differential/sessions.rs"]
mod sessions;
#[path = "../../store-sqlite/tests/differential/snapshots.rs"]
mod snapshots;

use std::sync::Arc;

use proptest::prelude::*;
use woodfrog_store::Store;
use woodfrog_store::memory::MemoryStore;
use woodfrog_store_postgres::PostgresStore;

use operations::{Cursors, Operation, World, operation};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        // Each case waits for a disk a hundred times: what fails is shown as it was found.
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn postgres_answers_as_the_model(
        operations in prop::collection::vec(operation(), 1..160),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(operations))?;
    }
}

async fn compare(operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let (store, settings) = common::fresh().await;
    let world = World::new();
    let model: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut postgres: Arc<dyn Store> = Arc::new(store);
    let (mut of_model, mut of_postgres) = (Cursors::default(), Cursors::default());
    for operation in operations {
        if matches!(operation, Operation::Reopen) {
            postgres = Arc::new(PostgresStore::open(&settings).await.unwrap());
            continue;
        }
        let wanted = operation.run(&*model, &world, &mut of_model).await;
        let got = operation.run(&*postgres, &world, &mut of_postgres).await;
        prop_assert_eq!(&got, &wanted, "{:?}", operation);
    }
    Ok(())
}
