//! The index of entries by place, which is behind the entries.
//!
//! Sessions that append in turn would each dirty a page of an index at every commit: more bytes
//! than the entries themselves. So the index takes up the newest entries only when there are
//! [`TAIL`] of them; a read of the newest walks those.

use rusqlite::Connection;

/// Entries that may wait for the index.
const TAIL: i64 = 1024;

const UPTO: &str = "SELECT upto FROM session_indexed";

/// Where the entries end, and how far the index is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    /// The number of the newest entry that was ever written.
    pub(crate) last: i64,
    upto: i64,
}

impl Tail {
    /// As the file has it.
    pub(crate) fn find(conn: &Connection) -> rusqlite::Result<Self> {
        let one = |sql| conn.prepare_cached(sql)?.query_row([], |row| row.get(0));
        let upto: i64 = one(UPTO)?;
        let newest: i64 = one("SELECT ifnull(max(n), 0) FROM session_events")?;
        // The newest may have been deleted; what is indexed was given out.
        let last = newest.max(upto);
        Ok(Self { last, upto })
    }

    /// Takes up the newest entries if there are enough of them.
    pub(crate) fn settle(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.last - self.upto < TAIL {
            return Ok(());
        }
        self.take_up(conn)
    }

    fn take_up(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO session_index (place, n) \
                   SELECT place, n FROM session_events WHERE n > ?1 ORDER BY place";
        conn.prepare_cached(sql)?.execute([self.upto])?;
        let sql = "UPDATE session_indexed SET upto = ?1";
        conn.prepare_cached(sql)?.execute([self.last])?;
        self.upto = self.last;
        Ok(())
    }
}

/// Takes up every entry.
pub(crate) fn complete(conn: &Connection) -> rusqlite::Result<()> {
    Tail::find(conn)?.take_up(conn)
}
