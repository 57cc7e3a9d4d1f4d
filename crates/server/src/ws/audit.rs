//! What clients change, for the audit log: the same entries as of the other faces.

use woodfrog_core::access::Action;
use woodfrog_types::audit::AuditOutcome;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, SandboxId};

use super::machine::Failed;
use crate::door::{self, Call};
use crate::state::App;

/// The name of this face in the log.
pub(super) const FACE: &str = "ws";

/// Who wanted something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Client,
    /// Nobody did anything for too long.
    Idleness,
}

/// Writes down what one connection changes.
pub(super) struct Notes {
    pub(super) app: App,
    pub(super) principal: Principal,
    pub(super) request_id: String,
}

impl Notes {
    /// What came of an act on a sandbox, or of the wish for one.
    pub(super) async fn note(
        &self,
        action: Action,
        target: Option<&SandboxId>,
        cause: Cause,
        done: Result<(), &Failed>,
    ) {
        let call = Call {
            face: FACE,
            action,
            target: target.map(ToString::to_string).unwrap_or_default(),
            request_id: self.request_id.clone(),
        };
        let (outcome, detail) = match (done, cause) {
            (Ok(()), Cause::Client) => (AuditOutcome::Done, "ok"),
            (Ok(()), Cause::Idleness) => (AuditOutcome::Done, "idle"),
            (Err(failed), Cause::Client | Cause::Idleness) => {
                let code = failed.code.as_deref();
                // What has no code is what a client asked for and cannot have.
                let code = code.unwrap_or(Code::InvalidArgument.as_str());
                (AuditOutcome::Failed, code)
            }
        };
        door::note(&self.app, &self.principal, &call, outcome, detail).await;
    }
}
