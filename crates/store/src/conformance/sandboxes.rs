//! Promises about sandboxes.

use std::sync::Arc;
use std::time::Duration;

use woodfrog_types::run::RUN_LABEL;
use woodfrog_types::sandbox::{EndReason, OnTimeout, Sandbox, SandboxState};
use woodfrog_types::{SandboxId, WorkspaceId};

use super::fixture::{at, event, map, moved, running, sandbox};
use super::{RACERS, assert_conflict, assert_constraint, assert_not_found};
use crate::{Store, StoreError};

type S = Arc<dyn Store>;

async fn insert(store: &S, sandbox: &Sandbox) {
    store
        .sandbox_insert(sandbox, vec![])
        .await
        .expect("inserted");
}

async fn fetch(store: &S, id: &SandboxId) -> Sandbox {
    let found = store.sandbox_fetch(id).await.expect("fetched");
    found.expect("is there")
}

pub async fn sandbox_comes_back_as_it_was(store: S) {
    let ws = WorkspaceId::generate();
    let full = sandbox(&ws, 0);
    let mut bare = sandbox(&ws, 1);
    (bare.template_alias, bare.deadline, bare.timeout) = (None, None, None);
    (bare.env, bare.metadata) = (map(&[]), map(&[]));
    bare.network = woodfrog_types::network::NetworkSpec::default();
    bare.on_timeout = OnTimeout::Kill;
    for first in [full, bare] {
        insert(&store, &first).await;
        assert_eq!(fetch(&store, &first.id).await, first);
        let mut last = first;
        let mut states = vec![running()];
        for reason in [
            EndReason::Requested,
            EndReason::Expired,
            EndReason::Exited,
            EndReason::Lost,
        ] {
            states.push(SandboxState::Deleting { reason });
        }
        for state in states {
            last = moved(&last, state);
            last.on_timeout = OnTimeout::Pause { memory: false };
            store.sandbox_update(&last, vec![]).await.expect("updated");
            assert_eq!(fetch(&store, &last.id).await, last);
        }
    }
    let absent = store.sandbox_fetch(&SandboxId::generate()).await;
    assert_eq!(absent.expect("fetched"), None);
}

pub async fn sandbox_insert_twice_is_refused(store: S) {
    let first = sandbox(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    let mut second = sandbox(&first.workspace, 9);
    second.id = first.id.clone();
    let events = vec![event(0, "never")];
    assert_constraint(store.sandbox_insert(&second, events).await);
    assert_eq!(fetch(&store, &first.id).await, first);
    let log = store.event_list(&first.id, 0, 10).await.expect("listed");
    assert_eq!(log, []);
}

pub async fn sandbox_insert_needs_generation_one(store: S) {
    for generation in [0, 2, u64::MAX] {
        let mut wrong = sandbox(&WorkspaceId::generate(), 0);
        wrong.generation = generation;
        assert_conflict(store.sandbox_insert(&wrong, vec![]).await);
        let found = store.sandbox_fetch(&wrong.id).await.expect("fetched");
        assert_eq!(found, None);
    }
}

pub async fn sandbox_update_of_a_stale_generation_conflicts(store: S) {
    let first = sandbox(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    let second = moved(&first, running());
    store
        .sandbox_update(&second, vec![])
        .await
        .expect("updated");
    for generation in [0, 1, 2, 4, u64::MAX] {
        let mut stale = moved(&first, SandboxState::Creating);
        stale.generation = generation;
        assert_conflict(store.sandbox_update(&stale, vec![]).await);
    }
    assert_eq!(fetch(&store, &first.id).await, second);
}

pub async fn sandbox_update_of_a_missing_one_is_not_found(store: S) {
    let never = moved(&sandbox(&WorkspaceId::generate(), 0), running());
    assert_not_found(store.sandbox_update(&never, vec![]).await);
    let gone = sandbox(&WorkspaceId::generate(), 0);
    insert(&store, &gone).await;
    store
        .sandbox_remove(&gone.id, vec![])
        .await
        .expect("removed");
    assert_not_found(store.sandbox_update(&moved(&gone, running()), vec![]).await);
}

/// Everybody counts up a number in the record, reading and retrying on conflict.
pub async fn sandbox_concurrent_updates_lose_none(store: S) {
    let mut first = sandbox(&WorkspaceId::generate(), 0);
    first.metadata = map(&[("count", "0")]);
    insert(&store, &first).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, id) = (Arc::clone(&store), first.id.clone());
        tasks.spawn(async move {
            loop {
                let seen = fetch(&store, &id).await;
                let count: usize = seen.metadata["count"].parse().expect("a number");
                let mut next = moved(&seen, running());
                next.metadata = map(&[("count", &(count + 1).to_string())]);
                match store.sandbox_update(&next, vec![event(0, "counted")]).await {
                    Ok(()) => return,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no panic");
    }
    let last = fetch(&store, &first.id).await;
    assert_eq!(last.metadata["count"], RACERS.to_string());
    assert_eq!(last.generation, RACERS as u64 + 1);
    let log = store.event_list(&first.id, 0, 1000).await.expect("listed");
    assert_eq!(log.len(), RACERS);
}

pub async fn sandbox_refused_update_leaves_no_event(store: S) {
    let first = sandbox(&WorkspaceId::generate(), 0);
    let begun = vec![event(0, "one"), event(0, "two")];
    store.sandbox_insert(&first, begun).await.expect("inserted");
    let stale = Sandbox {
        generation: 7,
        ..first.clone()
    };
    assert_conflict(store.sandbox_update(&stale, vec![event(0, "never")]).await);
    let second = moved(&first, running());
    store
        .sandbox_update(&second, vec![event(0, "three")])
        .await
        .expect("updated");
    let log = store.event_list(&first.id, 0, 10).await.expect("listed");
    let messages: Vec<_> = log.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["one", "two", "three"]);
}

pub async fn sandbox_removal_is_repeatable(store: S) {
    let first = sandbox(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    for _ in 0..2 {
        store
            .sandbox_remove(&first.id, vec![event(0, "removed")])
            .await
            .expect("removed");
        let found = store.sandbox_fetch(&first.id).await.expect("fetched");
        assert_eq!(found, None);
    }
    let log = store.event_list(&first.id, 0, 10).await.expect("listed");
    assert_eq!(log.len(), 1);
}

pub async fn sandbox_all_has_every_state_and_workspace(store: S) {
    let mut expected = Vec::new();
    for state in [
        SandboxState::Creating,
        running(),
        SandboxState::Deleting {
            reason: EndReason::Lost,
        },
    ] {
        for _ in 0..2 {
            let mut one = sandbox(&WorkspaceId::generate(), 0);
            one.state = state.clone();
            insert(&store, &one).await;
            expected.push(one);
        }
    }
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.sandbox_all().await.expect("listed"), expected);
}

pub async fn sandbox_due_lists_running_ones_by_deadline(store: S) {
    let ws = WorkspaceId::generate();
    assert_eq!(store.sandbox_next_deadline().await.expect("asked"), None);
    let deleting = SandboxState::Deleting {
        reason: EndReason::Expired,
    };
    let mut ids = Vec::new();
    for (state, deadline) in [
        (running(), Some(30)),
        (running(), Some(10)),
        (running(), Some(20)),
        (running(), None),
        (SandboxState::Creating, Some(1)),
        (deleting, Some(2)),
    ] {
        let mut one = sandbox(&ws, 0);
        one.state = state;
        one.deadline = deadline.map(at);
        insert(&store, &one).await;
        ids.push(one.id);
    }
    let due = async |now, limit| store.sandbox_due(at(now), limit).await.expect("asked");
    assert_eq!(due(9, 10).await, []);
    assert_eq!(due(10, 10).await, [ids[1].clone()]);
    let all = [ids[1].clone(), ids[2].clone(), ids[0].clone()];
    assert_eq!(due(1000, 10).await, all);
    assert_eq!(due(1000, 2).await, all[..2]);
    assert_eq!(due(1000, 0).await, []);
    let next = store.sandbox_next_deadline().await.expect("asked");
    assert_eq!(next, Some(at(10)));
}

pub async fn sandbox_due_follows_updates(store: S) {
    let mut one = sandbox(&WorkspaceId::generate(), 0);
    one.deadline = Some(at(10));
    insert(&store, &one).await;
    let due = async || store.sandbox_due(at(100), 10).await.expect("asked");
    assert_eq!(due().await, []);
    one = moved(&one, running());
    store.sandbox_update(&one, vec![]).await.expect("updated");
    assert_eq!(due().await, [one.id.clone()]);
    one = moved(&one, running());
    one.deadline = Some(at(500));
    store.sandbox_update(&one, vec![]).await.expect("updated");
    assert_eq!(due().await, []);
    let next = store.sandbox_next_deadline().await.expect("asked");
    assert_eq!(next, Some(at(500)));
    store
        .sandbox_remove(&one.id, vec![])
        .await
        .expect("removed");
    assert_eq!(store.sandbox_next_deadline().await.expect("asked"), None);
}

pub async fn sandbox_times_are_kept_to_the_millisecond(store: S) {
    let mut one = sandbox(&WorkspaceId::generate(), 0);
    one.timeout = Some(Duration::from_nanos(1_999_999));
    insert(&store, &one).await;
    let kept = fetch(&store, &one.id).await.timeout;
    assert_eq!(kept, Some(Duration::from_millis(1)));
}

pub async fn sandbox_of_runs_lists_those_with_the_label(store: S) {
    let mut all = Vec::new();
    for labels in [
        map(&[(RUN_LABEL, "rn1")]),
        map(&[("other", "x"), (RUN_LABEL, "rn2 \"ü\"\0"), ("a", "b")]),
        map(&[]),
        map(&[("label", RUN_LABEL), ("\"woodfrog.run\"", ":")]),
    ] {
        let mut one = sandbox(&WorkspaceId::generate(), 0);
        one.metadata = labels;
        insert(&store, &one).await;
        all.push(one);
    }
    all.truncate(2);
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let list = async |after: Option<&SandboxId>, limit| {
        let listed = store.sandbox_of_runs(after, limit).await;
        listed.expect("listed")
    };
    assert_eq!(list(None, 10).await, all);
    assert_eq!(list(None, 1).await, all[..1]);
    assert_eq!(list(Some(&all[0].id), 10).await, all[1..]);
    assert_eq!(list(Some(&all[1].id), 10).await, []);
}
