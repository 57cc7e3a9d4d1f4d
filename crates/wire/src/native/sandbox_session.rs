//! Sandbox sessions. Their fields have the names that applications of the ZapDev kind store, the
//! only shapes of this API in camel case.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::sandbox_session::{Framework as DomainFramework, SessionState as DomainState};

/// What the project is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Framework {
    NextJs,
    Angular,
    React,
    Vue,
    Svelte,
}

/// What the session's sandbox does. `KILLED` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SessionState {
    Running,
    Paused,
    Killed,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSession {
    #[serde(rename = "_id")]
    pub id: String,
    #[serde(rename = "_creationTime")]
    pub creation_time: i64,
    pub sandbox_id: String,
    pub project_id: String,
    pub user_id: String,
    pub framework: Framework,
    /// Read from the sandbox.
    pub state: SessionState,
    /// The last use of the sandbox, of whatever kind.
    pub last_activity: i64,
    /// Idle for this long (ms) it is paused; 0 is never.
    pub auto_pause_timeout: u64,
    /// Since when it sleeps; absent while it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paused_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// A session to be remembered.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSandboxSession {
    pub sandbox_id: String,
    pub project_id: String,
    pub user_id: String,
    pub framework: Framework,
    /// Milliseconds; 600000 if absent or 0.
    #[serde(default)]
    pub auto_pause_timeout: Option<u64>,
}

/// What a session's sandbox is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StateChange {
    pub state: SessionState,
}

/// Which sessions a list wants, and which page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct SandboxSessionQuery {
    pub project_id: Option<String>,
    pub user_id: Option<String>,
    #[param(inline)]
    pub state: Option<SessionState>,
    /// Items of the page, 1 to 100; 100 if absent.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

macro_rules! twins {
    ($($domain:ident = $wire:ident { $($variant:ident),* })*) => {$(
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => Self::$variant),* }
            }
        }

        impl From<$wire> for $domain {
            fn from(value: $wire) -> Self {
                match value { $($wire::$variant => Self::$variant),* }
            }
        }
    )*};
}

twins! {
    DomainFramework = Framework { NextJs, Angular, React, Vue, Svelte }
    DomainState = SessionState { Running, Paused, Killed }
}
