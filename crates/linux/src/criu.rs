//! CRIU, which checkpoints and restores processes: finding it, installing it apart from the
//! system, talking to it, and proving on this machine that it works.

mod ahead;
mod cache;
mod call;
mod find;
mod install;
mod lazy;
mod proto;
mod refusal;
mod release;
mod rpc;
mod selftest;
mod subject;
mod worker;

pub use crate::packages::{InstallError, Note};
pub use ahead::{Obstacle, obstacles};
pub use find::{Criu, Found, Version, default_prefix, find};
pub use install::install;
pub use lazy::{LazyPages, PageDaemon, allow_lazy_pages, lazy_pages, pages_are_in, restore_lazily};
pub use refusal::Refusal;
pub use release::release_connections;
pub use rpc::{
    After, DumpSpec, ExternalMount, ExternalTree, Images, NetworkMode, Notice, Notify, POST_DUMP,
    RestoreSpec, RpcError, SETUP_NAMESPACES, check, dump, restore,
};
pub use selftest::{Owner, Program, SelfTest, SelfTestError, selftest};
pub use subject::{PORT as SUBJECT_PORT, subject_main};
