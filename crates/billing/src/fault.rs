//! From the store's errors to faults.

use woodfrog_store::StoreError;
use woodfrog_types::{Code, Fault};

/// What a caller learns of an error of the store.
pub(crate) fn store(error: StoreError) -> Fault {
    let code = match &error {
        StoreError::Conflict { .. } | StoreError::Fenced { .. } => Code::Conflict,
        StoreError::Constraint { .. } => Code::AlreadyExists,
        StoreError::NotFound { .. } => Code::NotFound,
        StoreError::InvalidCursor => {
            return Fault::invalid("cursor", "the cursor is not one of this list");
        }
        StoreError::Unavailable(_) => Code::Unavailable,
        StoreError::Corrupt { .. } => Code::Internal,
    };
    let text = match code {
        Code::Internal => "internal error".to_owned(),
        Code::Unavailable => "the database is out of reach".to_owned(),
        Code::Conflict => "it was changed by somebody else meanwhile: look again".to_owned(),
        _ => error.to_string(),
    };
    Fault::new(code, text).because(error)
}
