//! Sessions with a real process at the other end.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

mod acp;
mod common;
mod managed;
mod readers;
mod retention;
mod turns;
