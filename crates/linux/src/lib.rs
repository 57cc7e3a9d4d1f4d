//! Kernel mechanisms, synchronous. The only crate of the workspace that may use `unsafe`.

pub mod caps;
pub mod fdpass;
pub mod limits;
pub mod selfctl;
pub mod spawn;
