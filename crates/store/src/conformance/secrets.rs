//! Promises about secrets and volumes.

use std::collections::BTreeSet;
use std::sync::Arc;

use woodfrog_types::secret::{Sealed, Secret, Volume};
use woodfrog_types::{SecretId, VolumeId, WorkspaceId};

use super::fixture::{at, map, page};
use super::{RACERS, assert_conflict, assert_constraint};
use crate::{Store, StoreError};

type S = Arc<dyn Store>;

fn secret(workspace: &WorkspaceId, name: &str) -> Secret {
    Secret {
        id: SecretId::generate(),
        workspace: workspace.clone(),
        name: name.to_owned(),
        version: 1,
        metadata: map(&[("owner", "ü \"x\"")]),
        value: Sealed(vec![0, 1, 255, 0]),
        created_at: at(1),
        updated_at: at(2),
    }
}

fn volume(workspace: &WorkspaceId, name: &str) -> Volume {
    Volume {
        id: VolumeId::generate(),
        workspace: workspace.clone(),
        name: name.to_owned(),
        size_bytes: (name == "a").then_some(5 << 40),
        created_at: at(1),
    }
}

pub async fn secret_comes_back_as_it_was(store: S) {
    let one = secret(&WorkspaceId::generate(), "one");
    store.secret_insert(&one).await.expect("inserted");
    let found = store.secret_fetch(&one.id).await.expect("asked");
    assert_eq!(found.as_ref(), Some(&one));
    let found = store.secret_by_name(&one.workspace, "one").await;
    assert_eq!(found.expect("asked").as_ref(), Some(&one));
    let other = WorkspaceId::generate();
    let hidden = store.secret_by_name(&other, "one").await;
    assert_eq!(hidden.expect("asked"), None);
    let absent = store.secret_fetch(&SecretId::generate()).await;
    assert_eq!(absent.expect("asked"), None);
}

pub async fn secret_names_are_unique_per_workspace(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let one = secret(&ws, "one");
    store.secret_insert(&one).await.expect("inserted");
    assert_constraint(store.secret_insert(&secret(&ws, "one")).await);
    let same_id = Secret {
        name: "two".to_owned(),
        ..one.clone()
    };
    assert_constraint(store.secret_insert(&same_id).await);
    let elsewhere = store.secret_insert(&secret(&other, "one")).await;
    elsewhere.expect("another workspace's names are its own");
    assert_eq!(store.secret_count(&ws).await.expect("counted"), 1);
    assert!(store.secret_remove(&one.id).await.expect("removed"));
    assert!(!store.secret_remove(&one.id).await.expect("removed"));
    assert_eq!(store.secret_count(&ws).await.expect("counted"), 0);
    let again = store.secret_insert(&secret(&ws, "one")).await;
    again.expect("the name is free again");
}

pub async fn secret_update_needs_the_version_before(store: S) {
    let one = secret(&WorkspaceId::generate(), "one");
    let next = Secret {
        version: 2,
        metadata: map(&[]),
        value: Sealed(vec![9]),
        updated_at: at(5),
        ..one.clone()
    };
    match store.secret_update(&next).await {
        Err(StoreError::NotFound { .. }) => {}
        other => panic!("wanted NotFound, got {other:?}"),
    }
    store.secret_insert(&one).await.expect("inserted");
    store.secret_update(&next).await.expect("updated");
    assert_conflict(store.secret_update(&next).await);
    let found = store.secret_fetch(&one.id).await.expect("asked");
    assert_eq!(found, Some(next));
}

pub async fn secret_concurrent_updates_lose_none(store: S) {
    let one = secret(&WorkspaceId::generate(), "one");
    store.secret_insert(&one).await.expect("inserted");
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, mut next) = (Arc::clone(&store), one.clone());
        racers.spawn(async move {
            next.version = 2;
            next.value = Sealed(vec![u8::try_from(racer).expect("small")]);
            store.secret_update(&next).await.is_ok()
        });
    }
    let won = racers.join_all().await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

pub async fn secret_list_pages_by_name(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    for name in ["c", "a", "e", "b", "d"] {
        let inserted = store.secret_insert(&secret(&ws, name)).await;
        inserted.expect("inserted");
    }
    let foreign = store.secret_insert(&secret(&other, "a")).await;
    foreign.expect("inserted");
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let found = store.secret_list(&ws, &page(2, cursor)).await;
        let found = found.expect("listed");
        assert!(found.items.len() <= 2);
        seen.extend(found.items.into_iter().map(|secret| secret.name));
        cursor = found.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    let refused = store.secret_list(&ws, &page(2, Some("x".to_owned()))).await;
    assert!(matches!(refused, Err(StoreError::InvalidCursor)));
}

pub async fn volume_lives_in_its_workspace(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let (b, a, c) = (volume(&ws, "b"), volume(&ws, "a"), volume(&other, "a"));
    for one in [&b, &a, &c] {
        store.volume_insert(one).await.expect("inserted");
    }
    assert_constraint(store.volume_insert(&volume(&ws, "a")).await);
    let same_id = Volume {
        name: "z".to_owned(),
        ..a.clone()
    };
    assert_constraint(store.volume_insert(&same_id).await);
    let found = store.volume_fetch(&a.id).await.expect("asked");
    assert_eq!(found.as_ref(), Some(&a));
    let own = store.volume_list(Some(&ws)).await.expect("listed");
    assert_eq!(own, [a.clone(), b.clone()]);
    let all = store.volume_list(None).await.expect("listed");
    let ids: BTreeSet<_> = all.iter().map(|one| one.id.clone()).collect();
    assert_eq!(ids, BTreeSet::from([a.id.clone(), b.id.clone(), c.id]));
    assert!(store.volume_remove(&a.id).await.expect("removed"));
    assert!(!store.volume_remove(&a.id).await.expect("removed"));
    let gone = store.volume_fetch(&a.id).await.expect("asked");
    assert_eq!(gone, None);
    let own = store.volume_list(Some(&ws)).await.expect("listed");
    assert_eq!(own, [b]);
}
