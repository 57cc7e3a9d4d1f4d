//! The in-memory model keeps the port's promises.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use woodfrog_store::Store;
use woodfrog_store::conformance::leases::Shared;
use woodfrog_store::memory::MemoryStore;
use woodfrog_types::NodeId;

async fn empty() -> (Arc<dyn Store>, ()) {
    (Arc::new(MemoryStore::new()), ())
}

woodfrog_store::store_conformance!(empty);

async fn shared() -> (Shared, ()) {
    let store = Arc::new(MemoryStore::new());
    let open = move |node: Option<(NodeId, Duration)>| -> Pin<Box<dyn Future<Output = _> + Send>> {
        let opened: Arc<dyn Store> = match node {
            Some((node, lease)) => Arc::new(store.for_node(node, lease)),
            None => Arc::clone(&store) as _,
        };
        Box::pin(async move { opened })
    };
    (Shared(Box::new(open)), ())
}

woodfrog_store::lease_conformance!(shared);
