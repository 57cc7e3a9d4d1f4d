//! From the port's egress to the network's policy.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use woodfrog_network::{
    EgressPolicy, HeaderRule, Network, NetworkMode, PolicyError, PolicyInput, Route, SocksProxy,
};
use woodfrog_sandbox::{DriverError, Egress};
use woodfrog_types::network::{EgressProxy, Hidden};

/// What the operator says about the ways out.
#[derive(Debug, Clone, Default)]
pub struct EgressOptions {
    /// Certificates (PEM) that servers and proxies may have besides those this machine trusts.
    pub extra_ca: Option<PathBuf>,
    /// Ranges in which sandboxes' proxies may be although sandboxes may not go there.
    pub proxies: Vec<String>,
    /// Name servers for sandboxes; none: those of the host.
    pub name_servers: Vec<SocketAddr>,
}

/// What the network is asked for.
pub struct Wanted {
    pub mode: NetworkMode,
    pub policy: EgressPolicy,
}

/// Parses; the engine has validated already, so an error here is about what this driver lacks.
pub fn wanted(egress: &Egress) -> Result<Wanted, DriverError> {
    Ok(Wanted {
        // Even without the internet there is a link: rules can be replaced while it runs.
        mode: NetworkMode::Nat,
        policy: policy(egress).map_err(refused)?,
    })
}

/// Refuses a proxy that is where none may be. Looks its name up: not for a sandbox that comes
/// back, which does without until its proxy is there again.
pub async fn check_proxy(network: &Network, policy: &EgressPolicy) -> Result<(), DriverError> {
    network.check_route(policy).await.map_err(refused)
}

fn policy(egress: &Egress) -> Result<EgressPolicy, PolicyError> {
    let rules = egress
        .header_rules
        .iter()
        // A host without headers is only a name, for allow lists.
        .filter(|(_, headers)| !headers.is_empty())
        .map(|(host, headers)| HeaderRule::new(host, plain(headers)?));
    let route = match &egress.proxy {
        None => Route::Direct,
        Some(proxy) => Route::Proxy(Arc::new(socks(proxy)?)),
    };
    with_lists(
        (egress.internet, &egress.allow, &egress.deny),
        &egress.dns_servers,
        rules.collect::<Result<_, _>>()?,
        route,
    )
}

fn with_lists(
    (internet, allow, deny): (bool, &[String], &[String]),
    dns_servers: &[IpAddr],
    rules: Vec<HeaderRule>,
    route: Route,
) -> Result<EgressPolicy, PolicyError> {
    let dns_servers: Vec<String> = dns_servers.iter().map(ToString::to_string).collect();
    EgressPolicy::parse(&PolicyInput {
        internet: Some(internet),
        allow_out: allow,
        deny_out: deny,
        dns_servers: &dns_servers,
        rules,
        route,
    })
}

fn plain(headers: &BTreeMap<String, Hidden>) -> Result<Vec<(&str, &str)>, PolicyError> {
    let named = headers.iter();
    named
        .map(|(name, value)| Ok((name.as_str(), opened(value, "rules")?)))
        .collect()
}

fn socks(proxy: &EgressProxy) -> Result<SocksProxy, PolicyError> {
    let password = proxy.password.as_ref();
    let password = password.map(|value| opened(value, "egressProxy"));
    let made = SocksProxy::new(
        &proxy.address,
        proxy.username.as_deref(),
        password.transpose()?,
    )?;
    match &proxy.tls {
        None => Ok(made),
        Some(tls) => made.over_tls(tls.server_name.as_deref(), tls.ca_cert.as_deref()),
    }
}

/// Drivers are given values that are not sealed.
fn opened<'a>(value: &'a Hidden, field: &'static str) -> Result<&'a str, PolicyError> {
    match value {
        Hidden::Plain(text) => Ok(text),
        Hidden::Sealed(_) => Err(PolicyError::Invalid {
            field,
            reason: "a value is sealed".to_owned(),
        }),
    }
}

fn refused(error: PolicyError) -> DriverError {
    match error {
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

/// [`Egress`] as it is stored: without what is secret. After a restart connections that need that
/// wait until the driver is given it anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredEgress {
    internet: bool,
    allow: Vec<String>,
    deny: Vec<String>,
    dns_servers: Vec<IpAddr>,
    /// Hosts with headers.
    #[serde(default)]
    rule_hosts: Vec<String>,
    /// Whether there is a proxy.
    #[serde(default)]
    proxied: bool,
}

impl From<&Egress> for StoredEgress {
    fn from(egress: &Egress) -> Self {
        let hosts = egress.header_rules.iter();
        let hosts = hosts.filter(|(_, headers)| !headers.is_empty());
        Self {
            internet: egress.internet,
            allow: egress.allow.clone(),
            deny: egress.deny.clone(),
            dns_servers: egress.dns_servers.clone(),
            rule_hosts: hosts.map(|(host, _)| host.clone()).collect(),
            proxied: egress.proxy.is_some(),
        }
    }
}

impl StoredEgress {
    /// The policy, with rules and a proxy that are not known yet; `None` for what no server of
    /// ours wrote.
    pub fn policy(&self) -> Option<EgressPolicy> {
        let rules = self.rule_hosts.iter().map(|host| HeaderRule::unknown(host));
        with_lists(
            (self.internet, &self.allow, &self.deny),
            &self.dns_servers,
            rules.collect::<Result<_, _>>().ok()?,
            match self.proxied {
                true => Route::Unknown,
                false => Route::Direct,
            },
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress() -> Egress {
        let hidden = |text: &str| Hidden::Plain(text.to_owned());
        let headers = BTreeMap::from([("x-key".to_owned(), hidden("secret-1"))]);
        Egress {
            internet: true,
            header_rules: BTreeMap::from([
                ("api.example.com".to_owned(), headers),
                ("bare.example.com".to_owned(), BTreeMap::new()),
            ]),
            proxy: Some(EgressProxy {
                address: "proxy.example.com:1080".to_owned(),
                username: Some("ann".to_owned()),
                password: Some(hidden("secret-2")),
                tls: None,
            }),
            ..Egress::default()
        }
    }

    #[test]
    fn what_is_stored_has_no_secrets_and_still_redirects() {
        let egress = egress();
        let known = wanted(&egress).unwrap().policy;
        assert!(known.is_known() && known.is_tunnelled());
        let stored = serde_json::to_string(&StoredEgress::from(&egress)).unwrap();
        assert!(!stored.contains("secret") && !stored.contains("ann"));
        let again: StoredEgress = serde_json::from_str(&stored).unwrap();
        let policy = again.policy().unwrap();
        assert!(!policy.is_known() && policy.is_tunnelled() && policy.has_rules());
        assert!(!format!("{egress:?} {known:?}").contains("secret"));
    }

    #[test]
    fn notes_of_older_servers_are_read() {
        let old = r#"{"internet":true,"allow":[],"deny":["1.1.1.1"],"dns_servers":[]}"#;
        let stored: StoredEgress = serde_json::from_str(old).unwrap();
        let policy = stored.policy().unwrap();
        assert!(policy.is_known() && !policy.is_redirected());
    }
}
