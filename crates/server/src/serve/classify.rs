//! Which face a request is for, by its host and routing headers.

use http::{HeaderMap, HeaderName};

const SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Control,
    /// A port in a sandbox. The id has the alphabet of ids; whether there is one is not known.
    Sandbox {
        id: String,
        port: u16,
    },
    /// The host or the headers name a sandbox in a way that cannot be right: 400 with this text.
    Refused(&'static str),
}

/// Decides by host, then by headers. `domain` may carry a port, which is ignored: what a proxy
/// in front listens on is its own affair.
pub(crate) fn classify(host: Option<&str>, headers: &HeaderMap, domain: Option<&str>) -> Target {
    let host = host_name(host.unwrap_or_default()).to_ascii_lowercase();
    let domain = domain.map(|domain| host_name(domain).to_ascii_lowercase());
    let label = match &domain {
        Some(domain) => match host.strip_suffix(domain.as_str()) {
            Some(front) => front.strip_suffix('.').filter(|label| !label.contains('.')),
            None => None,
        },
        None => host.split_once('.').map(|(label, _)| label),
    };
    match label {
        Some("api") => return Target::Control,
        Some(label) => {
            if let Some(target) = sandbox_label(label) {
                return target;
            }
        }
        None => {}
    }
    by_headers(headers)
}

/// A host without its port and the brackets of IPv6.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(inside, _)| inside);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// `{port}-{id}` and, from old clients, `{port}-{id}-{client}`. `None`: an ordinary name, such
/// as that of the server itself.
fn sandbox_label(label: &str) -> Option<Target> {
    let (port, rest) = label.split_once('-')?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let id = rest.split('-').next().unwrap_or_default();
    if !is_id(id) {
        return Some(Target::Refused("Invalid sandbox ID"));
    }
    Some(match port_number(port) {
        Some(port) => Target::Sandbox {
            id: id.to_owned(),
            port,
        },
        None => Target::Refused("Invalid sandbox port"),
    })
}

fn by_headers(headers: &HeaderMap) -> Target {
    let Some(id) = headers.get(SANDBOX_ID) else {
        return Target::Control;
    };
    let Some(port) = headers.get(SANDBOX_PORT) else {
        return Target::Refused("missing header");
    };
    let id = id.to_str().unwrap_or_default();
    let id = id.split('-').next().unwrap_or_default();
    if !is_id(id) {
        return Target::Refused("Invalid sandbox ID");
    }
    match port.to_str().ok().and_then(port_number) {
        Some(port) => Target::Sandbox {
            id: id.to_owned(),
            port,
        },
        None => Target::Refused("Invalid sandbox port"),
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn port_number(text: &str) -> Option<u16> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sandbox(id: &str, port: u16) -> Target {
        Target::Sandbox {
            id: id.into(),
            port,
        }
    }

    fn headers(id: &str, port: &str) -> HeaderMap {
        HeaderMap::from_iter([
            (SANDBOX_ID, id.parse().unwrap()),
            (SANDBOX_PORT, port.parse().unwrap()),
        ])
    }

    #[test]
    fn hosts_name_sandboxes() {
        let none = HeaderMap::new();
        let at = |host: &str, domain: Option<&str>| classify(Some(host), &none, domain);
        for domain in [None, Some("box.test"), Some("box.test:8443")] {
            assert_eq!(at("3000-sb1.box.test", domain), sandbox("sb1", 3000));
            assert_eq!(at("49983-SB1.Box.test:8443", domain), sandbox("sb1", 49983));
            assert_eq!(at("80-sb1-client.box.test", domain), sandbox("sb1", 80));
            assert_eq!(at("api.box.test", domain), Target::Control);
            assert_eq!(at("box.test", domain), Target::Control);
            assert_eq!(at("x-y.box.test", domain), Target::Control);
            assert_eq!(
                at("0-sb1.box.test", domain),
                Target::Refused("Invalid sandbox port")
            );
            assert_eq!(
                at("70000-sb1.box.test", domain),
                Target::Refused("Invalid sandbox port")
            );
            assert_eq!(
                at("80-.box.test", domain),
                Target::Refused("Invalid sandbox ID")
            );
            assert_eq!(at("127.0.0.1:7070", domain), Target::Control);
            assert_eq!(at("[::1]:7070", domain), Target::Control);
        }
        assert_eq!(at("80-sb1.localhost", None), sandbox("sb1", 80));
        assert_eq!(at("80-sb1.localhost", Some("box.test")), Target::Control);
        assert_eq!(at("80-sb1.evilbox.test", Some("box.test")), Target::Control);
        assert_eq!(at("80-sb1.x.box.test", Some("box.test")), Target::Control);
    }

    #[test]
    fn headers_name_sandboxes_where_the_host_does_not() {
        let domain = Some("box.test");
        for host in [
            "127.0.0.1:7070",
            "localhost",
            "sandbox.box.test",
            "[::1]:1",
            "any.other",
        ] {
            let at = |id, port| classify(Some(host), &headers(id, port), domain);
            assert_eq!(at("sb1", "49983"), sandbox("sb1", 49983));
            assert_eq!(at("sb1-client", "1"), sandbox("sb1", 1));
            assert_eq!(at("../x", "1"), Target::Refused("Invalid sandbox ID"));
            assert_eq!(at("sb1", "+1"), Target::Refused("Invalid sandbox port"));
        }
        assert_eq!(
            classify(Some("api.box.test"), &headers("sb1", "1"), domain),
            Target::Control
        );
        assert_eq!(
            classify(Some("1-sb2.box.test"), &headers("sb1", "1"), domain),
            sandbox("sb2", 1)
        );
        let only = HeaderMap::from_iter([(SANDBOX_ID, "sb1".parse().unwrap())]);
        assert_eq!(
            classify(None, &only, None),
            Target::Refused("missing header")
        );
    }

    proptest! {
        #[test]
        fn any_host_is_classified(host in "[0-9a-zA-Z.:\\[\\]-]{0,60}|\\PC{0,40}", domain in proptest::option::of("[a-z.]{0,12}(:[0-9]{0,6})?")) {
            let target = classify(Some(&host), &HeaderMap::new(), domain.as_deref());
            if let Target::Sandbox { id, port } = target {
                prop_assert!(is_id(&id) && port != 0);
            }
        }
    }
}
