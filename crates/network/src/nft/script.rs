//! Text of the transactions. Everything that goes into it is a number, an address or a
//! name made by [`crate::names`], so nothing needs quoting.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::cidr::{Cidr, minimal};
use crate::names::{Names, Subnet};
use crate::policy::{DNS_ADDRESS, EgressPolicy};

/// The set of interfaces that forward because of us.
pub(crate) const GUARDED: &str = "guarded";

/// Ports of the server's own listeners on the service address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServicePorts {
    /// DNS forwarder, UDP.
    pub(crate) dns_udp: u16,
    /// DNS forwarder, TCP.
    pub(crate) dns_tcp: u16,
    /// Egress proxy for port 80.
    pub(crate) http: u16,
    /// Egress proxy for port 443.
    pub(crate) tls: u16,
    /// Egress proxy for all other ports.
    pub(crate) any: u16,
}

/// What the table is made from.
pub(crate) struct Table<'a> {
    /// Names of the instance.
    pub(crate) names: &'a Names,
    /// Its addresses.
    pub(crate) subnet: Subnet,
    /// Its listeners.
    pub(crate) ports: ServicePorts,
    /// Ranges no sandbox reaches.
    pub(crate) deny: &'a [Cidr],
    /// Exceptions to `deny`.
    pub(crate) allow: &'a [Cidr],
    /// Interfaces that did not forward before us.
    pub(crate) guarded: &'a [String],
}

/// Replaces the instance's table and everything in it.
pub(crate) fn install(table: &Table<'_>, policies: &[(u32, &EgressPolicy)]) -> String {
    let name = table.names.table();
    let mut text = format!("table inet {name}\ndelete table inet {name}\n");
    text += &base(table);
    for (slot, policy) in policies {
        text += &policy_rules(table, *slot, policy);
    }
    text
}

/// Removes the instance's table, whether it exists or not.
pub(crate) fn uninstall(names: &Names) -> String {
    let name = names.table();
    format!("table inet {name}\ndelete table inet {name}\n")
}

/// Exchanges the guarded interfaces.
pub(crate) fn set_guarded(names: &Names, interfaces: &[String]) -> String {
    let name = names.table();
    let mut text = format!("flush set inet {name} {GUARDED}\n");
    if !interfaces.is_empty() {
        let list = interfaces
            .iter()
            .map(|i| format!("\"{i}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let _ = writeln!(text, "add element inet {name} {GUARDED} {{ {list} }}");
    }
    text
}

fn base(table: &Table<'_>) -> String {
    let (name, all) = (
        table.names.table(),
        format!("\"{}*\"", table.names.prefix()),
    );
    let (subnet, service) = (table.subnet.range(), table.subnet.service());
    let ServicePorts {
        dns_udp,
        dns_tcp,
        http,
        tls,
        any,
    } = table.ports;
    let (deny, allow) = (elements(table.deny), elements(table.allow));
    let guarded = match table.guarded {
        [] => String::new(),
        list => format!("elements = {{ \"{}\" }};", list.join("\", \"")),
    };
    format!(
        r#"table inet {name} {{
  set {GUARDED} {{ type ifname; {guarded} }}
  set no_dns {{ type ifname; }}
  set proxied {{ type ifname; }}
  set always_denied {{ type ipv4_addr; flags interval; {deny} }}
  set exempt {{ type ipv4_addr; flags interval; {allow} }}
  map policies {{ type ifname : verdict; }}
  map redirects {{ type ifname : verdict; }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain check_source {{
    type filter hook prerouting priority raw; policy accept;
    iifname {all} meta nfproto ipv6 drop
    iifname {all} ip saddr != {subnet} drop
    iifname {all} fib saddr . iif oif missing drop
  }}
  chain to_service {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname {all} ip daddr {DNS_ADDRESS} udp dport 53 dnat ip to {service}:{dns_udp}
    iifname {all} ip daddr {DNS_ADDRESS} tcp dport 53 dnat ip to {service}:{dns_tcp}
    iifname vmap @redirects
  }}
  chain outward {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "wf*" masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname {all} jump sandbox_to_host
    ip daddr {service} iifname != "lo" iifname != {all} drop
  }}
  chain sandbox_to_host {{
    iifname @no_dns ip daddr {service} udp dport {dns_udp} goto refuse
    iifname @no_dns ip daddr {service} tcp dport {dns_tcp} goto refuse
    ip daddr {service} udp dport {dns_udp} accept
    ip daddr {service} tcp dport {dns_tcp} accept
    iifname @proxied ip daddr {service} tcp dport {{ {http}, {tls}, {any} }} accept
    ct state established,related ct direction reply accept
    goto refuse
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname {all} goto from_sandbox
    oifname {all} goto to_sandbox
    iifname @{GUARDED} oifname != "wf*" drop
  }}
  chain to_sandbox {{
    ct state established,related accept
    drop
  }}
  chain from_sandbox {{
    ct state invalid drop
    oifname "wf*" goto refuse
    ip daddr {subnet} goto refuse
    ip daddr != @exempt ip daddr @always_denied goto refuse
    iifname vmap @policies
    accept
  }}
}}
"#
    )
}

/// Adds the rules of a sandbox with a policy of its own; nothing for the default policy.
/// Applies to the next packet of every flow, old or new.
pub(crate) fn policy_rules(table: &Table<'_>, slot: u32, policy: &EgressPolicy) -> String {
    if policy.is_default() {
        return String::new();
    }
    let (name, interface) = (table.names.table(), table.names.interface(slot));
    let chain = format!("p_{slot}");
    let mut text = format!("add chain inet {name} {chain}\n");
    for rule in forwarding(policy) {
        let _ = writeln!(text, "add rule inet {name} {chain} {rule}");
    }
    let mut element = |set: &str, verdict: &str| {
        let _ = writeln!(
            text,
            "add element inet {name} {set} {{ \"{interface}\"{verdict} }}"
        );
    };
    element("policies", &format!(" : goto {chain}"));
    if policy.denies_everything() && policy.domains().next().is_none() {
        element("no_dns", "");
    }
    if !policy.is_redirected() {
        return text;
    }
    let chain = format!("n_{slot}");
    element("proxied", "");
    let _ = writeln!(text, "add chain inet {name} {chain}");
    for rule in redirection(table, policy) {
        let _ = writeln!(text, "add rule inet {name} {chain} {rule}");
    }
    let _ = writeln!(
        text,
        "add element inet {name} redirects {{ \"{interface}\" : goto {chain} }}"
    );
    text
}

/// What becomes of packets that leave the sandbox by the kernel alone.
fn forwarding(policy: &EgressPolicy) -> Vec<String> {
    let mut rules = Vec::new();
    if policy.is_tunnelled() {
        // What was open before there was a proxy, too.
        rules.push("meta l4proto tcp goto refuse".to_owned());
    }
    if policy.is_tunnelled() || policy.has_rules() {
        // HTTP/3 would come by neither; clients fall back at once.
        rules.push("udp dport 443 goto refuse".to_owned());
    }
    let allowed: Vec<_> = policy.allowed_ranges().collect();
    if let Some(found) = matching(&allowed) {
        rules.push(format!("{found} accept"));
    }
    if policy.denies_everything() {
        rules.push("goto refuse".to_owned());
    } else if let Some(found) = matching(&policy.deny) {
        rules.push(format!("{found} goto refuse"));
    }
    rules.push("accept".to_owned());
    rules
}

/// What comes by the server instead. What the ranges deny does not, so that it is refused like
/// everything that is denied; a name may still allow it.
fn redirection(table: &Table<'_>, policy: &EgressPolicy) -> Vec<String> {
    let (service, ports) = (table.subnet.service(), table.ports);
    let to = |port: u16, own: u16| format!("tcp dport {port} dnat ip to {service}:{own}");
    let web = [to(80, ports.http), to(443, ports.tls)];
    let allowed: Vec<_> = policy.allowed_ranges().collect();
    let named = policy.domains().next().is_some();
    if named && !policy.has_rules() && !policy.is_tunnelled() {
        let direct = matching(&allowed).map(|found| format!("{found} return"));
        return direct.into_iter().chain(web).collect();
    }
    let mut rules = Vec::new();
    if named {
        // The name decides; where the client wanted to go does not matter.
        rules.extend(web.clone());
    }
    rules.push("ip daddr != @exempt ip daddr @always_denied return".to_owned());
    rules.push(format!("ip daddr {} return", table.subnet.range()));
    rules.push("fib daddr type local return".to_owned());
    let except = unmatching(&allowed);
    let denied = match policy.denies_everything() {
        true => Some(String::new()),
        false => matching(&policy.deny),
    };
    if let Some(denied) = denied {
        rules.push(format!("{except} {denied} return").trim().to_owned());
    }
    if !named && policy.has_rules() {
        rules.extend(web);
    }
    if policy.is_tunnelled() {
        rules.push(format!(
            "meta l4proto tcp dnat ip to {service}:{}",
            ports.any
        ));
    }
    rules
}

/// Removes exactly what [`policy_rules`] added for the same arguments.
pub(crate) fn remove_policy(names: &Names, slot: u32, policy: &EgressPolicy) -> String {
    if policy.is_default() {
        return String::new();
    }
    let (name, interface) = (names.table(), names.interface(slot));
    let mut text = String::new();
    let mut remove = |set: &str, chain: Option<char>| {
        let _ = writeln!(
            text,
            "delete element inet {name} {set} {{ \"{interface}\" }}"
        );
        if let Some(letter) = chain {
            let _ = writeln!(text, "flush chain inet {name} {letter}_{slot}");
            let _ = writeln!(text, "delete chain inet {name} {letter}_{slot}");
        }
    };
    remove("policies", Some('p'));
    if policy.is_redirected() {
        remove("redirects", Some('n'));
        remove("proxied", None);
    }
    if policy.denies_everything() && policy.domains().next().is_none() {
        remove("no_dns", None);
    }
    text
}

/// A match on the IPv4 ranges of a list; `None` when there are none (IPv6 never gets out).
fn matching(ranges: &[Cidr]) -> Option<String> {
    let ranges = v4(ranges);
    match ranges.as_slice() {
        [] => None,
        [first, ..] if first.1 == 0 => Some("meta nfproto ipv4".to_owned()),
        _ => Some(format!("ip daddr {{ {} }}", join(&ranges))),
    }
}

/// A match on everything but the IPv4 ranges of a list; empty when there are none.
fn unmatching(ranges: &[Cidr]) -> String {
    match v4(ranges) {
        ranges if ranges.is_empty() => String::new(),
        ranges => format!("ip daddr != {{ {} }}", join(&ranges)),
    }
}

fn elements(ranges: &[Cidr]) -> String {
    match v4(ranges) {
        ranges if ranges.is_empty() => String::new(),
        ranges => format!("elements = {{ {} }}", join(&ranges)),
    }
}

fn v4(ranges: &[Cidr]) -> Vec<(Ipv4Addr, u8)> {
    minimal(ranges)
        .into_iter()
        .filter_map(Cidr::as_v4)
        .collect()
}

fn join(ranges: &[(Ipv4Addr, u8)]) -> String {
    ranges
        .iter()
        .map(|(addr, len)| format!("{addr}/{len}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The quoted names in a listing.
pub(super) fn quoted(text: &str) -> Vec<String> {
    text.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Chains of other tables that hook `forward` or `input` with policy drop, as `table chain`.
pub(super) fn drop_chains(listing: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", "", Vec::new());
    for line in listing.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        }
        let hooked = line.contains("hook forward") || line.contains("hook input");
        if hooked && line.contains("policy drop") && !table.contains("woodfrog_") {
            found.push(format!("{table} {chain}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_foreign_drop_chains() {
        let listing = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward \
                       priority filter; policy drop;\n\t}\n\tchain X {\n\t}\n}\n";
        assert_eq!(drop_chains(listing), vec!["ip filter FORWARD".to_owned()]);
        assert!(drop_chains(&listing.replace("drop", "accept")).is_empty());
    }

    #[test]
    fn quoted_names() {
        assert_eq!(
            quoted("elements = { \"eth0\", \"eth1\" }"),
            vec!["eth0", "eth1"]
        );
    }
}
