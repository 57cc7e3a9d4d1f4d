//! SQLite keeps the port's promises.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use woodfrog_store::Store;
use woodfrog_store_sqlite::SqliteStore;

async fn empty() -> (Arc<dyn Store>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    (Arc::new(store), dir)
}

woodfrog_store::store_conformance!(empty);
