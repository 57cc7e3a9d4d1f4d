//! Promises about the logs of sessions.

use std::sync::Arc;

use woodfrog_types::session::{
    LogEnd, NewSessionEvent, Position, Session, SessionState, Source, Stream,
};
use woodfrog_types::{SessionId, SnapshotId, WorkspaceId};

use super::fixture::{at, session, session_event, session_moved, turn};
use super::sessions::insert;
use super::{RACERS, assert_conflict, assert_constraint, assert_not_found};
use crate::{SessionAppend, SessionSlice, Store};

type S = Arc<dyn Store>;

const STREAMS: [Stream; 2] = [Stream::Log, Stream::Universal];
/// More than a test writes.
const ANY: usize = 1 << 20;

/// A new session and the epoch under which it can be written.
pub(super) async fn claimed(store: &S) -> (Session, u64) {
    let one = session(&WorkspaceId::generate(), 0);
    insert(store, &one).await;
    let (claimed, end) = store.session_claim(&one.id).await.expect("claimed");
    assert_eq!(claimed, one);
    assert_eq!((end.log, end.log_first, end.epoch), (0, 1, 1));
    assert_eq!((end.universal, end.universal_first), (0, 1));
    (one, end.epoch)
}

/// An append of nothing but events.
pub fn append(id: &SessionId, epoch: u64, events: Vec<NewSessionEvent>) -> SessionAppend {
    SessionAppend {
        session: id.clone(),
        epoch,
        events,
        position: None,
        record: None,
        turns: vec![],
    }
}

async fn write(store: &S, append: SessionAppend) -> LogEnd {
    store.session_append(append).await.expect("appended")
}

async fn read(store: &S, id: &SessionId, stream: Stream, after: u64) -> SessionSlice {
    let slice = store.session_read(id, stream, after, 1000, ANY).await;
    slice.expect("read")
}

fn payloads(slice: &SessionSlice) -> Vec<(u64, &str)> {
    let events = slice.events.iter();
    let pairs = events.map(|event| (event.sequence, event.event.payload.as_str()));
    pairs.collect()
}

/// A session with that many entries in each stream, their payloads their places.
async fn filled(store: &S, count: u64) -> (Session, u64) {
    let (one, epoch) = claimed(store).await;
    for stream in STREAMS {
        let numbers = (1..=count).map(|number| session_event(stream, &number.to_string()));
        write(store, append(&one.id, epoch, numbers.collect())).await;
    }
    (one, epoch)
}

pub async fn session_log_is_dense_per_stream(store: S) {
    let (one, epoch) = claimed(&store).await;
    let (log, universal) = (Stream::Log, Stream::Universal);
    let mixed = [(log, "a"), (universal, "b"), (log, "c"), (log, "d")];
    let mixed = mixed.map(|(stream, payload)| session_event(stream, payload));
    let end = write(&store, append(&one.id, epoch, mixed.to_vec())).await;
    assert_eq!((end.log, end.universal), (3, 1));
    let more = vec![session_event(universal, "e")];
    let end = write(&store, append(&one.id, epoch, more)).await;
    assert_eq!((end.log, end.universal), (3, 2));
    let slice = read(&store, &one.id, log, 0).await;
    assert_eq!(payloads(&slice), [(1, "a"), (2, "c"), (3, "d")]);
    assert_eq!(slice.end, end);
    let slice = read(&store, &one.id, universal, 0).await;
    assert_eq!(payloads(&slice), [(1, "b"), (2, "e")]);
}

/// Each of several writers of one session gets places of its own, and each of several sessions
/// has all places.
pub async fn session_log_is_dense_under_concurrency(store: S) {
    const EACH: usize = 8;
    let (shared, epoch) = claimed(&store).await;
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, shared) = (Arc::clone(&store), shared.id.clone());
        tasks.spawn(async move {
            let (own, own_epoch) = claimed(&store).await;
            let mut places = Vec::new();
            for number in 0..EACH {
                let payload = format!("{racer} {number}");
                let event = vec![session_event(Stream::Log, &payload)];
                let end = write(&store, append(&shared, epoch, event.clone())).await;
                places.push((end.log, payload));
                let end = write(&store, append(&own.id, own_epoch, event)).await;
                assert_eq!(end.log, number as u64 + 1);
            }
            places
        });
    }
    let mut places = Vec::new();
    while let Some(task) = tasks.join_next().await {
        places.extend(task.expect("no panic"));
    }
    places.sort();
    let slice = read(&store, &shared.id, Stream::Log, 0).await;
    let places: Vec<_> = places
        .iter()
        .map(|(at, text)| (*at, text.as_str()))
        .collect();
    assert_eq!(payloads(&slice), places);
    let numbers: Vec<_> = places.iter().map(|(at, _)| *at).collect();
    assert_eq!(numbers, (1..=(RACERS * EACH) as u64).collect::<Vec<_>>());
}

pub async fn session_log_comes_back_as_it_was(store: S) {
    let (one, epoch) = claimed(&store).await;
    let mut events = Vec::new();
    for stream in STREAMS {
        for source in Source::ALL {
            events.push(NewSessionEvent {
                source,
                at: at(-7),
                kind: "turn.\"started\" ü\0".to_owned(),
                author: Some("ann ü\0".to_owned()),
                connection: Some(String::new()),
                payload: format!("{{\"text\":\"{}\"}}", "x".repeat(20_000)),
                wire: Some("{\"\\u0000\":1}".to_owned()),
                ..session_event(stream, "")
            });
            events.push(session_event(stream, ""));
        }
    }
    write(&store, append(&one.id, epoch, events.clone())).await;
    for stream in STREAMS {
        let wanted = events.iter().filter(|event| event.stream == stream);
        let wanted: Vec<_> = wanted.cloned().collect();
        let slice = read(&store, &one.id, stream, 0).await;
        assert!(slice.events.iter().all(|event| event.session == one.id));
        let got: Vec<_> = slice.events.into_iter().map(|event| event.event).collect();
        assert_eq!(got, wanted);
    }
}

pub async fn session_append_writes_all_of_it(store: S) {
    let (one, epoch) = claimed(&store).await;
    let position = Position {
        input: 12,
        output: 1 << 40,
    };
    let ended = SessionState::Ended {
        at: at(5),
        reason: "over".to_owned(),
    };
    let next = session_moved(&one, ended);
    let end = write(
        &store,
        SessionAppend {
            position: Some(position),
            record: Some(next.clone()),
            turns: vec![turn(1), turn(2)],
            ..append(&one.id, epoch, vec![session_event(Stream::Log, "x")])
        },
    )
    .await;
    assert_eq!((end.log, end.position, end.epoch), (1, position, epoch));
    let fetched = store.session_fetch(&one.id).await.expect("fetched");
    assert_eq!(fetched, Some(next));
    let turns = store.session_turns(&one.id, 0, 9).await;
    assert_eq!(turns.expect("read"), [turn(1), turn(2)]);
    // What is not named stays, also for whoever comes next.
    let more = vec![session_event(Stream::Log, "y")];
    let end = write(&store, append(&one.id, epoch, more)).await;
    assert_eq!((end.log, end.position), (2, position));
    let (_, end) = store.session_claim(&one.id).await.expect("claimed");
    assert_eq!((end.log, end.position, end.epoch), (2, position, epoch + 1));
}

/// An append that would change everything.
fn large(one: &Session, epoch: u64) -> SessionAppend {
    SessionAppend {
        position: Some(Position {
            input: 1,
            output: 2,
        }),
        record: Some(session_moved(one, SessionState::Active)),
        turns: vec![turn(1)],
        ..append(&one.id, epoch, vec![session_event(Stream::Log, "x"); 3])
    }
}

async fn assert_untouched(store: &S, one: &Session, epoch: u64) {
    for stream in STREAMS {
        let slice = read(store, &one.id, stream, 0).await;
        assert_eq!(slice.events, []);
        assert_eq!((slice.end.log, slice.end.universal), (0, 0));
        assert_eq!(slice.end.position, Position::default());
        assert_eq!(slice.end.epoch, epoch);
    }
    let fetched = store.session_fetch(&one.id).await.expect("fetched");
    assert_eq!(fetched.as_ref(), Some(one));
    let turns = store.session_turns(&one.id, 0, 9).await;
    assert_eq!(turns.expect("read"), []);
    // The places were not used up.
    let event = vec![session_event(Stream::Log, "first")];
    assert_eq!(write(store, append(&one.id, epoch, event)).await.log, 1);
}

/// Of two servers that think that the session is theirs, the one that claimed it last writes.
pub async fn session_append_of_a_stale_epoch_writes_nothing(store: S) {
    let (one, epoch) = claimed(&store).await;
    let (_, end) = store.session_claim(&one.id).await.expect("claimed");
    assert_eq!(end.epoch, epoch + 1);
    for stale in [0, epoch, epoch + 2, u64::MAX] {
        assert_conflict(store.session_append(large(&one, stale)).await);
        let small = append(&one.id, stale, vec![session_event(Stream::Log, "x")]);
        assert_conflict(store.session_append(small).await);
    }
    assert_untouched(&store, &one, epoch + 1).await;
}

pub async fn session_append_of_a_stale_record_writes_nothing(store: S) {
    let (one, epoch) = claimed(&store).await;
    for generation in [0, 1, 3, u64::MAX] {
        let mut stale = large(&one, epoch);
        let record = stale.record.as_mut().expect("one");
        record.generation = generation;
        assert_conflict(store.session_append(stale).await);
    }
    // Another session's record, though it is the next one of that.
    let (other, _) = claimed(&store).await;
    let foreign = SessionAppend {
        record: Some(session_moved(&other, SessionState::Active)),
        ..large(&one, epoch)
    };
    assert_conflict(store.session_append(foreign).await);
    // A name that is taken.
    let mut taken = large(&one, epoch);
    let record = taken.record.as_mut().expect("one");
    record.sandbox = other.sandbox.clone();
    assert_constraint(store.session_append(taken).await);
    assert_untouched(&store, &one, epoch).await;
    let fetched = store.session_fetch(&other.id).await.expect("fetched");
    assert_eq!(fetched, Some(other));
}

pub async fn session_append_needs_its_session(store: S) {
    let never = session(&WorkspaceId::generate(), 0);
    assert_not_found(store.session_append(large(&never, 0)).await);
    let small = append(&never.id, 0, vec![session_event(Stream::Log, "x")]);
    assert_not_found(store.session_append(small).await);
    let fetched = store.session_fetch(&never.id).await.expect("fetched");
    assert_eq!(fetched, None);
}

pub async fn session_append_of_nothing_tells_the_end(store: S) {
    let (one, epoch) = filled(&store, 3).await;
    let end = write(&store, append(&one.id, epoch, vec![])).await;
    assert_eq!((end.log, end.universal, end.epoch), (3, 3, epoch));
    assert_eq!(read(&store, &one.id, Stream::Log, 3).await.end, end);
}

/// Several servers claim a session and write as long as it is theirs: whatever one of them was
/// told is there, at that place, and nothing else.
pub async fn session_claims_race_and_one_writes(store: S) {
    let one = session(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, id) = (Arc::clone(&store), one.id.clone());
        tasks.spawn(async move {
            let (_, end) = store.session_claim(&id).await.expect("claimed");
            let mut written = Vec::new();
            for number in 0..50 {
                let payload = format!("{racer} {number}");
                let event = vec![session_event(Stream::Log, &payload)];
                match store.session_append(append(&id, end.epoch, event)).await {
                    Ok(end) => written.push((end.log, payload)),
                    lost => {
                        assert_conflict(lost);
                        break;
                    }
                }
            }
            (end.epoch, written)
        });
    }
    let (mut epochs, mut written) = (Vec::new(), Vec::new());
    while let Some(task) = tasks.join_next().await {
        let (epoch, own) = task.expect("no panic");
        epochs.push(epoch);
        written.extend(own);
    }
    epochs.sort();
    assert_eq!(epochs, (1..=RACERS as u64).collect::<Vec<_>>());
    written.sort();
    assert!(
        written.len() >= 50,
        "whoever came last wrote all of its own"
    );
    let slice = read(&store, &one.id, Stream::Log, 0).await;
    let written: Vec<_> = written
        .iter()
        .map(|(at, text)| (*at, text.as_str()))
        .collect();
    assert_eq!(payloads(&slice), written);
}

pub async fn session_trim_moves_the_beginning(store: S) {
    let (one, epoch) = filled(&store, 10).await;
    let id = &one.id;
    let end = store
        .session_trim(id, Stream::Log, 4)
        .await
        .expect("trimmed");
    assert_eq!((end.log_first, end.log), (4, 10));
    for after in [0, 2, 3] {
        let slice = read(&store, id, Stream::Log, after).await;
        assert_eq!(slice.end, end);
        assert_eq!(slice.events[0].sequence, 4, "after {after}");
        assert_eq!(slice.events.len(), 7);
    }
    let back = store.session_read_back(id, Stream::Log, 10, 99).await;
    let back = back.expect("read");
    assert_eq!(back.events.len(), 7);
    let gone = store.session_read_back(id, Stream::Log, 3, 99).await;
    assert_eq!(gone.expect("read").events, []);
    // All of it: the end stays, and the next place is new.
    let end = store.session_trim(id, Stream::Log, u64::MAX).await;
    let end = end.expect("trimmed");
    assert_eq!((end.log_first, end.log), (11, 10));
    assert_eq!(read(&store, id, Stream::Log, 0).await.events, []);
    let next = vec![session_event(Stream::Log, "new")];
    let end = write(&store, append(id, epoch, next)).await;
    assert_eq!((end.log_first, end.log), (11, 11));
    let slice = read(&store, id, Stream::Log, 0).await;
    assert_eq!(payloads(&slice), [(11, "new")]);
}

pub async fn session_trim_is_per_stream_and_never_moves_back(store: S) {
    let (one, _) = filled(&store, 5).await;
    let id = &one.id;
    for (before, first) in [(0, 1), (1, 1), (3, 3), (2, 3), (0, 3)] {
        let end = store.session_trim(id, Stream::Universal, before).await;
        let end = end.expect("trimmed");
        assert_eq!((end.universal_first, end.log_first), (first, 1));
    }
    let slice = read(&store, id, Stream::Universal, 0).await;
    assert_eq!(payloads(&slice), [(3, "3"), (4, "4"), (5, "5")]);
    assert_eq!(read(&store, id, Stream::Log, 0).await.events.len(), 5);
    let never = SessionId::generate();
    assert_not_found(store.session_trim(&never, Stream::Log, 1).await);
}

pub async fn session_read_stops_at_its_limits(store: S) {
    let (one, epoch) = claimed(&store).await;
    let id = &one.id;
    let sizes = [100, 100, 300, 100];
    let events = sizes.map(|size| session_event(Stream::Log, &"x".repeat(size)));
    write(&store, append(id, epoch, events.to_vec())).await;
    let mut wired = session_event(Stream::Log, &"x".repeat(50));
    wired.wire = Some("y".repeat(50));
    write(&store, append(id, epoch, vec![wired])).await;
    for (after, limit, bytes, count) in [
        (0, 0, ANY, 0),
        (0, 3, ANY, 3),
        (0, 99, ANY, 5),
        // One at least, however large.
        (0, 99, 0, 1),
        (2, 99, 10, 1),
        (0, 99, 199, 1),
        (0, 99, 200, 2),
        (0, 99, 499, 2),
        (0, 99, 500, 3),
        (1, 2, 9999, 2),
        // The wire form counts.
        (3, 99, 199, 1),
        (3, 99, 200, 2),
    ] {
        let slice = store
            .session_read(id, Stream::Log, after, limit, bytes)
            .await;
        let slice = slice.expect("read");
        let got: Vec<_> = slice.events.iter().map(|event| event.sequence).collect();
        let wanted: Vec<_> = (after + 1..=after + count).collect();
        assert_eq!(got, wanted, "after {after}, {limit} entries, {bytes} bytes");
        assert_eq!(slice.end.log, 5);
    }
}

/// Also of one that is not there yet, or never will be.
pub async fn session_read_of_any_place_is_answered(store: S) {
    let (one, _) = filled(&store, 3).await;
    for stream in STREAMS {
        for after in [3, 4, 1 << 32, 1 << 33, i64::MAX as u64, u64::MAX] {
            let slice = read(&store, &one.id, stream, after).await;
            assert_eq!(slice.events, [], "after {after}");
            assert_eq!((slice.end.log, slice.end.universal), (3, 3));
        }
        for upto in [3, 4, 1 << 32, 1 << 33, i64::MAX as u64, u64::MAX] {
            let slice = store.session_read_back(&one.id, stream, upto, 9).await;
            assert_eq!(slice.expect("read").events.len(), 3, "up to {upto}");
        }
        let never = SessionId::generate();
        assert_not_found(store.session_read(&never, stream, 0, 1, 1).await);
        assert_not_found(store.session_read_back(&never, stream, 1, 1).await);
    }
}

pub async fn session_read_back_is_newest_first(store: S) {
    let (one, _) = filled(&store, 6).await;
    for (upto, limit, wanted) in [
        (6, 3, vec![6, 5, 4]),
        (4, 2, vec![4, 3]),
        (2, 99, vec![2, 1]),
        (0, 99, vec![]),
        (6, 0, vec![]),
    ] {
        let slice = store.session_read_back(&one.id, Stream::Universal, upto, limit);
        let slice = slice.await.expect("read");
        let got: Vec<_> = slice.events.iter().map(|event| event.sequence).collect();
        assert_eq!(got, wanted, "up to {upto}, {limit} entries");
        for event in &slice.events {
            assert_eq!(event.event.stream, Stream::Universal);
            assert_eq!(event.event.payload, event.sequence.to_string());
        }
    }
}

pub async fn session_turns_are_replaced_by_number(store: S) {
    let (one, epoch) = claimed(&store).await;
    let turns = vec![turn(2), turn(1), turn(3)];
    let first = SessionAppend {
        turns,
        ..append(&one.id, epoch, vec![])
    };
    write(&store, first).await;
    let mut over = turn(2);
    (over.last, over.outcome) = (Some(9), Some("end_turn \"ü\"".to_owned()));
    (over.ended_at, over.snapshot) = (Some(at(4)), Some(SnapshotId::generate()));
    over.author = None;
    let second = SessionAppend {
        turns: vec![over.clone()],
        ..append(&one.id, epoch, vec![session_event(Stream::Log, "x")])
    };
    write(&store, second).await;
    for (after, limit, wanted) in [
        (0, 99, vec![turn(1), over.clone(), turn(3)]),
        (1, 99, vec![over.clone(), turn(3)]),
        (0, 2, vec![turn(1), over]),
        (3, 99, vec![]),
        (u64::MAX, 99, vec![]),
        (0, 0, vec![]),
    ] {
        let got = store.session_turns(&one.id, after, limit).await;
        assert_eq!(got.expect("read"), wanted, "after {after}, {limit}");
    }
}
