//! The faces over a real engine with a store in memory and a driver that makes nothing.

mod access;
mod agent;
mod artifacts;
mod auth;
mod billing;
mod data;
mod e2b;
mod fixture;
mod golden;
mod malformed;
mod native;
mod persist;
mod reach;
mod run_socket;
mod run_traces;
mod run_upkeep;
mod runs;
mod sandbox_sessions;
mod secrets;
mod sessions;
mod sleep;
mod templates;
mod tenancy;
mod volumes;
mod ws;
