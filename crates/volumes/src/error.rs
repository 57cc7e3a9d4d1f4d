//! What can go wrong, as callers tell it apart.

use rustix::io::Errno;

/// Why an operation was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The path or an attribute is not acceptable.
    #[error("{0}")]
    Invalid(String),
    #[error("path '{0}' not found")]
    NotFound(String),
    #[error("path '{0}' exists already")]
    Exists(String),
    #[error("path '{0}' is not a directory")]
    NotADirectory(String),
    #[error("path '{0}' is a directory")]
    IsADirectory(String),
    #[error("the disk is full, or the volume has reached its limit")]
    NoSpace,
    /// The system failed in another way.
    #[error("path '{path}': {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
}

impl VolumeError {
    /// What the system said about `path`.
    pub(crate) fn of(path: &str, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let path = path.to_owned();
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Self::NotFound(path),
            Some(Errno::EXIST) => Self::Exists(path),
            Some(Errno::NOTDIR) => Self::NotADirectory(path),
            Some(Errno::ISDIR) => Self::IsADirectory(path),
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace,
            Some(Errno::XDEV) => Self::Invalid(format!("path '{path}' leads out of the volume")),
            Some(Errno::LOOP) => Self::Invalid(format!("path '{path}' is a symbolic link")),
            Some(Errno::NAMETOOLONG) => Self::Invalid("the path is too long".to_owned()),
            _ => Self::Io {
                path,
                source: error,
            },
        }
    }
}
