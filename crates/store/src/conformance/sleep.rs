//! Promises about sandboxes that sleep.

use std::sync::Arc;
use std::time::Duration;

use woodfrog_types::WorkspaceId;
use woodfrog_types::sandbox::{EndReason, Sandbox, SandboxFilter, SandboxState};
use woodfrog_types::sleep::{Fallback, SleepCause, SleepPolicy};
use woodfrog_types::snapshot::SnapshotContent;

use super::fixture::{at, moved, page, running, sandbox, sleeping};
use crate::Store;

type S = Arc<dyn Store>;

const CAUSES: [SleepCause; 4] = [
    SleepCause::Idle,
    SleepCause::Requested,
    SleepCause::Held,
    SleepCause::Timeout,
];

async fn insert(store: &S, sandbox: &Sandbox) {
    let inserted = store.sandbox_insert(sandbox, vec![]).await;
    inserted.expect("inserted");
}

pub async fn sandbox_comes_back_from_every_rung(store: S) {
    let mut last = sandbox(&WorkspaceId::generate(), 0);
    insert(&store, &last).await;
    let mut number = 0;
    for cause in CAUSES {
        for content in [SnapshotContent::Memory, SnapshotContent::Filesystem] {
            for state in sleeping(cause, content) {
                number += 1;
                last = moved(&last, state);
                last.sleep_due = Some(at(number)).filter(|_| number % 3 > 0);
                last.last_snapshot = last.last_snapshot.filter(|_| number < 5);
                last.sleep = match number % 2 {
                    0 => SleepPolicy::default(),
                    _ => SleepPolicy::NEVER,
                };
                store.sandbox_update(&last, vec![]).await.expect("updated");
                let found = store.sandbox_fetch(&last.id).await.expect("fetched");
                assert_eq!(found.as_ref(), Some(&last));
            }
        }
    }
}

pub async fn sandbox_sleep_policy_is_kept_to_the_millisecond(store: S) {
    let odd = Some(Duration::from_nanos(1_999_999));
    let mut one = sandbox(&WorkspaceId::generate(), 0);
    one.sleep = SleepPolicy {
        pause_after: odd,
        hibernate_after: odd,
        archive_after: odd,
        delete_after: odd,
        fallback: Fallback::StayPaused,
        checkpoint_every: odd,
    };
    insert(&store, &one).await;
    let kept = store.sandbox_fetch(&one.id).await.expect("fetched");
    let whole = Some(Duration::from_millis(1));
    let expected = SleepPolicy {
        pause_after: whole,
        hibernate_after: whole,
        archive_after: whole,
        delete_after: whole,
        fallback: Fallback::StayPaused,
        checkpoint_every: whole,
    };
    assert_eq!(kept.expect("is there").sleep, expected);
}

/// What is due is what [`Sandbox::due`] says, in whatever state, after inserts and updates.
pub async fn sandbox_due_covers_every_rung(store: S) {
    let ws = WorkspaceId::generate();
    let mut states = sleeping(SleepCause::Idle, SnapshotContent::Memory);
    states.extend([running(), SandboxState::Creating]);
    states.push(SandboxState::Deleting {
        reason: EndReason::Expired,
    });
    let mut all = Vec::new();
    for (number, state) in (0..).zip(&states) {
        for (deadline, sleep_due) in [
            (None, None),
            (Some(500), None),
            (None, Some(400)),
            (Some(300), Some(310)),
            (Some(210), Some(200)),
        ] {
            let mut one = sandbox(&ws, 0);
            one.state = state.clone();
            one.deadline = deadline.map(|due| at(due + number));
            one.sleep_due = sleep_due.map(|due| at(due + number));
            insert(&store, &one).await;
            all.push(one);
        }
    }
    let check = async |all: &[Sandbox], now| {
        let mut expected: Vec<_> = all
            .iter()
            .filter_map(|one| Some((one.due()?, one.id.clone())))
            .collect();
        expected.sort();
        let next = store.sandbox_next_deadline().await.expect("asked");
        assert_eq!(next, expected.first().map(|(due, _)| *due));
        expected.retain(|(due, _)| *due <= at(now));
        let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
        let due = store.sandbox_due(at(now), 1000).await.expect("asked");
        assert_eq!(due, expected, "at {now}");
        due.len()
    };
    assert_eq!(check(&all, 199).await, 0);
    // Four rungs wait for the clock, each with four of five combinations.
    assert_eq!(check(&all, 1000).await, 16);
    check(&all, 303).await;
    // Everybody steps on: what waited may not wait any more, and the other way round.
    for (number, one) in all.iter_mut().enumerate() {
        *one = moved(one, states[(number + 1) % states.len()].clone());
        store.sandbox_update(one, vec![]).await.expect("updated");
    }
    check(&all, 303).await;
    check(&all, 1000).await;
}

pub async fn sandbox_list_filters_by_state(store: S) {
    let ws = WorkspaceId::generate();
    let mut states = sleeping(SleepCause::Held, SnapshotContent::Filesystem);
    states.extend([running(), SandboxState::Creating]);
    states.push(SandboxState::Deleting {
        reason: EndReason::Lost,
    });
    for (number, state) in (0..).zip(&states) {
        for twin in 0..2 {
            let mut one = sandbox(&ws, number * 2 + twin);
            one.state = state.clone();
            insert(&store, &one).await;
        }
    }
    let list = async |wanted: &[&'static str], limit| {
        let filter = SandboxFilter {
            states: wanted.to_vec(),
            ..SandboxFilter::default()
        };
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let request = page(limit, cursor);
            let part = store.sandbox_list(&ws, &filter, &request).await;
            let part = part.expect("listed");
            found.extend(part.items.into_iter().map(|one| one.state.as_str()));
            cursor = part.next;
            if cursor.is_none() {
                return found;
            }
            assert!(found.len() < 100, "the pages never end");
        }
    };
    for limit in [1, 3, 100] {
        for state in &states {
            let name = state.as_str();
            assert_eq!(list(&[name], limit).await, [name, name]);
        }
        let two = list(&["paused", "archived"], limit).await;
        assert_eq!(two, ["archived", "archived", "paused", "paused"]);
        let all = list(&[], limit).await;
        assert_eq!(all.len(), 2 * (states.len() - 1));
        assert!(!all.contains(&"deleting"), "{all:?}");
        assert_eq!(list(&["never"], limit).await, [""; 0]);
    }
}

pub async fn sandbox_sleeping_ones_count(store: S) {
    let ws = WorkspaceId::generate();
    let states = sleeping(SleepCause::Timeout, SnapshotContent::Memory);
    for state in &states {
        let mut one = sandbox(&ws, 0);
        one.state = state.clone();
        insert(&store, &one).await;
    }
    let count = store.sandbox_count(&ws).await.expect("counted");
    assert_eq!(count, states.len() as u64);
}

pub async fn sandbox_running_ones_count_without_those_kept_asleep(store: S) {
    let reason = EndReason::Requested;
    for cause in CAUSES {
        let ws = WorkspaceId::generate();
        let mut states = sleeping(cause, SnapshotContent::Memory);
        let asleep = states.len() as u64 - 1;
        let waking = |state: &&SandboxState| matches!(state, SandboxState::Waking { .. });
        assert_eq!(states.iter().filter(waking).count(), 1);
        states.extend([
            SandboxState::Creating,
            running(),
            SandboxState::Deleting { reason },
        ]);
        for state in states {
            let mut one = sandbox(&ws, 0);
            one.state = state;
            insert(&store, &one).await;
        }
        let wanted = match cause {
            SleepCause::Idle | SleepCause::Requested => asleep + 3,
            SleepCause::Held | SleepCause::Timeout => 3,
        };
        let count = store.sandbox_count_running(&ws).await.expect("counted");
        assert_eq!(count, wanted, "{cause:?}");
        // Others' are not among them.
        let other = store.sandbox_count_running(&WorkspaceId::generate()).await;
        assert_eq!(other.expect("counted"), 0);
    }
}
