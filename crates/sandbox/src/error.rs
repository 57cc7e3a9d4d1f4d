//! What can go wrong in a driver.

/// A failed call of a driver.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("no sandbox `{id}` on this machine")]
    NotFound { id: String },
    #[error("sandbox `{id}` exists already")]
    AlreadyExists { id: String },
    /// The driver cannot do this here. `hint` says how to get it.
    #[error("{what} is not supported by this driver on this machine: {hint}")]
    Unsupported { what: String, hint: String },
    /// A value of the spec cannot be used: a malformed network rule, a missing layer.
    #[error("invalid {field}: {detail}")]
    Invalid { field: String, detail: String },
    /// The machine is out of something: addresses, disk, processes.
    #[error("no capacity: {detail}")]
    Capacity { detail: String },
    /// The guest did not come up or does not answer.
    #[error("guest of `{id}` does not answer: {detail}")]
    Guest { id: String, detail: String },
    /// The sandbox's memory cannot be saved; it goes on as before. `reason` is for the caller.
    #[error("no checkpoint of `{id}`: {reason}")]
    Checkpoint {
        id: String,
        reason: String,
        /// Whether the same call may succeed a moment later.
        transient: bool,
    },
    /// The snapshot is missing, damaged, or not for this machine or driver.
    #[error("snapshot `{id}` cannot be used: {reason}")]
    Snapshot { id: String, reason: String },
    /// A step of the kernel's failed; the sandbox was undone.
    #[error("{step} failed")]
    Step {
        step: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
