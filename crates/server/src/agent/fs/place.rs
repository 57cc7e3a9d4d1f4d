//! What a path in a request means.

use woodfrog_guest_client::proto::{PathRequest, limits};

use crate::agent::problem::{Failure, Result};

/// The place that a path names: absolute, or below the default user's home.
pub(in crate::agent) fn at(path: &str) -> Result<PathRequest> {
    if path.len() > limits::MAX_PATH {
        let message = format!("a path has at most {} bytes", limits::MAX_PATH);
        return Err(Failure::invalid(message));
    }
    if path.starts_with('/') {
        return Ok(of(path.to_owned()));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Failure::invalid(format_args!(
            "invalid relative path: {path}"
        )));
    }
    // Below `.`, a name that begins with `~` is just a name.
    Ok(of(format!("./{path}")))
}

pub(in crate::agent) fn of(path: String) -> PathRequest {
    PathRequest {
        path,
        ..PathRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_stay_below_the_home() {
        assert_eq!(at("/a/../b").expect("absolute").path, "/a/../b");
        assert_eq!(at("a/b").expect("relative").path, "./a/b");
        assert_eq!(at("~/a").expect("a name").path, "./~/a");
        assert_eq!(at("").expect("the home").path, "./");
        for bad in ["..", "../a", "a/../../b", "a/.."] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert!(at("a..b").is_ok());
    }
}
