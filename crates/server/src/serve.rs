//! One listener for all faces.

pub(crate) mod classify;
pub mod tls;
