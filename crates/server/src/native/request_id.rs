//! Request ids: taken from the caller or made here, echoed in every reply.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use tracing::Instrument;

use super::problem::Failure;

const HEADER: &str = "x-request-id";

/// Runs the request inside a span with its id.
pub(super) async fn attach(mut request: Request, next: Next) -> Response {
    let id = crate::door::request_id(&request);
    let known = crate::door::RequestId(id.clone());
    request.extensions_mut().insert(known);
    let span = tracing::info_span!("request", id = %id);
    let mut response = next.run(request).instrument(span).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let named = failure.with_request_id(&id).into_response();
        let (parts, _) = response.into_parts();
        response = named;
        for (name, value) in &parts.headers {
            // What the door says about waiting is more exact.
            if name == http::header::RETRY_AFTER {
                response.headers_mut().insert(name, value.clone());
            }
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
