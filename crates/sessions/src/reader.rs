//! Reading a log from a place on, and then what comes.

use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use woodfrog_store::{SessionStore, StoreError};
use woodfrog_types::session::{LogEnd, SessionEvent, Stream};
use woodfrog_types::{Code, Fault, SessionId};

use crate::hub::{self, Ephemeral, Hub};

/// Entries of one read.
const PAGE_EVENTS: usize = 512;
/// Bytes of one read: what a reader holds at most.
const PAGE_BYTES: usize = 256 << 10;

/// What a reader gets.
#[derive(Debug, Clone)]
pub enum Batch {
    /// In order, dense, beginning after what was read before.
    Events(Vec<Arc<SessionEvent>>),
    /// Places `from` up to and with `to` are no longer held; reading goes on after them.
    Gap { from: u64, to: u64 },
    /// Not of the log.
    Ephemeral(Ephemeral),
}

/// A place in a log. Holds nothing of it: a slow reader costs what its page takes.
pub struct Reader {
    session: SessionId,
    stream: Stream,
    after: u64,
    store: Arc<dyn SessionStore>,
    hub: Arc<Hub>,
    end: watch::Receiver<Option<LogEnd>>,
    ephemeral: Option<broadcast::Receiver<Ephemeral>>,
}

impl Reader {
    pub(crate) fn new(
        session: SessionId,
        stream: Stream,
        after: u64,
        store: Arc<dyn SessionStore>,
        hub: Arc<Hub>,
    ) -> Self {
        let end = hub.watch();
        Self {
            session,
            stream,
            after,
            store,
            hub,
            end,
            ephemeral: None,
        }
    }

    /// The same, told of passing things too.
    #[must_use]
    pub fn with_ephemeral(mut self) -> Self {
        self.ephemeral = Some(self.hub.listen());
        self
    }

    /// The place after which reading goes on.
    pub const fn after(&self) -> u64 {
        self.after
    }

    /// What comes next; waits for it. Safe to cancel and call again. `SessionNotFound` once the
    /// session is removed.
    pub async fn next(&mut self) -> Result<Batch, Fault> {
        loop {
            if let Some(batch) = self.ready().await? {
                return Ok(batch);
            }
            let changed = self.end.changed();
            match &mut self.ephemeral {
                None => ended(changed.await)?,
                Some(ephemeral) => tokio::select! {
                    biased;
                    changed = changed => ended(changed)?,
                    said = ephemeral.recv() => match said {
                        Ok(said) => return Ok(Batch::Ephemeral(said)),
                        // They are of the moment: what was missed is over.
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => self.ephemeral = None,
                    },
                },
            }
        }
    }

    /// What is there already; `None` at the end of the log. Does not wait for more.
    pub async fn ready(&mut self) -> Result<Option<Batch>, Fault> {
        let recent = self.hub.after(self.stream, self.after, PAGE_EVENTS);
        if !recent.is_empty() {
            return Ok(Some(self.pass(recent)));
        }
        let known = *self.end.borrow_and_update();
        if known.is_some_and(|end| hub::last(&end, self.stream) <= self.after) {
            return Ok(None);
        }
        let slice = self
            .store
            .session_read(
                &self.session,
                self.stream,
                self.after,
                PAGE_EVENTS,
                PAGE_BYTES,
            )
            .await
            .map_err(|error| fault(error, &self.session))?;
        self.hub.learn(slice.end);
        let first = hub::first(&slice.end, self.stream);
        if self.after + 1 < first {
            let from = self.after + 1;
            self.after = first - 1;
            return Ok(Some(Batch::Gap {
                from,
                to: self.after,
            }));
        }
        if slice.events.is_empty() {
            return Ok(None);
        }
        Ok(Some(
            self.pass(slice.events.into_iter().map(Arc::new).collect()),
        ))
    }

    fn pass(&mut self, events: Vec<Arc<SessionEvent>>) -> Batch {
        if let Some(last) = events.last() {
            self.after = last.sequence;
        }
        Batch::Events(events)
    }
}

fn ended(changed: Result<(), watch::error::RecvError>) -> Result<(), Fault> {
    changed.map_err(|_| Fault::new(Code::Unavailable, "the server is shutting down"))
}

/// What went wrong with the store, as callers may see it.
pub(crate) fn fault(error: StoreError, session: &SessionId) -> Fault {
    match error {
        StoreError::NotFound { .. } => not_found(session.as_str()),
        StoreError::Conflict { .. } | StoreError::Fenced { .. } => Fault::new(
            Code::SessionTaken,
            "another server has taken the session over; try again there",
        ),
        StoreError::InvalidCursor => Fault::invalid("cursor", "not a cursor of this list"),
        error @ (StoreError::Constraint { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Unavailable(_)) => {
            Fault::new(Code::Unavailable, "the session's log is out of reach").because(error)
        }
    }
}

/// There is no such session.
pub(crate) fn not_found(id: &str) -> Fault {
    Fault::new(
        Code::SessionNotFound,
        format!("session `{id}` does not exist, or belongs to another workspace"),
    )
}
