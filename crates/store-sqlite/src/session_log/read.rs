//! Reading logs.

use rusqlite::{Connection, Row, params};
use woodfrog_store::{Result, SessionSlice};
use woodfrog_types::session::{LogEnd, NewSessionEvent, SessionEvent, Source, Stream};
use woodfrog_types::{SessionId, Timestamp};

use super::{SEQUENCE_MAX, ends, place, sequence};
use crate::error::{corrupt, in_};
use crate::stored::to_sql_int;

const WHAT: &str = "session event";

/// The columns by number: a replay reads hundreds of thousands of rows.
const FORWARD: &str = "SELECT place, at, source, kind, author, connection, payload, wire \
     FROM session_events WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT ?3";
const BACK: &str = "SELECT place, at, source, kind, author, connection, payload, wire \
     FROM session_events WHERE place BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT ?3";

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
    let mut events = Vec::new();
    if from <= last {
        let range = params![
            place(log, stream, from),
            place(log, stream, last),
            to_sql_int(limit)
        ];
        let mut left = bytes;
        let mut statement = conn.prepare_cached(FORWARD).map_err(in_(WHAT))?;
        let mut rows = statement.query(range).map_err(in_(WHAT))?;
        while let Some(row) = rows.next().map_err(in_(WHAT))? {
            let size = size(row)?;
            if !events.is_empty() && size > left {
                break;
            }
            left = left.saturating_sub(size);
            events.push(event(row, id, stream)?);
        }
    }
    moment.finish().map_err(in_(WHAT))?;
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
    let mut events = Vec::new();
    if first <= upto {
        let range = params![
            place(log, stream, first),
            place(log, stream, upto),
            to_sql_int(limit)
        ];
        let mut statement = conn.prepare_cached(BACK).map_err(in_(WHAT))?;
        let mut rows = statement.query(range).map_err(in_(WHAT))?;
        while let Some(row) = rows.next().map_err(in_(WHAT))? {
            events.push(event(row, id, stream)?);
        }
    }
    moment.finish().map_err(in_(WHAT))?;
    Ok(SessionSlice { end, events })
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
