//! What the two faces of sandbox sessions share.

use http::HeaderMap;
use woodfrog_engine::{SandboxSessionView, SessionCaller};
use woodfrog_types::key::Principal;
use woodfrog_types::limits::FOREIGN_ID_BYTES_MAX;
use woodfrog_types::{Fault, Timestamp};
use woodfrog_wire::native::sandbox_session::SandboxSession;

/// The field with which a caller names the user it acts for.
const USER: &str = "x-user-id";

/// Who asks: the key's principal, for the user that the request names, if it names one.
pub(crate) fn caller(principal: Principal, headers: &HeaderMap) -> Result<SessionCaller, Fault> {
    let user = headers.get(USER).map(|value| match value.to_str() {
        Ok(user) if (1..=FOREIGN_ID_BYTES_MAX).contains(&user.len()) => Ok(user.to_owned()),
        _ => {
            let text = format!("X-User-Id must be 1 to {FOREIGN_ID_BYTES_MAX} ASCII characters");
            Err(Fault::invalid("X-User-Id", text))
        }
    });
    Ok(SessionCaller {
        principal,
        user: user.transpose()?,
    })
}

/// The record as both faces show it.
pub(crate) fn record(view: SandboxSessionView) -> SandboxSession {
    let session = view.session;
    let millis = view.auto_pause.map(|after| after.as_millis());
    SandboxSession {
        id: session.id.to_string(),
        creation_time: session.created_at.as_millis(),
        sandbox_id: session.sandbox.to_string(),
        project_id: session.project,
        user_id: session.user,
        framework: session.framework.into(),
        state: view.state.into(),
        last_activity: view.last_activity.as_millis(),
        auto_pause_timeout: millis.map_or(0, |millis| u64::try_from(millis).unwrap_or(u64::MAX)),
        paused_at: view.paused_at.map(Timestamp::as_millis),
        created_at: session.created_at.as_millis(),
        updated_at: view.updated_at.as_millis(),
    }
}
