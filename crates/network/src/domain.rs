//! Domain names a policy allows.

use std::fmt;
use std::str::FromStr;

/// A name, or every name below one (`*.example.com`). Lower case, no final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DomainPattern {
    name: String,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scope {
    Exact,
    /// Sub-domains at any depth, not the name itself.
    Below,
}

/// Why a text is not a domain pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a domain name or a `*.` wildcard of one")]
pub struct DomainError(pub String);

impl DomainPattern {
    /// Of two patterns that mean the same host the greater one is closer to it: the name itself,
    /// then the longest name that it is below of.
    pub fn closeness(&self) -> (bool, usize) {
        (self.scope == Scope::Exact, self.name.len())
    }

    /// Whether `host` (any case, an optional final dot) is meant by this pattern.
    pub fn matches(&self, host: &str) -> bool {
        let Some(host) = normalise(host) else {
            return false;
        };
        match self.scope {
            Scope::Exact => host == self.name,
            Scope::Below => host
                .strip_suffix(self.name.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

/// Lower-cases and checks a host name; `None` when it is not one (an address is not).
pub fn normalise(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = host.rsplit('.').next()?;
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    let ok = host.len() <= 253 && host.split('.').all(label_ok) && !numeric;
    ok.then(|| host.to_ascii_lowercase())
}

impl FromStr for DomainPattern {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let (name, scope) = match text.strip_prefix("*.") {
            Some(rest) => (rest, Scope::Below),
            None => (text, Scope::Exact),
        };
        let name = normalise(name).ok_or_else(|| DomainError(text.chars().take(64).collect()))?;
        Ok(Self { name, scope })
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.scope == Scope::Below { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_and_wildcard() {
        let exact: DomainPattern = "Example.com".parse().unwrap();
        assert!(exact.matches("example.COM.") && !exact.matches("a.example.com"));
        let below: DomainPattern = "*.example.com".parse().unwrap();
        assert!(below.matches("a.example.com") && below.matches("a.b.example.com"));
        for other in [
            "example.com",
            ".example.com",
            "badexample.com",
            "example.com.evil.org",
            "",
        ] {
            assert!(!below.matches(other), "{other}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        for bad in [
            "", "*", "*.", "a..b", "-a.com", "a b.com", "1.2.3.4", "x.*.com", "a/b", "a:80",
        ] {
            assert!(bad.parse::<DomainPattern>().is_err(), "{bad}");
        }
        assert!("x".repeat(64).parse::<DomainPattern>().is_err());
    }
}
