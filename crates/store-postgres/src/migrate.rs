//! Numbered migrations, forward only. All that are missing run in one transaction together with
//! their rows in `schema_migrations`, so a crash leaves either none or all of them.

use deadpool_postgres::{Client, Transaction};
use sha2::{Digest, Sha256};
use woodfrog_types::Timestamp;

use crate::OpenError;

/// One file of `migrations/`. A released one never changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// All of them, numbered from 1 without a gap.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "initial",
        sql: include_str!("../migrations/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "workspaces",
        sql: include_str!("../migrations/0002_workspaces.sql"),
    },
    Migration {
        version: 3,
        name: "runs",
        sql: include_str!("../migrations/0003_runs.sql"),
    },
    Migration {
        version: 4,
        name: "billing",
        sql: include_str!("../migrations/0004_billing.sql"),
    },
    Migration {
        version: 5,
        name: "analytics",
        sql: include_str!("../migrations/0005_analytics.sql"),
    },
    Migration {
        version: 6,
        name: "nodes",
        sql: include_str!("../migrations/0006_nodes.sql"),
    },
    Migration {
        version: 7,
        name: "artifacts",
        sql: include_str!("../migrations/0007_artifacts.sql"),
    },
    Migration {
        version: 8,
        name: "volume_sizes",
        sql: include_str!("../migrations/0008_volume_sizes.sql"),
    },
    Migration {
        version: 9,
        name: "sleep_kept",
        sql: include_str!("../migrations/0009_sleep_kept.sql"),
    },
];

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version    BIGINT PRIMARY KEY,
    name       TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)";

/// Applies what is missing. Servers that start at the same time wait for each other.
pub(crate) async fn run(
    client: &mut Client,
    schema: &str,
    known: &[Migration],
) -> Result<(), OpenError> {
    let transaction = client.transaction().await?;
    let key = format!("woodfrog {schema}");
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    transaction.execute(lock, &[&key]).await?;
    // The name was checked: it is safe to be part of a statement.
    let made = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    transaction.batch_execute(&made).await?;
    transaction.batch_execute(TABLE).await?;
    let done = check(&transaction, known).await?;
    for migration in &known[done..] {
        apply(&transaction, migration).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// How many of `known` are applied; an error if the history is not a beginning of it.
async fn check(transaction: &Transaction<'_>, known: &[Migration]) -> Result<usize, OpenError> {
    let sql = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";
    let applied = transaction.query(sql, &[]).await?;
    let newest = known.last().map_or(0, |migration| migration.version);
    for (index, row) in applied.iter().enumerate() {
        let (version, name): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let sum: String = row.try_get(2)?;
        if version > newest {
            return Err(OpenError::FutureVersion {
                found: version,
                known: newest,
            });
        }
        let same = known
            .get(index)
            .is_some_and(|ours| ours.version == version && checksum(ours.sql) == sum);
        if !same {
            return Err(OpenError::ChangedMigration { version, name });
        }
    }
    Ok(applied.len())
}

async fn apply(transaction: &Transaction<'_>, migration: &Migration) -> Result<(), OpenError> {
    let Migration { version, name, sql } = *migration;
    let failed = |source| OpenError::Migration {
        version,
        name: name.to_owned(),
        source,
    };
    transaction.batch_execute(sql).await.map_err(failed)?;
    let row = "INSERT INTO schema_migrations (version, name, checksum, applied_at) \
               VALUES ($1, $2, $3, $4)";
    let now = Timestamp::now().as_millis();
    let sum = checksum(sql);
    let inserted = transaction
        .execute(row, &[&version, &name, &sum, &now])
        .await;
    inserted.map_err(failed)?;
    tracing::info!(version, name, "migrated the database");
    Ok(())
}

/// SHA-256 of the text, hex.
fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(sql.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_embedded_under_its_number() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let files = std::fs::read_dir(dir).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        let embedded: Vec<String> = MIGRATIONS
            .iter()
            .map(|migration| format!("{:04}_{}.sql", migration.version, migration.name))
            .collect();
        assert_eq!(names, embedded);
    }
}
