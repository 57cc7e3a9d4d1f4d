//! A sandbox session: what an application remembers about a sandbox that it gave to a user's
//! project. Whether it runs is not remembered: it is read from the sandbox itself.

use std::time::Duration;

use crate::sandbox::SandboxState;
use crate::{SandboxId, SandboxSessionId, Timestamp, WorkspaceId};

/// What a session sleeps after if nobody said.
pub const AUTO_PAUSE_DEFAULT: Duration = Duration::from_secs(600);

/// What the project in the sandbox is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framework {
    NextJs,
    Angular,
    React,
    Vue,
    Svelte,
}

impl Framework {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NextJs,
        Self::Angular,
        Self::React,
        Self::Vue,
        Self::Svelte,
    ];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NextJs => "NEXTJS",
            Self::Angular => "ANGULAR",
            Self::React => "REACT",
            Self::Vue => "VUE",
            Self::Svelte => "SVELTE",
        }
    }
}

/// What a session's sandbox does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    Running,
    /// It sleeps, on whatever rung.
    Paused,
    /// It is gone for good.
    Killed,
}

impl SessionState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Paused, Self::Killed];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Killed => "KILLED",
        }
    }

    /// Of a sandbox that is there.
    pub const fn of(sandbox: &SandboxState) -> Self {
        match sandbox {
            SandboxState::Creating | SandboxState::Running { .. } | SandboxState::Waking { .. } => {
                Self::Running
            }
            SandboxState::Paused { .. }
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. } => Self::Paused,
            SandboxState::Deleting { .. } => Self::Killed,
        }
    }

    /// The names ([`SandboxState::as_str`]) of the sandbox's states that it stands for;
    /// [`Self::Killed`] is also that of a sandbox that is not there at all.
    pub const fn sandbox_states(self) -> &'static [&'static str] {
        match self {
            Self::Running => &["creating", "running", "waking"],
            Self::Paused => &[
                "paused",
                "hibernating",
                "hibernated",
                "archiving",
                "archived",
            ],
            Self::Killed => &["deleting"],
        }
    }
}

/// A session, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSession {
    pub id: SandboxSessionId,
    /// The sandbox's.
    pub workspace: WorkspaceId,
    /// No other session has it.
    pub sandbox: SandboxId,
    /// The application's own name of the project.
    pub project: String,
    /// The application's own name of the user.
    pub user: String,
    pub framework: Framework,
    /// What was asked for; the sandbox's sleep policy is what counts while it is there.
    pub auto_pause: Duration,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The last use that was announced; the sandbox itself knows of all others.
    pub last_activity: Timestamp,
    /// When its sandbox was gone.
    pub ended_at: Option<Timestamp>,
}

/// Which sessions a list wants. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxSessionFilter {
    pub project: Option<String>,
    pub user: Option<String>,
    pub state: Option<SessionState>,
}
