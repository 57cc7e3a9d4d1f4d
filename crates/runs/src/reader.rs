//! Reading a run's log from any place, and what comes.

use std::sync::Arc;

use tokio::sync::watch;
use woodfrog_store::RunStore;
use woodfrog_types::run::RunEvent;
use woodfrog_types::{Fault, RunId};

use crate::service::fault;

/// Entries of one read.
const PAGE_EVENTS: usize = 256;
/// Bytes of data of one read.
const PAGE_BYTES: usize = 4 << 20;

/// Reads a log in order. Each entry once, from the place that was asked for to the end.
#[derive(Debug)]
pub struct RunReader {
    ledger: Ledger,
    run: RunId,
    after: u64,
    /// The place of the last entry; closed once nothing more comes.
    last: watch::Receiver<u64>,
    over: bool,
}

/// Where a run is recorded.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) store: Arc<dyn RunStore>,
    pub(crate) tracked: bool,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("tracked", &self.tracked)
            .finish_non_exhaustive()
    }
}

impl RunReader {
    pub(crate) fn new(ledger: Ledger, run: RunId, after: u64, last: watch::Receiver<u64>) -> Self {
        Self {
            ledger,
            run,
            after,
            last,
            over: false,
        }
    }

    /// What comes next, at least one entry; `None` once the run is over and all was read. Safe to
    /// cancel and call again.
    pub async fn next(&mut self) -> Result<Option<Vec<RunEvent>>, Fault> {
        loop {
            // Before the read: what comes after it is told.
            self.last.borrow_and_update();
            let read = self
                .ledger
                .store
                .run_events(&self.run, self.after, PAGE_EVENTS, PAGE_BYTES);
            let events = read.await.map_err(fault)?;
            if let Some(last) = events.last() {
                self.after = last.sequence;
                return Ok(Some(events));
            }
            if self.over {
                return Ok(None);
            }
            // Once more after the end: its last entries may have come since the read.
            self.over = self.last.changed().await.is_err();
        }
    }
}
