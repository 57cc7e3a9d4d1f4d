//! What kind of thing went wrong.

use woodfrog_types::run::ErrorCategory;

/// The exit status of `timeout(1)` and of runs that were ended for their time.
const TIMED_OUT: i32 = 124;

/// By the exit status, then by words of the standard error, in this order and as they are written.
pub fn categorize(exit: Option<i32>, stderr: &str) -> ErrorCategory {
    let has = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if exit == Some(TIMED_OUT) {
        ErrorCategory::Timeout
    } else if has(&["API", "authentication", "rate limit"]) {
        ErrorCategory::Api
    } else if has(&["Tool", "permission denied", "command not found"]) {
        ErrorCategory::Tool
    } else if has(&["sandbox", "container"]) {
        ErrorCategory::Sandbox
    } else {
        ErrorCategory::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        use ErrorCategory::{Api, Sandbox, Timeout, Tool, Unknown};
        for (exit, stderr, category) in [
            (Some(124), "API Tool sandbox", Timeout),
            (Some(1), "API Tool sandbox", Api),
            (Some(1), "authentication failed in container", Api),
            (Some(1), "rate limit for Tool", Api),
            (Some(1), "Tool failed in sandbox", Tool),
            (Some(126), "sh: permission denied", Tool),
            (Some(127), "sh: x: command not found", Tool),
            (Some(1), "the sandbox is gone", Sandbox),
            (None, "container", Sandbox),
            (Some(1), "", Unknown),
            // Case matters.
            (
                Some(1),
                "api tool Sandbox Authentication Rate Limit",
                Unknown,
            ),
            (Some(1), "Permission denied", Unknown),
            (Some(125), "124", Unknown),
            (None, "124", Unknown),
        ] {
            assert_eq!(categorize(exit, stderr), category, "{exit:?} {stderr}");
        }
    }
}
