//! From SQLite's errors to the port's.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use woodfrog_store::StoreError;

use crate::stored::corrupt;

/// The store cannot be opened. Nothing in the file was changed by the step that failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be created or made private.
    #[error("cannot prepare the database file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot open the database")]
    Sqlite(#[from] rusqlite::Error),
    /// A thread of the store could not be started.
    #[error("cannot start a thread of the store")]
    Thread(#[source] std::io::Error),
    /// A newer Woodfrog wrote this file.
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
        source: rusqlite::Error,
    },
}

/// Converts an error of a statement on records called `what`.
pub(crate) fn store_error(what: &'static str, error: rusqlite::Error) -> StoreError {
    use rusqlite::Error as E;
    match error {
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..) => corrupt(what, error),
        E::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::ConstraintViolation => StoreError::Constraint { what },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => corrupt(what, error),
            _ => StoreError::Unavailable(Box::new(error)),
        },
        other => StoreError::Unavailable(Box::new(other)),
    }
}

/// `.map_err(in_("sandbox"))`.
pub(crate) fn in_(what: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| store_error(what, error)
}

/// The store's thread is gone: it is closing, or a defect ended it.
#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
pub(crate) struct Closed;

pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable(Box::new(Closed))
}
