//! Talks to the guest of one sandbox: one new connection per operation.
//!
//! Nothing the guest sends is trusted: frames, lists and counts are bounded, descriptors are
//! checked before they are used, and every operation has a deadline.
#![forbid(unsafe_code)]

mod client;
mod connect;
mod error;
mod fd;
mod files;
mod link;
mod process;
mod transfer;
mod watch;

pub use client::GuestClient;
pub use connect::{Connect, PathConnector};
pub use error::GuestError;
pub use files::{ListStream, Listing};
pub use process::{ProcessEvent, ProcessStream, StdinWriter};
pub use transfer::{ByteStream, FileRead, FileWriter};
pub use watch::WatchStream;
pub use woodfrog_guest_proto as proto;
