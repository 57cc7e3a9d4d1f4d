//! The gVisor driver: sandboxes whose kernel is a program, `runsc`.
//!
//! What it shares with the native driver is the host's side: layers, cgroups, networks. Each sandbox
//! is one OCI container whose init is the guest, reached over TCP in the sandbox's own network.
//! What gVisor cannot do is refused with the reason; `docs/design/gvisor.md` has all of it.
#![forbid(unsafe_code)]

mod bundle;
mod driver;
mod error;
mod files;
mod instance;
mod launch;
mod manifest;
mod note;
mod paths;
mod reconcile;
mod relay;
mod restore;
mod runsc;
mod snapshot;
mod start;
mod usage;

pub use driver::GvisorDriver;
pub use error::StartError;
pub use paths::Paths;
pub use start::GvisorOptions;
pub use woodfrog_driver_common::egress::EgressOptions;
