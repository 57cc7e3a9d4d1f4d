//! The data plane over real sockets, in front of real guests.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;
mod files;
mod filesystem;
mod gateway;
mod listener;
mod process;
mod sleep;
