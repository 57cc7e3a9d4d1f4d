//! Failures as they cross the socket: a stable code and a sentence for people.

use serde::{Deserialize, Serialize};

/// What kind of failure it was. The wire names are stable; a name this build does not know reads
/// as [`ErrorCode::Internal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    NotFound,
    AlreadyExists,
    NotADirectory,
    IsADirectory,
    PermissionDenied,
    InvalidArgument,
    /// The user named in the request is not in the sandbox's passwd file.
    UnknownUser,
    /// Disk space or quota is used up.
    NoSpace,
    TooLarge,
    /// A limit on simultaneous work was reached; trying again later may succeed.
    Busy,
    Unsupported,
    /// The process has ended.
    ProcessGone,
    /// The stream asked for (stdin) is closed.
    Closed,
    /// Nothing accepted the connection.
    ConnectionRefused,
    #[serde(other)]
    Internal,
}

/// The payload of an error frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub code: ErrorCode,
    pub message: String,
}

impl ErrorBody {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ErrorBody {}
