//! Promises about the records of sessions.

use std::collections::BTreeSet;
use std::sync::Arc;

use woodfrog_types::session::{Session, SessionFace, SessionFilter, SessionState, Stream};
use woodfrog_types::{SandboxId, SessionId, WorkspaceId};

use super::fixture::{at, page, session, session_event, session_moved, turn};
use super::session_log::{append, claimed};
use super::{RACERS, assert_conflict, assert_constraint, assert_invalid_cursor, assert_not_found};
use crate::{SessionAppend, Store};

type S = Arc<dyn Store>;

fn ended(millis: i64) -> SessionState {
    SessionState::Ended {
        at: at(millis),
        reason: "over \"ü\"\0".to_owned(),
    }
}

pub(super) async fn insert(store: &S, session: &Session) {
    let inserted = store.session_insert(session).await;
    inserted.expect("inserted");
}

async fn update(store: &S, session: &Session) {
    let updated = store.session_update(session).await;
    updated.expect("updated");
}

async fn fetch(store: &S, id: &SessionId) -> Option<Session> {
    store.session_fetch(id).await.expect("fetched")
}

async fn by_name(store: &S, like: &Session) -> Option<SessionId> {
    let found = store
        .session_by_name(&like.sandbox, like.face, &like.name)
        .await;
    found.expect("asked").map(|session| session.id)
}

async fn list(store: &S, ws: &WorkspaceId, filter: &SessionFilter) -> Vec<SessionId> {
    let part = store.session_list(ws, filter, &page(100, None)).await;
    let part = part.expect("listed");
    part.items.into_iter().map(|session| session.id).collect()
}

pub async fn session_comes_back_as_it_was(store: S) {
    let ws = WorkspaceId::generate();
    for face in SessionFace::ALL {
        let mut last = session(&ws, 0);
        last.face = face;
        insert(&store, &last).await;
        assert_eq!(fetch(&store, &last.id).await.as_ref(), Some(&last));
        for state in [ended(5), SessionState::Active] {
            last = session_moved(&last, state);
            (last.sandbox, last.updated_at) = (SandboxId::generate(), at(99));
            (last.agent, last.settings) = ("other".to_owned(), "{}".to_owned());
            update(&store, &last).await;
            assert_eq!(fetch(&store, &last.id).await.as_ref(), Some(&last));
            assert_eq!(by_name(&store, &last).await, Some(last.id.clone()));
        }
    }
    let mut bare = session(&ws, 0);
    (bare.handshake, bare.process, bare.bindings) = (None, None, vec![]);
    bare.holds_name = false;
    insert(&store, &bare).await;
    assert_eq!(fetch(&store, &bare.id).await.as_ref(), Some(&bare));
    assert_eq!(fetch(&store, &SessionId::generate()).await, None);
}

pub async fn session_insert_twice_is_refused(store: S) {
    let first = session(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    let mut second = session(&first.workspace, 9);
    second.id = first.id.clone();
    assert_constraint(store.session_insert(&second).await);
    assert_eq!(fetch(&store, &first.id).await, Some(first));
}

pub async fn session_insert_needs_generation_one(store: S) {
    for generation in [0, 2, u64::MAX] {
        let mut wrong = session(&WorkspaceId::generate(), 0);
        wrong.generation = generation;
        assert_conflict(store.session_insert(&wrong).await);
        assert_eq!(fetch(&store, &wrong.id).await, None);
    }
}

pub async fn session_update_of_a_stale_generation_conflicts(store: S) {
    let first = session(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    let second = session_moved(&first, ended(1));
    update(&store, &second).await;
    for generation in [0, 1, 2, 4, u64::MAX] {
        let mut stale = session_moved(&first, SessionState::Active);
        stale.generation = generation;
        assert_conflict(store.session_update(&stale).await);
    }
    assert_eq!(fetch(&store, &first.id).await, Some(second));
}

pub async fn session_update_of_a_missing_one_is_not_found(store: S) {
    let never = session(&WorkspaceId::generate(), 0);
    let never = session_moved(&never, ended(1));
    assert_not_found(store.session_update(&never).await);
    assert_eq!(fetch(&store, &never.id).await, None);
}

/// Another of the same sandbox, face and name.
fn namesake(of: &Session) -> Session {
    Session {
        sandbox: of.sandbox.clone(),
        ..session(&of.workspace, 1)
    }
}

pub async fn session_names_are_unique_among_their_holders(store: S) {
    let first = session(&WorkspaceId::generate(), 0);
    insert(&store, &first).await;
    assert_constraint(store.session_insert(&namesake(&first)).await);
    // Another name, face or sandbox, or one that does not hold it.
    let mut others = [(); 4].map(|()| namesake(&first));
    others[0].name = "other".to_owned();
    others[1].face = SessionFace::Acp;
    others[2].sandbox = SandboxId::generate();
    others[3].holds_name = false;
    for other in &others {
        insert(&store, other).await;
    }
    assert_eq!(by_name(&store, &first).await, Some(first.id.clone()));
    // Nobody gets it by a change either.
    let mut taking = session_moved(&others[3], SessionState::Active);
    taking.holds_name = true;
    assert_constraint(store.session_update(&taking).await);
    assert_eq!(fetch(&store, &taking.id).await.as_ref(), Some(&others[3]));
    // Given back, it is free, and cannot be taken back then.
    let mut giving = session_moved(&first, ended(1));
    giving.holds_name = false;
    update(&store, &giving).await;
    assert_eq!(by_name(&store, &first).await, None);
    update(&store, &taking).await;
    assert_eq!(by_name(&store, &first).await, Some(taking.id));
    let mut again = session_moved(&giving, SessionState::Active);
    again.holds_name = true;
    assert_constraint(store.session_update(&again).await);
    assert_eq!(fetch(&store, &first.id).await, Some(giving));
}

pub async fn session_name_race_has_one_winner(store: S) {
    let like = session(&WorkspaceId::generate(), 0);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, one) = (Arc::clone(&store), namesake(&like));
        tasks.spawn(async move { store.session_insert(&one).await });
    }
    let mut winners = 0;
    while let Some(task) = tasks.join_next().await {
        match task.expect("no panic") {
            Ok(()) => winners += 1,
            lost => assert_constraint(lost),
        }
    }
    assert_eq!(winners, 1);
    let any = SessionFilter::default();
    assert_eq!(list(&store, &like.workspace, &any).await.len(), 1);
}

pub async fn session_list_filters(store: S) {
    let ws = WorkspaceId::generate();
    let mut own = [(); 3].map(|()| session(&ws, 0));
    own[1].face = SessionFace::Native;
    own[1].agent = "codex".to_owned();
    own[2].state = ended(9);
    for (number, one) in (0_i64..).zip(&mut own) {
        one.created_at = at(-number);
        insert(&store, one).await;
    }
    insert(&store, &session(&WorkspaceId::generate(), 0)).await;
    let none = SessionFilter::default;
    let cases: [(SessionFilter, &[usize]); 9] = [
        (none(), &[0, 1, 2]),
        (
            SessionFilter {
                sandbox: Some(own[1].sandbox.clone()),
                ..none()
            },
            &[1],
        ),
        (
            SessionFilter {
                sandbox: Some(SandboxId::generate()),
                ..none()
            },
            &[],
        ),
        (
            SessionFilter {
                face: Some(SessionFace::Universal),
                ..none()
            },
            &[0, 2],
        ),
        (
            SessionFilter {
                agent: Some("codex".to_owned()),
                ..none()
            },
            &[1],
        ),
        (
            SessionFilter {
                active: Some(true),
                ..none()
            },
            &[0, 1],
        ),
        (
            SessionFilter {
                active: Some(false),
                ..none()
            },
            &[2],
        ),
        (
            SessionFilter {
                sandbox: Some(own[2].sandbox.clone()),
                face: Some(SessionFace::Universal),
                agent: Some("mock".to_owned()),
                active: Some(false),
            },
            &[2],
        ),
        (
            SessionFilter {
                sandbox: Some(own[2].sandbox.clone()),
                active: Some(true),
                ..none()
            },
            &[],
        ),
    ];
    for (filter, wanted) in cases {
        let wanted: Vec<_> = wanted.iter().map(|index| own[*index].id.clone()).collect();
        assert_eq!(list(&store, &ws, &filter).await, wanted, "{filter:?}");
    }
}

/// All pages; `between` runs after each.
async fn walk(
    store: &S,
    ws: &WorkspaceId,
    limit: usize,
    mut between: impl AsyncFnMut(usize),
) -> Vec<SessionId> {
    let any = SessionFilter::default();
    let (mut cursor, mut ids) = (None, Vec::new());
    for number in 0..1000 {
        let part = store.session_list(ws, &any, &page(limit, cursor)).await;
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

/// Seven, three of them of the same millisecond; newest first.
async fn seven(store: &S, ws: &WorkspaceId) -> Vec<SessionId> {
    let mut all = Vec::new();
    for created_at in [50, 10, 30, 30, 30, 70, -20] {
        let one = session(ws, created_at);
        insert(store, &one).await;
        all.push((one.created_at, one.id));
    }
    all.sort();
    all.into_iter().rev().map(|(_, id)| id).collect()
}

pub async fn session_list_pages_newest_first(store: S) {
    let ws = WorkspaceId::generate();
    let expected = seven(&store, &ws).await;
    for limit in [1, 2, 3, 7, 8] {
        let got = walk(&store, &ws, limit, async |_| {}).await;
        assert_eq!(got, expected, "pages of {limit}");
    }
    let any = SessionFilter::default();
    let bad = page(1, Some("ff".to_owned()));
    assert_invalid_cursor(store.session_list(&ws, &any, &bad).await);
}

pub async fn session_list_is_stable_under_inserts(store: S) {
    let ws = WorkspaceId::generate();
    let expected = seven(&store, &ws).await;
    let walked = walk(&store, &ws, 1, async |number| {
        // Before, among and after what was seen.
        for created_at in [-1000, 30, 1000] {
            if number < 7 {
                insert(&store, &session(&ws, created_at)).await;
            }
        }
    })
    .await;
    let unique: BTreeSet<_> = walked.iter().collect();
    assert_eq!(unique.len(), walked.len(), "shown twice");
    let old = walked.into_iter().filter(|id| expected.contains(id));
    assert_eq!(old.collect::<Vec<_>>(), expected, "skipped or moved");
}

pub async fn session_scan_passes_every_session_once(store: S) {
    let mut wanted = Vec::new();
    for number in 0..7 {
        let one = session(&WorkspaceId::generate(), number);
        insert(&store, &one).await;
        wanted.push(one.id);
    }
    wanted.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    let mut seen: Vec<SessionId> = Vec::new();
    loop {
        let part = store.session_scan(seen.last(), 3).await.expect("scanned");
        assert!(part.len() <= 3);
        if part.is_empty() {
            break;
        }
        seen.extend(part);
    }
    assert_eq!(seen, wanted);
}

pub async fn session_ended_lists_the_oldest_first(store: S) {
    let ws = WorkspaceId::generate();
    let mut wanted = Vec::new();
    for millis in [40, 10, 30, 20] {
        let active = session(&ws, 0);
        insert(&store, &active).await;
        let over = session_moved(&active, ended(millis));
        update(&store, &over).await;
        wanted.push((millis, over.id));
    }
    insert(&store, &session(&ws, -1000)).await;
    wanted.sort();
    let wanted: Vec<_> = wanted.into_iter().map(|(_, id)| id).collect();
    for (before, limit, count) in [(10, 9, 0), (11, 9, 1), (40, 9, 3), (41, 9, 4), (41, 2, 2)] {
        let got = store.session_ended(at(before), limit).await;
        assert_eq!(got.expect("listed"), wanted[..count], "before {before}");
    }
}

pub async fn session_removal_takes_everything_along(store: S) {
    let (one, other) = (claimed(&store).await, claimed(&store).await);
    for (of, epoch) in [&one, &other] {
        let events = vec![
            session_event(Stream::Log, "{}"),
            session_event(Stream::Universal, "{}"),
        ];
        let turns = vec![turn(1)];
        let append = SessionAppend {
            turns,
            ..append(&of.id, *epoch, events)
        };
        store.session_append(append).await.expect("appended");
    }
    let (gone, epoch) = one;
    assert!(store.session_remove(&gone.id).await.expect("removed"));
    assert!(!store.session_remove(&gone.id).await.expect("removed"));
    assert_eq!(fetch(&store, &gone.id).await, None);
    assert_eq!(by_name(&store, &gone).await, None);
    let turns = store.session_turns(&gone.id, 0, 9).await;
    assert_eq!(turns.expect("read"), []);
    for stream in [Stream::Log, Stream::Universal] {
        assert_not_found(store.session_read(&gone.id, stream, 0, 9, 999).await);
        assert_not_found(store.session_read_back(&gone.id, stream, 9, 9).await);
        assert_not_found(store.session_trim(&gone.id, stream, 1).await);
    }
    assert_not_found(store.session_claim(&gone.id).await);
    let late = append(&gone.id, epoch, vec![session_event(Stream::Log, "{}")]);
    assert_not_found(store.session_append(late).await);
    // The same id and name begin anew.
    insert(&store, &gone).await;
    let (_, end) = store.session_claim(&gone.id).await.expect("claimed");
    assert_eq!((end.log, end.log_first, end.epoch), (0, 1, 1));
    let empty = store.session_read(&gone.id, Stream::Log, 0, 9, 999).await;
    assert_eq!(empty.expect("read").events, []);
    let turns = store.session_turns(&gone.id, 0, 9).await;
    assert_eq!(turns.expect("read"), []);
    // The other one has all of its own.
    let kept = store
        .session_read(&other.0.id, Stream::Log, 0, 9, 999)
        .await;
    assert_eq!(kept.expect("read").events.len(), 1);
    let turns = store.session_turns(&other.0.id, 0, 9).await;
    assert_eq!(turns.expect("read"), [turn(1)]);
}
