//! Records whose columns say everything.

use std::time::Duration;

use woodfrog_store::{
    IdempotencyEntry, IdempotencyOutcome, PersistedEvent, PersistedSession, Result,
};
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::key::{ApiKey, KeyReach, PreviousSecret, Scope};
use woodfrog_types::sandbox_session::{Framework, SandboxSession};
use woodfrog_types::secret::{Sealed, Secret, Volume};
use woodfrog_types::template::BuildLogLine;

use crate::workspace::{role_column, user_in};
use crate::{
    Columns, corrupt, count_column, count_column_opt, get, id_column, json_column, level_column,
    time_column, time_column_opt,
};

const EVENT: &str = "event";
const KEY: &str = "key";
const SECRET: &str = "secret";
const VOLUME: &str = "volume";
const CLAIM: &str = "idempotency key";
const PERSISTED_SESSION: &str = "persisted session";
const PERSISTED_EVENT: &str = "persisted event";
const LINE: &str = "build log line";
const SANDBOX_SESSION: &str = "sandbox session";

pub fn event_from_row(row: &dyn Columns) -> Result<SandboxEvent> {
    Ok(SandboxEvent {
        sandbox: id_column(row, EVENT, "sandbox")?,
        seq: count_column(row, EVENT, "seq")?,
        at: time_column(row, EVENT, "at")?,
        level: level_column(row, EVENT, "level")?,
        kind: get(row, EVENT, "kind")?,
        message: get(row, EVENT, "message")?,
        fields: json_column(row, EVENT, "fields")?,
    })
}

pub fn scope_to_stored(scope: Scope) -> &'static str {
    match scope {
        Scope::Admin => "admin",
        Scope::Workspace => "workspace",
    }
}

pub fn key_from_row(row: &dyn Columns) -> Result<ApiKey> {
    let scope: String = get(row, KEY, "scope")?;
    let reach: String = get(row, KEY, "reach")?;
    Ok(ApiKey {
        id: id_column(row, KEY, "id")?,
        workspace: id_column(row, KEY, "workspace")?,
        name: get(row, KEY, "name")?,
        scope: [Scope::Admin, Scope::Workspace]
            .into_iter()
            .find(|known| scope_to_stored(*known) == scope)
            .ok_or_else(|| corrupt(KEY, format!("unknown scope `{scope}`")))?,
        user: match get::<Option<String>>(row, KEY, "user_name")? {
            None => None,
            Some(user) => Some(user_in(KEY, &user)?),
        },
        role: role_column(row, KEY)?,
        reach: KeyReach::parse(&reach)
            .ok_or_else(|| corrupt(KEY, format!("unknown reach `{reach}`")))?,
        hint: get(row, KEY, "hint")?,
        digest: get(row, KEY, "digest")?,
        previous: previous(row)?,
        created_at: time_column(row, KEY, "created_at")?,
        expires_at: time_column_opt(row, KEY, "expires_at")?,
        last_used_at: time_column_opt(row, KEY, "last_used_at")?,
    })
}

fn previous(row: &dyn Columns) -> Result<Option<PreviousSecret>> {
    let digest = row.bytes(KEY, "previous_digest")?;
    let until = time_column_opt(row, KEY, "previous_until")?;
    let (Some(digest), Some(until)) = (digest, until) else {
        return Ok(None);
    };
    let digest = <[u8; 32]>::try_from(digest.as_slice());
    let digest = digest.map_err(|_| corrupt(KEY, "the digest before has another length"))?;
    Ok(Some(PreviousSecret { digest, until }))
}

pub fn secret_from_row(row: &dyn Columns) -> Result<Secret> {
    Ok(Secret {
        id: id_column(row, SECRET, "id")?,
        workspace: id_column(row, SECRET, "workspace")?,
        name: get(row, SECRET, "name")?,
        version: count_column(row, SECRET, "version")?,
        metadata: json_column(row, SECRET, "metadata")?,
        value: Sealed(get(row, SECRET, "value")?),
        created_at: time_column(row, SECRET, "created_at")?,
        updated_at: time_column(row, SECRET, "updated_at")?,
    })
}

pub fn volume_from_row(row: &dyn Columns) -> Result<Volume> {
    Ok(Volume {
        id: id_column(row, VOLUME, "id")?,
        workspace: id_column(row, VOLUME, "workspace")?,
        name: get(row, VOLUME, "name")?,
        size_bytes: count_column_opt(row, VOLUME, "size_bytes")?,
        created_at: time_column(row, VOLUME, "created_at")?,
    })
}

pub fn entry_from_row(row: &dyn Columns) -> Result<IdempotencyEntry> {
    let result: Option<String> = get(row, CLAIM, "result")?;
    Ok(IdempotencyEntry {
        workspace: id_column(row, CLAIM, "workspace")?,
        key: get(row, CLAIM, "key")?,
        fingerprint: get(row, CLAIM, "fingerprint")?,
        claimed_at: time_column(row, CLAIM, "claimed_at")?,
        outcome: match result {
            None => IdempotencyOutcome::InProgress,
            Some(result) => IdempotencyOutcome::Done { result },
        },
    })
}

pub fn persisted_session_from_row(row: &dyn Columns) -> Result<PersistedSession> {
    Ok(PersistedSession {
        id: get(row, PERSISTED_SESSION, "id")?,
        created_at: get(row, PERSISTED_SESSION, "created_at")?,
        record: get(row, PERSISTED_SESSION, "record")?,
    })
}

pub fn persisted_event_from_row(row: &dyn Columns) -> Result<PersistedEvent> {
    Ok(PersistedEvent {
        id: get(row, PERSISTED_EVENT, "id")?,
        session: get(row, PERSISTED_EVENT, "session")?,
        index: count_column(row, PERSISTED_EVENT, "place")?,
        record: get(row, PERSISTED_EVENT, "record")?,
    })
}

pub fn line_from_row(row: &dyn Columns) -> Result<BuildLogLine> {
    Ok(BuildLogLine {
        at: time_column(row, LINE, "at")?,
        level: level_column(row, LINE, "level")?,
        step: get(row, LINE, "step")?,
        message: get(row, LINE, "message")?,
    })
}

pub fn sandbox_session_from_row(row: &dyn Columns) -> Result<SandboxSession> {
    let name: String = get(row, SANDBOX_SESSION, "framework")?;
    let framework = Framework::ALL
        .into_iter()
        .find(|known| known.as_str() == name)
        .ok_or_else(|| corrupt(SANDBOX_SESSION, format!("unknown framework `{name}`")))?;
    Ok(SandboxSession {
        id: id_column(row, SANDBOX_SESSION, "id")?,
        workspace: id_column(row, SANDBOX_SESSION, "workspace")?,
        sandbox: id_column(row, SANDBOX_SESSION, "sandbox")?,
        project: get(row, SANDBOX_SESSION, "project")?,
        user: get(row, SANDBOX_SESSION, "user")?,
        framework,
        auto_pause: Duration::from_millis(count_column(row, SANDBOX_SESSION, "auto_pause_ms")?),
        created_at: time_column(row, SANDBOX_SESSION, "created_at")?,
        updated_at: time_column(row, SANDBOX_SESSION, "updated_at")?,
        last_activity: time_column(row, SANDBOX_SESSION, "last_activity")?,
        ended_at: time_column_opt(row, SANDBOX_SESSION, "ended_at")?,
    })
}
