//! Promises about runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use woodfrog_types::run::{
    ArtifactPolicy, AtEnd, Boot, ErrorCategory, Held, NewRunEvent, Outcome, Run, RunError,
    RunEventKind, RunFilter, RunLimits, RunPosition, RunSetup, RunState, RunStats, Work,
};
use woodfrog_types::usage::{Cost, Tokens};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{RunId, SandboxId, SessionId, WorkspaceId};

use super::fixture::{at, map, page};
use super::{RACERS, assert_conflict, assert_constraint, assert_invalid_cursor, assert_not_found};
use crate::{Admitted, RunWrite, StartRate, Store, Whose};

type S = Arc<dyn Store>;

/// A new run in which no field has its default value.
pub(super) fn run(workspace: &WorkspaceId, created_at: i64) -> Run {
    Run {
        id: RunId::generate(),
        workspace: workspace.clone(),
        thread: "thread \"ü\"\0".to_owned(),
        created_by: UserId::parse("ann'; --").expect("a name"),
        work: Work::Prompt {
            agent: "mock".to_owned(),
            model: Some("m\0".to_owned()),
        },
        input: Some("what\0 is it".to_owned()),
        input_hash: "ab".repeat(32),
        template: "base".to_owned(),
        sandbox: Some(SandboxId::generate()),
        made_sandbox: true,
        session: Some(SessionId::generate()),
        process: Some(1 << 60),
        state: RunState::Booting(Boot::Queued),
        held_for: Duration::from_millis(7),
        priority: -3,
        limits: RunLimits {
            wall: Duration::from_millis(120_001),
            idle: Some(Duration::from_millis(5)),
            tokens: Some(u64::MAX),
            cost: Some(9),
        },
        setup: RunSetup {
            env: map(&[("A", "b\0")]),
            secrets: map(&[("KEY", "name")]),
            cwd: Some("/home".to_owned()),
            at_end: AtEnd::Pause,
            share_sandbox: true,
            artifacts: Some(ArtifactPolicy {
                paths: vec!["/home".to_owned()],
                exclude: vec!["**/*.o".to_owned()],
                max_bytes: 1 << 40,
                max_files: 7,
            }),
        },
        metadata: map(&[("quote\"\\", "\u{1}")]),
        idempotency_key: None,
        generation: 1,
        created_at: at(created_at),
        heartbeat_at: at(created_at),
        tokens: Tokens::default(),
        cost: Cost::default(),
        position: RunPosition::default(),
        last_event: 0,
        stats: RunStats {
            tool_calls: 1,
            turns: 2,
            files_created: 3,
            files_modified: 4,
        },
        result: Some("that\0".to_owned()),
        result_hash: Some("cd".repeat(32)),
        trace_id: Some("ef".repeat(16)),
    }
}

pub(super) fn event(data: &str) -> NewRunEvent {
    NewRunEvent {
        at: at(3),
        kind: RunEventKind::Text,
        data: data.to_owned(),
    }
}

/// The next version of a run, in another state.
fn moved(run: &Run, state: RunState) -> Run {
    Run {
        generation: run.generation + 1,
        state,
        ..run.clone()
    }
}

fn ended(outcome: Outcome) -> RunState {
    RunState::Ended {
        since: Some(at(6)),
        at: at(9),
        outcome,
    }
}

pub(super) async fn insert(store: &S, run: &Run) {
    let admitted = store.run_insert(run, vec![], vec![]).await;
    assert_eq!(admitted.expect("inserted"), Admitted::New);
}

async fn fetch(store: &S, id: &RunId) -> Option<Run> {
    store.run_fetch(id).await.expect("fetched")
}

fn change(run: &Run, record: Run) -> RunWrite {
    RunWrite {
        record: Some(record),
        ..RunWrite::of(run)
    }
}

pub async fn run_comes_back_in_every_state(store: S) {
    let error = RunError {
        category: ErrorCategory::Tool,
        code: "c".to_owned(),
        message: "m\0".to_owned(),
        details: Some("d".to_owned()),
    };
    let held = Held {
        since: at(4),
        reason: "budget".to_owned(),
    };
    let states = [
        RunState::Booting(Boot::Queued),
        RunState::Booting(Boot::Starting { since: at(1) }),
        RunState::Running {
            since: at(2),
            held: None,
        },
        RunState::Running {
            since: at(2),
            held: Some(held),
        },
        ended(Outcome::Succeeded),
        ended(Outcome::Failed(error)),
        ended(Outcome::Canceled {
            by: Some(UserId::operator()),
            reason: "no".to_owned(),
        }),
    ];
    let ws = WorkspaceId::generate();
    for state in states {
        let mut one = run(&ws, 0);
        insert(&store, &one).await;
        assert_eq!(fetch(&store, &one.id).await.as_ref(), Some(&one));
        let mut next = moved(&one, state);
        next.work = Work::Command;
        next.sandbox = None;
        let written = store.run_write(change(&one, next.clone())).await;
        written.expect("written");
        one = next;
        assert_eq!(fetch(&store, &one.id).await, Some(one));
    }
    assert_eq!(fetch(&store, &RunId::generate()).await, None);
}

pub async fn run_insert_twice_is_refused(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    assert_constraint(store.run_insert(&one, vec![], vec![]).await);
    let mut second = run(&one.workspace, 0);
    second.generation = 2;
    assert_conflict(store.run_insert(&second, vec![], vec![]).await);
}

pub async fn run_write_of_a_stale_generation_writes_nothing(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let running = RunState::Running {
        since: at(5),
        held: None,
    };
    let next = moved(&one, running);
    store
        .run_write(change(&one, next.clone()))
        .await
        .expect("written");
    let mut stale = change(&one, next.clone());
    stale.events = vec![event("{}")];
    assert_conflict(store.run_write(stale).await);
    let only_events = RunWrite {
        events: vec![event("{}")],
        ..RunWrite::of(&one)
    };
    assert_conflict(store.run_write(only_events).await);
    let far = Run {
        generation: 9,
        ..next.clone()
    };
    assert_conflict(store.run_write(change(&next, far)).await);
    assert_eq!(fetch(&store, &one.id).await, Some(next));
    let gone = run(&one.workspace, 0);
    assert_not_found(store.run_write(RunWrite::of(&gone)).await);
}

pub async fn run_that_ended_never_changes(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let over = moved(&one, ended(Outcome::Succeeded));
    store
        .run_write(change(&one, over.clone()))
        .await
        .expect("written");
    let again = moved(&over, ended(Outcome::Succeeded));
    assert_conflict(store.run_write(change(&over, again)).await);
    let log = RunWrite {
        events: vec![event("{}")],
        ..RunWrite::of(&over)
    };
    assert_conflict(store.run_write(log).await);
    assert_eq!(fetch(&store, &one.id).await, Some(over));
}

pub async fn run_race_has_one_winner(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, one) = (Arc::clone(&store), one.clone());
        let over = moved(&one, ended(Outcome::Succeeded));
        tasks.spawn(async move { store.run_write(change(&one, over)).await });
    }
    let mut winners = 0;
    while let Some(task) = tasks.join_next().await {
        match task.expect("no panic") {
            Ok(_) => winners += 1,
            lost => assert_conflict(lost),
        }
    }
    assert_eq!(winners, 1);
}

/// Fifty starts at the same moment: exactly as many pass as may.
pub async fn run_rate_is_exact_under_concurrency(store: S) {
    let ws = WorkspaceId::generate();
    let rate = StartRate {
        whose: Whose::User,
        max: 10,
        after: at(0),
    };
    // These do not count: another user's, and one before the window.
    let mut other = run(&ws, 5);
    other.created_by = UserId::operator();
    insert(&store, &other).await;
    insert(&store, &run(&ws, 0)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        // Workspaces do not matter.
        let ws = if number % 2 == 0 {
            ws.clone()
        } else {
            WorkspaceId::generate()
        };
        let (store, one) = (Arc::clone(&store), run(&ws, 1 + number));
        tasks.spawn(async move { store.run_insert(&one, vec![], vec![rate]).await });
    }
    let (mut started, mut refused) = (0, 0);
    while let Some(task) = tasks.join_next().await {
        match task.expect("no panic").expect("asked") {
            Admitted::New => started += 1,
            Admitted::RateLimited { rate: by, oldest } => {
                assert_eq!(by, rate);
                assert!(oldest > at(0) && oldest <= at(50));
                refused += 1;
            }
            Admitted::Known(_) => panic!("no key was given"),
        }
    }
    assert_eq!((started, refused), (10, 40));
    let new = run(&ws, 0);
    let counted = store.run_starts(&new, Whose::User, at(0)).await;
    let (count, oldest) = counted.expect("counted");
    assert_eq!(count, 10);
    // The window slides: once the first has left it, one more may start.
    let after = oldest.expect("there are some");
    let late = StartRate { after, ..rate };
    let admitted = store.run_insert(&run(&ws, 60), vec![], vec![late]).await;
    assert_eq!(admitted.expect("asked"), Admitted::New);
    let admitted = store.run_insert(&run(&ws, 60), vec![], vec![late]).await;
    assert_eq!(
        admitted.expect("asked"),
        Admitted::RateLimited {
            rate: late,
            oldest: store
                .run_starts(&new, Whose::User, after)
                .await
                .expect("counted")
                .1
                .expect("some"),
        }
    );
}

pub async fn run_rates_hold_together(store: S) {
    let ws = WorkspaceId::generate();
    let by = |whose, max| StartRate {
        whose,
        max,
        after: at(0),
    };
    let rates = [by(Whose::User, 3), by(Whose::Workspace, 4)];
    let start = async |user: &str| {
        let mut one = run(&ws, 5);
        one.created_by = UserId::parse(user).expect("a name");
        let admitted = store.run_insert(&one, vec![], rates.to_vec()).await;
        match admitted.expect("asked") {
            Admitted::New => None,
            Admitted::RateLimited { rate, oldest } => {
                assert_eq!(oldest, at(5));
                Some(rate)
            }
            Admitted::Known(_) => panic!("no key was given"),
        }
    };
    // Another workspace's starts count for neither.
    insert(&store, &run(&WorkspaceId::generate(), 5)).await;
    for _ in 0..3 {
        assert_eq!(start("one").await, None);
    }
    assert_eq!(start("one").await, Some(rates[0]));
    assert_eq!(start("two").await, None);
    assert_eq!(start("two").await, Some(rates[1]));
    let new = run(&ws, 9);
    let counted = store.run_starts(&new, Whose::Workspace, at(0)).await;
    assert_eq!(counted.expect("counted"), (4, Some(at(5))));
}

pub async fn run_ended_lists_the_oldest_first(store: S) {
    let ws = WorkspaceId::generate();
    let mut ids = Vec::new();
    for ended_at in [7, 3, 5, 9] {
        let mut one = run(&ws, 0);
        one.state = RunState::Ended {
            since: None,
            at: at(ended_at),
            outcome: Outcome::Succeeded,
        };
        insert(&store, &one).await;
        ids.push(one.id);
    }
    insert(&store, &run(&ws, 0)).await;
    let mut foreign = run(&WorkspaceId::generate(), 0);
    foreign.state = ended(Outcome::Succeeded);
    insert(&store, &foreign).await;
    let list = async |before, limit| {
        let listed = store.run_ended(&ws, at(before), limit).await;
        listed.expect("listed")
    };
    let all = [&ids[1], &ids[2], &ids[0]].map(RunId::clone);
    assert_eq!(list(9, 10).await, all);
    assert_eq!(list(9, 2).await, all[..2]);
    assert_eq!(list(3, 10).await, []);
}

pub async fn run_key_starts_one(store: S) {
    let ws = WorkspaceId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    let rate = StartRate {
        whose: Whose::User,
        max: 1,
        after: at(-1),
    };
    for number in 0..RACERS {
        let mut one = run(&ws, 0);
        one.idempotency_key = Some("key\0".to_owned());
        // Also across users.
        one.created_by = UserId::parse(&format!("u{}", number % 3)).expect("a name");
        let store = Arc::clone(&store);
        tasks.spawn(async move { (store.run_insert(&one, vec![], vec![rate]).await, one) });
    }
    let (mut new, mut known) = (Vec::new(), Vec::new());
    while let Some(task) = tasks.join_next().await {
        let (admitted, one) = task.expect("no panic");
        match admitted.expect("asked") {
            Admitted::New => new.push(one),
            Admitted::Known(found) => known.push(*found),
            Admitted::RateLimited { .. } => panic!("a known key is no start"),
        }
    }
    assert_eq!(new.len(), 1);
    assert!(known.iter().all(|found| *found == new[0]));
    let mut other = run(&WorkspaceId::generate(), 0);
    other.idempotency_key = Some("key\0".to_owned());
    insert(&store, &other).await;
}

pub async fn run_log_is_dense_and_read_from_a_place(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    let first = vec![event("{\"n\":1}"), event("{\"n\":2}")];
    let admitted = store.run_insert(&one, first, vec![]).await;
    admitted.expect("inserted");
    let position = RunPosition {
        stdout: 7,
        stderr: 8,
        log: 1 << 40,
    };
    let write = RunWrite {
        events: vec![event("{\"ü\":\"\0\"}"), event("{}")],
        heartbeat_at: Some(at(50)),
        position: Some(position),
        ..RunWrite::of(&one)
    };
    let written = store.run_write(write).await.expect("written");
    assert_eq!(written.last_event, 4);
    let back = RunWrite {
        heartbeat_at: Some(at(40)),
        ..RunWrite::of(&one)
    };
    store.run_write(back).await.expect("written");
    let found = fetch(&store, &one.id).await.expect("is there");
    let expected = (at(50), position, 4, 1);
    let stands = (
        found.heartbeat_at,
        found.position,
        found.last_event,
        found.generation,
    );
    assert_eq!(stands, expected);
    for (after, limit, bytes, places) in [
        (0, 100, 1000, vec![1, 2, 3, 4]),
        (1, 2, 1000, vec![2, 3]),
        (0, 100, 7, vec![1]),
        (0, 100, 0, vec![1]),
        (4, 100, 1000, vec![]),
        (9, 100, 1000, vec![]),
    ] {
        let read = store.run_events(&one.id, after, limit, bytes).await;
        let read = read.expect("read");
        let found: Vec<u64> = read.iter().map(|event| event.sequence).collect();
        assert_eq!(found, places, "after {after}");
    }
    let third = store.run_events(&one.id, 2, 1, 0).await.expect("read");
    assert_eq!(third[0].event, event("{\"ü\":\"\0\"}"));
    assert_eq!(third[0].run, one.id);
    let none = store.run_events(&RunId::generate(), 0, 9, 9).await;
    assert_eq!(none.expect("read"), vec![]);
}

pub async fn run_list_filters(store: S) {
    let ws = WorkspaceId::generate();
    let plain = run(&ws, 10);
    let mut odd = run(&ws, 20);
    odd.thread = "other".to_owned();
    odd.created_by = UserId::operator();
    odd.work = Work::Command;
    odd.state = ended(Outcome::Succeeded);
    for one in [&plain, &odd, &run(&WorkspaceId::generate(), 10)] {
        insert(&store, one).await;
    }
    let any = RunFilter::default;
    let cases = [
        (any(), vec![&odd, &plain]),
        (
            RunFilter {
                thread: Some("other".into()),
                ..any()
            },
            vec![&odd],
        ),
        (
            RunFilter {
                created_by: Some(UserId::operator()),
                ..any()
            },
            vec![&odd],
        ),
        (
            RunFilter {
                state: Some("succeeded".into()),
                ..any()
            },
            vec![&odd],
        ),
        (
            RunFilter {
                state: Some("booting".into()),
                ..any()
            },
            vec![&plain],
        ),
        (
            RunFilter {
                sandbox: plain.sandbox.clone(),
                ..any()
            },
            vec![&plain],
        ),
        (
            RunFilter {
                agent: Some("mock".into()),
                ..any()
            },
            vec![&plain],
        ),
        (
            RunFilter {
                from: Some(at(20)),
                ..any()
            },
            vec![&odd],
        ),
        (
            RunFilter {
                until: Some(at(20)),
                ..any()
            },
            vec![&plain],
        ),
        (
            RunFilter {
                from: Some(at(21)),
                ..any()
            },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        let listed = store.run_list(&ws, &filter, &page(100, None)).await;
        let listed = listed.expect("listed").items;
        let expected: Vec<Run> = expected.into_iter().cloned().collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
}

pub async fn run_list_pages_newest_first(store: S) {
    let ws = WorkspaceId::generate();
    let mut made = BTreeMap::new();
    for created_at in [1, 1, 1, 5, 5, 9, 9] {
        let one = run(&ws, created_at);
        insert(&store, &one).await;
        made.insert((one.created_at, one.id.clone()), one);
    }
    let expected: Vec<RunId> = made.into_values().rev().map(|one| one.id).collect();
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let part = store
            .run_list(&ws, &RunFilter::default(), &page(2, cursor))
            .await;
        let part = part.expect("listed");
        found.extend(part.items.into_iter().map(|one| one.id));
        cursor = part.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
    let wrong = page(2, Some("00".to_owned()));
    assert_invalid_cursor(store.run_list(&ws, &RunFilter::default(), &wrong).await);
}

pub async fn run_is_found_by_trace_in_its_workspace(store: S) {
    let mut one = run(&WorkspaceId::generate(), 0);
    one.trace_id = Some("12".repeat(16));
    insert(&store, &one).await;
    let trace = one.trace_id.clone().expect("it has one");
    let found = store.run_by_trace(&one.workspace, &trace).await;
    assert_eq!(found.expect("asked"), Some(one));
    let found = store.run_by_trace(&WorkspaceId::generate(), &trace).await;
    assert_eq!(found.expect("asked"), None);
}

pub async fn run_unfinished_lists_what_goes_on(store: S) {
    let ws = WorkspaceId::generate();
    let (young, old) = (run(&ws, 9), run(&WorkspaceId::generate(), 1));
    let mut over = run(&ws, 5);
    over.state = ended(Outcome::Succeeded);
    for one in [&young, &old, &over] {
        insert(&store, one).await;
    }
    let found = store.run_unfinished().await.expect("listed");
    assert_eq!(found, vec![old, young]);
}

pub async fn run_forget_leaves_hashes(store: S) {
    let ws = WorkspaceId::generate();
    let mut due = run(&ws, 0);
    due.state = ended(Outcome::Succeeded);
    let mut young = run(&ws, 0);
    young.state = RunState::Ended {
        since: None,
        at: at(10),
        outcome: Outcome::Succeeded,
    };
    let (open, mut foreign) = (run(&ws, 0), run(&WorkspaceId::generate(), 0));
    foreign.state = due.state.clone();
    for one in [&due, &young, &open, &foreign] {
        let admitted = store.run_insert(one, vec![event("{}")], vec![]).await;
        admitted.expect("inserted");
    }
    for count in [1, 0] {
        let forgot = store.run_forget(&ws, at(10), 100).await;
        assert_eq!(forgot.expect("forgotten"), count);
    }
    let found = fetch(&store, &due.id).await.expect("stays");
    assert_eq!((found.input, found.result), (None, None));
    assert_eq!(found.input_hash, due.input_hash);
    assert_eq!(found.result_hash, due.result_hash);
    let log = store.run_events(&due.id, 0, 9, 9).await.expect("read");
    assert_eq!(log, vec![]);
    for one in [&young, &open, &foreign] {
        let found = fetch(&store, &one.id).await.expect("stays");
        assert_eq!(found.input, one.input);
        let log = store.run_events(&one.id, 0, 9, 9).await.expect("read");
        assert_eq!(log.len(), 1);
    }
}

pub async fn run_removal_takes_its_log_along(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    let admitted = store.run_insert(&one, vec![event("{}")], vec![]).await;
    admitted.expect("inserted");
    for was_there in [true, false] {
        let removed = store.run_remove(&one.id).await;
        assert_eq!(removed.expect("removed"), was_there);
        assert_eq!(fetch(&store, &one.id).await, None);
        let log = store.run_events(&one.id, 0, 9, 9).await.expect("read");
        assert_eq!(log, vec![]);
    }
}
