//! The engine: one owner task per sandbox, deadlines, recovery, templates, keys.
//!
//! Faces call it with a [`Principal`](woodfrog_types::key::Principal) and get domain values or a
//! [`Fault`](woodfrog_types::Fault); it never knows which face called. It reaches the world only
//! through its [`Ports`].
#![forbid(unsafe_code)]

pub mod access;
mod agent_sandbox;
pub mod archive;
mod audit;
mod engine;
mod fault;
pub mod follow;
mod grants;
mod guest;
pub mod images;
mod inner;
mod keys;
mod layers;
pub mod lease;
mod life;
pub mod persist;
mod ports;
mod rates;
pub mod request;
mod sandbox;
mod sandbox_sessions;
mod secrets;
mod tasks;
mod template;
pub mod transition;
pub mod view;
mod volumes;
mod workspaces;

pub use woodfrog_volumes as volume;

pub use access::{Attachment, GuestLease, Reach, SandboxAccess};
pub use archive::{Archive, ArchiveError};
pub use audit::{AUDIT_PART_MAX, AuditCheck, AuditReport, ReportRow};
pub use engine::Engine;
pub use images::{CopyRequest, ImageError, Images, ImportSource, LayerOnDisk, ProgressSink};
pub use keys::{GRACE_MAX, Identity, TokenVerifier};
pub use layers::CollectedLayers;
pub use life::Life;
pub use ports::{EgressAuthority, KeyPolicy, Options, Ports, Sweep};
pub use rates::RateVerdict;
pub use request::{
    CheckpointRequest, CreateSandbox, DeadlineChange, ForkRequest, HibernateRequest, NewKey,
    NewTemplate, ResumeRequest, StartBuild, TemplateBase, TemplateStep,
};
pub use sandbox::{EVENTS_MAX, FORK_MAX};
pub use sandbox_sessions::{NewSandboxSession, SandboxSessionView, SessionCaller};
pub use secrets::SecretValue;
pub use view::{
    BuildView, CreatedKey, FileSlot, GcReport, Hold, NextRung, Resumed, SandboxView,
    SleepDefaultsView, Slept, TagAssignment, TemplateView, Touched, Wakefulness,
};
pub use volumes::{VolumeContent, VolumeView};
pub use workspaces::{MEMBERS_MAX, OWNED_MAX, Removal, WorkspaceContent};
