//! The content of volumes: a tree of files each, below one directory of the host.
//!
//! Paths come from outside. They are taken apart here and resolved by the kernel beneath the
//! volume's own directory (`openat2`), so that neither `..` nor a symbolic link leads out of it.
//! Synchronous: callers that must not wait bring a thread.
#![forbid(unsafe_code)]

mod entry;
mod error;
mod list;
mod path;
mod places;
mod tree;
mod upload;
mod volumes;

pub use entry::{Entry, EntryKind};
pub use error::VolumeError;
pub use list::{DEPTH_MAX, ENTRIES_MAX};
pub use places::Places;
pub use tree::{Attributes, Parents, Tree};
pub use upload::{Replace, Upload};
pub use volumes::Volumes;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, VolumeError>;
