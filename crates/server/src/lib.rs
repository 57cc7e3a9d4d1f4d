//! HTTP: every face of Woodfrog on one port.
//!
//! A face is a thin adapter: extract, convert to domain values, call the engine, convert back.
//! No face talks to a store or a driver, and none knows of the others.
#![forbid(unsafe_code)]

pub mod agent;
pub mod e2b;
pub mod envd;

pub mod gateway;
mod input;
pub mod native;
pub mod observe;
pub mod serve;
mod session_stream;
mod sessions;
pub mod state;
mod transfer;
pub mod trpc;

pub use state::{App, ServerOptions, control};
