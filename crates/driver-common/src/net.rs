//! The network of a driver: its block of addresses, and what lives in it.

use std::path::{Path, PathBuf};

use woodfrog_network::{Cidr, Live, Network, NetworkConfig, Subnet, choose_subnet, default_denied};
use woodfrog_sandbox::Egress;

use crate::egress::{StoredEgress, wanted};

/// Why there is no network to be had.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("network.cidr or network.allow_private: {0}")]
    Config(String),
    #[error("no free address block for sandboxes; set network.cidr")]
    NoSubnet,
    #[error("cannot keep the address block in {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
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
    let config = NetworkConfig {
        subnet: subnet(&asked)?,
        instance: asked.instance,
        deny: default_denied(),
        allow: asked
            .allow_private
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()?,
        uplinks: Vec::new(),
        dns_upstreams: None,
        nft: None,
    };
    let live: Vec<Live> = running
        .filter_map(|(slot, egress)| {
            let policy = wanted(&Egress::from(egress)).ok()?.policy;
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
