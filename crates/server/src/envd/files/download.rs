//! `GET /files`.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use woodfrog_guest_proto as guest;

use super::encoding::{self, Coding};
use super::source::{Length, Seek, Source};
use super::{Request, content_type, not_opened};
use crate::envd::entry::at;
use crate::envd::range::{Slice, Validators, parse_range};
use crate::envd::rest::RestError;

/// Larger files go out as they are: compressing them would take longer than sending them, and
/// clients would see no length.
const GZIP_BYTES_MAX: u64 = 16 << 20;
const CONDITIONS: [HeaderName; 4] = [
    header::RANGE,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
];

pub(super) async fn get(request: Request) -> Result<Response, RestError> {
    let path = request.query.path.clone().unwrap_or_default();
    let coding = encoding::accepted(&request.headers)?;
    let slot = request.slot().await;
    let wanted = guest::ReadRequest {
        at: at(path.clone(), Some(request.user())),
        ..guest::ReadRequest::default()
    };
    let opened = request.lease.read_file(wanted).await.map_err(not_opened)?;
    let mut source = Source::begin(opened, slot).await?;
    let validators = Validators::new(source.mtime_ns(), source.size());
    let mut response = answer(&request.headers, &mut source, &validators, coding)?;
    common_headers(response.headers_mut(), &path, &validators);
    if response.status() == StatusCode::OK || response.status() == StatusCode::PARTIAL_CONTENT {
        let gzip = response.headers().contains_key(header::CONTENT_ENCODING);
        let coding = if gzip { Coding::Gzip } else { Coding::Identity };
        *response.body_mut() = source.body(coding);
    }
    Ok(response)
}

/// Status and the headers that depend on what was asked; sets what the source will give.
fn answer(
    headers: &HeaderMap,
    source: &mut Source,
    validators: &Validators,
    coding: Coding,
) -> Result<Response, RestError> {
    let mut response = Response::new(Body::empty());
    let set = |response: &mut Response, name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    if validators.not_modified(headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    // Files of the kernel say that they are empty and are not.
    let Length::Known(size) = source.length() else {
        if coding == Coding::Gzip {
            set(&mut response, header::CONTENT_ENCODING, "gzip".to_owned());
        }
        return Ok(response);
    };
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let slice = match range {
        Some(range) if validators.range_applies(headers) => parse_range(range, size),
        _ => Slice::Whole,
    };
    match slice {
        Slice::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            set(
                &mut response,
                header::CONTENT_RANGE,
                format!("bytes */{size}"),
            );
        }
        Slice::Part { start, end } if source.seek(start, end - start)? == Seek::Done => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{size}", end - 1);
            set(&mut response, header::CONTENT_RANGE, range);
            set(
                &mut response,
                header::CONTENT_LENGTH,
                (end - start).to_string(),
            );
        }
        Slice::Whole | Slice::Part { .. } => {
            let plain = CONDITIONS.iter().any(|name| headers.contains_key(name));
            if coding == Coding::Gzip && !plain && (1..=GZIP_BYTES_MAX).contains(&size) {
                set(&mut response, header::CONTENT_ENCODING, "gzip".to_owned());
            } else {
                set(&mut response, header::CONTENT_LENGTH, size.to_string());
            }
        }
    }
    Ok(response)
}

fn common_headers(headers: &mut HeaderMap, path: &str, validators: &Validators) {
    let mut fixed = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    fixed(header::CONTENT_TYPE, content_type::of(path));
    fixed(header::CONTENT_DISPOSITION, "inline");
    fixed(header::ACCEPT_RANGES, "bytes");
    fixed(header::VARY, "Accept-Encoding");
    // In the one-port mode files share an origin with everything else: a page among them must
    // not act there.
    fixed(header::CONTENT_SECURITY_POLICY, "sandbox");
    fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    for (name, value) in [
        (header::LAST_MODIFIED, validators.last_modified.as_deref()),
        (header::ETAG, Some(validators.etag.as_str())),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
}
