//! Where spans of runs are sent.

use std::collections::BTreeMap;

use super::{ConfigError, Resolved};

/// A collector.
#[derive(Clone, PartialEq)]
pub struct Traces {
    pub endpoint: String,
    pub headers: BTreeMap<String, String>,
    /// 0 to 1.
    pub sample: f64,
    pub pace: Pace,
}

/// The sample is a number from 0 to 1.
impl Eq for Traces {}

/// Headers hold keys.
impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Traces, to {}", self.endpoint)
    }
}

/// When spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Those of a run together, once it is over.
    AtEnd,
    /// Each when it has ended.
    AtOnce,
}

pub(super) fn of(resolved: &Resolved) -> Result<Option<Traces>, ConfigError> {
    let sample: f64 = resolved.parse("traces.sample", "a number from 0 to 1")?;
    if !(0.0..=1.0).contains(&sample) {
        return Err(resolved.bad("traces.sample", "want a number from 0 to 1"));
    }
    let pace = match resolved.text("traces.mode").trim() {
        "batch" => Pace::AtEnd,
        "realtime" => Pace::AtOnce,
        _ => return Err(resolved.bad("traces.mode", "want batch or realtime")),
    };
    let Some(endpoint) = resolved.optional("traces.endpoint") else {
        return Ok(None);
    };
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        let want = "want a URL such as http://127.0.0.1:4318/v1/traces";
        return Err(resolved.bad("traces.endpoint", want));
    }
    let authority = endpoint.split('/').nth(2).unwrap_or_default();
    if authority.contains('@') || endpoint.contains('?') {
        // The value is not repeated: it may hold a key.
        let text = "traces.endpoint: it has no user, password or query, which would be shown; keys \
                    go into traces.headers";
        return Err(ConfigError::Combination(text.into()));
    }
    let line = resolved.optional("traces.headers").unwrap_or_default();
    // The value is not repeated: it may hold a key.
    let headers = headers(&line).ok_or_else(|| {
        ConfigError::Combination("traces.headers: want `name=value`, comma-separated".into())
    })?;
    Ok(Some(Traces {
        endpoint,
        headers,
        sample,
        pace,
    }))
}

/// Headers as `OTEL_EXPORTER_OTLP_HEADERS` has them.
fn headers(line: &str) -> Option<BTreeMap<String, String>> {
    let pairs = line.split(',').map(str::trim);
    let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let name_fits = !name.is_empty() && name.bytes().all(of_name);
        let value_fits = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        (name_fits && value_fits).then(|| (name.to_ascii_lowercase(), value.to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_usual_variable_has_them() {
        let read = headers(" Authorization=Bearer a=b , x-team=1,").expect("valid");
        assert_eq!(read.len(), 2);
        assert_eq!(read["authorization"], "Bearer a=b");
        assert_eq!(read["x-team"], "1");
        assert_eq!(headers(""), Some(BTreeMap::new()));
        for bad in ["novalue", "=x", "a b=c", "a=\u{1}"] {
            assert_eq!(headers(bad), None, "{bad}");
        }
    }
}
