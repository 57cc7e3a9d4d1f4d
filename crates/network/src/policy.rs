//! What a sandbox may reach: types and their validation, no side effects.

use std::net::{IpAddr, Ipv4Addr};

use crate::cidr::Cidr;
use crate::domain::DomainPattern;
use crate::route::Route;
use crate::rules::HeaderRule;

/// Most entries of one allow or deny list.
pub const MAX_RULES: usize = 256;
/// Most name servers, as many as a C library reads from `resolv.conf`.
pub const MAX_DNS_SERVERS: usize = 3;
/// The address every sandbox sends its DNS questions to unless it names its own servers.
/// The same everywhere, so that `resolv.conf` stays right in a fork.
pub const DNS_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 0, 53);

/// Whether a sandbox has a way out at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// Only `lo`.
    None,
    /// `eth0`, translated to the host's address.
    Nat,
}

/// An exception to the deny list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowRule {
    /// Every port and protocol to these addresses.
    Cidr(Cidr),
    /// TCP 80 by `Host` header and TCP 443 by TLS server name.
    Domain(DomainPattern),
}

/// Egress rules of one sandbox. Allow wins over deny; what neither names is allowed.
/// The operator's own deny list stands above all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPolicy {
    /// `false` is the same as denying `0.0.0.0/0`.
    pub internet: bool,
    /// Exceptions to `deny`.
    pub allow: Vec<AllowRule>,
    /// Refused ranges.
    pub deny: Vec<Cidr>,
    /// Name servers for `resolv.conf`; empty means the server's forwarder.
    pub dns_servers: Vec<IpAddr>,
    /// Headers that are set on requests to certain hosts. They make no host reachable.
    pub rules: Vec<HeaderRule>,
    /// How TCP connections get to where they are allowed to go.
    pub route: Route,
}

impl Default for EgressPolicy {
    fn default() -> Self {
        Self {
            internet: true,
            allow: Vec::new(),
            deny: Vec::new(),
            dns_servers: Vec::new(),
            rules: Vec::new(),
            route: Route::Direct,
        }
    }
}

/// Egress rules as a client writes them.
#[derive(Clone, Debug, Default)]
pub struct PolicyInput<'a> {
    /// `allow_internet_access`; absent means yes.
    pub internet: Option<bool>,
    /// `network.allowOut`: addresses, ranges, domains, wildcards.
    pub allow_out: &'a [String],
    /// `network.denyOut`: addresses and ranges.
    pub deny_out: &'a [String],
    /// `network.dnsServers`.
    pub dns_servers: &'a [String],
    /// `network.rules`.
    pub rules: Vec<HeaderRule>,
    /// `network.egressProxy`.
    pub route: Route,
}

/// Why a policy is refused. `field` is the client's name of the offending field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A value does not parse.
    #[error("{field}: {reason}")]
    Invalid {
        /// The client's field name.
        field: &'static str,
        /// What is wrong, with the value.
        reason: String,
    },
    /// A list is too long.
    #[error("{field}: {count} entries, at most {max} are allowed")]
    TooMany {
        /// The client's field name.
        field: &'static str,
        /// Entries given.
        count: usize,
        /// Entries allowed.
        max: usize,
    },
    /// Domains only mean something when everything else is denied.
    #[error("allowOut: domain `{0}` requires `0.0.0.0/0` in denyOut")]
    DomainWithoutDenyAll(String),
}

impl EgressPolicy {
    /// Validates what a client wrote.
    ///
    /// # Errors
    /// The first offending field with its value.
    pub fn parse(input: &PolicyInput<'_>) -> Result<Self, PolicyError> {
        limit("allowOut", input.allow_out, MAX_RULES)?;
        limit("denyOut", input.deny_out, MAX_RULES)?;
        limit("dnsServers", input.dns_servers, MAX_DNS_SERVERS)?;
        let policy = Self {
            internet: input.internet.unwrap_or(true),
            allow: input
                .allow_out
                .iter()
                .map(|t| parse_allow(t))
                .collect::<Result<_, _>>()?,
            deny: input
                .deny_out
                .iter()
                .map(|t| parse_deny(t))
                .collect::<Result<_, _>>()?,
            dns_servers: input
                .dns_servers
                .iter()
                .map(|t| parse_dns(t))
                .collect::<Result<_, _>>()?,
            rules: input.rules.clone(),
            route: input.route.clone(),
        };
        let domain = policy.domains().next().map(ToString::to_string);
        match domain {
            Some(domain) if !policy.denies_everything() => {
                Err(PolicyError::DomainWithoutDenyAll(domain))
            }
            _ => Ok(policy),
        }
    }

    /// Whether no rule of its own is needed: everything the operator allows is reachable.
    pub fn is_default(&self) -> bool {
        self.internet && self.deny.is_empty() && !self.is_redirected()
    }

    /// Whether connections of the sandbox come by the server.
    pub fn is_redirected(&self) -> bool {
        self.domains().next().is_some() || self.has_rules() || self.is_tunnelled()
    }

    /// Whether requests to certain hosts are changed.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether TCP connections go through a proxy, known or not.
    pub fn is_tunnelled(&self) -> bool {
        self.route != Route::Direct
    }

    /// Whether everything is there that connections need: the server may know only that there
    /// are rules and a proxy, until it is told which.
    pub fn is_known(&self) -> bool {
        self.route != Route::Unknown && self.rules.iter().all(HeaderRule::is_known)
    }

    /// The rule that is meant for a host.
    pub fn rule_for(&self, host: &str) -> Option<&HeaderRule> {
        let meant = self.rules.iter().filter(|rule| rule.hosts.matches(host));
        meant.max_by_key(|rule| rule.hosts.closeness())
    }

    /// Whether the ranges, without the names, let a connection go to this address.
    pub fn permits_address(&self, ip: Ipv4Addr) -> bool {
        let ip = IpAddr::V4(ip);
        if self.allowed_ranges().any(|range| range.contains(ip)) {
            return true;
        }
        self.internet && !self.deny.iter().any(|range| range.contains(ip))
    }

    /// Whether only what `allow` names is reachable.
    pub fn denies_everything(&self) -> bool {
        !self.internet || self.deny.contains(&Cidr::ANY_V4)
    }

    /// The allowed domains.
    pub fn domains(&self) -> impl Iterator<Item = &DomainPattern> {
        self.allow.iter().filter_map(|rule| match rule {
            AllowRule::Domain(domain) => Some(domain),
            AllowRule::Cidr(_) => None,
        })
    }

    /// The allowed ranges.
    pub fn allowed_ranges(&self) -> impl Iterator<Item = Cidr> + '_ {
        self.allow.iter().filter_map(|rule| match rule {
            AllowRule::Cidr(cidr) => Some(*cidr),
            AllowRule::Domain(_) => None,
        })
    }

    /// Whether a connection on 80 or 443 may go to the host of this name.
    pub fn allows_name(&self, host: &str) -> bool {
        self.domains().any(|domain| domain.matches(host))
    }

    /// Whether the forwarder answers this name. Where only some names can be connected to,
    /// only those are resolved, so that questions cannot carry data out.
    pub fn resolves_name(&self, host: &str) -> bool {
        !self.denies_everything() || self.allows_name(host)
    }

    /// The `resolv.conf` of a sandbox with this policy.
    pub fn resolv_conf(&self) -> String {
        if self.dns_servers.is_empty() {
            return format!("nameserver {DNS_ADDRESS}\n");
        }
        self.dns_servers
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect()
    }
}

fn limit(field: &'static str, list: &[String], max: usize) -> Result<(), PolicyError> {
    let count = list.len();
    if count > max {
        Err(PolicyError::TooMany { field, count, max })
    } else {
        Ok(())
    }
}

fn parse_allow(text: &str) -> Result<AllowRule, PolicyError> {
    if let Ok(cidr) = text.parse() {
        return Ok(AllowRule::Cidr(cidr));
    }
    text.parse()
        .map(AllowRule::Domain)
        .map_err(|_| PolicyError::Invalid {
            field: "allowOut",
            reason: format!(
                "`{}` is not an IP address, CIDR range or domain",
                clip(text)
            ),
        })
}

fn parse_deny(text: &str) -> Result<Cidr, PolicyError> {
    text.parse()
        .map_err(|error: crate::cidr::CidrError| PolicyError::Invalid {
            field: "denyOut",
            reason: error.to_string(),
        })
}

fn parse_dns(text: &str) -> Result<IpAddr, PolicyError> {
    text.parse().map_err(|_| PolicyError::Invalid {
        field: "dnsServers",
        reason: format!("`{}` is not an IP address", clip(text)),
    })
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn parse(allow: &[&str], deny: &[&str]) -> Result<EgressPolicy, PolicyError> {
        let (allow, deny) = (strings(allow), strings(deny));
        EgressPolicy::parse(&PolicyInput {
            allow_out: &allow,
            deny_out: &deny,
            ..Default::default()
        })
    }

    #[test]
    fn nothing_given_is_the_default() {
        let policy = parse(&[], &[]).unwrap();
        assert!(policy.is_default() && policy == EgressPolicy::default());
        assert_eq!(policy.resolv_conf(), "nameserver 169.254.0.53\n");
    }

    #[test]
    fn domains_need_deny_all() {
        let error = parse(&["api.example.com"], &["1.2.3.4"]).unwrap_err();
        assert_eq!(
            error,
            PolicyError::DomainWithoutDenyAll("api.example.com".into())
        );
        let policy = parse(&["*.example.com", "1.1.1.1"], &["0.0.0.0/0"]).unwrap();
        assert!(policy.allows_name("a.example.com") && !policy.resolves_name("evil.org"));
    }

    #[test]
    fn errors_name_field_and_value() {
        let text = parse(&["not a thing"], &[]).unwrap_err().to_string();
        assert!(
            text.contains("allowOut") && text.contains("not a thing"),
            "{text}"
        );
        let text = parse(&[], &["example.com"]).unwrap_err().to_string();
        assert!(
            text.contains("denyOut") && text.contains("example.com"),
            "{text}"
        );
        let many = vec!["1.1.1.1"; MAX_RULES + 1];
        assert!(matches!(
            parse(&[], &many),
            Err(PolicyError::TooMany {
                field: "denyOut",
                ..
            })
        ));
    }

    #[test]
    fn the_closest_rule_is_meant() {
        let rule = |host: &str| HeaderRule::unknown(host).unwrap();
        let policy = EgressPolicy {
            rules: ["*.com", "*.a.com", "b.a.com", "*.b.a.com"]
                .map(rule)
                .to_vec(),
            ..EgressPolicy::default()
        };
        let meant = |host: &str| policy.rule_for(host).map(|rule| rule.hosts.to_string());
        assert_eq!(meant("b.a.com").as_deref(), Some("b.a.com"));
        assert_eq!(meant("c.b.a.com").as_deref(), Some("*.b.a.com"));
        assert_eq!(meant("x.a.com").as_deref(), Some("*.a.com"));
        assert_eq!(meant("a.com").as_deref(), Some("*.com"));
        assert_eq!(meant("a.org"), None);
        assert!(!policy.is_known() && !policy.is_default() && policy.is_redirected());
    }

    #[test]
    fn allowed_ranges_win() {
        let policy = parse(&["1.1.1.1"], &["1.1.0.0/16"]).unwrap();
        let permits = |ip: &str| policy.permits_address(ip.parse().unwrap());
        assert!(permits("1.1.1.1") && permits("1.2.0.0") && !permits("1.1.1.2"));
        let closed = EgressPolicy {
            internet: false,
            ..policy
        };
        assert!(closed.permits_address([1, 1, 1, 1].into()));
        assert!(!closed.permits_address([1, 2, 0, 0].into()));
    }
}
