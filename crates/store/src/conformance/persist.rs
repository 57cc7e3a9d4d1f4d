//! Promises about what clients persist.

use std::collections::BTreeSet;
use std::sync::Arc;

use woodfrog_types::WorkspaceId;

use super::fixture::page;
use super::{RACERS, assert_constraint, assert_invalid_cursor};
use crate::{PersistedEvent, PersistedSession, Store};

type S = Arc<dyn Store>;

fn session(id: &str, created_at: i64) -> PersistedSession {
    PersistedSession {
        id: id.to_owned(),
        created_at,
        record: format!("{{\"of\":\"{created_at} ü\"}}"),
    }
}

fn event(id: &str, session: &str, index: u64) -> PersistedEvent {
    PersistedEvent {
        id: id.to_owned(),
        session: session.to_owned(),
        index,
        record: format!("{{\"of\":{index}}}"),
    }
}

async fn put(store: &S, ws: &WorkspaceId, session: &PersistedSession) {
    let put = store.persist_session_put(ws, session).await;
    put.expect("put");
}

async fn insert(store: &S, ws: &WorkspaceId, event: &PersistedEvent) {
    let inserted = store.persist_event_insert(ws, event).await;
    inserted.expect("inserted");
}

async fn events(store: &S, ws: &WorkspaceId, session: &str) -> Vec<PersistedEvent> {
    let list = store.persist_event_list(ws, session, None, 1000).await;
    let list = list.expect("listed");
    let count = store.persist_event_count(ws, session).await;
    assert_eq!(count.expect("counted"), list.len() as u64);
    list
}

pub async fn persist_put_keeps_the_time_of_the_first(store: S) {
    let ws = WorkspaceId::generate();
    for id in ["", "one", "quote\"' ü\0"] {
        let none = store.persist_session_fetch(&ws, id).await;
        assert_eq!(none.expect("fetched"), None);
        put(&store, &ws, &session(id, -5)).await;
        let mut second = session(id, 9);
        second.record = "{\"new\":true}".to_owned();
        put(&store, &ws, &second).await;
        second.created_at = -5;
        let fetched = store.persist_session_fetch(&ws, id).await;
        assert_eq!(fetched.expect("fetched"), Some(second));
    }
}

/// All pages; `between` runs after each.
async fn walk(
    store: &S,
    ws: &WorkspaceId,
    limit: usize,
    mut between: impl AsyncFnMut(usize),
) -> Vec<String> {
    let (mut cursor, mut ids) = (None, Vec::new());
    for number in 0..1000 {
        let part = store.persist_session_list(ws, &page(limit, cursor)).await;
        let part = part.expect("listed");
        assert!(part.items.len() <= limit);
        ids.extend(part.items.into_iter().map(|session| session.id));
        cursor = part.next;
        if cursor.is_none() {
            return ids;
        }
        between(number).await;
    }
    panic!("the pages never end");
}

/// In the order of the list: capitals before small letters, whatever the server's language.
async fn seven(store: &S, ws: &WorkspaceId) -> Vec<String> {
    let all = [
        (i64::MIN, "g"),
        (-1, "a"),
        (0, "B"),
        (0, "a"),
        (0, "a\0"),
        (0, "ü"),
        (i64::MAX, "A"),
    ];
    for (created_at, id) in all.iter().rev() {
        let id = if *created_at == 0 {
            (*id).to_owned()
        } else {
            format!("{id}{created_at}")
        };
        put(store, ws, &session(&id, *created_at)).await;
    }
    let names = all.map(|(created_at, id)| match created_at {
        0 => id.to_owned(),
        other => format!("{id}{other}"),
    });
    names.to_vec()
}

pub async fn persist_list_goes_by_time_and_id(store: S) {
    let ws = WorkspaceId::generate();
    let expected = seven(&store, &ws).await;
    for limit in [1, 2, 3, 7, 8] {
        let got = walk(&store, &ws, limit, async |_| {}).await;
        assert_eq!(got, expected, "pages of {limit}");
    }
    let bad = page(1, Some("ff".to_owned()));
    assert_invalid_cursor(store.persist_session_list(&ws, &bad).await);
}

pub async fn persist_list_is_stable_under_inserts(store: S) {
    let ws = WorkspaceId::generate();
    let expected = seven(&store, &ws).await;
    let walked = walk(&store, &ws, 1, async |number| {
        for created_at in [-1000, 0, 1000] {
            if number < 7 {
                let id = format!("new {number} {created_at}");
                put(&store, &ws, &session(&id, created_at)).await;
            }
        }
        // A change of one that was seen does not move it.
        put(&store, &ws, &session(&expected[0], 5000)).await;
    })
    .await;
    let unique: BTreeSet<_> = walked.iter().collect();
    assert_eq!(unique.len(), walked.len(), "shown twice");
    let old = walked.into_iter().filter(|id| expected.contains(id));
    assert_eq!(old.collect::<Vec<_>>(), expected, "skipped or moved");
}

pub async fn persist_events_go_by_index(store: S) {
    let ws = WorkspaceId::generate();
    // The session need not be there; other sessions and gaps do not matter.
    let largest = i64::MAX as u64;
    for index in [largest, 7, 0, 1] {
        insert(&store, &ws, &event(&format!("e{index}"), "s\0", index)).await;
        insert(&store, &ws, &event(&format!("f{index}"), "other", index)).await;
    }
    let of = |index: u64| event(&format!("e{index}"), "s\0", index);
    let all = [0, 1, 7, largest].map(of);
    assert_eq!(events(&store, &ws, "s\0").await, all);
    assert_eq!(events(&store, &ws, "none").await, []);
    for (after, limit, wanted) in [
        (None, 2, &all[..2]),
        (Some(0), 99, &all[1..]),
        (Some(1), 1, &all[2..3]),
        (Some(6), 99, &all[2..]),
        (Some(largest), 99, &[]),
        (Some(u64::MAX), 99, &[]),
        (None, 0, &[]),
    ] {
        let got = store.persist_event_list(&ws, "s\0", after, limit).await;
        assert_eq!(got.expect("listed"), wanted, "after {after:?}, {limit}");
    }
}

pub async fn persist_event_repeated_is_no_error(store: S) {
    let ws = WorkspaceId::generate();
    let first = event("e", "s", 3);
    insert(&store, &ws, &first).await;
    let mut again = first.clone();
    again.record = "{\"new\":true}".to_owned();
    insert(&store, &ws, &again).await;
    assert_eq!(events(&store, &ws, "s").await, [first]);
}

pub async fn persist_event_with_a_taken_place_is_refused(store: S) {
    let ws = WorkspaceId::generate();
    let stored = [event("e", "s", 3), event("f", "s", 4)];
    for one in &stored {
        insert(&store, &ws, one).await;
    }
    for bad in [
        event("e", "s", 4),
        event("e", "s", 5),
        event("e", "t", 3),
        event("g", "s", 3),
        event("g", "s", 1 << 63),
        event("g", "s", u64::MAX),
    ] {
        assert_constraint(store.persist_event_insert(&ws, &bad).await);
    }
    assert_eq!(events(&store, &ws, "s").await, stored);
    assert_eq!(events(&store, &ws, "t").await, []);
}

pub async fn persist_event_race_has_one_winner(store: S) {
    let ws = WorkspaceId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, ws) = (Arc::clone(&store), ws.clone());
        let one = event(&format!("e{racer}"), "s", 1);
        tasks.spawn(async move { store.persist_event_insert(&ws, &one).await });
    }
    let mut winners = 0;
    while let Some(task) = tasks.join_next().await {
        match task.expect("no panic") {
            Ok(()) => winners += 1,
            lost => assert_constraint(lost),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(events(&store, &ws, "s").await.len(), 1);
}

pub async fn persist_last_events_come_first(store: S) {
    let ws = WorkspaceId::generate();
    for index in [5, 0, 3] {
        insert(&store, &ws, &event(&format!("e{index}"), "s", index)).await;
        insert(&store, &ws, &event(&format!("f{index}"), "other", index)).await;
    }
    let all = [5, 3, 0].map(|index| event(&format!("e{index}"), "s", index));
    for limit in [0, 1, 2, 3, 9] {
        let got = store.persist_event_last(&ws, "s", limit).await;
        assert_eq!(got.expect("listed"), all[..limit.min(3)], "{limit}");
    }
}

pub async fn persist_removal_takes_events_along(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    for ws in [&ws, &other] {
        for id in ["gone", "stays"] {
            put(&store, ws, &session(id, 1)).await;
            insert(&store, ws, &event(id, id, 1)).await;
        }
        insert(&store, ws, &event("alone", "no record", 1)).await;
    }
    for (id, there) in [("gone", true), ("gone", false), ("no record", false)] {
        let removed = store.persist_session_remove(&ws, id).await;
        assert_eq!(removed.expect("removed"), there, "{id}");
        assert_eq!(events(&store, &ws, id).await, [], "{id}");
        assert_eq!(events(&store, &other, id).await.len(), 1, "{id}");
    }
    assert_eq!(walk(&store, &ws, 9, async |_| {}).await, ["stays"]);
    assert_eq!(events(&store, &ws, "stays").await.len(), 1);
    assert_eq!(
        walk(&store, &other, 9, async |_| {}).await,
        ["gone", "stays"]
    );
    // What was removed can be there again.
    insert(&store, &ws, &event("gone", "gone", 1)).await;
}

pub async fn persist_stays_within_the_workspace(store: S) {
    let (ann, bob) = (WorkspaceId::generate(), WorkspaceId::generate());
    for (ws, index) in [(&ann, 1), (&bob, 2)] {
        put(
            &store,
            ws,
            &session("s", i64::try_from(index).expect("small")),
        )
        .await;
        insert(&store, ws, &event("e", "s", index)).await;
    }
    for (ws, index) in [(&ann, 1), (&bob, 2)] {
        let got = walk(&store, ws, 9, async |_| {}).await;
        assert_eq!(got, ["s"]);
        let got = store.persist_session_fetch(ws, "s").await.expect("fetched");
        assert_eq!(got.map(|one| one.created_at), i64::try_from(index).ok());
        assert_eq!(events(&store, ws, "s").await, [event("e", "s", index)]);
    }
}
