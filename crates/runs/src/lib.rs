//! Runs: one owner task for each run that goes on, its log, and its readers.
//!
//! What may happen to a run is decided in `core::run`; here is the IO around it. A run is carried
//! out in one way, whether it is tracked or not: its owner writes to a ledger, which is the store,
//! or memory for a run that nobody wants to keep. What was written is then shown, and never the
//! other way round.
#![forbid(unsafe_code)]

mod artifacts;
mod hooks;
mod kept;
mod options;
mod owner;
mod rates;
mod reader;
mod recover;
mod service;
mod tend;
mod work;

pub use woodfrog_artifacts::Files;

pub use hooks::{Free, Judgement, Pace, Prices, Purse, Traces};
pub use kept::not_found as artifact_not_found;
pub use options::Options;
pub use reader::RunReader;
pub use service::{Canceled, NewRun, Queued, RunView, RunWork, Runs};
pub use tend::Tended;
