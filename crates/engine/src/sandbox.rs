//! Sandboxes: one owner task each, and the calls that reach it.

mod api;
pub use api::EVENTS_MAX;
pub(crate) use api::{check_page, may_see};

pub(crate) mod create;
mod data;
pub(crate) mod deadline;
pub(crate) mod launch;
pub(crate) mod live;
pub(crate) mod metrics;
pub(crate) mod owner;
pub(crate) mod recover;
