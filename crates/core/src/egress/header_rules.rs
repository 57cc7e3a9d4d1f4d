//! Headers that are set on requests to certain hosts.

use std::collections::{BTreeMap, BTreeSet};

use woodfrog_types::Fault;
use woodfrog_types::network::Hidden;

use super::{bounded, is_domain, shown};

/// Hosts with a rule.
pub const RULE_HOSTS_MAX: usize = 10;
/// Headers of one host.
pub const HEADERS_MAX: usize = 20;
/// Bytes of a header's name.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a header's value: above it many servers refuse the request.
const VALUE_BYTES_MAX: usize = 8192;
/// Bytes of all headers of one host.
const SET_BYTES_MAX: usize = 16 * 1024;
/// What the SDKs write for tokens that a server makes per request, which this one does not.
const PLACEHOLDER: &str = "${e2b.identity.";

/// What the SDKs write for the value of a secret, with its name and `}` behind it.
const SECRET: &str = "${e2b.secrets.";

/// Headers that say where a request goes or where it ends: changed, they would make one request
/// look like another to the server.
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Checks all rules of a sandbox.
pub(super) fn validate(rules: &BTreeMap<String, BTreeMap<String, Hidden>>) -> Result<(), Fault> {
    bounded("network.header_rules", rules.len(), RULE_HOSTS_MAX)?;
    rules.iter().try_for_each(|(host, headers)| {
        let field = format!("network.header_rules.{}", shown(host));
        host_of_rule(host).map_err(|why| Fault::invalid(field.clone(), why))?;
        if headers.len() > HEADERS_MAX {
            let text = format!("has {} headers, more than {HEADERS_MAX}", headers.len());
            return Err(Fault::invalid(field, text));
        }
        let (mut total, mut names) = (0, BTreeSet::new());
        for (name, value) in headers {
            let field = format!("{field}.{}", shown(name));
            if !names.insert(name.to_ascii_lowercase()) {
                return Err(Fault::invalid(field, "this header is there twice"));
            }
            header_name(name).map_err(|why| Fault::invalid(field.clone(), why))?;
            total += name.len() + value_bytes(value).map_err(|why| Fault::invalid(field, why))?;
        }
        if total > SET_BYTES_MAX {
            let text = format!("its headers have {total} bytes, more than {SET_BYTES_MAX}");
            return Err(Fault::invalid(field, text));
        }
        Ok(())
    })
}

fn host_of_rule(host: &str) -> Result<(), String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if !is_domain(name) {
        return Err("must be a host name, or `*.` and a host name".to_owned());
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("must be in lower case".to_owned());
    }
    Ok(())
}

fn header_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(token) {
        return Err(format!(
            "is not a header's name (at most {NAME_BYTES_MAX} letters, digits and `-`)"
        ));
    }
    match FRAMING.iter().any(|other| name.eq_ignore_ascii_case(other)) {
        false => Ok(()),
        true => Err("this header cannot be set: it belongs to the connection".to_owned()),
    }
}

/// How long it is. What is wrong with it is said without it.
fn value_bytes(value: &Hidden) -> Result<usize, String> {
    let Hidden::Plain(text) = value else {
        // It was checked before it was sealed.
        return Ok(0);
    };
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!("the value has more than {VALUE_BYTES_MAX} bytes"));
    }
    let printable = |c: char| c == '\t' || (' '..='~').contains(&c);
    if !text.chars().all(printable) || text.trim() != text {
        return Err("the value must be printable ASCII without spaces around it".to_owned());
    }
    if text == Hidden::SHOWN {
        return Err("this is what is shown instead of a value; give the value".to_owned());
    }
    if text.contains(PLACEHOLDER) {
        return Err("identity tokens are not available on this server".to_owned());
    }
    Ok(text.len())
}

/// Whether a header can have this value.
pub fn is_header_value(text: &str) -> bool {
    value_bytes(&Hidden::Plain(text.to_owned())).is_ok()
}

/// Names of the secrets whose values belong into a header's value.
pub fn secrets_in(text: &str) -> Vec<&str> {
    let names = text.split(SECRET).skip(1);
    names
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .collect()
}

/// A header's value with the values of its secrets; what is not among `values` stays.
pub fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut parts = text.split(SECRET);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let named = part.split_once('}');
        match named.and_then(|(name, rest)| Some((values.get(name)?, rest))) {
            Some((value, rest)) => {
                out.push_str(value);
                out.push_str(rest);
            }
            None => {
                out.push_str(SECRET);
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(host: &str, headers: &[(&str, &str)]) -> BTreeMap<String, BTreeMap<String, Hidden>> {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Hidden::Plain((*value).to_owned())));
        BTreeMap::from([(host.to_owned(), headers.collect())])
    }

    #[test]
    fn secrets_are_filled_in_by_name() {
        let text = "Bearer ${e2b.secrets.a-b} and ${e2b.secrets.c}${e2b.secrets.a-b}";
        assert_eq!(secrets_in(text), ["a-b", "c", "a-b"]);
        let values = BTreeMap::from([("a-b".to_owned(), "${e2b.secrets.c}".to_owned())]);
        // What is filled in is not looked at again.
        assert_eq!(
            filled(text, &values),
            "Bearer ${e2b.secrets.c} and ${e2b.secrets.c}${e2b.secrets.c}"
        );
        for text in ["", "plain", "${e2b.secrets.", "${e2b.secrets.open", "${e2b"] {
            assert!(secrets_in(text).is_empty());
            assert_eq!(filled(text, &values), text);
        }
    }

    #[test]
    fn rules_name_hosts_and_headers() {
        for host in ["api.example.com", "*.example.com", "localhost"] {
            let headers = [("Authorization", "Bearer x y"), ("x-a_b", "")];
            assert!(validate(&rules(host, &headers)).is_ok(), "{host}");
        }
        for host in [
            "", "*", "*.", "a.*.b", "1.2.3.4", "a:80", "http://a", "A.de", "a..b",
        ] {
            let fault = validate(&rules(host, &[("x", "y")])).unwrap_err();
            let field = format!("network.header_rules.{host}");
            assert_eq!(fault.field.as_deref(), Some(field.as_str()));
        }
    }

    #[test]
    fn a_refused_header_is_named_and_its_value_is_not_told() {
        for (name, value) in [
            ("", "secret-1"),
            ("a b", "secret-1"),
            ("a\r\nb", "secret-1"),
            ("Host", "secret-1"),
            ("Transfer-Encoding", "secret-1"),
            ("content-LENGTH", "5"),
            ("x-a", "secret-1\r\nx: y"),
            ("x-a", " secret-1"),
            ("x-a", "secret-1ä"),
            ("x-a", "Bearer ${e2b.identity.tokens.aws}"),
            ("x-a", Hidden::SHOWN),
            ("x-a", &"secret-1".repeat(2000)),
        ] {
            let fault = validate(&rules("a.de", &[(name, value)])).unwrap_err();
            let field = fault.field.clone().unwrap();
            assert!(field.starts_with("network.header_rules.a.de."), "{field}");
            assert!(!format!("{fault:?}").contains("secret-1"), "{name}");
        }
    }

    #[test]
    fn there_are_limits() {
        let many: Vec<String> = (0..=HEADERS_MAX).map(|n| format!("x-{n}")).collect();
        let mut headers: Vec<_> = many.iter().map(|name| (name.as_str(), "v")).collect();
        assert!(validate(&rules("a.de", &headers)).is_err());
        headers.pop();
        assert!(validate(&rules("a.de", &headers)).is_ok());
        let long = "x".repeat(VALUE_BYTES_MAX);
        let twice = [("a", long.as_str()), ("b", long.as_str())];
        assert!(validate(&rules("a.de", &twice[..1])).is_ok());
        assert!(validate(&rules("a.de", &twice)).is_err());
        let host = |n| (format!("h{n}.de"), BTreeMap::new());
        assert!(validate(&(0..RULE_HOSTS_MAX).map(host).collect()).is_ok());
        assert!(validate(&(0..=RULE_HOSTS_MAX).map(host).collect()).is_err());
    }
}
