//! Failures of the ports, as callers may see them.

use woodfrog_sandbox::DriverError;
use woodfrog_store::StoreError;
use woodfrog_types::{Code, Fault};

/// A failed call of the store.
pub(crate) fn store(error: StoreError) -> Fault {
    match error {
        StoreError::InvalidCursor => Fault::invalid("cursor", "invalid page cursor"),
        StoreError::Constraint { what } => {
            Fault::new(Code::AlreadyExists, format!("{what} exists already"))
        }
        StoreError::Conflict { what } => Fault::new(
            Code::Transitioning,
            format!("{what} was changed at the same time; try again"),
        ),
        StoreError::Fenced { what } => Fault::new(
            Code::Transitioning,
            format!("{what} was taken over by another server; try again"),
        ),
        StoreError::NotFound { what } => Fault::new(Code::NotFound, format!("{what} not found")),
        error @ StoreError::Unavailable(_) => {
            Fault::new(Code::Unavailable, "the store is out of reach").because(error)
        }
        error @ StoreError::Corrupt { .. } => Fault::internal(error),
    }
}

/// A failed call of the driver, while the sandbox exists.
pub(crate) fn driver(error: DriverError) -> Fault {
    match error {
        DriverError::NotFound { id } => Fault::sandbox_not_found(&id),
        DriverError::Invalid { field, detail } => Fault::invalid(field, detail),
        DriverError::Unsupported { what, hint } => Fault::new(
            Code::Unsupported,
            format!("{what} is not supported on this machine: {hint}"),
        ),
        DriverError::Capacity { detail } => {
            tracing::warn!(detail, "the machine has no capacity");
            Fault::new(
                Code::CapacityUnavailable,
                "the machine has no room for another sandbox now",
            )
        }
        error @ DriverError::Guest { .. } => Fault::new(
            Code::GuestUnresponsive,
            "the guest in the sandbox does not answer",
        )
        .because(error),
        DriverError::Checkpoint {
            reason, transient, ..
        } => {
            let code = match transient {
                true => Code::Transitioning,
                false => Code::CheckpointFailed,
            };
            let text = format!("the memory of the sandbox cannot be saved: {reason}");
            Fault::new(code, text)
        }
        DriverError::Snapshot { id, reason } => Fault::new(
            Code::SnapshotUnusable,
            format!("the snapshot {id} cannot be used: {reason}"),
        ),
        error @ (DriverError::AlreadyExists { .. } | DriverError::Step { .. }) => {
            Fault::internal(error)
        }
    }
}

/// Why a sandbox could not be made. What the caller can act on keeps its code; everything else is
/// one code, with the cause in the log.
pub(crate) fn create(fault: Fault) -> Fault {
    match fault.code {
        Code::InvalidArgument
        | Code::Unsupported
        | Code::CapacityUnavailable
        | Code::NoSpace
        | Code::SnapshotUnusable
        | Code::Unavailable
        | Code::CreateFailed => fault,
        code => Fault::new(
            Code::CreateFailed,
            format!("the sandbox could not be created ({code}); nothing of it is left"),
        )
        .because(fault),
    }
}

/// The server is going down.
pub(crate) fn stopping() -> Fault {
    Fault::new(Code::Unavailable, "the server is shutting down")
}
