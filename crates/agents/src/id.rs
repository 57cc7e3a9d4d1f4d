//! Names of agents.

use std::fmt;
use std::str::FromStr;

use woodfrog_types::{Code, Fault};

/// An agent this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgentId {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// OpenCode.
    Opencode,
    /// Amp.
    Amp,
    /// Pi.
    Pi,
    /// Cursor's command line.
    Cursor,
    /// Gemini CLI.
    Gemini,
    /// The scriptable agent for tests.
    Mock,
}

impl AgentId {
    /// Every agent, in the order of listings.
    pub const ALL: [Self; 8] = [
        Self::Claude,
        Self::Codex,
        Self::Opencode,
        Self::Amp,
        Self::Pi,
        Self::Cursor,
        Self::Gemini,
        Self::Mock,
    ];

    /// The name on the wire and in paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Amp => "amp",
            Self::Pi => "pi",
            Self::Cursor => "cursor",
            Self::Gemini => "gemini",
            Self::Mock => "mock",
        }
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that no agent has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsupported agent: {0}")]
pub struct Unknown(pub String);

impl FromStr for AgentId {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        let found = Self::ALL.into_iter().find(|id| id.as_str() == name);
        found.ok_or_else(|| Unknown(name.chars().take(64).collect()))
    }
}

impl From<Unknown> for Fault {
    fn from(unknown: Unknown) -> Self {
        Self::new(Code::UnsupportedAgent, unknown.to_string()).with_field("agent")
    }
}
