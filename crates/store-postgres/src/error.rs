//! From Postgres' errors to the port's.

use deadpool_postgres::{BuildError, PoolError};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use woodfrog_store::StoreError;

/// The store cannot be opened. Nothing was changed by the step that failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A name that is not safe in a statement.
    #[error("`{0}` is no name of a schema: small letters, digits and `_`, not a digit first")]
    Schema(String),
    /// The database refused, or the URL cannot be read.
    #[error("cannot open the database")]
    Postgres(#[from] Error),
    /// No connection in time.
    #[error("cannot connect to the database")]
    Connect(#[from] PoolError),
    /// The pool cannot be made.
    #[error("cannot prepare connections to the database")]
    Pool(#[source] BuildError),
    /// A newer Woodfrog wrote this database.
    #[error(
        "the database has schema version {found}, this build knows up to {known}: \
         use the newer build that wrote it"
    )]
    FutureVersion { found: i64, known: i64 },
    /// The recorded migrations are not the ones of this build.
    #[error("migration {version:04}_{name} differs from the one that made this database")]
    ChangedMigration { version: i64, name: String },
    /// A migration failed and was rolled back.
    #[error("migration {version:04}_{name} failed and was rolled back")]
    Migration {
        version: i64,
        name: String,
        #[source]
        source: Error,
    },
}

/// What `fence` of `migrations/0006_nodes.sql` raises.
const FENCED: &str = "WF001";

/// Converts an error of a statement on records called `what`.
pub(crate) fn store_error(what: &'static str, error: Error) -> StoreError {
    match error.code() {
        Some(code) if *code == SqlState::UNIQUE_VIOLATION => StoreError::Constraint { what },
        Some(code) if code.code() == FENCED => StoreError::Fenced { what },
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// `.map_err(in_("sandbox"))`.
pub(crate) fn in_(what: &'static str) -> impl Fn(Error) -> StoreError {
    move |error| store_error(what, error)
}
