//! What the door adds to answers, and what it reads in them.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::Value;
use woodfrog_engine::RateVerdict;
use woodfrog_types::{Code, Fault};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Bytes of an answer in which the id of what was made is looked for.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// Under which names the faces give the id of what they made.
const IDS: [&str; 9] = [
    "id",
    "sandboxID",
    "templateID",
    "snapshotID",
    "volumeID",
    "secretID",
    "sessionId",
    "sandboxId",
    "user",
];

/// The refusal of a request that is one too many.
pub(super) fn too_many(rate: &RateVerdict) -> Fault {
    let text = format!(
        "Rate limit exceeded: maximum {} requests per minute; try again in {} s",
        rate.rate.limit,
        rate.reset_secs()
    );
    Fault::new(Code::RateLimited, text)
}

/// Says what is left, and when more is.
pub(super) fn rate_headers(response: &mut Response, rate: &RateVerdict) {
    let refused = !rate.verdict.admitted;
    let policy = match rate.rate.burst {
        0 => format!("{};w={}", rate.rate.limit, rate.rate.window.as_secs()),
        burst => format!(
            "{};w={};burst={burst}",
            rate.rate.limit,
            rate.rate.window.as_secs()
        ),
    };
    let headers = response.headers_mut();
    headers.insert(LIMIT, rate.rate.limit.into());
    headers.insert(REMAINING, rate.verdict.remaining.into());
    headers.insert(RESET, rate.reset_secs().into());
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(POLICY, policy);
    }
    if refused {
        headers.insert(header::RETRY_AFTER, rate.reset_secs().into());
    }
}

/// The id of what was made, where an answer says so.
pub(super) async fn made(response: Response) -> (Response, Option<String>) {
    let short = response.body().size_hint().exact();
    let short = short.is_some_and(|bytes| bytes > 0 && bytes <= ANSWER_BYTES_MAX);
    if response.status() != StatusCode::CREATED || !short {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return (Response::from_parts(parts, Body::empty()), None);
    };
    let bytes = body.to_bytes();
    let id = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|body| {
            let id = IDS.iter().find_map(|name| body.get(name)?.as_str());
            id.map(str::to_owned)
        });
    (Response::from_parts(parts, Body::from(bytes)), id)
}
