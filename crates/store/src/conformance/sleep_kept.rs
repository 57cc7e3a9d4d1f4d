//! Promises about what workspaces say of sleep, and about holds.

use std::sync::Arc;
use std::time::Duration;

use woodfrog_types::sleep::{Fallback, Hold, SleepChanges, SleepDefaults};
use woodfrog_types::workspace::{UserId, Workspace};
use woodfrog_types::{SandboxId, WorkspaceId};

use super::fixture::{at, sandbox};
use super::{RACERS, assert_conflict, assert_not_found};
use crate::{Store, StoreError};

type S = Arc<dyn Store>;

fn defaults(workspace: &WorkspaceId, generation: u64) -> SleepDefaults {
    SleepDefaults {
        workspace: workspace.clone(),
        sleep: SleepChanges {
            pause_after: Some(Some(Duration::from_millis(1_001))),
            hibernate_after: Some(None),
            archive_after: None,
            delete_after: Some(Some(Duration::from_secs(315_360_000))),
            fallback: Some(Fallback::Filesystem),
            checkpoint_every: None,
        },
        generation,
        updated_at: at(7),
    }
}

fn hold(name: &str, expires_at: Option<i64>) -> Hold {
    Hold {
        name: name.to_owned(),
        expires_at: expires_at.map(at),
    }
}

async fn inserted(store: &S) -> SandboxId {
    let one = sandbox(&WorkspaceId::generate(), 0);
    let inserted = store.sandbox_insert(&one, vec![]).await;
    inserted.expect("inserted");
    one.id
}

async fn put(store: &S, id: &SandboxId, hold: &Hold, now: i64) {
    store.hold_put(id, hold, at(now)).await.expect("put");
}

async fn listed(store: &S, id: &SandboxId, now: i64) -> Vec<Hold> {
    store.hold_list(id, at(now)).await.expect("listed")
}

pub async fn sleep_defaults_need_the_generation_before(store: S) {
    let (one, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let fetch = async |id: &WorkspaceId| store.sleep_defaults_fetch(id).await.expect("asked");
    assert_eq!(fetch(&one).await, None);
    assert_conflict(store.sleep_defaults_put(&defaults(&one, 2)).await);
    let first = defaults(&one, 1);
    store.sleep_defaults_put(&first).await.expect("put");
    assert_conflict(store.sleep_defaults_put(&first).await);
    assert_eq!(fetch(&one).await, Some(first));
    assert_eq!(fetch(&other).await, None);
    // Every rung is said, not said, or never.
    let mut next = defaults(&one, 2);
    next.sleep = SleepChanges {
        pause_after: None,
        hibernate_after: Some(Some(Duration::from_millis(5))),
        archive_after: Some(None),
        delete_after: None,
        fallback: Some(Fallback::StayPaused),
        checkpoint_every: Some(None),
    };
    store.sleep_defaults_put(&next).await.expect("put");
    assert_conflict(store.sleep_defaults_put(&defaults(&one, 4)).await);
    assert_eq!(fetch(&one).await, Some(next));
    let empty = SleepDefaults {
        sleep: SleepChanges::default(),
        ..defaults(&one, 3)
    };
    store.sleep_defaults_put(&empty).await.expect("put");
    assert_eq!(fetch(&one).await, Some(empty));
}

pub async fn sleep_defaults_race_has_one_winner(store: S) {
    let id = WorkspaceId::generate();
    for generation in [1, 2] {
        let mut racers = tokio::task::JoinSet::new();
        for _ in 0..RACERS {
            let (store, mine) = (Arc::clone(&store), defaults(&id, generation));
            racers.spawn(async move { store.sleep_defaults_put(&mine).await });
        }
        let mut won = 0;
        while let Some(result) = racers.join_next().await {
            match result.expect("no panic") {
                Ok(()) => won += 1,
                Err(StoreError::Conflict { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1, "generation {generation}");
    }
}

pub async fn sleep_defaults_go_with_their_workspace(store: S) {
    let made = |name: &str| Workspace {
        id: WorkspaceId::generate(),
        name: name.to_owned(),
        owner: UserId::parse("ann").expect("a name"),
        generation: 1,
        created_at: at(1),
        removing_since: None,
    };
    let (one, other) = (made("one"), made("two"));
    for workspace in [&one, &other] {
        store.workspace_insert(workspace).await.expect("inserted");
        let put = store.sleep_defaults_put(&defaults(&workspace.id, 1)).await;
        put.expect("put");
    }
    assert!(store.workspace_purge(&one.id).await.expect("purged"));
    let gone = store.sleep_defaults_fetch(&one.id).await.expect("asked");
    assert_eq!(gone, None);
    let left = store.sleep_defaults_fetch(&other.id).await.expect("asked");
    assert_eq!(left, Some(defaults(&other.id, 1)));
}

pub async fn holds_come_back_until_they_are_over(store: S) {
    let (id, other) = (inserted(&store).await, inserted(&store).await);
    assert_eq!(listed(&store, &id, 0).await, []);
    let (forever, soon) = (hold("run:\u{fc} \"x\"", None), hold("a", Some(50)));
    put(&store, &id, &forever, 1).await;
    put(&store, &id, &soon, 1).await;
    put(&store, &other, &hold("theirs", None), 1).await;
    assert_eq!(listed(&store, &id, 49).await, [soon, forever.clone()]);
    let left = listed(&store, &id, 50).await;
    assert_eq!(left, std::slice::from_ref(&forever));
    // The same name again moves its end.
    put(&store, &id, &hold("a", Some(90)), 2).await;
    put(&store, &id, &hold("a", None), 3).await;
    let both = [hold("a", None), forever.clone()];
    assert_eq!(listed(&store, &id, 1_000).await, both);
    put(&store, &id, &hold("a", Some(2_000)), 4).await;
    // What is over goes for good when something is added.
    put(&store, &id, &hold("b", None), 3_000).await;
    let left = [hold("b", None), forever];
    assert_eq!(listed(&store, &id, 0).await, left);
}

pub async fn hold_is_released_once(store: S) {
    let (id, other) = (inserted(&store).await, inserted(&store).await);
    for sandbox in [&id, &other] {
        put(&store, sandbox, &hold("mine", None), 0).await;
    }
    let remove = async |name: &str| store.hold_remove(&id, name).await.expect("removed");
    assert!(!remove("other").await);
    assert!(remove("mine").await);
    assert!(!remove("mine").await);
    assert_eq!(listed(&store, &id, 0).await, []);
    assert_eq!(listed(&store, &other, 0).await, [hold("mine", None)]);
}

pub async fn holds_of_runs_are_walked_over(store: S) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = inserted(&store).await;
        for name in ["run:b", "mine", "run:a", "running", "Run:c"] {
            put(&store, &id, &hold(name, None), 0).await;
        }
        ids.push(id);
    }
    ids.sort();
    let expected: Vec<(SandboxId, String)> = ids
        .iter()
        .flat_map(|id| ["a", "b"].map(|run| (id.clone(), run.to_owned())))
        .collect();
    let mut found = Vec::new();
    loop {
        let part = store.hold_of_runs(found.last(), 4).await.expect("listed");
        assert!(part.len() <= 4);
        if part.is_empty() {
            break;
        }
        found.extend(part);
    }
    assert_eq!(found, expected);
}

pub async fn holds_go_with_their_sandbox(store: S) {
    let (id, other) = (inserted(&store).await, inserted(&store).await);
    for sandbox in [&id, &other] {
        put(&store, sandbox, &hold("mine", None), 0).await;
    }
    store.sandbox_remove(&id, vec![]).await.expect("removed");
    assert_eq!(listed(&store, &id, 0).await, []);
    assert_eq!(listed(&store, &other, 0).await, [hold("mine", None)]);
    assert_not_found(store.hold_put(&id, &hold("late", None), at(0)).await);
    assert_eq!(listed(&store, &id, 0).await, []);
}

pub async fn holds_of_many_at_once_are_all_kept(store: S) {
    let id = inserted(&store).await;
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, id) = (Arc::clone(&store), id.clone());
        racers.spawn(async move {
            let mine = hold(&format!("racer {racer:03}"), None);
            store.hold_put(&id, &mine, at(0)).await
        });
    }
    while let Some(result) = racers.join_next().await {
        result.expect("no panic").expect("put");
    }
    assert_eq!(listed(&store, &id, 0).await.len(), RACERS);
}
