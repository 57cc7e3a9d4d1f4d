//! The in-memory model keeps the port's promises.

use std::sync::Arc;

use woodfrog_store::Store;
use woodfrog_store::memory::MemoryStore;

async fn empty() -> (Arc<dyn Store>, ()) {
    (Arc::new(MemoryStore::new()), ())
}

woodfrog_store::store_conformance!(empty);
