//! What a sandbox may reach: types and their validation, no side effects.

use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::domain::DomainPattern;

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
}

impl Default for EgressPolicy {
    fn default() -> Self {
        Self {
            internet: true,
            allow: Vec::new(),
            deny: Vec::new(),
            dns_servers: Vec::new(),
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
    /// Whether `network.egressProxy` is set.
    pub egress_proxy: bool,
    /// Whether `network.rules` has entries.
    pub header_rules: bool,
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
    /// A feature this server does not have.
    #[error("{field}: unsupported: {reason}")]
    Unsupported {
        /// The client's field name.
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
}

impl EgressPolicy {
    /// Validates what a client wrote.
    ///
    /// # Errors
    /// The first offending field with its value.
    pub fn parse(input: &PolicyInput<'_>) -> Result<Self, PolicyError> {
        if input.egress_proxy {
            let reason = "outbound SOCKS proxies are not available";
            return Err(PolicyError::Unsupported {
                field: "egressProxy",
                reason,
            });
        }
        if input.header_rules {
            let reason = "headers cannot be added inside TLS, so rules would not hold for https";
            return Err(PolicyError::Unsupported {
                field: "rules",
                reason,
            });
        }
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
        self.internet && self.deny.is_empty()
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
    fn unsupported_features_are_refused() {
        for input in [
            PolicyInput {
                egress_proxy: true,
                ..Default::default()
            },
            PolicyInput {
                header_rules: true,
                ..Default::default()
            },
        ] {
            let error = EgressPolicy::parse(&input).unwrap_err();
            assert!(matches!(error, PolicyError::Unsupported { .. }), "{error}");
        }
    }
}
