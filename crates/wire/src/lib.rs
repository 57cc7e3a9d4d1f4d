//! Request and response shapes of every face, and their conversions to domain values.
#![forbid(unsafe_code)]

pub mod agent;
pub mod e2b;
pub mod envd;
pub mod native;
pub mod trpc;
pub mod ws;
