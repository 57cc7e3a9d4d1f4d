//! Network rules as E2B defines them.

use std::net::IpAddr;

use woodfrog_types::Fault;
use woodfrog_types::network::NetworkSpec;

mod header_rules;
mod proxy;

pub use header_rules::{HEADERS_MAX, RULE_HOSTS_MAX, filled, is_header_value, secrets_in};

/// Entries of one allow or deny list.
pub const RULES_MAX: usize = 256;
/// Name servers.
pub const DNS_SERVERS_MAX: usize = 3;
/// Ports inside that speak HTTPS.
pub const HTTPS_PORTS_MAX: usize = 64;
/// What an entry of an allow list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<'a> {
    /// An address or block: network address and prefix length.
    Block(IpAddr, u8),
    /// `example.com`, or with [`Wildcard::Subdomains`] what is below it.
    Domain(&'a str, Wildcard),
}

/// Whether a domain rule began with `*.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wildcard {
    None,
    Subdomains,
    /// `*`: every name.
    All,
}

/// Reads an address or CIDR block.
pub fn parse_block(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        // `parse` takes a leading `+`.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => max,
    };
    (prefix <= max).then_some((address, prefix))
}

/// Reads an entry of an allow list.
pub fn parse_rule(text: &str) -> Option<Rule<'_>> {
    if let Some((address, prefix)) = parse_block(text) {
        return Some(Rule::Block(address, prefix));
    }
    if text == "*" {
        return Some(Rule::Domain(text, Wildcard::All));
    }
    let (name, wildcard) = match text.strip_prefix("*.") {
        Some(name) => (name, Wildcard::Subdomains),
        None => (text, Wildcard::None),
    };
    is_domain(name).then_some(Rule::Domain(name, wildcard))
}

/// A DNS name; digits alone at the end would be a mistyped address.
pub fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253
        && name.split('.').all(label)
        && name
            .rsplit('.')
            .next()
            .is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a deny list denies every IPv4 address.
pub fn denies_everything(deny: &[String]) -> bool {
    deny.iter()
        .filter_map(|entry| parse_block(entry))
        .any(|(address, prefix)| prefix == 0 && address.is_ipv4())
}

/// Checks a sandbox's network rules.
pub fn validate(network: &NetworkSpec) -> Result<(), Fault> {
    bounded("network.allow_out", network.allow_out.len(), RULES_MAX)?;
    bounded("network.deny_out", network.deny_out.len(), RULES_MAX)?;
    bounded(
        "network.dns_servers",
        network.dns_servers.len(),
        DNS_SERVERS_MAX,
    )?;
    for (index, entry) in network.deny_out.iter().enumerate() {
        if parse_block(entry).is_none() {
            return Err(Fault::invalid(
                format!("network.deny_out[{index}]"),
                format!("`{}` is not an IP address or CIDR block", shown(entry)),
            ));
        }
    }
    for (index, entry) in network.allow_out.iter().enumerate() {
        allowed_entry(index, entry, &network.deny_out)?;
    }
    if let Some(host) = &network.mask_request_host {
        mask_host(host)?;
    }
    header_rules::validate(&network.header_rules)?;
    if let Some(proxy) = &network.egress_proxy {
        proxy::validate(proxy)?;
    }
    https_ports(&network.https_ports)
}

/// The guest's own port cannot be one.
fn https_ports(ports: &[u16]) -> Result<(), Fault> {
    const ENVD: u16 = 49_983;
    bounded("network.https_ports", ports.len(), HTTPS_PORTS_MAX)?;
    match ports.iter().position(|port| matches!(*port, 0 | ENVD)) {
        None => Ok(()),
        Some(at) => Err(Fault::invalid(
            format!("network.https_ports[{at}]"),
            format!("must be a port from 1 to 65535 other than {ENVD}"),
        )),
    }
}

fn allowed_entry(index: usize, entry: &str, deny: &[String]) -> Result<(), Fault> {
    let field = format!("network.allow_out[{index}]");
    match parse_rule(entry) {
        Some(Rule::Block(..)) => Ok(()),
        Some(Rule::Domain(..)) if denies_everything(deny) => Ok(()),
        Some(Rule::Domain(..)) => Err(Fault::invalid(
            field,
            "When specifying allowed domains in allow out, you must include '0.0.0.0/0' in deny out to block all other traffic.",
        )),
        None => Err(Fault::invalid(
            field,
            format!(
                "`{}` is not an IP address, CIDR block or domain",
                shown(entry)
            ),
        )),
    }
}

fn mask_host(host: &str) -> Result<(), Fault> {
    // The port is only known when a request comes; any valid one stands for it here.
    let plain = host.replace("${PORT}", "1");
    let (name, port) = match plain.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (plain.as_str(), None),
    };
    let port_valid = port.is_none_or(|port| port.parse::<u16>().is_ok());
    if port_valid && (is_domain(name) || name.parse::<IpAddr>().is_ok()) {
        return Ok(());
    }
    Err(Fault::invalid(
        "network.mask_request_host",
        "must be a host name with an optional port; `${PORT}` is allowed in it",
    ))
}

fn bounded(field: &'static str, count: usize, max: usize) -> Result<(), Fault> {
    if count <= max {
        return Ok(());
    }
    Err(Fault::invalid(
        field,
        format!("has {count} entries, more than {max}"),
    ))
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(allow: &[&str], deny: &[&str]) -> NetworkSpec {
        NetworkSpec {
            allow_out: allow.iter().map(|&text| text.to_owned()).collect(),
            deny_out: deny.iter().map(|&text| text.to_owned()).collect(),
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn addresses_and_blocks() {
        assert_eq!(parse_block("1.2.3.4"), Some(([1, 2, 3, 4].into(), 32)));
        assert_eq!(parse_block("10.0.0.0/8"), Some(([10, 0, 0, 0].into(), 8)));
        assert!(parse_block("::1").is_some_and(|(_, prefix)| prefix == 128));
        for bad in [
            "",
            "/",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/",
            "::/129",
            "1.2.3.4/+8",
            "a",
        ] {
            assert_eq!(parse_block(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_need_everything_else_denied() {
        for name in ["example.com", "*.example.com", "*", "localhost"] {
            assert!(validate(&spec(&[name], &["0.0.0.0/0"])).is_ok(), "{name}");
            let fault = validate(&spec(&[name], &["10.0.0.0/8"])).unwrap_err();
            assert!(fault.message.contains("0.0.0.0/0"), "{name}");
            assert_eq!(fault.field.as_deref(), Some("network.allow_out[0]"));
        }
        assert!(validate(&spec(&["1.1.1.1", "8.8.0.0/16"], &[])).is_ok());
    }

    #[test]
    fn names_are_not_denied() {
        let fault = validate(&spec(&[], &["1.1.1.1", "example.com"])).unwrap_err();
        assert_eq!(fault.field.as_deref(), Some("network.deny_out[1]"));
    }

    #[test]
    fn rubbish_is_refused() {
        for bad in [
            "",
            " ",
            "a b",
            "http://x.de",
            "x.de:80",
            "**.x.de",
            "*x.de",
            "-a.de",
            "1.2.3.999",
            "a..b",
        ] {
            assert!(validate(&spec(&[bad], &["0.0.0.0/0"])).is_err(), "{bad}");
        }
        assert!(validate(&spec(&vec!["1.1.1.1"; RULES_MAX + 1], &[])).is_err());
    }

    #[test]
    fn masks_are_hosts() {
        for (host, valid) in [
            ("localhost:${PORT}", true),
            ("app.example.com", true),
            ("127.0.0.1:80", true),
            ("${PORT}-x.example.com", true),
            ("a b", false),
            ("x:99999", false),
            ("x\r\ny: z", false),
        ] {
            let network = NetworkSpec {
                mask_request_host: Some(host.to_owned()),
                ..NetworkSpec::default()
            };
            assert_eq!(validate(&network).is_ok(), valid, "{host}");
        }
    }

    #[test]
    fn ports_that_speak_https_are_ports_of_programs() {
        for (ports, valid) in [
            (vec![], true),
            (vec![443, 8443], true),
            (vec![0], false),
            (vec![49_983], false),
            (vec![1; HTTPS_PORTS_MAX + 1], false),
        ] {
            let network = NetworkSpec {
                https_ports: ports.clone(),
                ..NetworkSpec::default()
            };
            assert_eq!(validate(&network).is_ok(), valid, "{ports:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in ".{0,80}") {
            let _ = parse_rule(&text);
            let _ = mask_host(&text);
        }

        #[test]
        fn every_address_is_a_rule(address: std::net::Ipv4Addr, prefix in 0_u8..=32) {
            prop_assert_eq!(
                parse_block(&format!("{address}/{prefix}")),
                Some((IpAddr::V4(address), prefix))
            );
        }
    }
}
