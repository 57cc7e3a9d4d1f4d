//! The command line: the tree of commands, the layered configuration, and the client commands.
//!
//! It knows the native API and nothing of the engine; `serve` and `doctor`, which need the
//! server's parts, are handed to the binary as resolved values.
#![forbid(unsafe_code)]

pub mod args;
pub mod client;
pub mod command;
pub mod config;
pub mod output;

pub use args::{Cli, Command};
pub use config::{Config, ConfigError, Origin};
