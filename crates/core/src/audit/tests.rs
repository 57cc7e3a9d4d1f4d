use proptest::prelude::*;
use woodfrog_types::audit::AuditOutcome;
use woodfrog_types::workspace::UserId;
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

use super::*;

fn entry(number: usize) -> NewAuditEntry {
    NewAuditEntry {
        workspace: WorkspaceId::default_workspace(),
        at: Timestamp::from_millis(1_790_000_000_000),
        actor: UserId::operator(),
        key: None,
        action: "sandbox.create".to_owned(),
        target: format!("target {number}"),
        outcome: AuditOutcome::Done,
        detail: "201".to_owned(),
        face: "native".to_owned(),
        request_id: String::new(),
    }
}

fn log(entries: usize) -> (AuditEnds, Vec<AuditEntry>) {
    let mut ends = AuditEnds::EMPTY;
    let log = chain(&mut ends, (0..entries).map(entry).collect());
    (ends, log)
}

fn verify(ends: AuditEnds, log: &[AuditEntry]) -> Result<(), Flaw> {
    let mut verifier = Verifier::new(ends);
    for part in log.chunks(3) {
        verifier.read(part)?;
    }
    verifier.finish()
}

#[test]
fn a_log_as_it_was_written_is_right() {
    for entries in 0..10 {
        let (ends, log) = log(entries);
        assert_eq!(verify(ends, &log), Ok(()));
    }
}

#[test]
fn retention_leaves_a_log_that_is_right() {
    let (mut ends, log) = log(10);
    (ends.trimmed, ends.trimmed_hash) = (4, log[3].hash);
    assert_eq!(verify(ends, &log[4..]), Ok(()));
    let missing = verify(ends, &log[5..]);
    assert_eq!(missing, Err(Flaw::Missing { sequence: 5 }));
    (ends.trimmed, ends.trimmed_hash) = (10, log[9].hash);
    assert_eq!(verify(ends, &[]), Ok(()));
}

#[test]
fn every_field_is_in_the_hash() {
    let one = entry(1);
    let other = [
        NewAuditEntry {
            workspace: WorkspaceId::generate(),
            ..one.clone()
        },
        NewAuditEntry {
            at: Timestamp::from_millis(1),
            ..one.clone()
        },
        NewAuditEntry {
            actor: UserId::parse("ann").unwrap(),
            ..one.clone()
        },
        NewAuditEntry {
            key: Some(KeyId::generate()),
            ..one.clone()
        },
        NewAuditEntry {
            action: "sandbox.delete".to_owned(),
            ..one.clone()
        },
        NewAuditEntry {
            target: String::new(),
            ..one.clone()
        },
        NewAuditEntry {
            outcome: AuditOutcome::Failed,
            ..one.clone()
        },
        NewAuditEntry {
            detail: "200".to_owned(),
            ..one.clone()
        },
        NewAuditEntry {
            face: "e2b".to_owned(),
            ..one.clone()
        },
        NewAuditEntry {
            request_id: "1".to_owned(),
            ..one.clone()
        },
        // What moved from one field to the next.
        NewAuditEntry {
            detail: "20".to_owned(),
            face: "1native".to_owned(),
            ..one.clone()
        },
    ];
    let before = [7; 32];
    let sum = hash(&before, 1, &one);
    for changed in other {
        assert_ne!(hash(&before, 1, &changed), sum, "{changed:?}");
    }
    assert_ne!(hash(&before, 2, &one), sum);
    assert_ne!(hash(&[8; 32], 1, &one), sum);
}

proptest! {
    /// One change of any kind to any entry is found.
    #[test]
    fn what_was_done_to_a_log_is_found(len in 2_usize..20, at in 0_usize..20, other in 0_usize..20, kind in 0_u8..4) {
        let (ends, mut log) = log(len);
        let (at, other) = (at % len, other % len);
        match kind {
            0 => drop(log.remove(at)),
            1 => log[at].entry.target.push('x'),
            2 => {
                prop_assume!(at != other);
                log.swap(at, other);
            }
            // Whoever changes an entry and its hash breaks the next one, or the end.
            _ => {
                log[at].entry.actor = UserId::parse("somebody else").unwrap();
                let before = at.checked_sub(1).map_or([0; 32], |before| log[before].hash);
                log[at].hash = hash(&before, log[at].sequence, &log[at].entry);
            }
        }
        prop_assert!(verify(ends, &log).is_err());
    }
}
