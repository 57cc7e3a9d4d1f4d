//! The engine: one owner task per sandbox, deadlines, recovery, templates, keys.
//!
//! Faces call it with a [`Principal`] and get domain values or a [`Fault`]; it never knows which
//! face called. It reaches the world only through the store's and the driver's ports.
#![forbid(unsafe_code)]

pub mod access;
pub mod request;
pub mod view;

pub use access::{GuestLease, SandboxAccess};
pub use request::{
    CreateSandbox, DeadlineChange, NewKey, NewTemplate, StartBuild, TemplateBase, TemplateStep,
};
pub use view::{BuildView, CreatedKey, FileSlot, SandboxView, TemplateView};
mod stub;
pub use stub::Engine;
