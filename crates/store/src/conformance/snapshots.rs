//! Promises about snapshots.

use std::sync::Arc;

use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::{
    ArchiveId, Snapshot, SnapshotContent, SnapshotFilter, SnapshotPlace, SnapshotPurpose,
    SnapshotSize, SnapshotState,
};
use woodfrog_types::{BuildId, SandboxId, SnapshotId, WorkspaceId};

use super::fixture::{
    event, map, moved, page, running, sandbox, sleeping, snapshot, snapshot_moved,
};
use super::{RACERS, assert_conflict, assert_constraint, assert_invalid_cursor, assert_not_found};
use crate::{Store, StoreError};

type S = Arc<dyn Store>;

async fn insert(store: &S, snapshot: &Snapshot) {
    let inserted = store.snapshot_insert(snapshot).await;
    inserted.expect("inserted");
}

async fn update(store: &S, snapshot: &Snapshot) {
    store.snapshot_update(snapshot).await.expect("updated");
}

async fn fetch(store: &S, id: &SnapshotId) -> Option<Snapshot> {
    store.snapshot_fetch(id).await.expect("fetched")
}

fn named(workspace: &WorkspaceId, name: &str) -> Snapshot {
    Snapshot {
        name: Some(name.to_owned()),
        ..snapshot(workspace, 0)
    }
}

fn states() -> [SnapshotState; 4] {
    [
        SnapshotState::Writing,
        SnapshotState::Ready,
        SnapshotState::Damaged {
            detail: "page 7 of \"x\"".to_owned(),
        },
        SnapshotState::Deleting,
    ]
}

fn purposes() -> [SnapshotPurpose; 4] {
    [
        SnapshotPurpose::Sleep {
            sandbox: SandboxId::generate(),
        },
        SnapshotPurpose::Checkpoint,
        SnapshotPurpose::Warm {
            build: BuildId::generate(),
        },
        SnapshotPurpose::Fork,
    ]
}

pub async fn snapshot_comes_back_as_it_was(store: S) {
    let ws = WorkspaceId::generate();
    for purpose in purposes() {
        let archive = ArchiveId("00ff".to_owned());
        for (content, place) in [
            (
                SnapshotContent::Memory,
                SnapshotPlace::Archive {
                    archive: archive.clone(),
                },
            ),
            (SnapshotContent::Memory, SnapshotPlace::Both { archive }),
            (SnapshotContent::Filesystem, SnapshotPlace::Local),
        ] {
            let mut last = snapshot(&ws, 5);
            last.purpose = purpose.clone();
            insert(&store, &last).await;
            for state in states() {
                last = snapshot_moved(&last, state);
                (last.content, last.place) = (content, place.clone());
                last.name = Some(format!("name {}", last.id));
                update(&store, &last).await;
                assert_eq!(fetch(&store, &last.id).await.as_ref(), Some(&last));
            }
        }
    }
    let mut bare = snapshot(&ws, 0);
    (bare.parent, bare.template_alias) = (None, None);
    (bare.labels, bare.env) = (map(&[]), map(&[]));
    bare.size = SnapshotSize::default();
    insert(&store, &bare).await;
    assert_eq!(fetch(&store, &bare.id).await.as_ref(), Some(&bare));
    assert_eq!(fetch(&store, &SnapshotId::generate()).await, None);
}

pub async fn snapshot_insert_twice_is_refused(store: S) {
    let first = snapshot(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    let mut second = snapshot(&first.workspace, 9);
    second.id = first.id.clone();
    assert_constraint(store.snapshot_insert(&second).await);
    assert_eq!(fetch(&store, &first.id).await, Some(first));
}

pub async fn snapshot_insert_needs_generation_one(store: S) {
    for generation in [0, 2, u64::MAX] {
        let mut wrong = snapshot(&WorkspaceId::generate(), 0);
        wrong.generation = generation;
        assert_conflict(store.snapshot_insert(&wrong).await);
        assert_eq!(fetch(&store, &wrong.id).await, None);
    }
}

pub async fn snapshot_update_of_a_stale_generation_conflicts(store: S) {
    let first = snapshot(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    let second = snapshot_moved(&first, SnapshotState::Ready);
    update(&store, &second).await;
    for generation in [0, 1, 2, 4, u64::MAX] {
        let mut stale = snapshot_moved(&first, SnapshotState::Deleting);
        stale.generation = generation;
        assert_conflict(store.snapshot_update(&stale).await);
    }
    assert_eq!(fetch(&store, &first.id).await, Some(second));
}

pub async fn snapshot_update_of_a_missing_one_is_not_found(store: S) {
    let never = snapshot(&WorkspaceId::generate(), 0);
    let never = snapshot_moved(&never, SnapshotState::Ready);
    assert_not_found(store.snapshot_update(&never).await);
}

/// Everybody counts up a label, reading and retrying on conflict.
pub async fn snapshot_concurrent_updates_lose_none(store: S) {
    let mut first = snapshot(&WorkspaceId::generate(), 0);
    first.labels = map(&[("count", "0")]);
    insert(&store, &first).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, id) = (Arc::clone(&store), first.id.clone());
        tasks.spawn(async move {
            loop {
                let seen = fetch(&store, &id).await.expect("is there");
                let count: usize = seen.labels["count"].parse().expect("a number");
                let mut next = snapshot_moved(&seen, SnapshotState::Ready);
                next.labels = map(&[("count", &(count + 1).to_string())]);
                match store.snapshot_update(&next).await {
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
    let last = fetch(&store, &first.id).await.expect("is there");
    assert_eq!(last.labels["count"], RACERS.to_string());
}

pub async fn snapshot_names_are_unique_per_workspace(store: S) {
    let (ann, bob) = (WorkspaceId::generate(), WorkspaceId::generate());
    let first = named(&ann, "good");
    insert(&store, &first).await;
    assert_constraint(store.snapshot_insert(&named(&ann, "good")).await);
    let (other_case, bobs) = (named(&ann, "Good"), named(&bob, "good"));
    let (nameless, also) = (snapshot(&ann, 0), snapshot(&ann, 0));
    for one in [&other_case, &bobs, &nameless, &also] {
        insert(&store, one).await;
    }
    let mut renamed = snapshot_moved(&nameless, SnapshotState::Ready);
    renamed.name = Some("good".to_owned());
    assert_constraint(store.snapshot_update(&renamed).await);
    assert_eq!(fetch(&store, &nameless.id).await, Some(nameless));
    // Keeping one's own name is no clash.
    let kept = snapshot_moved(&first, SnapshotState::Ready);
    update(&store, &kept).await;
    let by_name = async |ws, name: &str| store.snapshot_by_name(ws, name).await.expect("asked");
    assert_eq!(by_name(&ann, "good").await, Some(kept));
    assert_eq!(by_name(&bob, "good").await, Some(bobs));
    assert_eq!(by_name(&ann, "Good").await, Some(other_case));
    assert_eq!(by_name(&bob, "Good").await, None);
    assert_eq!(by_name(&ann, "").await, None);
}

pub async fn snapshot_name_is_free_once_its_snapshot_goes(store: S) {
    let ws = WorkspaceId::generate();
    let first = named(&ws, "good");
    insert(&store, &first).await;
    let ending = snapshot_moved(&first, SnapshotState::Deleting);
    update(&store, &ending).await;
    let found = store.snapshot_by_name(&ws, "good").await;
    assert_eq!(found.expect("asked"), None);
    let second = named(&ws, "good");
    insert(&store, &second).await;
    let found = store.snapshot_by_name(&ws, "good").await;
    assert_eq!(found.expect("asked"), Some(second.clone()));
    // The one that goes may still be written to, as long as it goes.
    let still = snapshot_moved(&ending, SnapshotState::Deleting);
    update(&store, &still).await;
    let back = snapshot_moved(&still, SnapshotState::Ready);
    assert_constraint(store.snapshot_update(&back).await);
    store.snapshot_remove(&second.id).await.expect("removed");
    update(&store, &back).await;
}

pub async fn snapshot_name_race_has_one_winner(store: S) {
    let ws = WorkspaceId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, one) = (Arc::clone(&store), named(&ws, "good"));
        tasks.spawn(async move { store.snapshot_insert(&one).await });
    }
    let mut winners = 0;
    while let Some(task) = tasks.join_next().await {
        match task.expect("no panic") {
            Ok(()) => winners += 1,
            lost => assert_constraint(lost),
        }
    }
    assert_eq!(winners, 1);
}

pub async fn snapshot_removal_is_repeatable(store: S) {
    let one = named(&WorkspaceId::generate(), "good");
    insert(&store, &one).await;
    for _ in 0..2 {
        store.snapshot_remove(&one.id).await.expect("removed");
        assert_eq!(fetch(&store, &one.id).await, None);
    }
    insert(&store, &one).await;
}

pub async fn snapshot_list_filters(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    insert(&store, &named(&other, "a")).await;
    let mut all = Vec::new();
    for (number, purpose) in (0..).zip(purposes()) {
        for state in states() {
            let mut one = snapshot(&ws, number);
            (one.purpose, one.state) = (purpose.clone(), state.clone());
            insert(&store, &one).await;
            all.push(one);
        }
    }
    let mut special = named(&ws, "a");
    special.labels = map(&[("git", "abc"), ("ci", "7")]);
    insert(&store, &special).await;
    all.push(special.clone());
    let list = async |filter: &SnapshotFilter| {
        let part = store.snapshot_list(&ws, filter, &page(100, None)).await;
        let mut ids: Vec<_> = part
            .expect("listed")
            .items
            .into_iter()
            .map(|one| one.id)
            .collect();
        ids.sort();
        ids
    };
    let wanted = |keep: &dyn Fn(&Snapshot) -> bool| {
        let kept = all
            .iter()
            .filter(|one| one.state != SnapshotState::Deleting && keep(one));
        let mut ids: Vec<_> = kept.map(|one| one.id.clone()).collect();
        ids.sort();
        ids
    };
    let callers = SnapshotFilter::default();
    let internal = SnapshotFilter {
        internal: true,
        ..callers.clone()
    };
    let checkpoint = |one: &Snapshot| one.purpose == SnapshotPurpose::Checkpoint;
    assert_eq!(list(&callers).await, wanted(&checkpoint));
    assert_eq!(list(&internal).await, wanted(&|_| true));
    assert_eq!(list(&internal).await.len(), 13);
    for (filter, expected) in [
        (
            with(&callers, |f| f.source = Some(special.source.clone())),
            true,
        ),
        (
            with(&callers, |f| f.source = Some(SandboxId::generate())),
            false,
        ),
        (with(&callers, |f| f.name = Some("a".to_owned())), true),
        (with(&callers, |f| f.name = Some("b".to_owned())), false),
        (with(&callers, |f| f.labels = map(&[("ci", "7")])), true),
        (
            with(&callers, |f| f.labels = map(&[("ci", "7"), ("git", "abc")])),
            true,
        ),
        (
            with(&callers, |f| f.labels = map(&[("ci", "7"), ("git", "x")])),
            false,
        ),
        (with(&callers, |f| f.labels = map(&[("ci", "")])), false),
    ] {
        let ids: &[SnapshotId] = match expected {
            true => std::slice::from_ref(&special.id),
            false => &[],
        };
        assert_eq!(list(&filter).await, ids, "{filter:?}");
    }
}

fn with(filter: &SnapshotFilter, change: impl FnOnce(&mut SnapshotFilter)) -> SnapshotFilter {
    let mut filter = filter.clone();
    change(&mut filter);
    filter
}

pub async fn snapshot_list_pages_newest_first(store: S) {
    let ws = WorkspaceId::generate();
    let any = SnapshotFilter::default();
    let mut expected = Vec::new();
    for created_at in [50, 10, 30, 30, 30, 70, -20] {
        let one = snapshot(&ws, created_at);
        insert(&store, &one).await;
        expected.push((one.created_at, one.id));
    }
    expected.sort();
    expected.reverse();
    for limit in [1, 2, 7, 8] {
        let (mut got, mut cursor) = (Vec::new(), None);
        loop {
            let request = page(limit, cursor);
            let part = store.snapshot_list(&ws, &any, &request).await;
            let part = part.expect("listed");
            assert!(part.items.len() <= limit);
            got.extend(part.items.into_iter().map(|one| (one.created_at, one.id)));
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
            // What appears before the cursor moves nothing.
            let newer = Snapshot {
                purpose: SnapshotPurpose::Fork,
                ..snapshot(&ws, 1000)
            };
            insert(&store, &newer).await;
        }
        assert_eq!(got, expected, "pages of {limit}");
    }
    let sandboxes = crate::cursor::encode(crate::cursor::List::Sandboxes, "5", "id");
    for bad in ["", "x", sandboxes.as_str()] {
        let request = page(1, Some(bad.to_owned()));
        assert_invalid_cursor(store.snapshot_list(&ws, &any, &request).await);
    }
}

pub async fn snapshot_all_has_every_state_and_workspace(store: S) {
    let mut expected = Vec::new();
    for state in states() {
        for purpose in purposes() {
            let mut one = snapshot(&WorkspaceId::generate(), 0);
            (one.state, one.purpose) = (state.clone(), purpose);
            insert(&store, &one).await;
            expected.push(one);
        }
    }
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.snapshot_all().await.expect("listed"), expected);
}

pub async fn snapshot_usage_is_that_of_the_workspace(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let usage = async |ws| store.snapshot_usage(ws).await.expect("asked");
    assert_eq!(usage(&ws).await, 0);
    let sized = |written_bytes, disk_bytes| Snapshot {
        size: SnapshotSize {
            memory_bytes: 9 << 40,
            written_bytes,
            disk_bytes,
        },
        ..snapshot(&ws, 0)
    };
    let (small, big) = (sized(1, 2), sized(4 << 40, 8));
    for one in [&small, &big, &snapshot(&other, 0)] {
        insert(&store, one).await;
    }
    assert_eq!(usage(&ws).await, (4 << 40) + 11);
    update(&store, &snapshot_moved(&big, SnapshotState::Deleting)).await;
    assert_eq!(usage(&ws).await, 3);
    let mut grown = snapshot_moved(&small, SnapshotState::Ready);
    grown.size.disk_bytes = 20;
    update(&store, &grown).await;
    assert_eq!(usage(&ws).await, 21);
}

/// A running sandbox, stored, and the record with which it begins to fall asleep.
async fn about_to_sleep(store: &S) -> (Sandbox, Sandbox, Snapshot) {
    let mut awake = sandbox(&WorkspaceId::generate(), 0);
    awake.state = running();
    let events = vec![event(0, "made")];
    store
        .sandbox_insert(&awake, events)
        .await
        .expect("inserted");
    let mut asleep = sleeping(SleepCause::Idle, SnapshotContent::Memory);
    let asleep = moved(&awake, asleep.remove(1));
    let mut shot = named(&awake.workspace, "its name");
    shot.purpose = SnapshotPurpose::Sleep {
        sandbox: awake.id.clone(),
    };
    (awake, asleep, shot)
}

pub async fn sandbox_and_snapshot_change_together(store: S) {
    let (awake, asleep, shot) = about_to_sleep(&store).await;
    let events = vec![event(1, "falls asleep")];
    let together = store.sandbox_update_with_snapshot(&asleep, events, &shot);
    together.await.expect("written");
    let found = store.sandbox_fetch(&awake.id).await.expect("fetched");
    assert_eq!(found.as_ref(), Some(&asleep));
    assert_eq!(fetch(&store, &shot.id).await.as_ref(), Some(&shot));
    let mut states = sleeping(SleepCause::Idle, SnapshotContent::Memory);
    let last = moved(&asleep, states.remove(2));
    let ready = snapshot_moved(&shot, SnapshotState::Ready);
    let events = vec![event(2, "asleep")];
    let together = store.sandbox_update_with_snapshot(&last, events, &ready);
    together.await.expect("written");
    let found = store.sandbox_fetch(&awake.id).await.expect("fetched");
    assert_eq!(found, Some(last));
    assert_eq!(fetch(&store, &shot.id).await, Some(ready));
    let log = store.event_list(&awake.id, 0, 10).await.expect("listed");
    let messages: Vec<_> = log.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["made", "falls asleep", "asleep"]);
}

/// Whichever half is refused, nothing of the other one is there: no record, no event.
pub async fn sandbox_and_snapshot_fail_together(store: S) {
    let (awake, asleep, shot) = about_to_sleep(&store).await;
    let stored = snapshot(&awake.workspace, 0);
    insert(&store, &stored).await;
    let holder = named(&awake.workspace, "taken");
    insert(&store, &holder).await;
    let together = async |sandbox: &Sandbox, snapshot: &Snapshot| {
        let events = vec![event(1, "never")];
        store
            .sandbox_update_with_snapshot(sandbox, events, snapshot)
            .await
    };

    let stale = moved(&asleep, running());
    assert_conflict(together(&stale, &shot).await);
    let gone = moved(&sandbox(&awake.workspace, 0), running());
    assert_not_found(together(&gone, &shot).await);
    let mut clash = shot.clone();
    clash.name = holder.name.clone();
    assert_constraint(together(&asleep, &clash).await);
    let mut twice = shot.clone();
    twice.id = stored.id.clone();
    assert_constraint(together(&asleep, &twice).await);
    let missing = snapshot_moved(&shot, SnapshotState::Ready);
    assert_not_found(together(&asleep, &missing).await);
    let mut skipped = snapshot_moved(&stored, SnapshotState::Ready);
    skipped.generation += 1;
    assert_conflict(together(&asleep, &skipped).await);
    let mut renamed = snapshot_moved(&stored, SnapshotState::Ready);
    renamed.name = holder.name.clone();
    assert_constraint(together(&asleep, &renamed).await);

    let found = store.sandbox_fetch(&awake.id).await.expect("fetched");
    assert_eq!(found.as_ref(), Some(&awake));
    let log = store.event_list(&awake.id, 0, 10).await.expect("listed");
    assert_eq!(log.len(), 1);
    let mut kept = [stored, holder];
    kept.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.snapshot_all().await.expect("listed"), kept);
    // And nothing stands in the way of doing it right.
    together(&asleep, &shot).await.expect("written");
}
