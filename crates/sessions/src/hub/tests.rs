use woodfrog_types::SessionId;
use woodfrog_types::session::{NewSessionEvent, Source};

use super::*;

fn event(stream: Stream, sequence: u64, payload: &str) -> SessionEvent {
    SessionEvent {
        session: SessionId::generate(),
        sequence,
        event: NewSessionEvent {
            stream,
            at: Timestamp::now(),
            source: Source::Agent,
            kind: "message".to_owned(),
            author: None,
            connection: None,
            payload: payload.to_owned(),
            wire: None,
        },
    }
}

fn hub(places: impl IntoIterator<Item = u64>) -> Hub {
    let hub = Hub::new();
    let events = places.into_iter().map(|it| event(Stream::Log, it, "{}"));
    hub.publish(events.collect(), LogEnd::default());
    hub
}

fn after(hub: &Hub, place: u64, limit: usize) -> Vec<u64> {
    let found = hub.after(Stream::Log, place, limit);
    found.iter().map(|event| event.sequence).collect()
}

#[test]
fn those_after_a_place_are_found() {
    let hub = hub(5..=9);
    assert_eq!(after(&hub, 4, 100), [5, 6, 7, 8, 9]);
    assert_eq!(after(&hub, 6, 2), [7, 8]);
    assert_eq!(after(&hub, 8, 100), [9]);
}

#[test]
fn what_is_not_at_hand_or_not_there_yet_is_not_found() {
    let hub = hub(5..=9);
    assert!(after(&hub, 3, 100).is_empty());
    assert!(after(&hub, 9, 100).is_empty());
    assert!(after(&hub, u64::MAX - 1, 100).is_empty());
    assert!(after(&Hub::new(), 0, 100).is_empty());
}

#[test]
fn streams_do_not_disturb_each_other() {
    let hub = hub(1..=3);
    hub.publish(vec![event(Stream::Universal, 1, "{}")], LogEnd::default());
    hub.publish(vec![event(Stream::Log, 4, "{}")], LogEnd::default());
    assert_eq!(after(&hub, 2, 100), [3, 4]);
    assert_eq!(hub.after(Stream::Universal, 0, 100).len(), 1);
}

#[test]
fn no_reader_skips_what_another_server_wrote() {
    let hub = hub(1..=3);
    hub.publish(vec![event(Stream::Log, 7, "{}")], LogEnd::default());
    assert!(after(&hub, 2, 100).is_empty());
    assert_eq!(after(&hub, 6, 100), [7]);
}

#[test]
fn it_stays_small() {
    let many = hub(1..=1000);
    assert_eq!(many.recent().log.events.len(), RECENT_MAX);
    assert_eq!(after(&many, 998, 100), [999, 1000]);
    let large = "x".repeat(RECENT_BYTES / 2);
    let hub = Hub::new();
    let events = (1..=5).map(|it| event(Stream::Log, it, &large));
    hub.publish(events.collect(), LogEnd::default());
    assert_eq!(after(&hub, 3, 100), [4, 5]);
    assert_eq!(hub.recent().log.bytes, RECENT_BYTES);
}
