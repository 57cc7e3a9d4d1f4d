//! The logs of sessions: reading and trimming.

use async_trait::async_trait;
use tokio_postgres::Row;
use woodfrog_store::cursor::List;
use woodfrog_store::{Result, SessionAppend, SessionSlice, SessionStore, StoreError};
use woodfrog_store_rows::{
    Columns, corrupt, count_column, get, id_column, log_row_from_row, session_from_row,
    time_column, to_sql_int, turn_from_row,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::session::{
    LogEnd, NewSessionEvent, Session, SessionEvent, SessionFace, SessionFilter, Source, Stream,
    Turn,
};
use woodfrog_types::{SandboxId, SessionId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, Cells, all, begin, change, commit, first, rows};
use crate::listing::Listing;
use crate::sessions::{self, WHAT};
use crate::text::Text;

/// Where the logs stand and the entries, of one moment. The sums keep a page of large entries
/// from being read whole.
const READ: &str = "SELECT l.*, e.* FROM session_logs l LEFT JOIN LATERAL ( \
     SELECT * FROM ( \
         SELECT seq, at, source, kind, author, connection, payload, wire, \
             sum(octet_length(payload) + coalesce(octet_length(wire), 0)) OVER w AS total, \
             row_number() OVER w AS nth \
         FROM (SELECT * FROM session_events WHERE log = l.log AND stream = $2 AND seq > \
             greatest($3, CASE WHEN $2 = 0 THEN l.first ELSE l.universal_first END - 1) \
             ORDER BY seq LIMIT $4) page \
         WINDOW w AS (ORDER BY seq)) counted \
     WHERE total <= $5 OR nth = 1) e ON true \
     WHERE l.session = $1 ORDER BY e.seq";

const READ_BACK: &str = "SELECT l.*, e.* FROM session_logs l LEFT JOIN LATERAL ( \
     SELECT seq, at, source, kind, author, connection, payload, wire \
     FROM session_events WHERE log = l.log AND stream = $2 AND seq <= $3 \
         AND seq >= CASE WHEN $2 = 0 THEN l.first ELSE l.universal_first END \
     ORDER BY seq DESC LIMIT $4) e ON true \
     WHERE l.session = $1 ORDER BY e.seq DESC";

/// A stream as a column.
pub(crate) fn stream_column(stream: Stream) -> i16 {
    match stream {
        Stream::Log => 0,
        Stream::Universal => 1,
    }
}

#[async_trait]
impl SessionStore for PostgresStore {
    async fn session_insert(&self, session: &Session) -> Result<()> {
        sessions::insert(&mut self.client().await?, session).await
    }

    async fn session_update(&self, session: &Session) -> Result<()> {
        sessions::update(&self.client().await?, session).await
    }

    async fn session_fetch(&self, id: &SessionId) -> Result<Option<Session>> {
        let sql = "SELECT * FROM sessions WHERE id = $1";
        first(
            &self.client().await?,
            WHAT,
            sql,
            &[&id.as_str()],
            session_from_row,
        )
        .await
    }

    async fn session_by_name(
        &self,
        sandbox: &SandboxId,
        face: SessionFace,
        name: &str,
    ) -> Result<Option<Session>> {
        let sql = "SELECT * FROM sessions \
                   WHERE sandbox = $1 AND face = $2 AND name = $3 AND holds_name = 1";
        let args: [Arg<'_>; 3] = [&sandbox.as_str(), &face.as_str(), &Text(name)];
        first(&self.client().await?, WHAT, sql, &args, session_from_row).await
    }

    async fn session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        page: &PageRequest,
    ) -> Result<Page<Session>> {
        let list = Listing::new(WHAT, List::Sessions, "sessions", "created_at", true);
        let mut list = list.text("workspace", workspace.as_str());
        if let Some(sandbox) = &filter.sandbox {
            list = list.text("sandbox", sandbox.as_str());
        }
        if let Some(face) = filter.face {
            list = list.text("face", face.as_str());
        }
        if let Some(agent) = &filter.agent {
            list = list.text("agent", agent);
        }
        list = match filter.active {
            Some(true) => list.when("ended_at IS NULL"),
            Some(false) => list.when("ended_at IS NOT NULL"),
            None => list,
        };
        let convert = |row: &dyn Columns| session_from_row(row).map(Some);
        list.page(&self.client().await?, page, convert, |last| {
            (last.created_at.as_millis(), last.id.to_string())
        })
        .await
    }

    async fn session_claim(&self, id: &SessionId) -> Result<(Session, LogEnd)> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let sql = "UPDATE session_logs SET epoch = epoch + 1 WHERE session = $1 RETURNING *";
        let end = first(&transaction, WHAT, sql, &[&id.as_str()], log_row_from_row).await?;
        let sql = "SELECT * FROM sessions WHERE id = $1";
        let session = first(&transaction, WHAT, sql, &[&id.as_str()], session_from_row).await?;
        let both = session
            .zip(end)
            .ok_or(StoreError::NotFound { what: WHAT })?;
        commit(transaction, WHAT).await?;
        Ok((both.0, both.1.end))
    }

    async fn session_append(&self, append: SessionAppend) -> Result<LogEnd> {
        self.appends.append(append).await
    }

    async fn session_read(
        &self,
        id: &SessionId,
        stream: Stream,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<SessionSlice> {
        let args: [Arg<'_>; 5] = [
            &id.as_str(),
            &stream_column(stream),
            &to_sql_int(after),
            &to_sql_int(limit),
            &to_sql_int(bytes),
        ];
        let rows = rows(&self.client().await?, WHAT, READ, &args).await?;
        slice(&rows, id, stream)
    }

    async fn session_read_back(
        &self,
        id: &SessionId,
        stream: Stream,
        upto: u64,
        limit: usize,
    ) -> Result<SessionSlice> {
        let args: [Arg<'_>; 4] = [
            &id.as_str(),
            &stream_column(stream),
            &to_sql_int(upto),
            &to_sql_int(limit),
        ];
        let rows = rows(&self.client().await?, WHAT, READ_BACK, &args).await?;
        slice(&rows, id, stream)
    }

    async fn session_trim(&self, id: &SessionId, stream: Stream, before: u64) -> Result<LogEnd> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let sql = "SELECT * FROM session_logs WHERE session = $1 FOR UPDATE";
        let row = first(&transaction, WHAT, sql, &[&id.as_str()], log_row_from_row).await?;
        let row = row.ok_or(StoreError::NotFound { what: WHAT })?;
        let (log, mut end) = (row.log, row.end);
        let (sql, last, first) = match stream {
            Stream::Log => (
                "UPDATE session_logs SET first = $2 WHERE session = $1",
                end.log,
                &mut end.log_first,
            ),
            Stream::Universal => (
                "UPDATE session_logs SET universal_first = $2 WHERE session = $1",
                end.universal,
                &mut end.universal_first,
            ),
        };
        let new = before.min(last + 1).max(*first);
        if new > *first {
            *first = new;
            let new: i64 = to_sql_int(new);
            change(&transaction, WHAT, sql, &[&id.as_str(), &new]).await?;
            let sql = "INSERT INTO session_trash (log, stream, before) VALUES ($1, $2, $3)";
            let stream = stream_column(stream);
            change(&transaction, WHAT, sql, &[&log, &stream, &new]).await?;
        }
        commit(transaction, WHAT).await?;
        self.appends.sweep();
        Ok(end)
    }

    async fn session_turns(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Turn>> {
        let sql = "SELECT * FROM session_turns \
                   WHERE log = (SELECT log FROM sessions WHERE id = $1) \
                   AND number > $2 ORDER BY number LIMIT $3";
        let args: [Arg<'_>; 3] = [&id.as_str(), &to_sql_int(after), &to_sql_int(limit)];
        all(&self.client().await?, "turn", sql, &args, turn_from_row).await
    }

    async fn session_remove(&self, id: &SessionId) -> Result<bool> {
        let removed = sessions::remove(&mut self.client().await?, id.as_str()).await?;
        self.appends.sweep();
        Ok(removed)
    }

    async fn session_scan(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionId>> {
        let sql = "SELECT id FROM sessions WHERE id > $1 ORDER BY id LIMIT $2";
        let after = after.map_or("", SessionId::as_str);
        let args: [Arg<'_>; 2] = [&after, &to_sql_int(limit)];
        all(&self.client().await?, WHAT, sql, &args, |row| {
            id_column(row, WHAT, "id")
        })
        .await
    }

    async fn session_ended(&self, before: Timestamp, limit: usize) -> Result<Vec<SessionId>> {
        let sql = "SELECT id FROM sessions WHERE ended_at IS NOT NULL AND ended_at < $1 \
                   ORDER BY ended_at, id LIMIT $2";
        let args: [Arg<'_>; 2] = [&before.as_millis(), &to_sql_int(limit)];
        all(&self.client().await?, WHAT, sql, &args, |row| {
            id_column(row, WHAT, "id")
        })
        .await
    }
}

/// Rows of the log's end, each with an entry or, if there is none, one without.
fn slice(rows: &[Row], id: &SessionId, stream: Stream) -> Result<SessionSlice> {
    let first = rows.first().ok_or(StoreError::NotFound { what: WHAT })?;
    let end = log_row_from_row(&Cells(first))?.end;
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let row = &Cells(row);
        let there: Option<i64> = get(row, WHAT, "seq")?;
        if there.is_some() {
            events.push(event(row, id, stream)?);
        }
    }
    Ok(SessionSlice { end, events })
}

fn event(row: &dyn Columns, id: &SessionId, stream: Stream) -> Result<SessionEvent> {
    let what = "session event";
    let source: String = get(row, what, "source")?;
    let mut sources = Source::ALL.into_iter();
    Ok(SessionEvent {
        session: id.clone(),
        sequence: count_column(row, what, "seq")?,
        event: NewSessionEvent {
            stream,
            at: time_column(row, what, "at")?,
            source: sources
                .find(|known| known.as_str() == source)
                .ok_or_else(|| corrupt(what, format!("unknown source `{source}`")))?,
            kind: get(row, what, "kind")?,
            author: get(row, what, "author")?,
            connection: get(row, what, "connection")?,
            payload: get(row, what, "payload")?,
            wire: get(row, what, "wire")?,
        },
    })
}
