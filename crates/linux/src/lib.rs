//! Kernel mechanisms, synchronous. The only crate of the workspace that may use `unsafe`.

pub mod btrfs;
pub mod caps;
pub mod cgroup;
mod command;
pub mod criu;
pub mod fdpass;
pub mod idmap;
pub mod launcher;
pub mod limits;
pub mod memory;
pub mod netns;
pub mod overlay;
pub mod packages;
pub mod pool;
pub mod probe;
pub mod process;
pub mod runsc;
pub mod seccomp;
pub mod selfctl;
pub mod skeleton;
pub mod spawn;
pub mod stage;
mod sys;
