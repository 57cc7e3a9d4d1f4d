//! Sessions with agents: one owner task per session that is in use, its log, and its readers.
//!
//! What a conversation means is decided in `woodfrog-acp`; here is the IO around it. An owner takes
//! what came, has it appended to the log in one transaction, and only then acts: gives the agent
//! its input, answers whoever waits, tells the readers. If anything goes wrong with the log the
//! owner ends, and the next one begins from what is stored.
#![forbid(unsafe_code)]

mod agent;
mod hub;
mod lines;
pub mod machines;
mod owner;
mod port;
mod reader;
mod retention;
mod service;

pub use hub::Ephemeral;
pub use port::Machines;
pub use reader::{Batch, Reader};
pub use retention::{Retainer, Swept};
pub use service::{
    AcpServer, Lines, NewSession, Options, Posted, Scope, SessionView, Sessions, TurnOutcome,
};
pub use woodfrog_acp as acp;
