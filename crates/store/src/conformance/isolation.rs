//! Promises about workspaces not seeing each other.

use std::sync::Arc;

use woodfrog_types::WorkspaceId;
use woodfrog_types::sandbox::SandboxFilter;

use super::fixture::{key, moved, page, sandbox, template};
use super::settings::entry;
use crate::Store;

type S = Arc<dyn Store>;

pub async fn lists_and_counts_stay_within_the_workspace(store: S) {
    let (ann, bob) = (WorkspaceId::generate(), WorkspaceId::generate());
    let default = WorkspaceId::default_workspace();
    let mut anns = Vec::new();
    for number in 0..3 {
        let one = sandbox(&ann, number);
        store.sandbox_insert(&one, vec![]).await.expect("inserted");
        anns.push(one);
    }
    store
        .template_insert(&template(Some(&ann), "app"))
        .await
        .expect("inserted");
    store.key_insert(&key(&ann, 1)).await.expect("inserted");
    let any = SandboxFilter::default();
    let first = store.sandbox_list(&ann, &any, &page(1, None)).await;
    let anns_cursor = first.expect("listed").next;
    assert!(anns_cursor.is_some());
    for other in [&bob, &default] {
        for cursor in [None, anns_cursor.clone()] {
            let got = store.sandbox_list(other, &any, &page(10, cursor)).await;
            assert_eq!(got.expect("listed").items, []);
        }
        assert_eq!(store.sandbox_count(other).await.expect("counted"), 0);
        let templates = store.template_list(other, &page(10, None)).await;
        assert_eq!(templates.expect("listed").items, []);
        let named = store.template_by_name(other, "app").await;
        assert_eq!(named.expect("asked"), None);
        assert_eq!(store.key_list(Some(other)).await.expect("listed"), []);
    }
    assert_eq!(store.sandbox_count(&ann).await.expect("counted"), 3);
    let reason = woodfrog_types::sandbox::EndReason::Requested;
    let ending = woodfrog_types::sandbox::SandboxState::Deleting { reason };
    let ending = moved(&anns[0], ending);
    store
        .sandbox_update(&ending, vec![])
        .await
        .expect("updated");
    assert_eq!(store.sandbox_count(&ann).await.expect("counted"), 2);
}

pub async fn idempotency_keys_stay_within_the_workspace(store: S) {
    for _ in 0..2 {
        let ws = WorkspaceId::generate();
        let claimed = store.idempotency_claim(&entry(&ws, "k", 1)).await;
        assert_eq!(claimed.expect("asked"), None);
    }
}
