//! What end-to-end tests, the demo and the benchmarks share: a server under test, waiting for a
//! condition, and counting what is left on the machine.
#![forbid(unsafe_code)]

pub mod api;
pub mod collector;
pub mod http;
pub mod leftovers;
pub mod postgres;
pub mod program;
pub mod server;
pub mod setting;
pub mod soak;
pub mod wait;
pub mod websocket;

pub use leftovers::Leftovers;
pub use server::{ExecOutput, Server};
pub use setting::Setting;
pub use wait::wait_for;
