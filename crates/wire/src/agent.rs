//! Shapes of the agent API: sandbox-agent 0.4 over HTTP.

pub mod agents;
pub mod config;
pub mod fs;
pub mod problem;
pub mod process;
