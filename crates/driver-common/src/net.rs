//! The network of a driver: its block of addresses, and what lives in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use woodfrog_network::{
    Authority, AuthorityError, Cidr, Live, Network, NetworkConfig, Subnet, TrustError,
    certificates, choose_subnet, default_denied,
};

use crate::egress::{EgressOptions, StoredEgress};

/// Below the data directory: the authority for hosts with header rules.
pub const AUTHORITY: &str = "egress";

/// Why there is no network to be had.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("network.cidr, network.allow_private or network.egress_proxies: {0}")]
    Config(String),
    #[error("no free address block for sandboxes; set network.cidr")]
    NoSubnet,
    #[error("cannot keep the address block in {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("network.extra_ca: read {path}")]
    Ca {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("network.extra_ca: {path}")]
    CaContent {
        path: PathBuf,
        #[source]
        source: TrustError,
    },
    #[error("the certificate authority of the ways out")]
    Authority(#[from] AuthorityError),
}

/// What a network is asked for.
pub struct Wanted<'a> {
    /// Six hexadecimal digits: see [`crate::instance_id`].
    pub instance: String,
    /// Where the block is remembered, in a file `subnet`.
    pub dir: &'a Path,
    /// The address block; `None` picks a free one.
    pub cidr: Option<&'a str>,
    /// Private blocks that sandboxes may reach.
    pub allow_private: &'a [String],
    /// Where all servers' drivers of this machine have their one authority.
    pub data_dir: &'a Path,
    /// The ways out.
    pub egress: &'a EgressOptions,
}

/// Sets it up, with the rules of the sandboxes that run already, by their slots. What it cannot do
/// is logged.
///
/// # Errors
/// No block of addresses. That there can be no network at all is no error: it says so itself.
pub async fn set_up<'a>(
    asked: Wanted<'_>,
    running: impl Iterator<Item = (u32, &'a StoredEgress)>,
) -> Result<Network, NetError> {
    let parse = |text: &String| {
        text.parse::<Cidr>()
            .map_err(|error| NetError::Config(format!("{text}: {error}")))
    };
    let parse_all = |list: &[String]| list.iter().map(parse).collect::<Result<Vec<_>, _>>();
    let servers = &asked.egress.name_servers;
    let config = NetworkConfig {
        subnet: subnet(&asked)?,
        instance: asked.instance,
        deny: default_denied(),
        allow: parse_all(asked.allow_private)?,
        proxies: parse_all(&asked.egress.proxies)?,
        authority: Arc::new(Authority::open(&asked.data_dir.join(AUTHORITY))?),
        extra_roots: extra_roots(asked.egress)?,
        uplinks: Vec::new(),
        dns_upstreams: Some(servers.clone()).filter(|servers| !servers.is_empty()),
        nft: None,
    };
    let live: Vec<Live> = running
        .filter_map(|(slot, egress)| {
            let policy = egress.policy()?;
            Some(Live { slot, policy })
        })
        .collect();
    let network = Network::setup(config, &live).await;
    if let Some(error) = network.unavailable() {
        tracing::warn!(%error, "sandboxes have no network");
    }
    for warning in network.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(network)
}

fn extra_roots(
    options: &EgressOptions,
) -> Result<Vec<woodfrog_network::CertificateDer<'static>>, NetError> {
    let Some(path) = &options.extra_ca else {
        return Ok(Vec::new());
    };
    let path = path.clone();
    match std::fs::read(&path) {
        Ok(pem) => certificates(&pem).map_err(|source| NetError::CaContent { path, source }),
        Err(source) => Err(NetError::Ca { path, source }),
    }
}

/// The configured block, else the one of last time, else a free one (then remembered: running
/// sandboxes keep their addresses across a restart).
fn subnet(asked: &Wanted<'_>) -> Result<Subnet, NetError> {
    let bad = |text: &str| NetError::Config(format!("`{text}` is not a usable IPv4 block"));
    let from_text = |text: &str| {
        text.parse::<Cidr>()
            .ok()
            .and_then(Subnet::new)
            .ok_or_else(|| bad(text))
    };
    if let Some(text) = asked.cidr {
        return from_text(text);
    }
    let file = asked.dir.join("subnet");
    if let Ok(text) = std::fs::read_to_string(&file) {
        return from_text(text.trim());
    }
    let chosen = choose_subnet()
        .map_err(|error| NetError::Config(error.to_string()))?
        .ok_or(NetError::NoSubnet)?;
    std::fs::write(&file, chosen.range().to_string())
        .map_err(|source| NetError::File { path: file, source })?;
    Ok(chosen)
}
