//! Sessions: records. Their logs are in `session_log`, and appending in `append`.

use deadpool_postgres::{Client, GenericClient};
use woodfrog_store::{Result, StoreError};
use woodfrog_store_rows::{get, session_to_json};
use woodfrog_types::session::{Session, SessionState};

use crate::client::{Arg, begin, change, commit, first, generation, refused};
use crate::text::Text;

pub(crate) const WHAT: &str = "session";

pub(crate) async fn insert(client: &mut Client, session: &Session) -> Result<()> {
    if session.generation != 1 {
        return Err(StoreError::Conflict { what: WHAT });
    }
    let transaction = begin(client, WHAT).await?;
    let sql = "INSERT INTO sessions (id, workspace, sandbox, face, name, holds_name, agent, \
               generation, created_at, updated_at, ended_at, body) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    write_row(&transaction, sql, session, 1).await?;
    let sql = "INSERT INTO session_logs (session, log) SELECT id, log FROM sessions WHERE id = $1";
    change(&transaction, WHAT, sql, &[&session.id.as_str()]).await?;
    commit(transaction, WHAT).await
}

pub(crate) async fn update(client: &impl GenericClient, session: &Session) -> Result<()> {
    let exists = "SELECT 1 FROM sessions WHERE id = $1";
    let Ok(generation) = generation(WHAT, session.generation) else {
        return Err(refused(client, WHAT, exists, session.id.as_str()).await);
    };
    let sql = "UPDATE sessions SET workspace = $2, sandbox = $3, face = $4, name = $5, \
               holds_name = $6, agent = $7, generation = $8, created_at = $9, updated_at = $10, \
               ended_at = $11, body = $12 WHERE id = $1 AND generation = $8::bigint - 1";
    match write_row(client, sql, session, generation).await? {
        0 => Err(refused(client, WHAT, exists, session.id.as_str()).await),
        _ => Ok(()),
    }
}

async fn write_row(
    client: &impl GenericClient,
    sql: &str,
    session: &Session,
    generation: i64,
) -> Result<u64> {
    let ended_at = match &session.state {
        SessionState::Active => None,
        SessionState::Ended { at, .. } => Some(at.as_millis()),
    };
    let body = session_to_json(session)?;
    let args: [Arg<'_>; 12] = [
        &session.id.as_str(),
        &session.workspace.as_str(),
        &session.sandbox.as_str(),
        &session.face.as_str(),
        &Text(&session.name),
        &i64::from(session.holds_name),
        &Text(&session.agent),
        &generation,
        &session.created_at.as_millis(),
        &session.updated_at.as_millis(),
        &ended_at,
        &body,
    ];
    change(client, WHAT, sql, &args).await
}

/// Removes the session and what is its; the entries of its logs are thrown away later.
pub(crate) async fn remove(client: &mut Client, id: &str) -> Result<bool> {
    let transaction = begin(client, WHAT).await?;
    // First the row that an append locks first.
    let sql = "DELETE FROM session_logs WHERE session = $1 RETURNING log";
    let log = first(&transaction, WHAT, sql, &[&id], |row| {
        get::<i64>(row, WHAT, "log")
    })
    .await?;
    let Some(log) = log else {
        return Ok(false);
    };
    for sql in [
        "DELETE FROM sessions WHERE log = $1",
        "DELETE FROM session_turns WHERE log = $1",
        "INSERT INTO session_trash (log, stream, before) \
         VALUES ($1, 0, 9223372036854775807), ($1, 1, 9223372036854775807)",
    ] {
        change(&transaction, WHAT, sql, &[&log]).await?;
    }
    commit(transaction, WHAT).await?;
    Ok(true)
}
