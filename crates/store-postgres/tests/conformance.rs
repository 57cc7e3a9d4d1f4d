//! Postgres keeps the port's promises.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;

use woodfrog_store::Store;

async fn empty() -> (Arc<dyn Store>, ()) {
    (Arc::new(common::fresh().await.0), ())
}

woodfrog_store::store_conformance!(empty);
