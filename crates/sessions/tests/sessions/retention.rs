//! What is not kept for ever.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use woodfrog_sessions::{Batch, Retainer, Swept};
use woodfrog_store::memory::MemoryStore;
use woodfrog_store::{SessionAppend, SessionStore as _, Store};
use woodfrog_types::retention::Retention;
use woodfrog_types::session::{NewSessionEvent, Session, Source, Stream, Turn, kind};
use woodfrog_types::{Code, Timestamp, WorkspaceId};

use crate::common::{World, code, text_prompt};

const DAY: i64 = 24 * 3600 * 1000;

fn days_on(days: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().as_millis() + days * DAY)
}

fn kept(days: u64) -> Option<Duration> {
    Some(Duration::from_secs(days * 24 * 3600))
}

fn retainer(world: &World, server: Retention) -> (Retainer, Arc<MemoryStore>) {
    let store = world.store();
    let shared: Arc<dyn Store> = store.clone();
    (Retainer::new(&shared, server), store)
}

/// So many entries in both streams, one a second; says when the first was written.
async fn fill(store: &MemoryStore, session: &Session, count: i64) -> Timestamp {
    let (_, end) = store.session_claim(&session.id).await.unwrap();
    let now = Timestamp::now();
    let event = |stream, number: i64| NewSessionEvent {
        stream,
        at: Timestamp::from_millis(now.as_millis() + number * 1000),
        source: Source::Agent,
        kind: kind::MESSAGE.to_owned(),
        author: None,
        connection: None,
        payload: "{}".to_owned(),
        wire: None,
    };
    let events = (0..count)
        .flat_map(|number| [Stream::Log, Stream::Universal].map(|stream| event(stream, number)));
    let append = SessionAppend {
        session: session.id.clone(),
        epoch: end.epoch,
        events: events.collect(),
        position: None,
        record: None,
        turns: Vec::new(),
    };
    store.session_append(append).await.unwrap();
    now
}

async fn sweep(retainer: &Retainer, now: Timestamp) -> Swept {
    retainer.sweep(&mut None, 100, now).await.unwrap()
}

#[tokio::test]
async fn sessions_that_ended_long_ago_are_removed_and_others_stay() {
    let world = World::new().await;
    let server = Retention {
        ended: kept(10),
        ..Retention::FOREVER
    };
    let (retainer, store) = retainer(&world, server);
    let (over, active) = (
        world.managed(json!({})).await,
        world.managed(json!({})).await,
    );
    world.sessions.end(&over.id, "ended").await.unwrap();
    assert_eq!(sweep(&retainer, days_on(9)).await.removed, 0);
    // A workspace that keeps them longer than the server.
    let workspace = &world.scope.workspace;
    let own = Retention {
        ended: kept(20),
        ..Retention::FOREVER
    };
    retainer.set(workspace, Some(own)).await.unwrap();
    assert_eq!(retainer.of(&WorkspaceId::generate()).await.unwrap(), server);
    assert_eq!(sweep(&retainer, days_on(11)).await.removed, 0);
    retainer.set(workspace, None).await.unwrap();
    assert_eq!(sweep(&retainer, days_on(11)).await.removed, 1);
    assert!(store.session_fetch(&over.id).await.unwrap().is_none());
    assert!(store.session_fetch(&active.id).await.unwrap().is_some());
    let gone = world.sessions.read(&over.id, Stream::Log, 0, 1, 1).await;
    assert_eq!(code(gone), Code::SessionNotFound);
}

#[tokio::test]
async fn a_part_of_the_walk_is_bounded_and_the_next_goes_on() {
    let world = World::new().await;
    let (retainer, _) = retainer(&world, Retention::FOREVER);
    for _ in 0..5 {
        world.managed(json!({})).await;
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let part = retainer.sweep(&mut after, 2, Timestamp::now()).await;
        seen.push(part.unwrap().seen);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [2, 2, 1]);
}

#[tokio::test]
async fn old_entries_go_and_who_comes_late_is_told() {
    let world = World::new().await;
    let server = Retention {
        age: kept(1),
        ..Retention::FOREVER
    };
    let (retainer, _) = retainer(&world, server);
    let session = world.managed(json!({})).await;
    let first = fill(&world.store(), &session, 5_000).await;
    assert_eq!(sweep(&retainer, days_on(0)).await.trimmed, 0);
    // A day after the first 2,500.
    let now = Timestamp::from_millis(first.as_millis() + DAY + 2_500_000);
    assert_eq!(sweep(&retainer, now).await.trimmed, 1);
    let slice = world.sessions.read(&session.id, Stream::Log, 4_999, 1, 1);
    let end = slice.await.unwrap().end;
    assert_eq!(end.log_first, 2_501, "{end:?}");
    assert_eq!(end.log_first, end.universal_first);
    let read = world.sessions.read(&session.id, Stream::Log, 0, 1, 1).await;
    assert_eq!(code(read), Code::Trimmed);
    let mut reader = world.sessions.follow(&session.id, Stream::Log, 0);
    let Batch::Gap { from, to } = reader.next().await.unwrap() else {
        panic!("no gap");
    };
    assert_eq!((from, to + 1), (1, end.log_first));
    // However old they are, the last ones stay.
    assert_eq!(sweep(&retainer, days_on(400)).await.trimmed, 1);
    let slice = world.sessions.read(&session.id, Stream::Log, 4_999, 1, 1);
    assert_eq!(slice.await.unwrap().end.log_first, 4_001);
    assert_eq!(sweep(&retainer, days_on(401)).await.trimmed, 0);
}

#[tokio::test]
async fn a_turn_that_goes_on_keeps_its_entries() {
    let world = World::new().await;
    let server = Retention {
        entries: Some(1_000),
        ..Retention::FOREVER
    };
    let (retainer, store) = retainer(&world, server);
    let session = world.managed(json!({})).await;
    fill(&store, &session, 3_000).await;
    let turn = |last| Turn {
        number: 1,
        binding: "s".to_owned(),
        author: None,
        first: 500,
        last,
        outcome: None,
        started_at: Timestamp::now(),
        ended_at: None,
        snapshot: None,
    };
    let put = async |turn: Turn| {
        let (_, end) = store.session_claim(&session.id).await.unwrap();
        let append = SessionAppend {
            session: session.id.clone(),
            epoch: end.epoch,
            events: Vec::new(),
            position: None,
            record: None,
            turns: vec![turn],
        };
        store.session_append(append).await.unwrap()
    };
    put(turn(None)).await;
    sweep(&retainer, Timestamp::now()).await;
    let first = async || {
        let slice = world.sessions.read(&session.id, Stream::Log, 2_999, 1, 1);
        slice.await.unwrap().end.log_first
    };
    assert_eq!(first().await, 500);
    put(turn(Some(600))).await;
    sweep(&retainer, Timestamp::now()).await;
    assert_eq!(first().await, 2_001);
    // The session goes on where it was.
    let prompt = text_prompt("Ann", "hello");
    let outcome = world.sessions.prompt(&session.id, prompt).await.unwrap();
    assert_eq!(outcome.stop_reason.as_deref(), Some("end_turn"));
}
