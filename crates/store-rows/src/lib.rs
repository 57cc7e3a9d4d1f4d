//! Records as they are in a database: the same for every adapter that speaks SQL. Columns that are queried are columns; the rest of a record
//! is JSON with a version in `v`. A changed form is a new variant next to the old one, which
//! stays readable. Domain types have no serde and change freely.

#![forbid(unsafe_code)]

mod billing;
mod build;
mod run;
mod sandbox;
mod session;
mod sleep;
mod snapshot;

mod columns;
mod log;
mod mount;
mod small;
mod workspace;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use woodfrog_store::{Result, StoreError};
use woodfrog_types::Timestamp;
use woodfrog_types::event::Level;
use woodfrog_types::sandbox::Resources;

pub use billing::{
    alert_from_row, budget_from_row, delivery_from_row, happening_from_row, meter_from_row,
    prices_from_row, prices_to_json, spending_from_row, webhook_from_row, webhook_state_columns,
};
pub use build::{build_from_row, build_layers, build_to_json, image_layers};
pub use build::{template_from_row, template_to_json};
pub use columns::{Cell, Columns, get};
pub use log::{LogRow, log_row_from_row, turn_from_row};
pub use run::{
    UsageColumns, artifact_from_row, cost, run_ended_at, run_event_from_row, run_from_row,
    run_to_json, tokens, usage_columns, usage_from_row, usage_totals_from_row,
};
pub use sandbox::{sandbox_from_row, sandbox_to_json};
pub use session::{session_from_row, session_to_json};
pub use sleep::{
    hold_from_row, run_hold_from_row, sleep_defaults_from_row, sleep_defaults_to_json,
};
pub use small::{
    entry_from_row, event_from_row, key_from_row, line_from_row, persisted_event_from_row,
    persisted_session_from_row, sandbox_session_from_row, scope_to_stored, secret_from_row,
    volume_from_row,
};
pub use snapshot::{snapshot_from_row, snapshot_to_json};
pub use workspace::{
    audit_ends_from_row, audit_from_row, limits_from_row, limits_to_json, member_from_row,
    workspace_from_row, workspace_role_from_row,
};

pub type StringMap = BTreeMap<String, String>;

/// JSON text of a stored form.
pub fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String> {
    // Only maps with keys that are not strings can fail, and there are none.
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt {
        what,
        detail: error.to_string(),
    })
}

/// A JSON column.
pub fn json_column<T: DeserializeOwned>(
    row: &dyn Columns,
    what: &'static str,
    column: &str,
) -> Result<T> {
    let text: String = get(row, what, column)?;
    // serde_json's message holds positions and field names, but never values of maps.
    serde_json::from_str(&text).map_err(|error| corrupt(what, format!("{column}: {error}")))
}

/// A text column that holds an id.
pub fn id_column<T>(row: &dyn Columns, what: &'static str, column: &str) -> Result<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text: String = get(row, what, column)?;
    parse(what, &text)
}

pub fn parse<T>(what: &'static str, text: &str) -> Result<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| corrupt(what, error))
}

/// A column of milliseconds since the epoch.
pub fn time_column(row: &dyn Columns, what: &'static str, column: &str) -> Result<Timestamp> {
    get(row, what, column).map(Timestamp::from_millis)
}

/// The same, where NULL is `None`.
pub fn time_column_opt(
    row: &dyn Columns,
    what: &'static str,
    column: &str,
) -> Result<Option<Timestamp>> {
    let millis: Option<i64> = get(row, what, column)?;
    Ok(millis.map(Timestamp::from_millis))
}

/// A column that counts; SQLite's integers are signed.
pub fn count_column(row: &dyn Columns, what: &'static str, column: &str) -> Result<u64> {
    let value: i64 = get(row, what, column)?;
    u64::try_from(value).map_err(|_| corrupt(what, format!("{column} is negative: {value}")))
}

/// The same, where NULL is `None`.
pub fn count_column_opt(
    row: &dyn Columns,
    what: &'static str,
    column: &str,
) -> Result<Option<u64>> {
    let value: Option<i64> = get(row, what, column)?;
    let counted = |value: i64| {
        u64::try_from(value).map_err(|_| corrupt(what, format!("{column} is negative: {value}")))
    };
    value.map(counted).transpose()
}

pub fn level_column(row: &dyn Columns, what: &'static str, column: &str) -> Result<Level> {
    let text: String = get(row, what, column)?;
    [Level::Debug, Level::Info, Level::Warn, Level::Error]
        .into_iter()
        .find(|level| level.as_str() == text)
        .ok_or_else(|| corrupt(what, format!("unknown level `{text}`")))
}

/// A limit or offset of a query; more than SQLite can count is "no limit".
pub fn to_sql_int(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub fn duration_to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredResources {
    cpu_count: u32,
    memory_bytes: u64,
    disk_bytes: u64,
    pids: u32,
}

impl From<Resources> for StoredResources {
    fn from(resources: Resources) -> Self {
        let Resources {
            cpu_count,
            memory_bytes,
            disk_bytes,
            pids,
        } = resources;
        Self {
            cpu_count,
            memory_bytes,
            disk_bytes,
            pids,
        }
    }
}

impl From<StoredResources> for Resources {
    fn from(stored: StoredResources) -> Self {
        Self {
            cpu_count: stored.cpu_count,
            memory_bytes: stored.memory_bytes,
            disk_bytes: stored.disk_bytes,
            pids: stored.pids,
        }
    }
}

/// A record that cannot be read, and why.
pub fn corrupt(what: &'static str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        what,
        detail: detail.to_string(),
    }
}
