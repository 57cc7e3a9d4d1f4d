//! A sandbox's network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woodfrog_types::network::{self, Hidden, NetworkSpec};

/// What a sandbox may reach and who may reach it. Absent fields have their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// `false`: nothing outside can be reached, whatever the lists say.
    pub internet: bool,
    /// Always allowed: addresses, CIDR blocks, domains, `*.domain`.
    pub allow_out: Vec<String>,
    /// Denied addresses and CIDR blocks; an allowed one wins.
    pub deny_out: Vec<String>,
    /// Name servers instead of the server's own forwarder.
    #[schema(value_type = Vec<String>)]
    pub dns_servers: Vec<IpAddr>,
    /// `false`: requests to ports inside need the traffic token.
    pub allow_public_traffic: bool,
    /// Replaces the `Host` header of requests to ports inside; `${PORT}` is substituted.
    pub mask_request_host: Option<String>,
    /// Host (a name, or `*.` and a name) → headers that are set on the sandbox's HTTP and HTTPS
    /// requests to it. Values are never given out: answers have `[hidden]` in their place.
    pub header_rules: BTreeMap<String, BTreeMap<String, String>>,
    /// Where outgoing TCP connections go through.
    pub egress_proxy: Option<EgressProxy>,
    /// Ports inside that speak HTTPS rather than HTTP. Their certificates are not checked.
    pub https_ports: Vec<u16>,
}

/// A SOCKS5 proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressProxy {
    /// `host:port`; the host is a name or an IPv4 address.
    pub address: String,
    #[serde(default)]
    pub username: Option<String>,
    /// Never given out: answers have `[hidden]` in its place.
    #[serde(default)]
    pub password: Option<String>,
    /// TLS on the way to the proxy; absent: none.
    #[serde(default)]
    pub tls: Option<ProxyTls>,
}

/// TLS to a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyTls {
    /// The name that its certificate must have; absent: the address's host.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Certificates (PEM) that are trusted instead of the server machine's.
    #[serde(default)]
    pub ca_cert: Option<String>,
}

impl Default for Network {
    fn default() -> Self {
        NetworkSpec::default().into()
    }
}

impl From<NetworkSpec> for Network {
    fn from(spec: NetworkSpec) -> Self {
        Self {
            internet: spec.internet,
            allow_out: spec.allow_out,
            deny_out: spec.deny_out,
            dns_servers: spec.dns_servers,
            allow_public_traffic: spec.allow_public_traffic,
            mask_request_host: spec.mask_request_host,
            header_rules: spec
                .header_rules
                .into_iter()
                .map(|(host, headers)| (host, shown(headers)))
                .collect(),
            egress_proxy: spec.egress_proxy.map(|proxy| EgressProxy {
                address: proxy.address,
                username: proxy.username,
                password: proxy.password.map(|_| Hidden::SHOWN.to_owned()),
                tls: proxy.tls.map(|tls| ProxyTls {
                    server_name: tls.server_name,
                    ca_cert: tls.ca_cert,
                }),
            }),
            https_ports: spec.https_ports,
        }
    }
}

impl From<Network> for NetworkSpec {
    fn from(network: Network) -> Self {
        Self {
            internet: network.internet,
            allow_out: network.allow_out,
            deny_out: network.deny_out,
            dns_servers: network.dns_servers,
            allow_public_traffic: network.allow_public_traffic,
            mask_request_host: network.mask_request_host,
            header_rules: network
                .header_rules
                .into_iter()
                .map(|(host, headers)| (host, hidden(headers)))
                .collect(),
            egress_proxy: network.egress_proxy.map(|proxy| network::EgressProxy {
                address: proxy.address,
                username: proxy.username,
                password: proxy.password.map(Hidden::Plain),
                tls: proxy.tls.map(|tls| network::ProxyTls {
                    server_name: tls.server_name,
                    ca_cert: tls.ca_cert,
                }),
            }),
            https_ports: network.https_ports,
        }
    }
}

/// Names of headers, with what is shown instead of their values.
pub(crate) fn shown(headers: BTreeMap<String, Hidden>) -> BTreeMap<String, String> {
    let names = headers.into_keys();
    names.map(|name| (name, Hidden::SHOWN.to_owned())).collect()
}

/// Headers as a client gave them.
pub(crate) fn hidden(headers: BTreeMap<String, String>) -> BTreeMap<String, Hidden> {
    let headers = headers.into_iter();
    headers
        .map(|(name, value)| (name, Hidden::Plain(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_in_and_do_not_go_out() {
        let json = r#"{"header_rules":{"a.de":{"x-key":"secret-1"}},
            "egress_proxy":{"address":"p:1","username":"ann","password":"secret-2"}}"#;
        let asked: Network = serde_json::from_str(json).expect("json");
        let spec = NetworkSpec::from(asked);
        let plain = Hidden::Plain("secret-1".to_owned());
        assert_eq!(spec.header_rules["a.de"]["x-key"], plain);
        assert!(!format!("{spec:?}").contains("secret"));
        let answer = serde_json::to_string(&Network::from(spec)).expect("json");
        assert!(
            !answer.contains("secret") && answer.contains("ann"),
            "{answer}"
        );
        assert_eq!(answer.matches(Hidden::SHOWN).count(), 2);
    }
}
