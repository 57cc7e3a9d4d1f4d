//! Reading logs.

use rusqlite::{Connection, Row, params};
use woodfrog_store::{Result, SessionSlice};
use woodfrog_types::session::{LogEnd, NewSessionEvent, SessionEvent, Source, Stream};
use woodfrog_types::{SessionId, Timestamp};

use super::{SEQUENCE_MAX, ends, place, sequence};
use crate::error::{corrupt, in_};
use crate::stored::to_sql_int;

const WHAT: &str = "session event";

// The columns by number: a replay reads hundreds of thousands of rows.
pub(super) const INDEXED: &str = "SELECT session_index.place, at, source, kind, author, connection, \
     payload, wire FROM session_index JOIN session_events USING (n) \
     WHERE session_index.place BETWEEN ?1 AND ?2 ORDER BY session_index.place LIMIT ?3";
pub(super) const INDEXED_BACK: &str = "SELECT session_index.place, at, source, kind, author, connection, \
     payload, wire FROM session_index JOIN session_events USING (n) \
     WHERE session_index.place BETWEEN ?1 AND ?2 ORDER BY session_index.place DESC LIMIT ?3";
// In one stream, the order of arrival is that of places.
pub(super) const TAIL: &str = "SELECT place, at, source, kind, author, connection, payload, wire \
     FROM session_events WHERE n > (SELECT upto FROM session_indexed) \
     AND place BETWEEN ?1 AND ?2 ORDER BY n LIMIT ?3";
pub(super) const TAIL_BACK: &str = "SELECT place, at, source, kind, author, connection, payload, wire \
     FROM session_events WHERE n > (SELECT upto FROM session_indexed) \
     AND place BETWEEN ?1 AND ?2 ORDER BY n DESC LIMIT ?3";

/// A stream's first and last place.
fn bounds(end: &LogEnd, stream: Stream) -> (u64, u64) {
    match stream {
        Stream::Log => (end.log_first, end.log),
        Stream::Universal => (end.universal_first, end.universal),
    }
}

pub(crate) fn forward(
    conn: &Connection,
    id: &SessionId,
    stream: Stream,
    after: u64,
    limit: usize,
    bytes: usize,
) -> Result<SessionSlice> {
    // The end and the entries must be of one moment.
    let moment = conn.unchecked_transaction().map_err(in_(WHAT))?;
    let (log, end) = ends::find(conn, id)?;
    let (first, last) = bounds(&end, stream);
    let from = after.min(SEQUENCE_MAX).saturating_add(1).max(first);
    let mut pick = Pick::new(id, stream, limit, bytes);
    for sql in [INDEXED, TAIL] {
        // The tail is walked only for what the index does not have yet.
        let from = pick.events.last().map_or(from, |event| event.sequence + 1);
        if from <= last && !pick.full {
            let (low, high) = (place(log, stream, from), place(log, stream, last));
            pick.take(conn, sql, low, high)?;
        }
    }
    moment.finish().map_err(in_(WHAT))?;
    let events = pick.events;
    Ok(SessionSlice { end, events })
}

pub(crate) fn back(
    conn: &Connection,
    id: &SessionId,
    stream: Stream,
    upto: u64,
    limit: usize,
) -> Result<SessionSlice> {
    let moment = conn.unchecked_transaction().map_err(in_(WHAT))?;
    let (log, end) = ends::find(conn, id)?;
    let (first, last) = bounds(&end, stream);
    let upto = upto.min(last);
    let mut pick = Pick::new(id, stream, limit, usize::MAX);
    for sql in [TAIL_BACK, INDEXED_BACK] {
        let upto = pick.events.last().map_or(upto, |event| event.sequence - 1);
        if first <= upto && !pick.full {
            let (low, high) = (place(log, stream, first), place(log, stream, upto));
            pick.take(conn, sql, low, high)?;
        }
    }
    moment.finish().map_err(in_(WHAT))?;
    let events = pick.events;
    Ok(SessionSlice { end, events })
}

/// Entries of one stream, up to what a reader asked for.
struct Pick<'a> {
    id: &'a SessionId,
    stream: Stream,
    limit: usize,
    bytes: usize,
    events: Vec<SessionEvent>,
    full: bool,
}

impl<'a> Pick<'a> {
    fn new(id: &'a SessionId, stream: Stream, limit: usize, bytes: usize) -> Self {
        Self {
            id,
            stream,
            limit,
            bytes,
            events: Vec::new(),
            full: limit == 0,
        }
    }

    /// Adds what the query finds between two keys.
    fn take(&mut self, conn: &Connection, sql: &str, low: i64, high: i64) -> Result<()> {
        let room = to_sql_int(self.limit - self.events.len());
        let mut statement = conn.prepare_cached(sql).map_err(in_(WHAT))?;
        let mut rows = statement
            .query(params![low, high, room])
            .map_err(in_(WHAT))?;
        while let Some(row) = rows.next().map_err(in_(WHAT))? {
            let size = size(row)?;
            if !self.events.is_empty() && size > self.bytes {
                self.full = true;
                return Ok(());
            }
            self.bytes = self.bytes.saturating_sub(size);
            self.events.push(event(row, self.id, self.stream)?);
        }
        self.full = self.events.len() == self.limit;
        Ok(())
    }
}

/// Bytes of payload and wire form, without copying them.
fn size(row: &Row<'_>) -> Result<usize> {
    let payload = row.get_ref(6).map_err(in_(WHAT))?;
    let wire = row.get_ref(7).map_err(in_(WHAT))?;
    let length = |value: rusqlite::types::ValueRef<'_>| value.as_bytes().map_or(0, <[u8]>::len);
    Ok(length(payload) + length(wire))
}

fn event(row: &Row<'_>, id: &SessionId, stream: Stream) -> Result<SessionEvent> {
    let source = row.get_ref(2).map_err(in_(WHAT))?;
    let source = source.as_str().map_err(|error| corrupt(WHAT, error))?;
    let mut sources = Source::ALL.into_iter();
    let source = sources
        .find(|known| known.as_str() == source)
        .ok_or_else(|| corrupt(WHAT, format!("unknown source `{source}`")))?;
    Ok(SessionEvent {
        session: id.clone(),
        sequence: sequence(row.get(0).map_err(in_(WHAT))?),
        event: NewSessionEvent {
            stream,
            at: Timestamp::from_millis(row.get(1).map_err(in_(WHAT))?),
            source,
            kind: row.get(3).map_err(in_(WHAT))?,
            author: row.get(4).map_err(in_(WHAT))?,
            connection: row.get(5).map_err(in_(WHAT))?,
            payload: row.get(6).map_err(in_(WHAT))?,
            wire: row.get(7).map_err(in_(WHAT))?,
        },
    })
}
