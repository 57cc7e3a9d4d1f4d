//! The one table of stable error codes, and the error that crosses the engine's boundary.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $status:literal, $retry:ident;)*) => {
        /// A stable error code. Clients may match on its text; it never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {$(
            $(#[doc = $doc])+
            $name,
        )*}

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as clients see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status that goes with it.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What it means, in a sentence or two: the text of `docs/reference/errors.md`.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)* }
            }

            /// Whether the same request may succeed later without a change.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => codes!(@retry $retry),)* }
            }
        }
    };
    (@retry retry) => { true };
    (@retry final) => { false };
}

codes! {
    /// The request is malformed or a field has a value that is not allowed.
    InvalidArgument = "invalid_argument", 400, final;
    /// No credential, or one that is not valid.
    Unauthenticated = "unauthenticated", 401, final;
    /// The credential is valid but does not allow this.
    PermissionDenied = "permission_denied", 403, final;
    /// No such sandbox, or it belongs to another workspace.
    SandboxNotFound = "sandbox_not_found", 404, final;
    /// No such template, or it is not visible to this workspace.
    TemplateNotFound = "template_not_found", 404, final;
    /// The template has no finished build (under that tag).
    TemplateNotReady = "template_not_ready", 409, final;
    /// No such build of that template.
    BuildNotFound = "build_not_found", 404, final;
    /// No such API key.
    KeyNotFound = "key_not_found", 404, final;
    /// No such workspace, or the caller is not in it.
    WorkspaceNotFound = "workspace_not_found", 404, final;
    /// No such snapshot, or it belongs to another workspace.
    SnapshotNotFound = "snapshot_not_found", 404, final;
    /// No such sandbox session, or it belongs to another workspace or user.
    SandboxSessionNotFound = "sandbox_session_not_found", 404, final;
    /// No such session, or it belongs to another workspace.
    SessionNotFound = "session_not_found", 404, final;
    /// No such run, or it belongs to another workspace.
    RunNotFound = "run_not_found", 404, final;
    /// No such artifact, or it belongs to another workspace.
    ArtifactNotFound = "artifact_not_found", 404, final;
    /// What was asked for is no longer in the log; the earliest place is named.
    Trimmed = "trimmed", 410, final;
    /// The agent process ended, or could not be started.
    AgentExited = "agent_process_exited", 500, retry;
    /// Another server has taken the session over.
    SessionTaken = "session_taken", 409, retry;
    /// The snapshot is damaged, of another format, or of a machine that this one cannot stand in for.
    SnapshotUnusable = "snapshot_unusable", 409, final;
    /// The memory of the sandbox cannot be saved; it goes on as before. The message says why.
    CheckpointFailed = "checkpoint_failed", 409, final;
    /// The sandbox could not be brought back; its snapshot is untouched.
    WakeFailed = "wake_failed", 503, retry;
    /// The sandbox sleeps and this face does not wake it: resume it first.
    Asleep = "sandbox_asleep", 409, final;
    /// The workspace's quota of disk is used up.
    QuotaExceeded = "quota_exceeded", 507, final;
    /// The workspace's budget for this month is used up, and it is a hard limit.
    BudgetExceeded = "budget_exceeded", 402, final;
    /// No such webhook, or it belongs to another workspace.
    WebhookNotFound = "webhook_not_found", 404, final;
    /// No such file or directory in the sandbox.
    FileNotFound = "file_not_found", 404, final;
    /// No such process in the sandbox.
    ProcessNotFound = "process_not_found", 404, final;
    /// No such route, watcher or other thing.
    NotFound = "not_found", 404, final;
    /// The thing exists already.
    AlreadyExists = "already_exists", 409, final;
    /// The state of the thing does not allow this now.
    Conflict = "conflict", 409, final;
    /// The sandbox is starting or ending; the same call works a moment later.
    Transitioning = "transitioning", 409, retry;
    /// An idempotency key was used again with another request.
    IdempotencyMismatch = "idempotency_request_mismatch", 422, final;
    /// The request with this idempotency key is still running.
    IdempotencyInProgress = "idempotency_in_progress", 409, retry;
    /// A body, list or file is over its limit.
    TooLarge = "too_large", 413, final;
    /// A rate or concurrency limit of the caller.
    RateLimited = "rate_limited", 429, retry;
    /// The sandbox's disk is full or over its limit.
    NoSpace = "no_space", 507, final;
    /// This server, driver or version does not do that (yet).
    Unsupported = "unsupported", 501, final;
    /// The machine has no room for another sandbox now.
    CapacityUnavailable = "sandbox_capacity_unavailable", 503, retry;
    /// The sandbox could not be made; nothing of it is left.
    CreateFailed = "sandbox_create_failed", 500, final;
    /// The guest in the sandbox did not answer in time.
    GuestUnresponsive = "guest_unresponsive", 503, retry;
    /// There is no agent of this name, or what was asked for is not possible with it.
    UnsupportedAgent = "unsupported_agent", 400, final;
    /// The agent is not in the sandbox, and this server does not install agents by itself.
    AgentNotInstalled = "agent_not_installed", 404, final;
    /// The agent could not be installed; the message has the last lines of the installer.
    InstallFailed = "install_failed", 500, final;
    /// Nothing listens on that port in the sandbox.
    PortNotOpen = "port_not_open", 502, retry;
    /// It took longer than allowed.
    DeadlineExceeded = "deadline_exceeded", 504, retry;
    /// The server is shutting down or a part of it is out of reach.
    Unavailable = "unavailable", 503, retry;
    /// A defect of ours. The log has the details under the request id.
    Internal = "internal", 500, final;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed: a stable code, a sentence for the caller, the offending field if one
/// is to blame, and the internal cause, which goes to logs and never to the caller.
#[derive(Debug)]
pub struct Fault {
    /// The stable code.
    pub code: Code,
    /// For the caller: what, why, and what to do. Holds no secret and no host path.
    pub message: String,
    /// The request's field that is to blame, in the engine's names: `network.allow_out[2]`.
    pub field: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// A fault with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            source: None,
        }
    }

    /// An invalid value in `field`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message).with_field(field)
    }

    /// Names the offending field.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Attaches the internal cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A defect of ours; the caller learns nothing but that.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "internal error").because(source)
    }

    /// The text that the E2B API uses for a sandbox that is not there.
    pub fn sandbox_not_found(id: &str) -> Self {
        Self::new(
            Code::SandboxNotFound,
            format!("Sandbox \"{id}\" doesn't exist or you don't have access to it"),
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| {
            let source: &(dyn std::error::Error + 'static) = source.as_ref();
            source
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
    }

    #[test]
    fn the_internal_cause_is_not_shown() {
        let fault = Fault::internal(std::io::Error::other("secret path"));
        assert_eq!(fault.to_string(), "internal error");
        assert!(std::error::Error::source(&fault).is_some());
    }
}
