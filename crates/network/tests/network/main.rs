//! The network for real, in namespaces of its own. Needs root and `nft`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod attach;
mod policy;
mod rules;
mod support;
mod tunnel;
mod web;
