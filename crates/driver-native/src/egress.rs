//! From the port's egress to the network's policy.

use woodfrog_network::{EgressPolicy, NetworkMode, PolicyError, PolicyInput};
use woodfrog_sandbox::{DriverError, Egress};

/// What the network is asked for.
pub(crate) struct Wanted {
    pub(crate) mode: NetworkMode,
    pub(crate) policy: EgressPolicy,
}

/// Parses; the engine has validated already, so an error here is about what this driver lacks.
pub(crate) fn wanted(egress: &Egress) -> Result<Wanted, DriverError> {
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
