//! A sandbox's network, as its owner asked for it (validated, not yet resolved to rules).

use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a sandbox may reach and who may reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// `false`: nothing outside can be reached, whatever the lists say.
    pub internet: bool,
    /// Destinations that are always allowed: addresses, CIDR blocks, domains, `*.domain`.
    pub allow_out: Vec<String>,
    /// Denied destinations: addresses and CIDR blocks. An allowed one wins.
    pub deny_out: Vec<String>,
    /// Name servers instead of the server's own forwarder.
    pub dns_servers: Vec<IpAddr>,
    /// Ports inside are reachable without the traffic token.
    pub allow_public_traffic: bool,
    /// Replaces the `Host` header of requests to ports inside; `${PORT}` is substituted.
    pub mask_request_host: Option<String>,
    /// Per destination host: headers that are set on plain-HTTP requests from inside.
    pub header_rules: BTreeMap<String, Vec<BTreeMap<String, String>>>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            internet: true,
            allow_out: Vec::new(),
            deny_out: Vec::new(),
            dns_servers: Vec::new(),
            allow_public_traffic: true,
            mask_request_host: None,
            header_rules: BTreeMap::new(),
        }
    }
}
