//! The agents that sessions can have: which there are, what they can do, whether a machine has
//! them, how they get there and how they are started.
//!
//! A machine is whatever a [`woodfrog_guest_client::GuestClient`] reaches: a sandbox, or the
//! machine the server itself runs on. Nothing here speaks HTTP or the agents' protocol.
#![forbid(unsafe_code)]

mod agents;
mod capabilities;
mod catalog;
mod command;
mod host_store;
mod id;
mod install;
mod machine;
mod run;
mod status;
mod unpack;

pub use agents::{Agents, Preinstalled, Settings};
pub use capabilities::Capabilities;
pub use catalog::{Definition, Install, Kind, Launch, Package};
pub use command::LaunchOptions;
pub use host_store::{HostStore, StoreError, Stored};
pub use id::{AgentId, Unknown};
pub use install::{Artifact, InstallOptions, Installed};
pub use machine::Machine;
pub use status::{Source, Status};
