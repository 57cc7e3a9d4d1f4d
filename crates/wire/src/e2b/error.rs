//! The one error shape. Clients decide by `code`, so it is always the HTTP status.

use serde::{Deserialize, Serialize};

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub code: u16,
    pub message: String,
    /// A stable name of what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}
