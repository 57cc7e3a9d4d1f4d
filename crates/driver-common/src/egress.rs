//! From the port's egress to the network's policy.

use serde::{Deserialize, Serialize};
use woodfrog_network::{EgressPolicy, NetworkMode, PolicyError, PolicyInput};
use woodfrog_sandbox::{DriverError, Egress};

/// What the network is asked for.
pub struct Wanted {
    pub mode: NetworkMode,
    pub policy: EgressPolicy,
}

/// Parses; the engine has validated already, so an error here is about what this driver lacks.
pub fn wanted(egress: &Egress) -> Result<Wanted, DriverError> {
    let dns_servers: Vec<String> = egress.dns_servers.iter().map(ToString::to_string).collect();
    let input = PolicyInput {
        internet: Some(egress.internet),
        allow_out: &egress.allow,
        deny_out: &egress.deny,
        dns_servers: &dns_servers,
        egress_proxy: false,
        header_rules: !egress.header_rules.is_empty(),
    };
    let policy = EgressPolicy::parse(&input).map_err(refused)?;
    // Even without the internet there is a link: rules can be replaced while it runs.
    Ok(Wanted {
        mode: NetworkMode::Nat,
        policy,
    })
}

fn refused(error: PolicyError) -> DriverError {
    match error {
        PolicyError::Unsupported { field, reason } => DriverError::Unsupported {
            what: format!("network.{field}"),
            hint: reason.into(),
        },
        PolicyError::Invalid { field, reason } => DriverError::Invalid {
            field: format!("network.{field}"),
            detail: reason,
        },
        other => DriverError::Invalid {
            field: "network".into(),
            detail: other.to_string(),
        },
    }
}

/// [`Egress`] as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredEgress {
    internet: bool,
    allow: Vec<String>,
    deny: Vec<String>,
    dns_servers: Vec<std::net::IpAddr>,
}

impl From<&Egress> for StoredEgress {
    fn from(egress: &Egress) -> Self {
        Self {
            internet: egress.internet,
            allow: egress.allow.clone(),
            deny: egress.deny.clone(),
            dns_servers: egress.dns_servers.clone(),
        }
    }
}

impl From<&StoredEgress> for Egress {
    fn from(stored: &StoredEgress) -> Self {
        Self {
            internet: stored.internet,
            allow: stored.allow.clone(),
            deny: stored.deny.clone(),
            dns_servers: stored.dns_servers.clone(),
            header_rules: std::collections::BTreeMap::new(),
        }
    }
}
