//! Whether the server takes one more sandbox.

use woodfrog_types::{Code, Fault};

/// How many sandboxes may exist at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    pub server: usize,
    pub workspace: usize,
}

/// How many exist now, those on their way in or out included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    pub server: usize,
    pub workspace: usize,
}

/// Refuses the sandbox that would exceed a cap. The workspace's own cap is named first: it is the
/// one that its owner can do something about.
pub fn admit(present: Present, caps: Caps) -> Result<(), Fault> {
    if present.workspace >= caps.workspace {
        return Err(Fault::new(
            Code::RateLimited,
            format!(
                "the workspace has {} sandboxes, the most it may have; delete one first",
                present.workspace
            ),
        ));
    }
    if present.server >= caps.server {
        return Err(Fault::new(
            Code::CapacityUnavailable,
            "the server holds as many sandboxes as it may; try again later",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_inclusive() {
        let caps = Caps {
            server: 3,
            workspace: 2,
        };
        let ask = |server, workspace| {
            admit(Present { server, workspace }, caps).map_err(|fault| fault.code)
        };
        assert_eq!(ask(2, 1), Ok(()));
        assert_eq!(ask(2, 2), Err(Code::RateLimited));
        assert_eq!(ask(3, 1), Err(Code::CapacityUnavailable));
        assert_eq!(ask(3, 2), Err(Code::RateLimited));
    }
}
