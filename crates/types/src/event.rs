//! The log of one sandbox: what happened to it, in order.

use std::collections::BTreeMap;

use crate::{SandboxId, Timestamp};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// Lower-case name: `warn`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One entry of a sandbox's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxEvent {
    pub sandbox: SandboxId,
    /// Dense per sandbox, from 1.
    pub seq: u64,
    pub at: Timestamp,
    pub level: Level,
    /// A stable name: `sandbox.created`, `sandbox.deleted`, `sandbox.network_updated`.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    pub fields: BTreeMap<String, String>,
}
