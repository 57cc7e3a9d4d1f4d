//! Failures of conversations, as callers may see them.

use woodfrog_acp::Failure;
use woodfrog_types::{Code, Fault};

/// A failure as callers may see it.
pub(crate) fn failure(failure: Failure) -> Fault {
    match failure {
        Failure::Exited(end) => {
            let mut text = format!("agent process exited ({})", end.status);
            if !end.stderr.is_empty() {
                text.push_str("; its last words: ");
                text.push_str(&end.stderr.join("\n"));
            }
            Fault::new(Code::AgentExited, text)
        }
        Failure::NotStarted { code, message } => Fault::new(code, message),
        Failure::Ended { reason } => Fault::new(
            Code::Conflict,
            format!("the session is over ({reason}); make another"),
        ),
        Failure::Unknown { what } => Fault::new(Code::NotFound, format!("no such {what}")),
        Failure::Answered => Fault::new(
            Code::Conflict,
            "nobody waits for that answer: another was first, or it was withdrawn",
        ),
        Failure::UnderWay => Fault::new(
            Code::Conflict,
            "a turn goes on, or the agent is being started; cancel it or wait for its end first",
        ),
        Failure::Busy => Fault::new(
            Code::RateLimited,
            "too much waits for this agent already; try again when some of it is answered",
        ),
    }
}
