//! The E2B control plane's shapes.
//!
//! Requests ignore unknown fields and accept `null` for what is optional, as E2B does. Replies
//! always carry every field that E2B's clients require.

pub mod error;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod sandbox;
pub mod secret;
pub mod sleep;
pub mod snapshot;
pub mod tag;
pub mod template;
pub mod volume;

pub use error::ErrorBody;

/// The daemon version that clients gate features by.
pub const ENVD_VERSION: &str = "0.6.13";
/// Deprecated by E2B, but required in replies; means nothing.
pub const CLIENT_ID: &str = "woodfrog";
