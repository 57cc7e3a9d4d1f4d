//! What can go wrong between a command and the server.

use std::error::Error;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use thiserror::Error;
use woodfrog_wire::native::problem::Problem;

/// Why a request failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Something on this side cannot be used.
    #[error("{0}")]
    Setup(String),
    /// No connection was made.
    #[error("the server at {url} cannot be reached")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The connection ended too early.
    #[error("the connection to the server broke")]
    Broken(#[source] reqwest::Error),
    /// The server took the request and did not answer.
    #[error("the server did not answer within {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The server said no, and why.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The answer is not what this client knows.
    #[error("the server's answer is not understood")]
    Malformed(#[source] serde_json::Error),
    /// A terminal's connection did not do what it should.
    #[error("the terminal's connection failed: {0}")]
    Socket(String),
}

impl ClientError {
    /// The error for a request that had no answer.
    pub(super) fn transport(url: &Url, source: reqwest::Error) -> Self {
        if source.is_connect() {
            let url = url.as_str().trim_end_matches('/').to_owned();
            return Self::Unreachable { url, source };
        }
        Self::Broken(source)
    }

    /// The error for an answer that is not a success.
    pub(super) fn refusal(status: u16, body: &[u8]) -> Self {
        /// How the other face on the same port says no.
        #[derive(Deserialize)]
        struct Plain {
            message: String,
        }
        if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
            return Self::Refused(Box::new(problem));
        }
        let detail = match serde_json::from_slice::<Plain>(body) {
            Ok(plain) => plain.message,
            Err(_) => format!("the server answered with status {status} and no explanation"),
        };
        Self::Refused(Box::new(Problem::new(status, code(status), detail)))
    }

    /// The stable code of the server's refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }

    /// What the person could do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => {
                Some("is `woodfrog serve` running? Name another server with --url or WOODFROG_URL")
            }
            Self::Refused(problem) if problem.status == 401 => Some(
                "give a key with --api-key or WOODFROG_API_KEY; on the server's own machine \
                 --data-dir finds the admin key",
            ),
            Self::Refused(problem) if problem.code == "template_not_ready" => {
                Some("`woodfrog template prepare` waits until a template is ready")
            }
            _ => None,
        }
    }
}

fn code(status: u16) -> &'static str {
    match status {
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        409 => "conflict",
        413 => "too_large",
        429 => "rate_limited",
        400..=499 => "invalid_argument",
        _ => "internal",
    }
}

/// The innermost cause, which is the one that says something.
pub(super) fn root(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_both_faces_are_understood() {
        let native = ClientError::refusal(
            404,
            br#"{"type":"t","title":"T","status":404,"detail":"no such sandbox","code":"sandbox_not_found"}"#,
        );
        assert_eq!(native.code(), Some("sandbox_not_found"));
        assert_eq!(native.to_string(), "no such sandbox");
        let other = ClientError::refusal(409, br#"{"code":409,"message":"started already"}"#);
        assert_eq!(other.code(), Some("conflict"));
        assert_eq!(other.to_string(), "started already");
        let silent = ClientError::refusal(502, b"<html>");
        assert!(silent.to_string().contains("502"));
    }
}
