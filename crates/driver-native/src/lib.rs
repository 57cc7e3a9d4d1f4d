//! The native driver: sandboxes from the kernel's own namespaces, overlayfs and cgroups.
//!
//! It keeps a note on disk for each sandbox it made, so that a server that starts after a crash
//! knows what runs without asking anybody. It never forks: launchers do.
#![forbid(unsafe_code)]

mod ahead;
mod driver;
mod egress;
mod error;
mod instance;
mod launch;
mod launcher;
mod launchers;
mod locks;
mod note;
mod paths;
mod reconcile;
mod seed;
mod slots;
mod socket;
mod start;
mod usage;

pub use driver::NativeDriver;
pub use error::StartError;
pub use paths::{Paths, instance_id};
pub use start::NativeOptions;
