//! Event logs in memory.

use async_trait::async_trait;
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::{SandboxId, Timestamp};

use super::{MemoryStore, State};
use crate::{EventStore, NewEvent, Result};

#[async_trait]
impl EventStore for MemoryStore {
    async fn event_append(&self, sandbox: &SandboxId, events: Vec<NewEvent>) -> Result<u64> {
        let mut state = self.lock();
        self.fence(&state, sandbox, "event")?;
        Ok(append(&mut state, sandbox, events))
    }

    async fn event_list(
        &self,
        sandbox: &SandboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<SandboxEvent>> {
        let state = self.lock();
        let log = state.logs.get(sandbox).map_or(&[][..], Vec::as_slice);
        Ok(log
            .iter()
            .filter(|event| event.seq > after)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn event_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        let mut state = self.lock();
        let mut old: Vec<(Timestamp, SandboxId)> = state
            .logs
            .iter()
            .filter(|(sandbox, _)| !state.sandboxes.contains_key(*sandbox))
            .filter_map(|(sandbox, log)| Some((log.last()?.at, sandbox.clone())))
            .filter(|(last, _)| *last < before)
            .collect();
        old.sort();
        old.truncate(limit);
        for (_, sandbox) in &old {
            state.logs.remove(sandbox);
        }
        Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
    }
}

/// Appends under the caller's lock; returns the last sequence number, 0 for an empty log.
pub(super) fn append(state: &mut State, sandbox: &SandboxId, events: Vec<NewEvent>) -> u64 {
    let mut last = state
        .logs
        .get(sandbox)
        .and_then(|log| log.last())
        .map_or(0, |event| event.seq);
    for event in events {
        last += 1;
        super::billing::note_sandbox(state, sandbox, &event.kind, last, event.at);
        state
            .logs
            .entry(sandbox.clone())
            .or_default()
            .push(SandboxEvent {
                sandbox: sandbox.clone(),
                seq: last,
                at: event.at,
                level: event.level,
                kind: event.kind,
                message: event.message,
                fields: event.fields,
            });
    }
    last
}
