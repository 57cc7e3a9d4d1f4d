//! What CRIU's refusals mean to those who use the sandbox.

use woodfrog_linux::criu::RpcError;

/// A refusal, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) text: String,
    /// It may be gone a moment later.
    pub(crate) transient: bool,
}

/// What it says at every start where it may not raise its own limit on open files.
const NOISE: &str = "RLIMIT_NOFILE";

/// The first complaint of a log: the later ones follow from it.
fn complaint(log: &str) -> Option<&str> {
    let is_complaint = |line: &&str| line.contains("Error") && !line.contains(NOISE);
    log.lines().find(is_complaint).map(str::trim)
}

/// Why there is no checkpoint.
pub(crate) fn of(error: &RpcError) -> Reason {
    if let Some(refusal) = error.refusal() {
        return Reason {
            text: refusal.to_string(),
            transient: refusal.transient(),
        };
    }
    let text = match error {
        RpcError::Refused { log, .. } => match complaint(log) {
            Some(line) => format!("CRIU says: {line}"),
            None => "CRIU refused without a reason".to_owned(),
        },
        RpcError::Died { .. } => "CRIU ended unexpectedly".to_owned(),
        RpcError::Timeout { timeout, .. } => format!("it took longer than {timeout:?}"),
        RpcError::Start(_) => "CRIU could not be started".to_owned(),
        RpcError::GivenUp(_) | RpcError::Io(_) => "the snapshot could not be written".to_owned(),
    };
    Reason {
        text,
        transient: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_complaint_that_means_something_is_told() {
        let log = "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self\n\
                   Error (criu/namespaces.c:235): Can't open 7/ns/net on procfs\n\
                   Error (criu/cr-dump.c:1975): Dumping FAILED.";
        assert_eq!(
            complaint(log),
            Some("Error (criu/namespaces.c:235): Can't open 7/ns/net on procfs")
        );
        assert_eq!(complaint("nothing wrong"), None);
    }
}
