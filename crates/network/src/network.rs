//! The network of one server instance.

mod nat;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nat::Nat;
use rustls::pki_types::CertificateDer;

use crate::authority::Authority;
use crate::cidr::Cidr;
use crate::link::{self, Attachment};
use crate::names::{InstanceError, MAX_SLOTS, Names, Subnet};
use crate::netlink::{Netlink, NetlinkError};
use crate::nft::NftError;
use crate::policy::{EgressPolicy, NetworkMode, PolicyError};
use crate::uplink::UplinkError;

/// What an instance's network is made from.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Six lower-case hexadecimal characters.
    pub instance: String,
    /// From [`choose_subnet`], the same at every start while sandboxes live.
    pub subnet: Subnet,
    /// Ranges no sandbox reaches whatever its own policy says; see [`default_denied`].
    pub deny: Vec<Cidr>,
    /// The operator's exceptions to `deny`.
    pub allow: Vec<Cidr>,
    /// Ranges, besides what sandboxes may reach themselves, in which their proxies may be: the
    /// host's own addresses and private ones.
    pub proxies: Vec<Cidr>,
    /// Makes the certificates for hosts with header rules.
    pub authority: Arc<Authority>,
    /// Certificates that servers' and proxies' may descend from, besides those the host trusts.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Interfaces that lead outside; empty means those of the default routes.
    pub uplinks: Vec<String>,
    /// Name servers; `None` means the host's `/etc/resolv.conf`.
    pub dns_upstreams: Option<Vec<SocketAddr>>,
    /// The `nft` program; `None` means to look for it.
    pub nft: Option<PathBuf>,
}

/// A sandbox that runs while the network is set up.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its slot.
    pub slot: u32,
    /// Its policy.
    pub policy: EgressPolicy,
}

/// Why sandboxes cannot have NAT networking.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration is wrong.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The rules cannot be installed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Forwarding cannot be arranged.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The service address cannot be assigned.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The DNS forwarder or the proxy cannot listen.
    #[error("listen on the service address")]
    Listen(#[source] io::Error),
}

/// Why a sandbox was not connected.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// NAT networking is off on this host.
    #[error("networking is not available on this host; use network mode `none`")]
    Unavailable(#[source] Arc<SetupError>),
    /// The slot number is beyond the subnet.
    #[error("slot {0} is beyond the {MAX_SLOTS} of the subnet")]
    NoSuchSlot(u32),
    /// The slot belongs to an attached sandbox.
    #[error("slot {0} is in use")]
    SlotInUse(u32),
    /// The link could not be made.
    #[error(transparent)]
    Link(#[from] NetlinkError),
    /// The policy could not be applied.
    #[error(transparent)]
    Policy(#[from] NftError),
    /// A worker was lost.
    #[error("the worker thread failed")]
    Worker,
}

/// Why a policy was not exchanged; the old one is still in force.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The sandbox has no NAT networking.
    #[error("slot {0} has no network")]
    NotAttached(u32),
    /// The rules were refused.
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// Why reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Interfaces cannot be listed or deleted.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Forwarding cannot be arranged.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The rules cannot be changed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A worker was lost.
    #[error("the worker thread failed")]
    Worker,
}

/// The ranges sandboxes do not reach unless the operator says otherwise: private, shared,
/// link-local (with the cloud metadata services), loopback, benchmarking, multicast, reserved.
pub fn default_denied() -> Vec<Cidr> {
    const RANGES: [([u8; 4], u8); 11] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
    ];
    RANGES
        .iter()
        .map(|(addr, len)| Cidr::v4((*addr).into(), *len))
        .collect()
}

/// A subnet that none of the host's addresses and routes touches; `None` when the pool is
/// used up. To be stored by the caller.
///
/// # Errors
/// When addresses or routes cannot be listed.
pub fn choose_subnet() -> Result<Option<Subnet>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let mut taken = netlink.address_ranges()?;
    let routes = netlink.routes()?;
    taken.extend(
        routes
            .iter()
            .map(|route| route.dst)
            .filter(|dst| !dst.is_everything()),
    );
    Ok(Subnet::pick(&taken))
}

/// The network of one server instance. Dropping it stops the DNS forwarder and the proxy and
/// leaves everything else in place, for sandboxes outlive the server.
pub struct Network {
    nat: Result<Arc<Nat>, Arc<SetupError>>,
}

impl Network {
    /// Installs the instance's rules, replacing those of an earlier run in one step, with the
    /// policies of the sandboxes that live on. Never fails: where NAT networking is
    /// impossible, [`Network::unavailable`] says why and only [`NetworkMode::None`] is served.
    pub async fn setup(config: NetworkConfig, live: &[Live]) -> Self {
        let nat = Nat::setup(config, live).await;
        Self {
            nat: nat.map(Arc::new).map_err(Arc::new),
        }
    }

    /// Why sandboxes cannot have NAT networking, if so.
    pub fn unavailable(&self) -> Option<&SetupError> {
        self.nat.as_ref().err().map(AsRef::as_ref)
    }

    /// Things the operator should know, such as a firewall of the host that drops what
    /// sandboxes forward.
    pub fn warnings(&self) -> &[String] {
        self.nat.as_ref().map_or(&[], |nat| nat.warnings())
    }

    /// Connects a network namespace; with [`NetworkMode::None`] it only gets `lo`. The policy
    /// is in force before the first packet. Waits for a pending [`Network::detach`] of the slot.
    ///
    /// # Errors
    /// Nothing is left behind then.
    pub async fn attach(
        &self,
        sandbox: &str,
        slot: u32,
        netns: OwnedFd,
        mode: NetworkMode,
        policy: EgressPolicy,
    ) -> Result<Option<Attachment>, AttachError> {
        match mode {
            NetworkMode::None => {
                let up = move || link::loopback_up(netns.as_fd());
                tokio::task::spawn_blocking(up)
                    .await
                    .map_err(|_| AttachError::Worker)??;
                Ok(None)
            }
            NetworkMode::Nat => {
                let nat = self.nat.as_ref();
                let nat = nat.map_err(|e| AttachError::Unavailable(Arc::clone(e)))?;
                let attachment = nat.attach(slot, netns, policy).await?;
                tracing::debug!(sandbox, slot, interface = attachment.host_if, "attached");
                Ok(Some(attachment))
            }
        }
    }

    /// Gives a namespace the address of a slot that was another's before, on `lo`: connections
    /// opened from that address can then be put back, and find nobody. Blocking.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn keep_address(&self, netns: BorrowedFd<'_>, slot: u32) -> Result<(), AttachError> {
        match &self.nat {
            Ok(nat) => nat.keep_address(netns, slot),
            Err(_) => Ok(()),
        }
    }

    /// Ends the TCP connections of a namespace that lead out of it: whoever was at the other end
    /// has long forgotten them, or talks to another sandbox. Those who hold them are told at once.
    /// Returns how many there were. Blocking.
    ///
    /// # Errors
    /// When the kernel refuses; some may have ended.
    pub fn end_outbound(&self, netns: BorrowedFd<'_>) -> Result<usize, AttachError> {
        Ok(crate::netlink::end_outbound(netns)?)
    }

    /// Exchanges the policy of an attached sandbox, at once and for open connections too:
    /// those that are denied now are reset at their next packet.
    ///
    /// # Errors
    /// The old policy is still in force then.
    pub async fn update(&self, slot: u32, policy: EgressPolicy) -> Result<(), UpdateError> {
        match &self.nat {
            Ok(nat) => nat.update(slot, policy).await,
            Err(_) => Err(UpdateError::NotAttached(slot)),
        }
    }

    /// Whether the proxy of a policy, if it has one, is where a proxy may be. Looks its name up.
    ///
    /// # Errors
    /// Why not, for the client.
    pub async fn check_route(&self, policy: &EgressPolicy) -> Result<(), PolicyError> {
        match &self.nat {
            Ok(nat) => nat.check_route(policy).await,
            Err(_) => Ok(()),
        }
    }

    /// Disconnects a sandbox, in the background. Unknown slots are fine.
    pub fn detach(&self, slot: u32) {
        if let Ok(nat) = &self.nat {
            Nat::detach(nat, slot);
        }
    }

    /// Waits for all pending detachments.
    pub async fn settled(&self) {
        if let Ok(nat) = &self.nat {
            nat.settled().await;
        }
    }

    /// Slots that have a host interface.
    ///
    /// # Errors
    /// When interfaces cannot be listed.
    pub async fn list(&self) -> Result<Vec<u32>, ReconcileError> {
        match &self.nat {
            Ok(nat) => nat.list().await,
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Removes interfaces and policies of slots that are not in `live`, looks again which
    /// interfaces lead outside, and puts the rules back if somebody flushed them. To be
    /// called now and then, since a reload of the host's firewall does that. Returns how many interfaces it removed.
    ///
    /// # Errors
    /// What was not done is done by the next call.
    pub async fn reconcile(&self, live: &[u32]) -> Result<usize, ReconcileError> {
        match &self.nat {
            Ok(nat) => nat.reconcile(live).await,
            Err(_) => Ok(0),
        }
    }

    /// Puts the rules back if somebody else removed them, and looks again which interfaces lead
    /// outside. Cheap: one look when nothing changed.
    ///
    /// # Errors
    /// What was not done is done by the next call.
    pub async fn refresh(&self) -> Result<(), ReconcileError> {
        match &self.nat {
            Ok(nat) => nat.refresh().await,
            Err(_) => Ok(()),
        }
    }

    /// Removes everything of the instance from the host: interfaces, rules, the service
    /// address, and the forwarding it switched on.
    ///
    /// # Errors
    /// Some of it may be left.
    pub async fn teardown(&self) -> Result<(), ReconcileError> {
        match &self.nat {
            Ok(nat) => nat.teardown().await,
            Err(_) => Ok(()),
        }
    }
}

/// Runs a blocking netlink call off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReconcileError> + Send + 'static,
) -> Result<T, ReconcileError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(ReconcileError::Worker))
}

fn names_of(config: &NetworkConfig) -> Result<Names, SetupError> {
    Ok(Names::new(&config.instance)?)
}
