//! CRIU, which checkpoints and restores processes: finding it, installing it apart from the
//! system, talking to it, and proving on this machine that it works.

mod find;
mod install;
mod install_apt;
mod proto;
mod rpc;
mod selftest;
mod subject;

pub use find::{Criu, Found, Version, default_prefix, find};
pub use install::{InstallError, Note, install};
pub use rpc::{
    After, DumpSpec, ExternalMount, Images, Notice, Notify, RestoreSpec, RpcError, check, dump,
    restore,
};
pub use selftest::{Program, SelfTest, SelfTestError, selftest};
pub use subject::subject_main;
