//! Decisions without IO: what a sandbox may do next, what a request may ask for, who a token is.
//!
//! Nothing here knows a clock, a socket or an async runtime: `now` is an argument, and what must
//! happen in the world is returned as data.
#![forbid(unsafe_code)]

pub mod access;
pub mod admission;
pub mod artifact;
pub mod audit;
pub mod budget;
pub mod egress;
pub mod filter;
pub mod health;
pub mod key;
pub mod lifecycle;
pub mod limiter;
pub mod meter;
pub mod mounts;
pub mod names;
pub mod price;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod seal;
pub mod sleep;
pub mod token;
pub mod validate;
pub mod webhook;
