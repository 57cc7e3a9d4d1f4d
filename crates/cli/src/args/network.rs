//! Flags about what sandboxes reach.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

/// What a sandbox may reach. What is secret in it comes from files: who else is on this machine can
/// read command lines.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// No access to the outside.
    #[arg(long)]
    pub no_internet: bool,
    /// An address, a CIDR block, a domain or `*.DOMAIN` that is always allowed; repeatable.
    #[arg(long, value_name = "DESTINATION")]
    pub allow_out: Vec<String>,
    /// An address or a CIDR block that is denied, unless it is allowed; repeatable.
    #[arg(long, value_name = "DESTINATION")]
    pub deny_out: Vec<String>,
    /// A name server instead of the server's own forwarder; repeatable.
    #[arg(long = "dns-server", value_name = "ADDRESS")]
    pub dns_servers: Vec<IpAddr>,
    /// A file with headers that are set on its requests, as JSON: `{"HOST": {"HEADER": "VALUE"}}`;
    /// `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub header_rules: Option<PathBuf>,
    /// A SOCKS5 proxy that its outgoing TCP connections go through.
    #[arg(long, value_name = "HOST:PORT")]
    pub egress_proxy: Option<String>,
    /// A file with one line for the proxy: `USER` or `USER:PASSWORD`.
    #[arg(long, value_name = "FILE", requires = "egress_proxy")]
    pub egress_proxy_login: Option<PathBuf>,
    /// TLS on the way to the proxy.
    #[arg(long, requires = "egress_proxy")]
    pub egress_proxy_tls: bool,
    /// The name that the proxy's certificate must have [default: the proxy's host].
    #[arg(long, value_name = "NAME", requires = "egress_proxy_tls")]
    pub egress_proxy_name: Option<String>,
    /// A file with certificates (PEM) that are trusted for the proxy instead of the server machine's.
    #[arg(long, value_name = "FILE", requires = "egress_proxy_tls")]
    pub egress_proxy_ca: Option<PathBuf>,
}
