//! Sessions that clients persist here and nobody but they understands.

use woodfrog_store::cursor::{self, List};
use woodfrog_store::{PersistStore, StoreError};
use woodfrog_types::key::Principal;
use woodfrog_types::page::PageRequest;
use woodfrog_types::{Code, Fault, WorkspaceId};

use crate::engine::Engine;
use crate::fault;

pub use woodfrog_store::{PersistedEvent as Event, PersistedSession as Session};

/// Bytes of a page; one that reaches them ends there.
const PAGE_BYTES: usize = 16 << 20;
/// Records that are read from the store in one go.
const BATCH: usize = 8;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// So many items are passed over.
    Offset(u64),
    /// After the item with this number (its time, its index) and id, which may be gone.
    After { number: i64, id: String },
}

/// A part of a list: never empty while more is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl Engine {
    /// Adds a session, or replaces its record; its place in lists stays.
    pub async fn persist_put(&self, by: &Principal, session: Session) -> Result<(), Fault> {
        let store = self.store();
        let put = store.persist_session_put(&by.workspace, &session).await;
        put.map_err(fault::store)
    }

    /// One session: `NotFound` if there is none.
    pub async fn persist_fetch(&self, by: &Principal, id: &str) -> Result<Session, Fault> {
        let store = self.store();
        let found = store.persist_session_fetch(&by.workspace, id).await;
        found.map_err(fault::store)?.ok_or_else(none)
    }

    /// Removes a session and its events: `NotFound` if there is none.
    pub async fn persist_remove(&self, by: &Principal, id: &str) -> Result<(), Fault> {
        let store = self.store();
        let removed = store.persist_session_remove(&by.workspace, id).await;
        match removed.map_err(fault::store)? {
            true => Ok(()),
            false => Err(none()),
        }
    }

    /// At most `limit` sessions by time, then id.
    pub async fn persist_list(
        &self,
        by: &Principal,
        start: Start,
        limit: usize,
    ) -> Result<Part<Session>, Fault> {
        let store = self.store();
        let (mut skip, mut cursor) = match start {
            Start::Offset(skip) => (skip, None),
            Start::After { number, id } => {
                let place = cursor::encode(List::PersistedSessions, &number.to_string(), &id);
                (0, Some(place))
            }
        };
        let mut filling = Filling::new(limit);
        loop {
            let request = PageRequest {
                limit: BATCH,
                cursor,
            };
            let page = store.persist_session_list(&by.workspace, &request).await;
            let page = page.map_err(fault::store)?;
            for session in page.items {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let bytes = session.record.len();
                if !filling.take(session, bytes) {
                    return Ok(filling.part(true));
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(filling.part(false));
            }
        }
    }

    /// Keeps an event. The same id at the same place again changes nothing; `Conflict` names the
    /// field if the place or the id is another's.
    pub async fn persist_add(&self, by: &Principal, event: Event) -> Result<(), Fault> {
        let store = self.store();
        match store.persist_event_insert(&by.workspace, &event).await {
            Ok(()) => Ok(()),
            Err(StoreError::Constraint { .. }) => Err(taken(&*store, &by.workspace, &event).await?),
            Err(error) => Err(fault::store(error)),
        }
    }

    /// At most `limit` events of a session by index. Of a session that is not there: none.
    pub async fn persist_events(
        &self,
        by: &Principal,
        session: &str,
        start: Start,
        limit: usize,
    ) -> Result<Part<Event>, Fault> {
        let store = self.store();
        let (mut skip, mut after) = match start {
            Start::Offset(skip) => (skip, None),
            Start::After { number, .. } => (0, u64::try_from(number).ok()),
        };
        let mut filling = Filling::new(limit);
        loop {
            let batch = store.persist_event_list(&by.workspace, session, after, BATCH);
            let batch = batch.await.map_err(fault::store)?;
            let full = batch.len() == BATCH;
            for event in batch {
                after = Some(event.index);
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let bytes = event.record.len();
                if !filling.take(event, bytes) {
                    return Ok(filling.part(true));
                }
            }
            if !full {
                return Ok(filling.part(false));
            }
        }
    }

    /// The last events of a session, the last one first: at most `limit`, and no more than
    /// [`LAST_MAX`].
    pub async fn persist_last(
        &self,
        by: &Principal,
        session: &str,
        limit: usize,
    ) -> Result<Vec<Event>, Fault> {
        let store = self.store();
        let limit = limit.min(LAST_MAX);
        let last = store.persist_event_last(&by.workspace, session, limit);
        last.await.map_err(fault::store)
    }
}

/// Events that [`Engine::persist_last`] gives at most.
pub const LAST_MAX: usize = 8;

/// A page as it fills.
struct Filling<T> {
    items: Vec<T>,
    limit: usize,
    bytes: usize,
}

impl<T> Filling<T> {
    const fn new(limit: usize) -> Self {
        Self {
            items: Vec::new(),
            limit,
            bytes: 0,
        }
    }

    /// Whether the item is on the page.
    fn take(&mut self, item: T, bytes: usize) -> bool {
        let full = self.items.len() >= self.limit || self.bytes + bytes > PAGE_BYTES;
        // The first one fits always: what is too large for a page would be in the way for ever.
        if full && !self.items.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.items.push(item);
        true
    }

    fn part(self, more: bool) -> Part<T> {
        Part {
            items: self.items,
            more,
        }
    }
}

fn none() -> Fault {
    Fault::new(Code::NotFound, "no such session")
}

/// Which part of an event is another's.
async fn taken(
    store: &(impl PersistStore + ?Sized),
    workspace: &WorkspaceId,
    event: &Event,
) -> Result<Fault, Fault> {
    let before = event.index.checked_sub(1);
    let there = store.persist_event_list(workspace, &event.session, before, 1);
    let there = there.await.map_err(fault::store)?;
    let is_place = there.first().is_some_and(|it| it.index == event.index);
    let (field, what) = match is_place {
        true => ("eventIndex", "the session has an event with this index"),
        false => ("id", "there is another event with this id"),
    };
    Ok(Fault::new(Code::Conflict, what).with_field(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_at_its_items_or_its_bytes_but_has_one() {
        let mut page = Filling::new(2);
        assert!(page.take(1, 10));
        assert!(page.take(2, 10));
        assert!(!page.take(3, 10));
        let mut page = Filling::new(9);
        assert!(page.take(1, PAGE_BYTES + 1));
        assert!(!page.take(2, 1));
        assert_eq!(page.part(true).items, [1]);
    }
}
