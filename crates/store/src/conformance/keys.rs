//! Promises about API keys.

use std::sync::Arc;

use woodfrog_types::key::{ApiKey, PreviousSecret, Scope};
use woodfrog_types::{KeyId, WorkspaceId};

use super::assert_constraint;
use super::fixture::{at, key};
use crate::Store;

type S = Arc<dyn Store>;

async fn insert(store: &S, ws: &WorkspaceId, digest: u8) -> ApiKey {
    let one = key(ws, digest);
    store.key_insert(&one).await.expect("inserted");
    one
}

pub async fn key_is_found_by_digest(store: S) {
    let mut one = key(&WorkspaceId::generate(), 1);
    one.scope = Scope::Workspace;
    store.key_insert(&one).await.expect("inserted");
    let other = insert(&store, &one.workspace, 2).await;
    for wanted in [&one, &other] {
        let found = store.key_by_digest(&wanted.digest).await.expect("asked");
        assert_eq!(found.as_ref(), Some(wanted));
        let found = store.key_fetch(&wanted.id).await.expect("asked");
        assert_eq!(found.as_ref(), Some(wanted));
    }
    let absent = store.key_by_digest(&[3; 32]).await.expect("asked");
    assert_eq!(absent, None);
    let absent = store.key_fetch(&KeyId::generate()).await.expect("asked");
    assert_eq!(absent, None);
}

pub async fn key_digest_is_unique(store: S) {
    let one = insert(&store, &WorkspaceId::generate(), 1).await;
    assert_constraint(store.key_insert(&key(&WorkspaceId::generate(), 1)).await);
    let same_id = ApiKey {
        digest: [9; 32],
        ..one.clone()
    };
    assert_constraint(store.key_insert(&same_id).await);
    assert_eq!(store.key_list(None).await.expect("listed"), [one]);
}

pub async fn key_list_is_oldest_first(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let c = insert(&store, &ws, 3).await;
    let a = insert(&store, &ws, 1).await;
    let b = insert(&store, &other, 2).await;
    let all = store.key_list(None).await.expect("listed");
    assert_eq!(all, [a.clone(), b.clone(), c.clone()]);
    let own = store.key_list(Some(&ws)).await.expect("listed");
    assert_eq!(own, [a, c]);
    let others = store.key_list(Some(&other)).await.expect("listed");
    assert_eq!(others, [b]);
}

pub async fn key_removal_says_whether_it_was_there(store: S) {
    let one = insert(&store, &WorkspaceId::generate(), 1).await;
    assert!(store.key_remove(&one.id).await.expect("removed"));
    assert!(!store.key_remove(&one.id).await.expect("removed"));
    let found = store.key_by_digest(&one.digest).await.expect("asked");
    assert_eq!(found, None);
}

pub async fn key_touch_never_moves_back(store: S) {
    let one = insert(&store, &WorkspaceId::generate(), 1).await;
    for (touch, expected) in [(50, 50), (20, 50), (70, 70)] {
        store.key_touch(&one.id, at(touch)).await.expect("touched");
        let found = store.key_fetch(&one.id).await.expect("asked");
        let last_used_at = found.expect("is there").last_used_at;
        assert_eq!(last_used_at, Some(at(expected)));
    }
    let gone = store.key_touch(&KeyId::generate(), at(1)).await;
    gone.expect("no error");
}

pub async fn key_rotation_keeps_the_secret_before(store: S) {
    let one = insert(&store, &WorkspaceId::generate(), 1).await;
    let other = insert(&store, &WorkspaceId::generate(), 2).await;
    let next = ApiKey {
        digest: [7; 32],
        hint: "wf_cd".to_owned(),
        previous: Some(PreviousSecret {
            digest: one.digest,
            until: at(99),
        }),
        expires_at: None,
        ..one.clone()
    };
    store.key_update(&next).await.expect("updated");
    for digest in [next.digest, one.digest] {
        let found = store.key_by_digest(&digest).await.expect("asked");
        assert_eq!(found.as_ref(), Some(&next));
    }
    // The one before that is nobody's any more.
    let before = one.previous.expect("the fixture has one").digest;
    let found = store.key_by_digest(&before).await.expect("asked");
    assert_eq!(found, None);
    for taken in [one.digest, next.digest] {
        let clash = ApiKey {
            digest: taken,
            ..other.clone()
        };
        assert_constraint(store.key_update(&clash).await);
        let new = ApiKey {
            id: KeyId::generate(),
            ..clash
        };
        assert_constraint(store.key_insert(&new).await);
    }
    let gone = ApiKey {
        digest: [8; 32],
        ..key(&WorkspaceId::generate(), 3)
    };
    super::assert_not_found(store.key_update(&gone).await);
}
