//! What can go wrong in a store, without a driver's types.

/// A failed call of the store. Nothing was written unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record is not there.
    #[error("{what} not found")]
    NotFound { what: &'static str },
    /// Another writer was first.
    #[error("{what} was changed by another writer")]
    Conflict { what: &'static str },
    /// Another server has taken the lease of the sandbox that this is about.
    #[error("{what} is another server's now")]
    Fenced { what: &'static str },
    /// The record breaks a rule of the store: a name that must be unique is taken.
    #[error("{what} exists already")]
    Constraint { what: &'static str },
    /// A cursor that this store did not give out.
    #[error("invalid page cursor")]
    InvalidCursor,
    /// A stored record cannot be read.
    #[error("stored {what} is damaged: {detail}")]
    Corrupt { what: &'static str, detail: String },
    /// The store is closed, full or out of reach.
    #[error("store unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}
