//! The file-system half of template builds. Commands run elsewhere, in sandboxes.

pub(crate) mod basics;
pub(crate) mod copy;
pub(crate) mod step;
mod users;
mod writer;
