//! What the faces share about reading requests.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use woodfrog_types::limits::JSON_BODY_BYTES_MAX;
use woodfrog_types::{Code, Fault};

/// How long a JSON body may take to arrive: who sends it slower holds a connection for nothing.
const JSON_BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Reads a whole JSON body of at most [`JSON_BODY_BYTES_MAX`] bytes.
pub(crate) async fn json_bytes(body: Body) -> Result<Bytes, Fault> {
    json_bytes_up_to(body, JSON_BODY_BYTES_MAX).await
}

/// Reads a whole JSON body of at most `max` bytes.
pub(crate) async fn json_bytes_up_to(body: Body, max: usize) -> Result<Bytes, Fault> {
    let read = Limited::new(body, max).collect();
    let Ok(read) = tokio::time::timeout(JSON_BODY_TIME_MAX, read).await else {
        let message = format!(
            "the body did not arrive within {} s",
            JSON_BODY_TIME_MAX.as_secs()
        );
        return Err(Fault::new(Code::InvalidArgument, message));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {max} bytes");
            Err(Fault::new(Code::TooLarge, message))
        }
        Err(error) => {
            let message = "the body could not be read to its end";
            Err(Fault::new(Code::InvalidArgument, message).because(error))
        }
    }
}

/// Parses JSON; the fault says where it is wrong.
pub(crate) fn parse_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(&mut source).map_err(malformed)?;
    source.end().map_err(malformed)?;
    Ok(value)
}

fn malformed(error: serde_json::Error) -> Fault {
    let what = if error.is_data() {
        "invalid"
    } else {
        "malformed"
    };
    Fault::new(
        Code::InvalidArgument,
        format!("{what} request body: {error}"),
    )
}

/// Logs what a caller must not see: the causes of faults that are ours.
pub(crate) fn log(fault: &Fault) {
    let cause = std::error::Error::source(fault)
        .map(chain)
        .unwrap_or_default();
    if fault.code.http_status() >= 500 && fault.code != Code::Unsupported {
        tracing::error!(code = %fault.code, message = %fault.message, %cause, "request failed");
    } else if !cause.is_empty() {
        tracing::debug!(code = %fault.code, message = %fault.message, %cause, "request refused");
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let links = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = links.map(ToString::to_string).collect();
    texts.join(": ")
}

/// The longest idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The `Idempotency-Key` header, checked.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match value.to_str() {
        Ok(key)
            if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
                && key.as_bytes().iter().all(allowed) =>
        {
            Ok(Some(key.to_owned()))
        }
        _ => {
            let message = "Idempotency-Key must be 1 to 255 characters of a-z, A-Z, 0-9, - and _";
            Err(Fault::invalid("Idempotency-Key", message))
        }
    }
}

/// Logs a handler's panic.
pub(crate) fn log_panic(panic: &(dyn std::any::Any + Send)) {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up() {
        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        });
        let fault = json_bytes(Body::from_stream(drops)).await;
        assert_eq!(fault.expect_err("no end").code, Code::InvalidArgument);
    }
}
