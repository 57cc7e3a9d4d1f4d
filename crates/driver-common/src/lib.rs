//! What the drivers share: numbers, locks, network namespaces, and files that every sandbox has.
#![forbid(unsafe_code)]

pub mod ahead;
pub mod egress;
pub mod ended;
pub mod locks;
mod name;
pub mod net;
pub mod seed;
pub mod slots;

pub use name::instance_id;

use woodfrog_sandbox::DriverError;

/// A failed step with its cause.
pub fn step(
    step: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DriverError {
    DriverError::Step {
        step: step.to_owned(),
        source: source.into(),
    }
}
