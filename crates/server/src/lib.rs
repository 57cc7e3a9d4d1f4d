//! HTTP: every face of Woodfrog on one port.
//!
//! A face is a thin adapter: extract, convert to domain values, call the engine, convert back.
//! No face talks to a store or a driver, and none knows of the others.
#![forbid(unsafe_code)]

pub mod agent;
pub mod door;
pub mod e2b;
pub mod envd;

pub mod gateway;
mod input;
pub mod native;
pub mod observe;
pub mod oidc;
mod paying;
pub mod serve;
mod session_stream;
mod sessions;
pub mod state;
mod traced;
mod transfer;
pub mod trpc;
pub mod ws;

pub use state::{App, ServerOptions, control};
