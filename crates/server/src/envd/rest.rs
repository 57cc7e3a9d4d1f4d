//! The small REST routes, their errors, and what browsers ask before they ask.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use woodfrog_wire::envd as wire;

use super::auth::AuthError;
use super::connect::{RpcCode, RpcError};

const REQUEST_HEADERS: HeaderName = header::ACCESS_CONTROL_REQUEST_HEADERS;
const MIB: u64 = 1 << 20;

/// A refused REST request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RestError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl RestError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn response(&self) -> Response {
        let body = wire::ErrorBody {
            code: self.status.as_u16(),
            message: self.message.clone(),
        };
        json(self.status, &body)
    }
}

impl From<AuthError> for RestError {
    fn from(error: AuthError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error.to_string())
    }
}

impl From<RpcError> for RestError {
    fn from(error: RpcError) -> Self {
        let status = match error.code {
            RpcCode::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
            code => code.http_status(),
        };
        Self::new(status, error.message)
    }
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("wire types serialize");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let value = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

pub(crate) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(crate) fn metrics(metrics: &woodfrog_guest_proto::Metrics) -> wire::Metrics {
    wire::Metrics {
        ts: metrics.ts_ms / 1000,
        cpu_count: metrics.cpu_count,
        cpu_used_pct: (metrics.cpu_used_pct * 100.0).round() / 100.0,
        mem_total: metrics.mem_total,
        mem_used: metrics.mem_used,
        mem_cache: metrics.mem_cache,
        mem_total_mib: metrics.mem_total / MIB,
        mem_used_mib: metrics.mem_used / MIB,
        disk_used: metrics.disk_used,
        disk_total: metrics.disk_total,
    }
}

/// Everybody's pages may ask: what protects the daemon is its token, not the browser's idea of
/// an origin.
pub(crate) fn allow_origins(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("*"),
    );
}

/// The answer to a preflight.
pub(crate) fn preflight(request: &HeaderMap) -> Response {
    let mut response = no_content();
    allow_origins(&mut response);
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    // `*` would leave out `Authorization`, which names the user.
    let wanted = request.get(REQUEST_HEADERS).cloned();
    let wanted = wanted.unwrap_or_else(|| HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("7200"),
    );
    headers.insert(
        header::VARY,
        HeaderValue::from_static("Access-Control-Request-Headers"),
    );
    response
}

/// Whether a request is a browser's question about another one.
pub(crate) fn is_preflight(method: &http::Method, headers: &HeaderMap) -> bool {
    method == http::Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
