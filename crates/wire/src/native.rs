//! The native API's shapes. Times are milliseconds since the epoch, UTC; sizes are bytes.
//!
//! Requests refuse unknown fields: a misspelt option is an error and not a surprise.

pub mod artifact;
pub mod audit;
pub mod billing;
pub mod exec;
pub mod file;
pub mod info;
pub mod key;
pub mod network;
pub mod page;
pub mod persist;
pub mod problem;
pub mod run;
pub mod sandbox;
pub mod sandbox_session;
pub mod session;
pub mod sleep;
pub mod snapshot;
pub mod template;
pub mod volume;
pub mod workspace;
