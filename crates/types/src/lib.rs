//! The vocabulary of Woodfrog: ids, times, units, records and the error table.
//!
//! Every crate may depend on this one; it depends on none of ours. Nothing here does IO, and no
//! type here is a wire or a stored format: faces and stores convert.
#![forbid(unsafe_code)]

pub mod analytics;
pub mod artifact;
pub mod audit;
pub mod error;
pub mod event;
pub mod health;
pub mod id;
pub mod key;
pub mod limits;
pub mod metric;
pub mod network;
pub mod node;
pub mod page;
pub mod retention;
pub mod run;
pub mod sandbox;
pub mod sandbox_session;
pub mod secret;
pub mod session;
pub mod sleep;
pub mod snapshot;
pub mod template;
pub mod time;
pub mod trace;
pub mod usage;
pub mod webhook;
pub mod workspace;

pub use error::{Code, Fault};
pub use id::{
    ArtifactId, BuildId, KeyId, NodeId, RunId, SandboxId, SandboxSessionId, SecretId, SessionId,
    SnapshotId, TemplateId, VolumeId, WebhookId, WorkspaceId,
};
pub use time::Timestamp;
