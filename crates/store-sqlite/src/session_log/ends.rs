//! Where logs stand, as the writer knows it.
//!
//! An append of one event is one insert: what it must be checked against is remembered from the
//! append before, and the rows that say where the logs stand are written once per transaction.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};
use woodfrog_store::{Result, SessionAppend, StoreError};
use woodfrog_types::SessionId;
use woodfrog_types::session::{LogEnd, NewSessionEvent, Position, Stream, Turn};

use super::index::Tail;
use super::{SEQUENCE_MAX, place};
use crate::reader::{first, get};
use crate::sessions::{self, WHAT};
use crate::stored::{count_column, to_sql_int};
use crate::writer::{change, in_savepoint};

/// Logs whose ends are remembered; one more, and all are looked up anew.
const KNOWN_MAX: usize = 8192;
/// Entries that one transaction deletes besides its other work.
const SWEEP_ROWS: usize = 250;

/// The writer's knowledge of logs. It is true within a transaction, between [`Logs::begin`] and
/// [`Logs::flush`].
#[derive(Debug, Default)]
pub(crate) struct Logs {
    known: HashMap<SessionId, Known>,
    /// Those whose row is older than what is known.
    changed: Vec<SessionId>,
    /// SQLite's number for what others committed to the file.
    version: i64,
    /// `None` if it has to be looked up.
    tail: Option<Tail>,
    /// There may be entries to delete.
    trash: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    log: i64,
    end: LogEnd,
    changed: bool,
}

impl Logs {
    /// Also deletes what a run before this one left over.
    pub(crate) fn resuming() -> Self {
        Self {
            trash: true,
            ..Self::default()
        }
    }

    /// Whether there is work when nobody writes.
    pub(crate) fn has_trash(&self) -> bool {
        self.trash
    }

    /// A transaction has begun. If another process (or another store on the same file) wrote
    /// since the last one, nothing is known any more.
    pub(crate) fn begin(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut statement = conn.prepare_cached("PRAGMA data_version")?;
        let version = statement.query_row([], |row| row.get(0))?;
        if version != self.version || self.known.len() > KNOWN_MAX {
            self.known.clear();
            self.tail = None;
            self.version = version;
        }
        Ok(())
    }

    /// Writes where the logs stand. An error means that the transaction is lost.
    pub(crate) fn flush(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        for session in self.changed.drain(..) {
            if let Some(known) = self.known.get_mut(&session) {
                known.write(conn)?;
            }
        }
        match &mut self.tail {
            Some(tail) => tail.settle(conn),
            None => Ok(()),
        }
    }

    /// The transaction was rolled back, and with it whatever was known. The trash waits for the
    /// next reason to look: an error that stays must not be met again at once.
    pub(crate) fn lost(&mut self) {
        self.known.clear();
        self.changed.clear();
        self.tail = None;
        self.trash = false;
    }

    /// Brings that log's row up to date and forgets it: a job is about to change the row.
    pub(crate) fn settle(
        &mut self,
        conn: &Connection,
        session: &SessionId,
    ) -> rusqlite::Result<()> {
        (self.trash, self.tail) = (true, None);
        match self.known.remove(session) {
            Some(mut known) => known.write(conn),
            None => Ok(()),
        }
    }

    /// Deletes a few entries that nobody can read any more.
    pub(crate) fn sweep(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if !self.trash {
            return Ok(());
        }
        let mut next = conn.prepare_cached("SELECT low, high FROM session_trash LIMIT 1")?;
        let mut rows = next.query([])?;
        let Some(row) = rows.next()? else {
            self.trash = false;
            return Ok(());
        };
        let (low, high): (i64, i64) = (row.get(0)?, row.get(1)?);
        drop(rows);
        let limit = to_sql_int(SWEEP_ROWS);
        let sql = "DELETE FROM session_events WHERE n IN (SELECT n FROM session_index \
                   WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT ?3)";
        let mut statement = conn.prepare_cached(sql)?;
        statement.execute(params![low, high, limit])?;
        let sql = "DELETE FROM session_index WHERE place IN (SELECT place FROM session_index \
                   WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT ?3)";
        let mut statement = conn.prepare_cached(sql)?;
        if statement.execute(params![low, high, limit])? < SWEEP_ROWS {
            let sql = "DELETE FROM session_trash WHERE low = ?1";
            conn.prepare_cached(sql)?.execute([low])?;
        }
        Ok(())
    }

    /// Appends all of it or nothing. The outer error means that the transaction is lost.
    pub(crate) fn append(
        &mut self,
        conn: &Connection,
        append: &SessionAppend,
    ) -> rusqlite::Result<Result<LogEnd>> {
        let known = match self.known.get(&append.session) {
            Some(known) => *known,
            None => match find(conn, &append.session) {
                Ok((log, end)) => Known {
                    log,
                    end,
                    changed: false,
                },
                Err(error) => return Ok(Err(error)),
            },
        };
        if known.end.epoch != append.epoch {
            return Ok(Err(StoreError::Conflict { what: WHAT }));
        }
        let mut tail = match self.tail {
            Some(tail) => tail,
            None => Tail::find(conn)?,
        };
        let last = &mut tail.last;
        // One statement fails as a whole by itself.
        let alone = append.events.len() <= 1 && append.record.is_none() && append.turns.is_empty();
        let written = match alone {
            true => write(conn, known, last, append),
            false => in_savepoint(conn, || write(conn, known, last, append))?,
        };
        if let Ok(end) = &written {
            self.remember(&append.session, known, *end);
            self.tail = Some(tail);
        }
        Ok(written)
    }

    fn remember(&mut self, session: &SessionId, known: Known, end: LogEnd) {
        let changed = known.changed || end != known.end;
        if changed && !known.changed {
            self.changed.push(session.clone());
        }
        let known = Known {
            end,
            changed,
            ..known
        };
        match self.known.get_mut(session) {
            Some(slot) => *slot = known,
            None => drop(self.known.insert(session.clone(), known)),
        }
    }
}

impl Known {
    fn write(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.changed = false;
        let sql = "UPDATE session_logs SET last = ?2, universal_last = ?3, input = ?4, \
                   output = ?5 WHERE log = ?1";
        let Position { input, output } = self.end.position;
        let params = params![
            self.log,
            to_sql_int(self.end.log),
            to_sql_int(self.end.universal),
            to_sql_int(input),
            to_sql_int(output),
        ];
        conn.prepare_cached(sql)?.execute(params).map(drop)
    }
}

/// `newest` is the number of the newest entry of all logs.
fn write(
    conn: &Connection,
    Known { log, mut end, .. }: Known,
    newest: &mut i64,
    append: &SessionAppend,
) -> Result<LogEnd> {
    if let Some(record) = &append.record {
        if record.id != append.session {
            return Err(StoreError::Conflict { what: WHAT });
        }
        sessions::update(conn, record)?;
    }
    for event in &append.events {
        let last = match event.stream {
            Stream::Log => &mut end.log,
            Stream::Universal => &mut end.universal,
        };
        if *last == SEQUENCE_MAX {
            return Err(StoreError::Unavailable("the session's log is full".into()));
        }
        *last += 1;
        *newest += 1;
        write_event(conn, *newest, place(log, event.stream, *last), event)?;
    }
    for turn in &append.turns {
        write_turn(conn, log, turn)?;
    }
    end.position = append.position.unwrap_or(end.position);
    Ok(end)
}

fn write_event(conn: &Connection, n: i64, place: i64, event: &NewSessionEvent) -> Result<()> {
    let sql = "INSERT INTO session_events \
               (n, place, at, source, kind, author, connection, payload, wire) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let params = params![
        n,
        place,
        event.at.as_millis(),
        event.source.as_str(),
        event.kind,
        event.author,
        event.connection,
        event.payload,
        event.wire,
    ];
    change(conn, "session event", sql, params).map(drop)
}

fn write_turn(conn: &Connection, log: i64, turn: &Turn) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO session_turns (log, number, binding, author, first, last, \
               outcome, started_at, ended_at, snapshot) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let params = params![
        log,
        to_sql_int(turn.number),
        turn.binding,
        turn.author,
        to_sql_int(turn.first),
        turn.last.map(to_sql_int),
        turn.outcome,
        turn.started_at.as_millis(),
        turn.ended_at.map(woodfrog_types::Timestamp::as_millis),
        turn.snapshot
            .as_ref()
            .map(woodfrog_types::SnapshotId::as_str),
    ];
    change(conn, "turn", sql, params).map(drop)
}

/// A session's log and where it stands, from its row.
pub(crate) fn find(conn: &Connection, session: &SessionId) -> Result<(i64, LogEnd)> {
    let sql = "SELECT session_logs.* FROM sessions JOIN session_logs USING (log) WHERE id = ?1";
    let found = first(conn, WHAT, sql, [session.as_str()], from_row)?;
    found.ok_or(StoreError::NotFound { what: WHAT })
}

fn from_row(row: &Row<'_>) -> Result<(i64, LogEnd)> {
    let count = |column| count_column(row, WHAT, column);
    let end = LogEnd {
        log: count("last")?,
        universal: count("universal_last")?,
        log_first: count("first")?,
        universal_first: count("universal_first")?,
        position: Position {
            input: count("input")?,
            output: count("output")?,
        },
        epoch: count("epoch")?,
    };
    Ok((get(row, WHAT, "log")?, end))
}
