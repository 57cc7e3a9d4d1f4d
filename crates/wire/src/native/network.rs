//! A sandbox's network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woodfrog_types::network::NetworkSpec;

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
    /// Refused unless empty: headers cannot be added inside TLS.
    pub header_rules: BTreeMap<String, Vec<BTreeMap<String, String>>>,
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
            header_rules: spec.header_rules,
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
            header_rules: network.header_rules,
        }
    }
}
