//! Workspaces: who is in them, what they may use, and how they go.

mod api;
mod limits;
pub(crate) mod removal;
mod sleep;

pub use api::{MEMBERS_MAX, OWNED_MAX};
pub use removal::{Removal, WorkspaceContent};
