//! The engine: one owner task per sandbox, deadlines, recovery, templates, keys.
//!
//! Faces call it with a [`Principal`](woodfrog_types::key::Principal) and get domain values or a
//! [`Fault`](woodfrog_types::Fault); it never knows which face called. It reaches the world only
//! through its [`Ports`].
#![forbid(unsafe_code)]

pub mod access;
mod agent_sandbox;
mod engine;
mod fault;
pub mod follow;
mod guest;
pub mod images;
mod inner;
mod keys;
pub mod persist;
mod ports;
pub mod request;
mod sandbox;
mod sandbox_sessions;
mod secrets;
mod tasks;
mod template;
pub mod view;
mod volumes;

pub use woodfrog_volumes as volume;

pub use access::{Attachment, GuestLease, Reach, SandboxAccess};
pub use engine::Engine;
pub use images::{CopyRequest, ImageError, Images, ImportSource, ProgressSink};
pub use ports::{KeyPolicy, Options, Ports};
pub use request::{
    CheckpointRequest, CreateSandbox, DeadlineChange, ForkRequest, HibernateRequest, NewKey,
    NewTemplate, ResumeRequest, StartBuild, TemplateBase, TemplateStep,
};
pub use sandbox::{EVENTS_MAX, FORK_MAX};
pub use sandbox_sessions::{NewSandboxSession, SandboxSessionView, SessionCaller};
pub use secrets::SecretValue;
pub use view::{
    BuildView, CreatedKey, FileSlot, GcReport, Hold, NextRung, Resumed, SandboxView, Slept,
    TagAssignment, TemplateView, Touched, Wakefulness,
};
pub use volumes::{VolumeContent, VolumeView};
