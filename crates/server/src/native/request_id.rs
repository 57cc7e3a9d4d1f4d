//! Request ids: taken from the caller or made here, echoed in every reply.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use tracing::Instrument;

use super::problem::Failure;

const HEADER: &str = "x-request-id";
/// A caller's id is taken over only if it is this short.
const BYTES_MAX: usize = 128;

/// Runs the request inside a span with its id.
pub(super) async fn attach(request: Request, next: Next) -> Response {
    let id = given(&request).unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
    let span = tracing::info_span!("request", id = %id);
    let mut response = next.run(request).instrument(span).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let named = failure.with_request_id(&id).into_response();
        let (parts, _) = response.into_parts();
        response = named;
        for (name, value) in &parts.headers {
            if !response.headers().contains_key(name) && name != http::header::CONTENT_LENGTH {
                response.headers_mut().append(name, value.clone());
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

fn given(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let fits = (1..=BYTES_MAX).contains(&id.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (fits && id.bytes().all(plain)).then(|| id.to_owned())
}
