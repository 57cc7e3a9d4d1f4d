//! A scriptable agent that speaks the Agent Client Protocol, for tests, demonstrations and
//! benchmarks: newline-delimited JSON-RPC on stdin and stdout, no model, no network, no clock in
//! its answers. What a prompt may say is in `docs/reference/mock-agent.md`.
//!
//! [`Mock`] is pure: lines in, [`Action`]s out. [`run`] carries the actions out on real streams.
#![forbid(unsafe_code)]

mod action;
mod message;
mod mock;
mod parse;
mod program;
mod run;
mod script;
mod session;
mod turn;

pub use action::{Action, Job};
pub use mock::{Mock, Options};
pub use program::program;
pub use run::{Host, Process, run};
