//! What an agent that has forgotten a conversation is told of it.

use serde_json::{Value, json};
use woodfrog_types::session::{SessionEvent, Source, kind};

/// Events that are told at most, unless the session says otherwise.
pub const REPLAY_EVENTS: usize = 50;
/// Length of what is told at most, in UTF-16 units as the SDKs count, unless the session says
/// otherwise.
pub const REPLAY_CHARS: usize = 12_000;

/// Agents have seen these words from the SDKs of sandbox-agent.
const OPENING: &str = "Previous session history is replayed below as JSON-RPC envelopes. Use it \
                       as context before responding to the latest user prompt.\n";
const TRUNCATED: &str = "[history truncated]\n";

/// How much of the past is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    pub events: usize,
    pub chars: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            events: REPLAY_EVENTS,
            chars: REPLAY_CHARS,
        }
    }
}

/// The newest of a conversation's events, oldest first, each whole, as many as the limits allow.
/// `newest_first` may hold other entries of the log; envelopes of other conversations are left
/// out where they say so. `None` if there is nothing to tell.
pub fn history<'a>(
    newest_first: impl Iterator<Item = &'a SessionEvent>,
    conversation: &str,
    limits: History,
) -> Option<String> {
    let mut told = newest_first.filter(|event| is_told(event, conversation));
    let mut lines: Vec<String> = Vec::new();
    let mut room = limits
        .chars
        .saturating_sub(length(OPENING) + length(TRUNCATED));
    let mut whole = true;
    for event in told.by_ref() {
        let line = line(event);
        let needed = length(&line) + 1;
        if lines.len() == limits.events || needed > room {
            whole = false;
            break;
        }
        room -= needed;
        lines.push(line);
    }
    if lines.is_empty() && whole {
        return None;
    }
    let mut text = OPENING.to_owned();
    if !whole {
        text.push_str(TRUNCATED);
    }
    for line in lines.iter().rev() {
        text.push_str(line);
        text.push('\n');
    }
    Some(text)
}

fn is_told(event: &SessionEvent, conversation: &str) -> bool {
    if event.event.kind != kind::MESSAGE || event.event.source == Source::Server {
        return false;
    }
    let payload: Value = match serde_json::from_str(&event.event.payload) {
        Ok(payload) => payload,
        Err(_) => return false,
    };
    match payload
        .get("params")
        .and_then(|params| params.get("sessionId"))
    {
        Some(session) => session == conversation,
        // Answers name no conversation.
        None => payload.get("method").is_none(),
    }
}

fn line(event: &SessionEvent) -> String {
    let payload: Value = serde_json::from_str(&event.event.payload).unwrap_or(Value::Null);
    json!({
        "createdAt": event.event.at.as_millis(),
        "sender": event.event.source.as_str(),
        "payload": payload,
    })
    .to_string()
}

fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use woodfrog_types::session::{NewSessionEvent, Stream};
    use woodfrog_types::{SessionId, Timestamp};

    use super::*;

    fn event(sequence: u64, payload: Value) -> SessionEvent {
        SessionEvent {
            session: SessionId::generate(),
            sequence,
            event: NewSessionEvent {
                stream: Stream::Log,
                at: Timestamp::from_millis(7),
                source: Source::Client,
                kind: kind::MESSAGE.to_owned(),
                author: None,
                connection: None,
                payload: payload.to_string(),
                wire: None,
            },
        }
    }

    fn prompt(sequence: u64, text: &str) -> SessionEvent {
        let params = json!({"sessionId": "c", "prompt": [{"type": "text", "text": text}]});
        let payload = json!({"method": "session/prompt", "id": sequence, "params": params});
        event(sequence, payload)
    }

    fn told(events: &[SessionEvent], events_max: usize, chars: usize) -> Option<String> {
        let limits = History {
            events: events_max,
            chars,
        };
        history(events.iter().rev(), "c", limits)
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(told(&[], 50, 12_000), None);
    }

    #[test]
    fn the_newest_are_kept_in_order() {
        let events: Vec<_> = (1..=9).map(|n| prompt(n, &format!("p{n}"))).collect();
        let text = told(&events, 3, 12_000).unwrap();
        assert!(text.starts_with(OPENING));
        assert!(text.contains(TRUNCATED));
        assert!(!text.contains("p6"));
        let places: Vec<_> = ["p7", "p8", "p9"].map(|p| text.find(p).unwrap()).to_vec();
        assert!(places.is_sorted());
    }

    #[test]
    fn only_whole_events_are_told() {
        let events = [prompt(1, &"x".repeat(500)), prompt(2, "short")];
        let text = told(&events, 50, 400).unwrap();
        assert!(length(&text) <= 400);
        assert!(text.contains("short") && !text.contains("xx"));
        for line in text.lines().skip(2) {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn other_conversations_are_not_told() {
        let other = event(
            2,
            json!({"method": "session/prompt", "params": {"sessionId": "d"}}),
        );
        let text = told(&[prompt(1, "mine"), other], 50, 12_000).unwrap();
        assert!(text.contains("mine") && !text.contains(r#""d""#));
    }

    proptest::proptest! {
        #[test]
        fn the_limits_hold(sizes in proptest::collection::vec(0_usize..400, 0..60), chars in 0_usize..5000) {
            let events: Vec<_> = sizes.iter().zip(1..).map(|(size, n)| prompt(n, &"ä".repeat(*size))).collect();
            if let Some(text) = told(&events, 50, chars) {
                proptest::prop_assert!(length(&text) <= chars.max(length(OPENING) + length(TRUNCATED)));
            }
        }
    }
}
