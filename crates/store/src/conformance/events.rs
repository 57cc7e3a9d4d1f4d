//! Promises about event logs.

use std::sync::Arc;

use woodfrog_types::event::Level;
use woodfrog_types::{SandboxId, WorkspaceId};

use super::RACERS;
use super::fixture::{at, event, sandbox};
use crate::{NewEvent, Store};

type S = Arc<dyn Store>;

async fn append(store: &S, id: &SandboxId, events: Vec<NewEvent>) -> u64 {
    store.event_append(id, events).await.expect("appended")
}

async fn seqs(store: &S, id: &SandboxId, after: u64, limit: usize) -> Vec<u64> {
    let log = store.event_list(id, after, limit).await.expect("listed");
    log.into_iter().map(|event| event.seq).collect()
}

pub async fn event_log_is_dense_and_ordered(store: S) {
    let (id, other) = (SandboxId::generate(), SandboxId::generate());
    assert_eq!(append(&store, &id, vec![]).await, 0);
    let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error];
    let events: Vec<_> = levels
        .into_iter()
        .map(|level| NewEvent {
            level,
            ..event(5, level.as_str())
        })
        .collect();
    assert_eq!(append(&store, &id, events.clone()).await, 4);
    assert_eq!(append(&store, &other, vec![event(0, "x")]).await, 1);
    // Time may run backwards; the order is that of writing.
    assert_eq!(append(&store, &id, vec![event(1, "last")]).await, 5);
    assert_eq!(append(&store, &id, vec![]).await, 5);
    let log = store.event_list(&id, 0, 100).await.expect("listed");
    for (index, (got, wanted)) in log.iter().zip(&events).enumerate() {
        assert_eq!(got.seq, index as u64 + 1);
        assert_eq!(got.sandbox, id);
        let got = (got.at, got.level, &got.kind, &got.message, &got.fields);
        let wanted = (
            wanted.at,
            wanted.level,
            &wanted.kind,
            &wanted.message,
            &wanted.fields,
        );
        assert_eq!(got, wanted);
    }
    assert_eq!(log.len(), 5);
    assert_eq!(log[4].message, "last");
}

pub async fn event_log_is_dense_under_concurrency(store: S) {
    let id = SandboxId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, id) = (Arc::clone(&store), id.clone());
        tasks.spawn(async move {
            let mut last = 0;
            for round in 0..8 {
                let message = format!("{racer}/{round}");
                let events = vec![event(0, &message), event(0, &message)];
                let seq = append(&store, &id, events).await;
                assert!(seq > last, "{seq} after {last}");
                last = seq;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no panic");
    }
    let count = RACERS * 8 * 2;
    let log = store.event_list(&id, 0, count + 1).await.expect("listed");
    assert!(log.iter().map(|event| event.seq).eq(1..=count as u64));
    // What was appended together is together.
    for pair in log.chunks(2) {
        assert_eq!(pair[0].message, pair[1].message);
    }
}

pub async fn event_log_survives_its_sandbox(store: S) {
    let one = sandbox(&WorkspaceId::generate(), 0);
    store
        .sandbox_insert(&one, vec![event(0, "made")])
        .await
        .expect("inserted");
    store
        .sandbox_remove(&one.id, vec![event(1, "gone")])
        .await
        .expect("removed");
    assert_eq!(append(&store, &one.id, vec![event(2, "late")]).await, 3);
    assert_eq!(seqs(&store, &one.id, 0, 10).await, [1, 2, 3]);
}

pub async fn event_list_starts_after_and_stops_at_limit(store: S) {
    let id = SandboxId::generate();
    let events = (0..5).map(|n| event(n, "x")).collect();
    append(&store, &id, events).await;
    assert_eq!(seqs(&store, &id, 0, 2).await, [1, 2]);
    assert_eq!(seqs(&store, &id, 2, 2).await, [3, 4]);
    assert_eq!(seqs(&store, &id, 4, usize::MAX).await, [5]);
    assert_eq!(seqs(&store, &id, 5, 2).await, [0_u64; 0]);
    assert_eq!(seqs(&store, &id, u64::MAX, 2).await, [0_u64; 0]);
    assert_eq!(seqs(&store, &id, 0, 0).await, [0_u64; 0]);
    assert_eq!(seqs(&store, &SandboxId::generate(), 0, 2).await, [0_u64; 0]);
}

pub async fn event_trim_spares_the_living_and_the_young(store: S) {
    let living = sandbox(&WorkspaceId::generate(), 0);
    store
        .sandbox_insert(&living, vec![event(0, "old but alive")])
        .await
        .expect("inserted");
    let gone: Vec<_> = (0..4).map(|_| SandboxId::generate()).collect();
    for (id, last) in gone.iter().zip([30, 10, 20, 100]) {
        append(&store, id, vec![event(0, "first"), event(last, "last")]).await;
    }
    let trim = async |before, limit| store.event_trim(at(before), limit).await.expect("trimmed");
    assert_eq!(trim(10, 10).await, 0);
    // The oldest first.
    assert_eq!(trim(50, 2).await, 2);
    assert_eq!(seqs(&store, &gone[0], 0, 10).await, [1, 2]);
    assert_eq!(seqs(&store, &gone[1], 0, 10).await, [0_u64; 0]);
    assert_eq!(seqs(&store, &gone[2], 0, 10).await, [0_u64; 0]);
    assert_eq!(trim(50, 2).await, 1);
    assert_eq!(trim(50, 2).await, 0);
    assert_eq!(seqs(&store, &gone[3], 0, 10).await, [1, 2]);
    assert_eq!(seqs(&store, &living.id, 0, 10).await, [1]);
}
