//! Headers that are set on requests to certain hosts.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::DomainPattern;
use crate::policy::PolicyError;

/// Sets headers on requests to the hosts that a pattern means. Values do not show in its `Debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Whose requests are changed.
    pub(crate) hosts: DomainPattern,
    /// `None` until the server is told.
    headers: Option<Arc<HeaderMap>>,
}

impl HeaderRule {
    /// A rule for a host, or `*.` and a host.
    ///
    /// # Errors
    /// With the offending name, and never with a value.
    pub fn new<'a>(
        host: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, PolicyError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let bad = || invalid(format!("`{host}`: header `{name}` cannot be sent"));
            let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            // Neither logged nor indexed.
            value.set_sensitive(true);
            map.insert(known, value);
        }
        Ok(Self {
            headers: Some(Arc::new(map)),
            ..Self::unknown(host)?
        })
    }

    /// A rule whose headers are told later. Requests to its hosts wait until then.
    ///
    /// # Errors
    /// When this is no host.
    pub fn unknown(host: &str) -> Result<Self, PolicyError> {
        let hosts = host
            .parse()
            .map_err(|error: crate::domain::DomainError| invalid(error.to_string()))?;
        Ok(Self {
            hosts,
            headers: None,
        })
    }

    pub(crate) const fn is_known(&self) -> bool {
        self.headers.is_some()
    }

    /// What is set; `None` while it is not known.
    pub(crate) fn headers(&self) -> Option<&Arc<HeaderMap>> {
        self.headers.as_ref()
    }
}

const fn invalid(reason: String) -> PolicyError {
    PolicyError::Invalid {
        field: "rules",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_show() {
        let rule = HeaderRule::new("a.example.com", [("X-Key", "secret-1")]).unwrap();
        assert!(!format!("{rule:?}").contains("secret-1"));
        assert_eq!(rule.headers().unwrap()["x-key"], "secret-1");
        let refused = HeaderRule::new("a.example.com", [("x", "secret-1\r\n")]).unwrap_err();
        assert!(!format!("{refused:?} {refused}").contains("secret-1"));
        assert!(HeaderRule::new("a b", []).is_err());
    }
}
