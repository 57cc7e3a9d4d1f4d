//! Promises about sandbox sessions.

use std::sync::Arc;
use std::time::Duration;

use woodfrog_types::sandbox::{EndReason, Sandbox, SandboxState};
use woodfrog_types::sandbox_session::{
    Framework, SandboxSession, SandboxSessionFilter, SessionState,
};
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{SandboxId, SandboxSessionId, WorkspaceId};

use super::fixture::{at, event, page, running, sandbox, sleeping};
use super::{RACERS, assert_constraint, assert_invalid_cursor, assert_not_found};
use crate::Store;

type S = Arc<dyn Store>;

async fn with_state(store: &S, ws: &WorkspaceId, state: SandboxState) -> Sandbox {
    let mut one = sandbox(ws, 0);
    one.state = state;
    let inserted = store.sandbox_insert(&one, vec![]).await;
    inserted.expect("inserted");
    one
}

fn of(sandbox: &Sandbox, created_at: i64) -> SandboxSession {
    SandboxSession {
        id: SandboxSessionId::generate(),
        workspace: sandbox.workspace.clone(),
        sandbox: sandbox.id.clone(),
        project: "project \"ü\"\0".to_owned(),
        user: "user_'; --".to_owned(),
        framework: Framework::NextJs,
        auto_pause: Duration::from_millis(1234),
        created_at: at(created_at),
        updated_at: at(created_at + 1),
        last_activity: at(created_at + 2),
        ended_at: None,
    }
}

async fn insert(store: &S, session: &SandboxSession) {
    let inserted = store.sandbox_session_insert(session).await;
    inserted.expect("inserted");
}

/// A session of a new running sandbox.
async fn made(store: &S, ws: &WorkspaceId, created_at: i64) -> SandboxSession {
    let session = of(&with_state(store, ws, running()).await, created_at);
    insert(store, &session).await;
    session
}

async fn fetch(store: &S, id: &SandboxSessionId) -> Option<SandboxSession> {
    store.sandbox_session_fetch(id).await.expect("fetched")
}

async fn list(store: &S, ws: &WorkspaceId, filter: &SandboxSessionFilter) -> Vec<SandboxSessionId> {
    let request = page(100, None);
    let part = store.sandbox_session_list(ws, filter, &request);
    let part = part.await.expect("listed");
    part.items.into_iter().map(|one| one.id).collect()
}

pub async fn sandbox_session_comes_back_as_it_was(store: S) {
    let ws = WorkspaceId::generate();
    for framework in Framework::ALL {
        let sandbox = with_state(&store, &ws, running()).await;
        let mut session = of(&sandbox, 0);
        session.framework = framework;
        insert(&store, &session).await;
        assert_eq!(fetch(&store, &session.id).await.as_ref(), Some(&session));
        let of_it = store.sandbox_session_of(&sandbox.id).await;
        assert_eq!(of_it.expect("asked"), Some(session));
    }
    assert_eq!(fetch(&store, &SandboxSessionId::generate()).await, None);
    let of_none = store.sandbox_session_of(&SandboxId::generate()).await;
    assert_eq!(of_none.expect("asked"), None);
}

/// However many want one at the same time.
pub async fn z14_a_sandbox_has_one_session(store: S) {
    let sandbox = with_state(&store, &WorkspaceId::generate(), running()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, session) = (Arc::clone(&store), of(&sandbox, 0));
        tasks.spawn(async move { store.sandbox_session_insert(&session).await });
    }
    let mut winners = 0;
    while let Some(task) = tasks.join_next().await {
        match task.expect("no panic") {
            Ok(()) => winners += 1,
            lost => assert_constraint(lost),
        }
    }
    assert_eq!(winners, 1);
    let any = SandboxSessionFilter::default();
    assert_eq!(list(&store, &sandbox.workspace, &any).await.len(), 1);
}

pub async fn sandbox_session_needs_its_sandbox(store: S) {
    let never = of(&sandbox(&WorkspaceId::generate(), 0), 0);
    assert_not_found(store.sandbox_session_insert(&never).await);
    assert_eq!(fetch(&store, &never.id).await, None);
}

pub async fn sandbox_session_touch_never_moves_back(store: S) {
    let session = made(&store, &WorkspaceId::generate(), 0).await;
    for (when, activity, updated) in [(1, 2, 1), (50, 50, 50), (40, 50, 50)] {
        let touched = store.sandbox_session_touch(&session.id, at(when)).await;
        touched.expect("touched");
        let found = fetch(&store, &session.id).await.expect("is there");
        assert_eq!(found.last_activity, at(activity), "after {when}");
        assert_eq!(found.updated_at, at(updated), "after {when}");
    }
    let none = SandboxSessionId::generate();
    assert_not_found(store.sandbox_session_touch(&none, at(1)).await);
}

pub async fn sandbox_session_ends_with_its_sandbox(store: S) {
    let ws = WorkspaceId::generate();
    let (ends, stays) = (made(&store, &ws, 0).await, made(&store, &ws, 0).await);
    for when in [70, 90] {
        let log = vec![event(60, "deleting"), event(when, "deleted")];
        let removed = store.sandbox_remove(&ends.sandbox, log).await;
        removed.expect("removed");
        let found = fetch(&store, &ends.id).await.expect("stays");
        assert_eq!(found.ended_at, Some(at(70)), "the first removal counts");
    }
    assert_eq!(fetch(&store, &stays.id).await, Some(stays));
}

pub async fn sandbox_session_removal_says_whether_it_was_there(store: S) {
    let session = made(&store, &WorkspaceId::generate(), 0).await;
    for was_there in [true, false] {
        let removed = store.sandbox_session_remove(&session.id).await;
        assert_eq!(removed.expect("asked"), was_there);
        assert_eq!(fetch(&store, &session.id).await, None);
    }
    insert(&store, &session).await;
}

pub async fn sandbox_session_list_filters(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    made(&store, &other, 0).await;
    let mut states = sleeping(SleepCause::Idle, SnapshotContent::Memory);
    states.extend([SandboxState::Creating, running()]);
    states.push(SandboxState::Deleting {
        reason: EndReason::Expired,
    });
    let mut all = Vec::new();
    for (number, state) in (0..).zip(states) {
        let sandbox = with_state(&store, &ws, state).await;
        let mut session = of(&sandbox, number);
        session.project = format!("p{}", number % 2);
        session.user = format!("u{}", number % 3);
        insert(&store, &session).await;
        all.push((session, SessionState::of(&sandbox.state)));
    }
    let gone = made(&store, &ws, 100).await;
    let removed = store.sandbox_remove(&gone.sandbox, vec![]).await;
    removed.expect("removed");
    all.push((gone, SessionState::Killed));
    for state in [
        None,
        Some(SessionState::Running),
        Some(SessionState::Paused),
        Some(SessionState::Killed),
    ] {
        for project in [None, Some("p0"), Some("p1"), Some("")] {
            for user in [None, Some("u0"), Some("u2")] {
                let expected: Vec<_> = all
                    .iter()
                    .filter(|(session, is)| {
                        state.is_none_or(|state| *is == state)
                            && project.is_none_or(|project| session.project == project)
                            && user.is_none_or(|user| session.user == user)
                    })
                    .map(|(session, _)| session.id.clone())
                    .collect();
                let filter = SandboxSessionFilter {
                    project: project.map(str::to_owned),
                    user: user.map(str::to_owned),
                    state,
                };
                assert_eq!(list(&store, &ws, &filter).await, expected, "{filter:?}");
            }
        }
    }
}

pub async fn sandbox_session_list_pages_oldest_first(store: S) {
    let ws = WorkspaceId::generate();
    let any = SandboxSessionFilter::default();
    let mut expected = Vec::new();
    for created_at in [50, 10, 30, 30, 30, 70, -20] {
        let session = made(&store, &ws, created_at).await;
        expected.push((session.created_at, session.id));
    }
    expected.sort();
    for limit in [1, 2, 7, 8] {
        let (mut got, mut cursor) = (Vec::new(), None);
        loop {
            let request = page(limit, cursor);
            let part = store.sandbox_session_list(&ws, &any, &request).await;
            let part = part.expect("listed");
            assert!(part.items.len() <= limit);
            got.extend(part.items.into_iter().map(|one| (one.created_at, one.id)));
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
            assert!(got.len() < 20, "the pages never end");
        }
        assert_eq!(got, expected, "pages of {limit}");
    }
    let sandboxes = crate::cursor::encode(crate::cursor::List::Sandboxes, "5", "id");
    for bad in ["", "x", sandboxes.as_str()] {
        let request = page(1, Some(bad.to_owned()));
        assert_invalid_cursor(store.sandbox_session_list(&ws, &any, &request).await);
    }
}

pub async fn sandbox_session_trim_spares_the_living_and_the_young(store: S) {
    let ws = WorkspaceId::generate();
    let living = made(&store, &ws, -1000).await;
    let mut ended = Vec::new();
    for when in [10, 20, 30] {
        let session = made(&store, &ws, 0).await;
        let log = vec![event(when, "deleted")];
        let removed = store.sandbox_remove(&session.sandbox, log).await;
        removed.expect("removed");
        ended.push(session.id);
    }
    let trim = async |before, limit| {
        let trimmed = store.sandbox_session_trim(at(before), limit).await;
        trimmed.expect("trimmed")
    };
    assert_eq!(trim(10, 10).await, 0);
    assert_eq!(trim(30, 1).await, 1);
    assert_eq!(fetch(&store, &ended[0]).await, None);
    assert_eq!(trim(30, 10).await, 1);
    assert_eq!(trim(30, 10).await, 0);
    let any = SandboxSessionFilter::default();
    let mut kept = vec![living.id, ended[2].clone()];
    kept.sort();
    let mut found = list(&store, &ws, &any).await;
    found.sort();
    assert_eq!(found, kept);
}
