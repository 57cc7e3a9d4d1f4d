//! Several servers share one Postgres.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/mod.rs"]
mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use woodfrog_store::Store;
use woodfrog_store::conformance::leases::Shared;
use woodfrog_store_postgres::{NodeSettings, PostgresStore};
use woodfrog_types::NodeId;

async fn shared() -> (Shared, ()) {
    let (_, settings) = common::fresh().await;
    let open = move |node: Option<(NodeId, Duration)>| -> Pin<Box<dyn Future<Output = _> + Send>> {
        let mut settings = settings.clone();
        settings.node = node.map(|(id, lease)| NodeSettings { id, lease });
        Box::pin(async move {
            let opened = PostgresStore::open(&settings).await.unwrap();
            Arc::new(opened) as Arc<dyn Store>
        })
    };
    (Shared(Box::new(open)), ())
}

woodfrog_store::lease_conformance!(shared);
