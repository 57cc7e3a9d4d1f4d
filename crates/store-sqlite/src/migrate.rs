//! Numbered migrations, forward only. Each runs in one transaction together with its row in
//! `schema_migrations`, so a crash leaves either none or all of it.

use rusqlite::{Connection, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use woodfrog_types::Timestamp;

use crate::OpenError;

/// One file of `migrations/`. A released one never changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal $file:literal,)*) => {
        /// All of them, numbered from 1 without a gap.
        pub(crate) const MIGRATIONS: &[Migration] = &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../migrations/", $file)),
        },)*];
    };
}

migrations! {
    1 "initial" "0001_initial.sql",
    2 "sleep" "0002_sleep.sql",
    3 "secrets" "0003_secrets.sql",
    4 "sandbox_sessions" "0004_sandbox_sessions.sql",
    5 "sessions" "0005_sessions.sql",
    6 "workspaces" "0006_workspaces.sql",
    7 "runs" "0007_runs.sql",
    8 "billing" "0008_billing.sql",
    9 "analytics" "0009_analytics.sql",
    10 "days" "0010_days.sql",
    11 "artifacts" "0011_artifacts.sql",
    12 "volume_sizes" "0012_volume_sizes.sql",
    13 "sleep_kept" "0013_sleep_kept.sql",
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INTEGER PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// Applies what is missing. Two processes may do so at once: the second finds it done.
pub(crate) fn run(conn: &mut Connection, known: &[Migration]) -> Result<(), OpenError> {
    // A look first: a file that is refused is not written to.
    let done = check(conn, known)?;
    for migration in &known[done..] {
        apply(conn, known, migration)?;
    }
    Ok(())
}

/// How many of `known` are applied; an error if the file's history is not a beginning of it.
fn check(conn: &Connection, known: &[Migration]) -> Result<usize, OpenError> {
    let applied = applied(conn)?;
    let newest = known.last().map_or(0, |migration| migration.version);
    if let Some((found, ..)) = applied.last().filter(|(version, ..)| *version > newest) {
        return Err(OpenError::FutureVersion {
            found: *found,
            known: newest,
        });
    }
    for (index, (version, name, sum)) in applied.iter().enumerate() {
        let same = known
            .get(index)
            .is_some_and(|ours| ours.version == *version && checksum(ours.sql) == *sum);
        if !same {
            return Err(OpenError::ChangedMigration {
                version: *version,
                name: name.clone(),
            });
        }
    }
    Ok(applied.len())
}

/// Version, name and checksum of what was applied, in order.
fn applied(conn: &Connection) -> rusqlite::Result<Vec<(i64, String, String)>> {
    if !conn.table_exists(None, "schema_migrations")? {
        return Ok(Vec::new());
    }
    let mut statement =
        conn.prepare("SELECT version, name, checksum FROM schema_migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn apply(
    conn: &mut Connection,
    known: &[Migration],
    migration: &Migration,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Migration {
        version: migration.version,
        name: migration.name.to_owned(),
        source,
    };
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    // Now that nobody else can write: another process may have been first.
    let done = check(&transaction, known)?;
    if known[..done].iter().any(|m| m.version == migration.version) {
        return Ok(());
    }
    transaction.execute_batch(migration.sql).map_err(failed)?;
    transaction
        .execute(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at) \
             VALUES (?1, ?2, ?3, ?4)",
            params![
                migration.version,
                migration.name,
                checksum(migration.sql),
                Timestamp::now().as_millis()
            ],
        )
        .map_err(failed)?;
    transaction.commit().map_err(failed)?;
    tracing::info!(
        version = migration.version,
        name = migration.name,
        "migrated the database"
    );
    Ok(())
}

/// SHA-256 of the text, hex.
fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How SQLite would run a query on a fresh file.
#[cfg(test)]
pub(crate) fn plan(sql: &str) -> String {
    let mut conn = Connection::open_in_memory().unwrap();
    run(&mut conn, MIGRATIONS).unwrap();
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let nulls = vec![rusqlite::types::Null; statement.parameter_count()];
    let rows = statement
        .query_map(rusqlite::params_from_iter(nulls), |row| {
            row.get::<_, String>(3)
        })
        .unwrap();
    let rows: rusqlite::Result<Vec<_>> = rows.collect();
    rows.unwrap().join("; ")
}

#[cfg(test)]
mod tests;
