//! The policies of attached sandboxes, as the forwarder and the proxy look them up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::cidr::Cidr;
use crate::names::Subnet;
use crate::policy::EgressPolicy;

/// A policy that may be exchanged while a connection is open; closed when the sandbox leaves.
pub(crate) type PolicyWatch = watch::Receiver<Arc<EgressPolicy>>;

/// Who asks, and what the operator forbids to all.
pub(crate) struct Registry {
    subnet: Subnet,
    deny: Vec<Cidr>,
    exempt: Vec<Cidr>,
    /// Where sandboxes' proxies may be, though sandboxes themselves may not go there.
    proxies: Vec<Cidr>,
    policies: RwLock<HashMap<u32, watch::Sender<Arc<EgressPolicy>>>>,
}

impl Registry {
    pub(crate) fn new(
        subnet: Subnet,
        deny: Vec<Cidr>,
        exempt: Vec<Cidr>,
        proxies: Vec<Cidr>,
    ) -> Self {
        Self {
            subnet,
            deny,
            exempt,
            proxies,
            policies: RwLock::default(),
        }
    }

    /// The slot and policy of the sandbox with this address; `None` for anybody else.
    pub(crate) fn of_peer(&self, peer: IpAddr) -> Option<(u32, PolicyWatch)> {
        let IpAddr::V4(peer) = peer else { return None };
        let slot = self.subnet.slot_of(peer)?;
        let policies = self.policies.read().unwrap_or_else(PoisonError::into_inner);
        policies.get(&slot).map(|sender| (slot, sender.subscribe()))
    }

    /// Whether the operator's rules let a sandbox reach this address.
    pub(crate) fn operator_allows(&self, ip: Ipv4Addr) -> bool {
        let within = |list: &[Cidr]| list.iter().any(|range| range.contains(ip.into()));
        !self.subnet.range().contains(ip.into()) && (within(&self.exempt) || !within(&self.deny))
    }

    /// Whether the operator said that a sandbox's proxy may have this address.
    pub(crate) fn operator_names_proxy(&self, ip: Ipv4Addr) -> bool {
        self.proxies.iter().any(|range| range.contains(ip.into()))
    }

    pub(crate) fn set(&self, slot: u32, policy: Arc<EgressPolicy>) {
        let mut policies = self
            .policies
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match policies.get(&slot) {
            Some(sender) => drop(sender.send_replace(policy)),
            None => drop(policies.insert(slot, watch::Sender::new(policy))),
        }
    }

    pub(crate) fn remove(&self, slot: u32) {
        self.policies
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&slot);
    }
}
