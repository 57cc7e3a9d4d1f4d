//! A sandbox's network, as its owner asked for it (validated, not yet resolved to rules).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::secret::Sealed;

/// The address at which every sandbox finds the server's own name forwarder.
pub const FORWARDER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 0, 53);

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
    /// Per destination host (a name, or `*.` and a name): headers that are set on the sandbox's
    /// HTTP and HTTPS requests to it. A rule does not make its host reachable.
    pub header_rules: BTreeMap<String, BTreeMap<String, Hidden>>,
    /// Where the sandbox's outgoing TCP connections go through.
    pub egress_proxy: Option<EgressProxy>,
    /// Ports inside that speak HTTPS rather than HTTP.
    pub https_ports: Vec<u16>,
}

/// A SOCKS5 proxy that outgoing connections go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressProxy {
    /// `host:port`; the host is a name or an IPv4 address.
    pub address: String,
    pub username: Option<String>,
    pub password: Option<Hidden>,
    /// TLS on the way to the proxy; `None`: none.
    pub tls: Option<ProxyTls>,
}

/// TLS to a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyTls {
    /// The name that its certificate must have; `None`: the address's host.
    pub server_name: Option<String>,
    /// Certificates (PEM) that are trusted instead of this machine's.
    pub ca_cert: Option<String>,
}

/// A value that is used and never shown: as a client gave it, or sealed, as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Hidden {
    Plain(String),
    Sealed(Sealed),
}

impl Hidden {
    /// What is shown in its place.
    pub const SHOWN: &str = "[hidden]";
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SHOWN)
    }
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
            egress_proxy: None,
            https_ports: Vec::new(),
        }
    }
}
