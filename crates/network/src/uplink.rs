//! The host interfaces sandbox traffic leaves by, and their forwarding switch.
//!
//! Replies enter through the uplink, so the uplink must forward too. Where it did not, it is
//! switched on for that interface alone and "guarded": a rule drops whatever else would be
//! forwarded from it, which is what the kernel did before. The guard goes once somebody else
//! switches forwarding on for the whole host.

use std::collections::HashSet;
use std::io;

use crate::cidr::Cidr;
use crate::netlink::{Netlink, NetlinkError};

/// Largest packet where no uplink says otherwise.
const DEFAULT_MTU: u32 = 1500;

/// Why forwarding could not be arranged.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// Interfaces or routes cannot be listed.
    #[error("find the interfaces that lead outside")]
    Netlink(#[from] NetlinkError),
    /// The switch cannot be set.
    #[error("switch on forwarding of {interface}")]
    Forwarding {
        /// The interface.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The ways out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uplinks {
    pub(crate) names: Vec<String>,
    /// Smallest packet limit among them.
    pub(crate) mtu: u32,
}

/// The configured interfaces, or those of default routes and of routes to exempt ranges.
pub(crate) fn find(configured: &[String], exempt: &[Cidr]) -> Result<Uplinks, UplinkError> {
    let mut netlink = Netlink::open()?;
    let wanted: HashSet<u32> = netlink
        .routes()?
        .into_iter()
        .filter(|route| {
            let leads_out = route.dst.is_everything();
            leads_out || exempt.iter().any(|range| range.overlaps(route.dst))
        })
        .flat_map(|route| route.interfaces)
        .collect();
    let usable = |name: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_@+".contains(&b);
        name.bytes().all(plain) && !name.starts_with("wf") && name != "lo"
    };
    let chosen: Vec<_> = netlink
        .links()?
        .into_iter()
        .filter(|link| match configured {
            [] => wanted.contains(&link.index),
            list => list.contains(&link.name),
        })
        .filter(|link| usable(&link.name))
        .collect();
    let mtu = chosen
        .iter()
        .map(|link| link.mtu)
        .min()
        .unwrap_or(DEFAULT_MTU);
    Ok(Uplinks {
        names: chosen.into_iter().map(|link| link.name).collect(),
        mtu,
    })
}

/// Which uplinks need a guard: those that do not forward, and those that do only because an
/// instance (`ours`: what guards say) switched them on.
pub(crate) fn unguarded_switch(uplinks: &[String], ours: &HashSet<String>) -> Vec<String> {
    if forwards("all") {
        return Vec::new();
    }
    uplinks
        .iter()
        .filter(|name| !forwards(name) || ours.contains(*name))
        .cloned()
        .collect()
}

/// Switches forwarding on where it is off.
pub(crate) fn enable(interfaces: &[String]) -> Result<(), UplinkError> {
    for interface in interfaces.iter().filter(|name| !forwards(name)) {
        let failed = |source| UplinkError::Forwarding {
            interface: interface.clone(),
            source,
        };
        std::fs::write(switch(interface), "1").map_err(failed)?;
    }
    Ok(())
}

/// Switches forwarding off again, unless the whole host forwards by now.
pub(crate) fn disable(interfaces: &[String]) {
    if forwards("all") {
        return;
    }
    for interface in interfaces {
        if let Err(error) = std::fs::write(switch(interface), "0") {
            tracing::warn!(%interface, %error, "forwarding stays switched on");
        }
    }
}

fn forwards(interface: &str) -> bool {
    std::fs::read_to_string(switch(interface)).is_ok_and(|value| value.trim() == "1")
}

fn switch(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/forwarding")
}
