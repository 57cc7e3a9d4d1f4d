//! What of a session may go, and what must stay. Pure; the service reads and removes.

use std::time::Duration;

use woodfrog_types::retention::Retention;
use woodfrog_types::session::SessionState;
use woodfrog_types::{Fault, Timestamp};

/// The fewest entries of a log that a retention may keep: an agent that is brought back is told
/// what was said lately.
pub const ENTRIES_MIN: u64 = 1_000;
/// The shortest time that a retention may keep anything.
pub const TIME_MIN: Duration = Duration::from_secs(60);

/// Checks what a caller or a configuration asks for.
pub fn validate(retention: &Retention) -> Result<(), Fault> {
    let Retention {
        ended,
        age,
        entries,
    } = retention;
    for (field, time) in [("ended_seconds", ended), ("age_seconds", age)] {
        if time.is_some_and(|time| time < TIME_MIN) {
            let text = format!("must be at least {} s", TIME_MIN.as_secs());
            return Err(Fault::invalid(field, text));
        }
    }
    if entries.is_some_and(|entries| entries < ENTRIES_MIN) {
        let text = format!("must be at least {ENTRIES_MIN}");
        return Err(Fault::invalid("entries", text));
    }
    Ok(())
}

/// Whether the session may go with all that is its.
pub fn may_go(state: &SessionState, retention: &Retention, now: Timestamp) -> bool {
    match (state, retention.ended) {
        (SessionState::Ended { at, .. }, Some(kept)) => now.since(*at) > kept,
        (SessionState::Ended { .. }, None) | (SessionState::Active, _) => false,
    }
}

/// Entries that were written before this may go; `None`: age is no reason.
pub fn oldest(retention: &Retention, now: Timestamp) -> Option<Timestamp> {
    let millis = i64::try_from(retention.age?.as_millis()).unwrap_or(i64::MAX);
    Some(Timestamp::from_millis(
        now.as_millis().saturating_sub(millis),
    ))
}

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The first place that is held.
    pub first: u64,
    /// The last place taken.
    pub last: u64,
    /// The first place that was written lately enough; `last + 1` if none was.
    pub young: u64,
    /// The first place of what is still going on: a turn needs its own.
    pub open: Option<u64>,
}

/// The first place to keep; `None` if nothing is to go.
pub fn first_kept(held: &Held, retention: &Retention) -> Option<u64> {
    let counted = match retention.entries {
        Some(entries) => (held.last + 1).saturating_sub(entries),
        None => 0,
    };
    let by_age = match retention.age {
        // An agent may have to be told what was said; that is not old because nobody spoke since.
        Some(_) => held.young.min((held.last + 1).saturating_sub(ENTRIES_MIN)),
        None => 0,
    };
    let first = counted.max(by_age);
    let first = held.open.map_or(first, |open| first.min(open));
    (first > held.first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn ended(seconds: i64) -> SessionState {
        SessionState::Ended {
            at: at(seconds),
            reason: "over".to_owned(),
        }
    }

    const HELD: Held = Held {
        first: 1,
        last: 10_000,
        young: 1,
        open: None,
    };

    #[test]
    fn only_what_ended_long_ago_goes() {
        let retention = Retention {
            ended: Some(Duration::from_secs(60)),
            ..Retention::FOREVER
        };
        assert!(!may_go(&SessionState::Active, &retention, at(1000)));
        assert!(!may_go(&ended(940), &retention, at(1000)));
        assert!(may_go(&ended(939), &retention, at(1000)));
        assert!(!may_go(&ended(0), &Retention::FOREVER, at(1000)));
    }

    #[test]
    fn the_last_entries_are_kept() {
        let retention = Retention {
            entries: Some(4_000),
            ..Retention::FOREVER
        };
        assert_eq!(first_kept(&HELD, &retention), Some(6_001));
        let again = Held {
            first: 6_001,
            ..HELD
        };
        assert_eq!(first_kept(&again, &retention), None);
        let short = Held {
            last: 4_000,
            ..HELD
        };
        assert_eq!(first_kept(&short, &retention), None);
        assert_eq!(first_kept(&HELD, &Retention::FOREVER), None);
    }

    #[test]
    fn what_is_old_goes_but_for_what_an_agent_may_need() {
        let retention = Retention {
            age: Some(Duration::from_secs(60)),
            ..Retention::FOREVER
        };
        assert_eq!(oldest(&retention, at(100)), Some(at(40)));
        let half = Held {
            young: 5_000,
            ..HELD
        };
        assert_eq!(first_kept(&half, &retention), Some(5_000));
        let all = Held {
            young: 10_001,
            ..HELD
        };
        assert_eq!(first_kept(&all, &retention), Some(9_001));
    }

    #[test]
    fn what_goes_on_is_whole() {
        let retention = Retention {
            entries: Some(1_000),
            age: Some(Duration::from_secs(60)),
            ..Retention::FOREVER
        };
        let busy = Held {
            open: Some(30),
            young: 10_001,
            ..HELD
        };
        assert_eq!(first_kept(&busy, &retention), Some(30));
    }

    #[test]
    fn too_little_is_refused() {
        let short = Some(Duration::from_secs(1));
        for bad in [
            Retention {
                ended: short,
                ..Retention::FOREVER
            },
            Retention {
                age: short,
                ..Retention::FOREVER
            },
            Retention {
                entries: Some(10),
                ..Retention::FOREVER
            },
        ] {
            assert!(validate(&bad).is_err(), "{bad:?}");
        }
        assert!(validate(&Retention::FOREVER).is_ok());
    }
}
