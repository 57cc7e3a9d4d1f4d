//! What can go wrong, told apart by what the caller can do about it.

use std::path::PathBuf;

/// An error of archives.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such archive, or a chunk it needs is gone.
    #[error("{0} is not in the archive store")]
    NotFound(String),
    /// What was read is not what was written.
    #[error("{what} is damaged: {why}")]
    Corrupt { what: String, why: String },
    /// Written by another version of the program.
    #[error("{what} has format version {found}, this program reads version {readable}")]
    Foreign {
        what: String,
        found: u32,
        readable: u32,
    },
    /// The folder to be stored cannot be read, or holds what an archive cannot.
    #[error("cannot archive {}: {why}", path.display())]
    Source { path: PathBuf, why: String },
    /// The folder cannot be made.
    #[error("cannot restore {}: {why}", path.display())]
    Target { path: PathBuf, why: String },
    /// The store refused or could not be reached.
    #[error("archive store, {action}: {source}")]
    Backend {
        action: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An upload took so long that the garbage collection may have overtaken it.
    #[error("the upload took longer than {0:?}; raise the grace period of the archive store")]
    TooSlow(std::time::Duration),
    /// The setting `archive.url` names no store.
    #[error("archive.url: {0}")]
    Setting(String),
}

/// A result of archives.
pub type Result<T> = std::result::Result<T, BlobError>;

impl BlobError {
    pub(crate) fn corrupt(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Corrupt {
            what: what.into(),
            why: why.to_string(),
        }
    }

    pub(crate) fn ended(action: &str, source: tokio::task::JoinError) -> Self {
        Self::Backend {
            action: action.into(),
            source: Box::new(source),
        }
    }
}
