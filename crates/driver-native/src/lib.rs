//! The native driver: sandboxes from the kernel's own namespaces, overlayfs and cgroups.
//!
//! It keeps a note on disk for each sandbox it made, so that a server that starts after a crash
//! knows what runs without asking anybody. It never forks: launchers do.
#![forbid(unsafe_code)]

mod checkpoint;
mod clock;
mod disk;
mod driver;
mod error;
mod freeze;
mod images;
mod instance;
mod launch;
mod launcher;
mod launchers;
mod manifest;
mod note;
mod pages;
mod paging;
mod paths;
mod reason;
mod reconcile;
mod restore;
mod snapshots;
mod socket;
mod start;
mod usage;
mod volumes;

use woodfrog_driver_common::{ahead, egress, locks, seed, slots};

pub use driver::NativeDriver;
pub use error::StartError;
pub use paging::LazyPages;
pub use paths::{Paths, instance_id};
pub use start::NativeOptions;
pub use woodfrog_driver_common::egress::EgressOptions;
pub use woodfrog_driver_common::net::AUTHORITY;
