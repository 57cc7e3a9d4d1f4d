//! Network rules as E2B writes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::{Code, Fault};

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
    pub egress_proxy: Option<Value>,
    pub https_ports: Option<Vec<u16>>,
    pub mask_request_host: Option<String>,
    pub rules: Option<BTreeMap<String, Vec<Rule>>>,
    /// Only in updates; a create request has it beside `network`.
    #[serde(rename = "allow_internet_access")]
    pub allow_internet_access: Option<bool>,
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
        if self.egress_proxy.is_some() {
            return Err(unsupported("network.egressProxy"));
        }
        if self.rules.is_some_and(|rules| !rules.is_empty()) {
            return Err(unsupported("network.rules"));
        }
        if self.https_ports.is_some_and(|ports| !ports.is_empty()) {
            return Err(unsupported("network.httpsPorts"));
        }
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
            header_rules: BTreeMap::new(),
            ..base
        })
    }
}

fn unsupported(field: &str) -> Fault {
    Fault::new(
        Code::InvalidArgument,
        format!("{field} is not supported by this server"),
    )
    .with_field(field)
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
        let rule = |headers: &BTreeMap<String, String>| Rule {
            transform: Some(Transform {
                headers: Some(headers.clone()),
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
                .map(|(host, sets)| (host.clone(), sets.iter().map(rule).collect()))
                .collect(),
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
    fn what_is_not_supported_is_named() {
        for (body, field) in [
            (
                r#"{"egressProxy":{"address":"127.0.0.1:1080"}}"#,
                "network.egressProxy",
            ),
            (
                r#"{"rules":{"a.de":[{"transform":{"headers":{"x":"y"}}}]}}"#,
                "network.rules",
            ),
            (r#"{"rules":{"a.de":[]}}"#, "network.rules"),
            (r#"{"httpsPorts":[8443]}"#, "network.httpsPorts"),
        ] {
            for refused in [
                network(body).into_spec(None),
                network(body).update(NetworkSpec::default()),
            ] {
                let refused = refused.expect_err(body);
                assert_eq!(refused.code, Code::InvalidArgument, "{body}");
                assert_eq!(refused.field.as_deref(), Some(field), "{body}");
            }
        }
        let nothing = r#"{"egressProxy":null,"rules":{},"httpsPorts":[]}"#;
        assert!(network(nothing).into_spec(None).is_ok());
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
