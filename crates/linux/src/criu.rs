//! CRIU, which checkpoints and restores processes: finding it, installing it apart from the
//! system, talking to it, and proving on this machine that it works.

mod find;
mod install;
mod install_apt;

pub use find::{Criu, Found, Version, default_prefix, find};
pub use install::{InstallError, Note, install};
