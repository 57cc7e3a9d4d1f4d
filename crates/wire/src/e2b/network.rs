//! Network rules as E2B writes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use woodfrog_types::Fault;
use woodfrog_types::network::{self, Hidden, NetworkSpec};

use crate::native::network::{hidden, shown};

/// Every IPv4 destination: what E2B's clients call `ALL_TRAFFIC`.
pub const ALL_TRAFFIC: &str = "0.0.0.0/0";
/// `network` of a create request, and the body of a network update.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    pub allow_public_traffic: Option<bool>,
    pub allow_out: Option<Vec<String>>,
    pub deny_out: Option<Vec<String>>,
    pub dns_servers: Option<Vec<String>>,
    pub egress_proxy: Option<EgressProxy>,
    pub https_ports: Option<Vec<u16>>,
    pub mask_request_host: Option<String>,
    pub rules: Option<BTreeMap<String, Vec<Rule>>>,
    /// Only in updates; a create request has it beside `network`.
    #[serde(rename = "allow_internet_access")]
    pub allow_internet_access: Option<bool>,
}

/// A SOCKS5 proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressProxy {
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Never answered.
    #[serde(default, skip_serializing)]
    pub password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProxyTls>,
}

/// TLS to a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyTls {
    pub enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Never answered.
    #[serde(skip_serializing)]
    pub ca_cert: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    pub transform: Option<Transform>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transform {
    pub headers: Option<BTreeMap<String, String>>,
}

/// `network` of a sandbox's details.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkDetail {
    pub allow_public_traffic: bool,
    pub allow_out: Vec<String>,
    pub deny_out: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_request_host: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, Vec<Rule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<EgressProxy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub https_ports: Vec<u16>,
}

impl Network {
    /// The domain value of a create request. `internet` is the request's `allow_internet_access`.
    pub fn into_spec(self, internet: Option<bool>) -> Result<NetworkSpec, Fault> {
        let base = NetworkSpec {
            allow_public_traffic: self.allow_public_traffic.unwrap_or(true),
            mask_request_host: self
                .mask_request_host
                .clone()
                .filter(|host| !host.is_empty()),
            dns_servers: dns_servers(self.dns_servers.as_deref().unwrap_or_default())?,
            https_ports: self.https_ports.clone().unwrap_or_default(),
            ..NetworkSpec::default()
        };
        self.egress_of(internet, base)
    }

    /// The domain value of an update: egress is replaced (what is not said is cleared), who may
    /// reach the sandbox stays as it was.
    pub fn update(self, current: NetworkSpec) -> Result<NetworkSpec, Fault> {
        let internet = self.allow_internet_access;
        self.egress_of(internet, current)
    }

    fn egress_of(self, internet: Option<bool>, base: NetworkSpec) -> Result<NetworkSpec, Fault> {
        let allow_out = self.allow_out.unwrap_or_default();
        let mut deny_out = self.deny_out.unwrap_or_default();
        let blocked = internet == Some(false);
        // E2B: no internet access is the same as denying everything, so allowed ones still win.
        if blocked && !allow_out.is_empty() && !deny_out.iter().any(|deny| deny == ALL_TRAFFIC) {
            deny_out.push(ALL_TRAFFIC.to_owned());
        }
        check_lists(&allow_out, &deny_out)?;
        Ok(NetworkSpec {
            internet: !blocked || !allow_out.is_empty(),
            allow_out,
            deny_out,
            header_rules: header_rules(self.rules.unwrap_or_default())?,
            egress_proxy: self.egress_proxy.map(proxy),
            ..base
        })
    }
}

/// A host has one transform at most; E2B keeps hosts in lower case.
fn header_rules(
    rules: BTreeMap<String, Vec<Rule>>,
) -> Result<BTreeMap<String, BTreeMap<String, Hidden>>, Fault> {
    let mut all = BTreeMap::new();
    for (host, transforms) in rules {
        let field = format!("network.rules.{}", cut(&host));
        let mut transforms = transforms.into_iter();
        let headers = transforms.next().and_then(|rule| rule.transform?.headers);
        if transforms.next().is_some() {
            let text = format!("{field}: a host has at most one rule");
            return Err(Fault::invalid(field, text));
        }
        let headers = hidden(headers.unwrap_or_default());
        if all.insert(host.to_ascii_lowercase(), headers).is_some() {
            let text = format!("{field}: the host is there twice");
            return Err(Fault::invalid(field, text));
        }
    }
    Ok(all)
}

fn proxy(asked: EgressProxy) -> network::EgressProxy {
    let tls = asked.tls.filter(|tls| tls.enabled);
    network::EgressProxy {
        address: asked.address,
        // An empty one is what an unset variable leaves: none.
        username: asked.username.filter(|name| !name.is_empty()),
        password: asked
            .password
            .filter(|password| !password.is_empty())
            .map(Hidden::Plain),
        tls: tls.map(|tls| network::ProxyTls {
            server_name: tls.server_name,
            ca_cert: tls.ca_cert,
        }),
    }
}

/// A fault about network rules as clients of this face know them; answers here have no field
/// beside the message.
#[must_use]
pub fn named_as_here(mut fault: Fault) -> Fault {
    const NAMES: [(&str, &str); 6] = [
        ("network.header_rules", "network.rules"),
        ("network.rules", "network.rules"),
        ("network.egress_proxy", "network.egressProxy"),
        ("network.egressProxy", "network.egressProxy"),
        ("network.https_ports", "network.httpsPorts"),
        ("network.httpsPorts", "network.httpsPorts"),
    ];
    let Some(field) = fault.field.clone() else {
        return fault;
    };
    let known = NAMES
        .iter()
        .find_map(|(name, here)| Some(format!("{here}{}", field.strip_prefix(name)?)));
    if let Some(here) = known {
        if !fault.message.starts_with(&here) {
            fault.message = format!("{here}: {}", fault.message);
        }
        fault.field = Some(here);
    }
    fault
}

fn is_address(entry: &str) -> bool {
    let (address, prefix) = entry.split_once('/').unwrap_or((entry, "0"));
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => prefix.parse::<u8>().is_ok_and(|bits| bits <= 32),
        Ok(IpAddr::V6(_)) => prefix.parse::<u8>().is_ok_and(|bits| bits <= 128),
        Err(_) => false,
    }
}

fn check_lists(allow_out: &[String], deny_out: &[String]) -> Result<(), Fault> {
    if let Some(at) = deny_out.iter().position(|entry| !is_address(entry)) {
        return Err(Fault::invalid(
            format!("network.denyOut[{at}]"),
            format!("invalid denied CIDR {}", cut(&deny_out[at])),
        ));
    }
    let has_domain = allow_out.iter().any(|entry| !is_address(entry));
    if has_domain && !deny_out.iter().any(|entry| entry == ALL_TRAFFIC) {
        return Err(Fault::invalid(
            "network.allowOut",
            "When specifying allowed domains in allowOut, you must include '0.0.0.0/0' \
             (ALL_TRAFFIC) in denyOut to block all other traffic.",
        ));
    }
    Ok(())
}

fn cut(value: &str) -> String {
    value.chars().take(64).collect()
}

fn dns_servers(servers: &[String]) -> Result<Vec<IpAddr>, Fault> {
    let parse = |(at, server): (usize, &String)| {
        server.parse().map_err(|_| {
            Fault::invalid(
                format!("network.dnsServers[{at}]"),
                format!("`{}` is not an IP address", cut(server)),
            )
        })
    };
    servers.iter().enumerate().map(parse).collect()
}

impl From<&NetworkSpec> for NetworkDetail {
    fn from(spec: &NetworkSpec) -> Self {
        let rule = |headers: &BTreeMap<String, Hidden>| Rule {
            transform: Some(Transform {
                headers: Some(shown(headers.clone())),
            }),
        };
        Self {
            allow_public_traffic: spec.allow_public_traffic,
            allow_out: spec.allow_out.clone(),
            deny_out: spec.deny_out.clone(),
            dns_servers: spec.dns_servers.iter().map(ToString::to_string).collect(),
            mask_request_host: spec.mask_request_host.clone(),
            rules: spec
                .header_rules
                .iter()
                .map(|(host, headers)| (host.clone(), vec![rule(headers)]))
                .collect(),
            egress_proxy: spec.egress_proxy.as_ref().map(|proxy| EgressProxy {
                address: proxy.address.clone(),
                username: proxy.username.clone(),
                password: None,
                tls: proxy.tls.as_ref().map(|tls| ProxyTls {
                    enabled: true,
                    server_name: tls.server_name.clone(),
                    ca_cert: None,
                }),
            }),
            https_ports: spec.https_ports.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(json: &str) -> Network {
        serde_json::from_str(json).expect("json")
    }

    #[test]
    fn a_domain_needs_everything_else_denied() {
        let alone = network(r#"{"allowOut":["example.com"]}"#);
        assert!(alone.into_spec(None).is_err());
        let denied = network(r#"{"allowOut":["example.com"],"denyOut":["0.0.0.0/0"]}"#);
        assert!(denied.into_spec(None).is_ok());
    }

    #[test]
    fn deny_takes_addresses_only() {
        for bad in ["example.com", "10.0.0.0/33", "::/129", "10.0.0.0/", "/8"] {
            let asked = Network {
                deny_out: Some(vec![bad.to_owned()]),
                ..Network::default()
            };
            assert!(asked.into_spec(None).is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_and_proxies_are_read_and_their_secrets_are_not_answered() {
        let asked = network(
            r#"{"rules":{"A.de":[{"transform":{"headers":{"x":"secret-1"}}}],"b.de":[]},
            "egressProxy":{"address":"p:1","username":"ann","password":"secret-2",
            "tls":{"enabled":true,"serverName":"q","caCert":"secret-3"}},"httpsPorts":[8443]}"#,
        );
        let spec = asked.into_spec(None).expect("valid");
        let plain = |text: &str| Hidden::Plain(text.to_owned());
        assert_eq!(spec.header_rules["a.de"]["x"], plain("secret-1"));
        assert!(spec.header_rules["b.de"].is_empty());
        let proxy = spec.egress_proxy.as_ref().expect("a proxy");
        assert_eq!(proxy.password, Some(plain("secret-2")));
        assert_eq!(
            proxy
                .tls
                .as_ref()
                .and_then(|tls| tls.server_name.as_deref()),
            Some("q")
        );
        let answer = serde_json::to_string(&NetworkDetail::from(&spec)).expect("json");
        for (text, there) in [
            ("secret", false),
            ("a.de", true),
            ("ann", true),
            ("8443", true),
        ] {
            assert_eq!(answer.contains(text), there, "{text}: {answer}");
        }
        // What an update does not say is cleared, but for what is not about the way out.
        let after = network("{}").update(spec).expect("valid");
        assert!(after.header_rules.is_empty() && after.egress_proxy.is_none());
        assert_eq!(after.https_ports, [8443]);
        let off = network(r#"{"egressProxy":{"address":"p:1","tls":{"enabled":false}}}"#);
        let off = off.into_spec(None).expect("valid").egress_proxy;
        assert_eq!(off.expect("a proxy").tls, None);
        let nothing = r#"{"egressProxy":null,"rules":{},"httpsPorts":[]}"#;
        let nothing = network(nothing).into_spec(None).expect("valid");
        assert_eq!(nothing, NetworkSpec::default());
    }

    #[test]
    fn refusals_name_the_field_as_it_is_here() {
        let two = r#"{"rules":{"a.de":[{"transform":{"headers":{"x":"y"}}},{}]}}"#;
        let twice = r#"{"rules":{"a.de":[],"A.de":[]}}"#;
        for body in [two, twice] {
            let refused = network(body).into_spec(None).expect_err(body);
            assert_eq!(refused.field.as_deref(), Some("network.rules.a.de"));
            let message = refused.message.clone();
            assert_eq!(named_as_here(refused).message, message);
        }
        for (field, here) in [
            ("network.header_rules.a.de.x", "network.rules.a.de.x"),
            (
                "network.egress_proxy.address",
                "network.egressProxy.address",
            ),
            ("network.https_ports[1]", "network.httpsPorts[1]"),
        ] {
            let told = named_as_here(Fault::invalid(field, "why"));
            assert_eq!(told.message, format!("{here}: why"));
        }
        let other = named_as_here(Fault::invalid("network.allow_out[0]", "why"));
        assert_eq!(other.message, "why");
    }

    #[test]
    fn allowed_wins_over_no_internet() {
        let spec = network(r#"{"allowOut":["1.1.1.1"]}"#)
            .into_spec(Some(false))
            .expect("valid");
        assert!(spec.internet);
        assert_eq!(spec.deny_out, [ALL_TRAFFIC]);
        let closed = Network::default().into_spec(Some(false)).expect("valid");
        assert!(!closed.internet);
    }

    #[test]
    fn an_update_replaces_egress_and_keeps_ingress() {
        let before = network(r#"{"denyOut":["8.8.8.8"],"allowPublicTraffic":false}"#)
            .into_spec(None)
            .expect("valid");
        let after = network("{}").update(before).expect("valid");
        assert!(after.deny_out.is_empty());
        assert!(!after.allow_public_traffic);
    }
}
