//! Promises about settings and idempotency keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use woodfrog_types::WorkspaceId;

use super::RACERS;
use super::fixture::at;
use crate::{IdempotencyEntry, IdempotencyOutcome, Store};

type S = Arc<dyn Store>;

pub(super) fn entry(ws: &WorkspaceId, key: &str, claimed_at: i64) -> IdempotencyEntry {
    IdempotencyEntry {
        workspace: ws.clone(),
        key: key.to_owned(),
        fingerprint: format!("fingerprint {claimed_at}"),
        claimed_at: at(claimed_at),
        outcome: IdempotencyOutcome::InProgress,
    }
}

async fn claim(store: &S, entry: &IdempotencyEntry) -> Option<IdempotencyEntry> {
    store.idempotency_claim(entry).await.expect("asked")
}

async fn finish(store: &S, ws: &WorkspaceId, key: &str, outcome: IdempotencyOutcome) {
    let finished = store.idempotency_finish(ws, key, outcome).await;
    finished.expect("finished");
}

fn done(result: &str) -> IdempotencyOutcome {
    IdempotencyOutcome::Done {
        result: result.to_owned(),
    }
}

pub async fn setting_init_keeps_the_first_value(store: S) {
    let get = async || store.setting_get("name").await.expect("asked");
    assert_eq!(get().await, None);
    let first = store.setting_init("name", b"\0one").await.expect("stored");
    assert_eq!(first, b"\0one");
    let second = store.setting_init("name", b"two").await.expect("stored");
    assert_eq!(second, b"\0one");
    assert_eq!(get().await, Some(b"\0one".to_vec()));
    store.setting_put("name", b"").await.expect("stored");
    assert_eq!(get().await, Some(vec![]));
    store.setting_put("new", b"x").await.expect("stored");
    let kept = store.setting_init("new", b"y").await.expect("stored");
    assert_eq!(kept, b"x");
}

pub async fn setting_init_race_agrees_on_one_value(store: S) {
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let value = racer.to_string();
            store.setting_init("secret", value.as_bytes()).await
        });
    }
    let mut seen = BTreeSet::new();
    while let Some(result) = tasks.join_next().await {
        seen.insert(result.expect("no panic").expect("stored"));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    let stored = store.setting_get("secret").await.expect("asked");
    assert_eq!(stored, seen.into_iter().next());
}

pub async fn idempotency_claim_is_told_what_is_known(store: S) {
    let ws = WorkspaceId::generate();
    let mut first = entry(&ws, "k", 1);
    // Whatever the caller says, a claim begins in progress.
    first.outcome = done("never");
    assert_eq!(claim(&store, &first).await, None);
    first.outcome = IdempotencyOutcome::InProgress;
    let retry = entry(&ws, "k", 2);
    assert_eq!(claim(&store, &retry).await, Some(first.clone()));
    finish(&store, &ws, "k", done("sb1")).await;
    first.outcome = done("sb1");
    assert_eq!(claim(&store, &retry).await, Some(first));
    // Finishing what was forgotten is no error and claims nothing.
    finish(&store, &ws, "other", done("x")).await;
    assert_eq!(claim(&store, &entry(&ws, "other", 3)).await, None);
}

pub async fn idempotency_claim_race_has_one_winner(store: S) {
    let ws = WorkspaceId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, ws) = (Arc::clone(&store), ws.clone());
        tasks.spawn(async move {
            let mine = entry(&ws, "k", i64::try_from(racer).unwrap_or(0));
            let known = claim(&store, &mine).await;
            (mine, known)
        });
    }
    let mut winner = None;
    let mut told = BTreeSet::new();
    while let Some(result) = tasks.join_next().await {
        match result.expect("no panic") {
            (mine, None) => assert_eq!(winner.replace(mine.fingerprint), None, "two winners"),
            (_, Some(known)) => {
                told.insert(known.fingerprint);
            }
        }
    }
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [winner.expect("one")]);
}

pub async fn idempotency_freed_key_can_be_claimed_again(store: S) {
    let ws = WorkspaceId::generate();
    assert_eq!(claim(&store, &entry(&ws, "k", 1)).await, None);
    finish(&store, &ws, "k", IdempotencyOutcome::Freed).await;
    let second = entry(&ws, "k", 2);
    assert_eq!(claim(&store, &second).await, None);
    assert_eq!(claim(&store, &entry(&ws, "k", 3)).await, Some(second));
}

pub async fn idempotency_trim_forgets_the_old(store: S) {
    let ws = WorkspaceId::generate();
    for (key, claimed_at) in [("a", 10), ("b", 20), ("c", 30)] {
        assert_eq!(claim(&store, &entry(&ws, key, claimed_at)).await, None);
    }
    let trim = async |before| store.idempotency_trim(at(before)).await.expect("trimmed");
    assert_eq!(trim(10).await, 0);
    assert_eq!(trim(30).await, 2);
    assert_eq!(trim(30).await, 0);
    assert_eq!(claim(&store, &entry(&ws, "a", 40)).await, None);
    let kept = claim(&store, &entry(&ws, "c", 40)).await;
    assert_eq!(kept, Some(entry(&ws, "c", 30)));
}
