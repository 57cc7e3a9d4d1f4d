//! The faces over a real engine with a store in memory and a driver that makes nothing.

mod agent;
mod auth;
mod data;
mod e2b;
mod fixture;
mod golden;
mod malformed;
mod native;
mod persist;
mod reach;
mod sandbox_sessions;
mod secrets;
mod sleep;
mod templates;
mod tenancy;
mod volumes;
