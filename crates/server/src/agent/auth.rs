//! Who may ask: a bearer token, which a browser's WebSocket puts into its address.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use woodfrog_wire::agent::problem::Problem;

use super::Failure;
use crate::envd::auth::same;

/// Where the token may be in the address: browsers cannot add fields to a WebSocket's request.
const TOKEN_IN_QUERY: [&str; 2] = ["/terminal/ws", "/stream/ws"];

/// The token that a server without workspaces asks for on everything below `/v1`; none if it is
/// open.
#[derive(Clone)]
pub struct TokenGate(Option<Arc<str>>);

impl TokenGate {
    /// Asks for `token`.
    pub fn closed(token: &str) -> Self {
        Self(Some(token.into()))
    }

    /// Asks for nothing.
    pub const fn open() -> Self {
        Self(None)
    }

    fn admits(&self, request: &Request) -> bool {
        let Some(token) = &self.0 else { return true };
        if !needs_token(request.uri().path()) {
            return true;
        }
        let given = presented(request.headers(), request.uri());
        given.is_some_and(|given| same(given.as_bytes(), token.as_bytes()))
    }
}

/// The middleware of a [`TokenGate`].
pub async fn check(State(gate): State<TokenGate>, request: Request, next: Next) -> Response {
    if gate.admits(&request) {
        next.run(request).await
    } else {
        Failure::from(Problem::token_invalid()).into_response()
    }
}

/// Whether a path is for those only who have a token.
pub(super) fn needs_token(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

/// The token that a request shows, if it does.
pub(super) fn presented(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    bearer(headers).or_else(|| in_query(uri))
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

fn in_query(uri: &Uri) -> Option<String> {
    let allowed = TOKEN_IN_QUERY.iter().any(|end| uri.path().ends_with(end));
    let pairs = uri.query().filter(|_| allowed)?.split('&');
    let mut values = pairs.filter_map(|pair| pair.strip_prefix("access_token="));
    let plain = values.next()?.replace('+', " ");
    Some(percent_decode_str(&plain).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(uri: &str, authorization: Option<&str>) -> Request {
        let mut request = Request::builder().uri(uri);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.body(Body::empty()).expect("a request")
    }

    #[test]
    fn everything_below_v1_asks_for_the_token() {
        let gate = TokenGate::closed("s3cret+x");
        let admits = |uri: &str, auth: Option<&str>| gate.admits(&request(uri, auth));
        assert!(admits("/", None));
        assert!(admits("/ui/index.html", None));
        assert!(!admits("/v1/health", None));
        assert!(!admits("/v1/nothing", Some("Bearer wrong")));
        assert!(!admits("/v1/health", Some("Basic s3cret+x")));
        assert!(admits("/v1/health", Some("bearer s3cret+x")));
        assert!(TokenGate::open().admits(&request("/v1/health", None)));
    }

    #[test]
    fn the_address_holds_a_token_only_for_websockets() {
        let gate = TokenGate::closed("a b");
        let admits = |uri: &str| gate.admits(&request(uri, None));
        assert!(admits(
            "/v1/processes/proc_1/terminal/ws?access_token=a%20b"
        ));
        assert!(admits(
            "/v1/processes/proc_1/terminal/ws?x=1&access_token=a+b"
        ));
        assert!(!admits("/v1/processes/proc_1/terminal/ws?access_token=a"));
        assert!(!admits("/v1/processes?access_token=a%20b"));
    }
}
