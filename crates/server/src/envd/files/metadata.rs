//! `X-Metadata-*` headers.

use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode};
use woodfrog_guest_proto::limits::{MAX_METADATA, MAX_METADATA_VALUE};

use crate::envd::rest::RestError;

const PREFIX: &str = "x-metadata-";

/// The metadata that an upload gives its files. Empty when there is none: an upload replaces
/// metadata as it replaces content.
pub(super) fn of(headers: &HeaderMap) -> Result<BTreeMap<String, String>, RestError> {
    let bad = |text: String| RestError::new(StatusCode::BAD_REQUEST, text);
    let mut out = BTreeMap::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(PREFIX) else {
            continue;
        };
        if key.is_empty() {
            return Err(bad("empty metadata key".to_owned()));
        }
        let printable = value
            .as_bytes()
            .iter()
            .all(|byte| (0x20..0x7f).contains(byte));
        let text = value.to_str().ok().filter(|_| printable);
        let text = text.ok_or_else(|| bad(format!("metadata '{key}' is not printable ASCII")))?;
        if text.len() > MAX_METADATA_VALUE {
            return Err(bad(format!(
                "metadata '{key}' is above {MAX_METADATA_VALUE} bytes"
            )));
        }
        out.insert(key.to_owned(), text.to_owned());
    }
    if out.len() > MAX_METADATA {
        return Err(bad(format!("more than {MAX_METADATA} metadata entries")));
    }
    Ok(out)
}
