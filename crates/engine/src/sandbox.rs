//! Sandboxes: one owner task for each that is in memory, and the calls that reach it.

mod api;
pub use api::EVENTS_MAX;
pub(crate) use api::{check_page, may_see};

pub(crate) mod attic;
pub(crate) mod copies;
pub(crate) mod create;
mod data;
pub(crate) mod deadline;
mod find;
pub(crate) mod gate;
mod hidden;
mod holds;
pub(crate) mod launch;
pub(crate) mod live;
pub(crate) mod metrics;
pub(crate) mod owner;
mod place;
pub(crate) mod recover;
pub(crate) mod scrub;
mod settle;
pub(crate) mod shelf;
mod sleep_api;
mod snapshots;
pub(crate) mod spares;
pub(crate) mod sweep;
pub(crate) mod warm;

pub use copies::FORK_MAX;
