//! What E2B clients say to the daemon in a sandbox ("envd"): Connect RPC messages in proto3 JSON
//! and the bodies of its REST routes.
//!
//! proto3 JSON asks readers for tolerance: a missing field and `null` are the default, unknown
//! fields are skipped, 64-bit integers may be strings, field names may be in either case.

mod filesystem;
mod process;
mod proto3;
mod rest;

pub use filesystem::*;
pub use process::*;
pub use proto3::{Blob, decode_base64, rfc3339_nanos};
pub use rest::*;
