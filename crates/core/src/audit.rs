//! The chain of an audit log: each entry has the hash of the one before it in its own, so an entry
//! that was changed, removed or moved is found.

use std::fmt;

use sha2::{Digest as _, Sha256};
use woodfrog_types::audit::{AuditEnds, AuditEntry, NewAuditEntry};

/// Puts entries behind the end of a log, and moves the end.
pub fn chain(ends: &mut AuditEnds, new: Vec<NewAuditEntry>) -> Vec<AuditEntry> {
    let add = |entry: NewAuditEntry| {
        ends.last += 1;
        ends.last_hash = hash(&ends.last_hash, ends.last, &entry);
        AuditEntry {
            sequence: ends.last,
            hash: ends.last_hash,
            entry,
        }
    };
    new.into_iter().map(add).collect()
}

/// The hash of an entry. Every field has its length before it: no two entries look alike.
pub fn hash(before: &[u8; 32], sequence: u64, entry: &NewAuditEntry) -> [u8; 32] {
    let NewAuditEntry {
        workspace,
        at,
        actor,
        key,
        action,
        target,
        outcome,
        detail,
        face,
        request_id,
    } = entry;
    let mut sum = Sha256::new();
    sum.update(b"woodfrog audit 1");
    sum.update(before);
    sum.update(sequence.to_be_bytes());
    sum.update(at.as_millis().to_be_bytes());
    let key = key.as_ref().map_or("", |key| key.as_str());
    for text in [
        workspace.as_str(),
        actor.as_str(),
        key,
        action,
        target,
        outcome.as_str(),
        detail,
        face,
        request_id,
    ] {
        sum.update((text.len() as u64).to_be_bytes());
        sum.update(text.as_bytes());
    }
    sum.finalize().into()
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// There is no entry of that place.
    Missing { sequence: u64 },
    /// The entry of that place is not the one that was written.
    Changed { sequence: u64 },
    /// Where another entry belongs there is this one.
    Moved { expected: u64, found: u64 },
    /// Entries behind the end that the log names.
    Beyond { last: u64, found: u64 },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { sequence } => write!(f, "entry {sequence} is missing"),
            Self::Changed { sequence } => write!(f, "entry {sequence} was changed"),
            Self::Moved { expected, found } => {
                write!(f, "entry {found} is where entry {expected} belongs")
            }
            Self::Beyond { last, found } => {
                write!(f, "entry {found} is behind the end, which is {last}")
            }
        }
    }
}

/// Reads a log from its beginning, a part at a time.
#[derive(Debug, Clone)]
pub struct Verifier {
    ends: AuditEnds,
    place: u64,
    hash: [u8; 32],
}

impl Verifier {
    /// Of a log with those ends.
    pub const fn new(ends: AuditEnds) -> Self {
        Self {
            place: ends.trimmed,
            hash: ends.trimmed_hash,
            ends,
        }
    }

    /// The last entry that was read, and is right.
    pub const fn place(&self) -> u64 {
        self.place
    }

    /// Reads the next entries, in their order.
    pub fn read(&mut self, entries: &[AuditEntry]) -> Result<(), Flaw> {
        for entry in entries {
            let expected = self.place + 1;
            let found = entry.sequence;
            if found > self.ends.last {
                let last = self.ends.last;
                return Err(Flaw::Beyond { last, found });
            }
            if found > expected {
                return Err(Flaw::Missing { sequence: expected });
            }
            if found < expected {
                return Err(Flaw::Moved { expected, found });
            }
            let right = hash(&self.hash, expected, &entry.entry);
            if right != entry.hash {
                return Err(Flaw::Changed { sequence: expected });
            }
            (self.place, self.hash) = (expected, right);
        }
        Ok(())
    }

    /// There are no more entries.
    pub fn finish(&self) -> Result<(), Flaw> {
        if self.place < self.ends.last {
            let sequence = self.place + 1;
            return Err(Flaw::Missing { sequence });
        }
        if self.hash != self.ends.last_hash {
            let sequence = self.place;
            return Err(Flaw::Changed { sequence });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
