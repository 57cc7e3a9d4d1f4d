//! The daemon that E2B clients expect in a sandbox, served by us on its port.

pub(crate) mod auth;
pub(crate) mod connect;
pub(crate) mod multipart;
pub(crate) mod range;

/// The port that clients find the daemon on.
pub const PORT: u16 = 49983;
