//! The engine: one owner task per sandbox, deadlines, recovery, templates, keys.
//!
//! Faces call it with a [`Principal`](woodfrog_types::key::Principal) and get domain values or a
//! [`Fault`](woodfrog_types::Fault); it never knows which face called. It reaches the world only
//! through its [`Ports`].
#![forbid(unsafe_code)]

pub mod access;
mod engine;
mod fault;
mod guest;
pub mod images;
mod inner;
mod keys;
mod ports;
pub mod request;
mod sandbox;
mod tasks;
mod template;
pub mod view;

pub use access::{GuestLease, SandboxAccess};
pub use engine::Engine;
pub use images::{CopyRequest, ImageError, Images, ImportSource, ProgressSink};
pub use ports::{KeyPolicy, Options, Ports};
pub use request::{
    CreateSandbox, DeadlineChange, NewKey, NewTemplate, StartBuild, TemplateBase, TemplateStep,
};
pub use sandbox::EVENTS_MAX;
pub use view::{BuildView, CreatedKey, FileSlot, SandboxView, TemplateView};
