//! NAT networking that works on this host.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::{
    AttachError, Live, NetworkConfig, ReconcileError, SetupError, UpdateError, blocking, names_of,
};
use crate::dns::Upstreams;
use crate::link::{self, Attachment};
use crate::names::Names;
use crate::netlink::Netlink;
use crate::nft::script::{self, Table};
use crate::nft::{Nft, NftError};
use crate::policy::{EgressPolicy, PolicyError};
use crate::proxy::Dialer;
use crate::registry::Registry;
use crate::route::Route;
use crate::services::{self, Services};
use crate::trust::Trust;
use crate::uplink::{self, Uplinks};

/// See [`super::Network`].
pub(super) struct Nat {
    config: NetworkConfig,
    names: Names,
    nft: Nft,
    services: Services,
    registry: Arc<Registry>,
    dialer: Arc<Dialer>,
    mtu: u32,
    warnings: Vec<String>,
    /// What the kernel's rules say. The lock also keeps transactions in order.
    rules: Mutex<Rules>,
    /// Detachments under way, by slot.
    leaving: StdMutex<HashMap<u32, JoinHandle<()>>>,
}

#[derive(Default)]
struct Rules {
    /// Policies of attached slots, the default one included.
    policies: HashMap<u32, Arc<EgressPolicy>>,
    guarded: Vec<String>,
}

impl Nat {
    pub(super) async fn setup(config: NetworkConfig, live: &[Live]) -> Result<Self, SetupError> {
        let names = names_of(&config)?;
        let nft = Nft::find(config.nft.as_deref())?;
        // First of all, since it shows whether nft works here.
        let earlier = nft.guarded().await?;
        let (uplinks, guarded) = ways_out(&config, &earlier)?;
        services::add_address(config.subnet)?;
        let (deny, exempt) = (config.deny.clone(), config.allow.clone());
        let proxies = config.proxies.clone();
        let registry = Arc::new(Registry::new(config.subnet, deny, exempt, proxies));
        let mut rules = Rules {
            guarded,
            ..Rules::default()
        };
        for sandbox in live {
            let policy = Arc::new(sandbox.policy.clone());
            registry.set(sandbox.slot, Arc::clone(&policy));
            rules.policies.insert(sandbox.slot, policy);
        }
        let upstreams = Arc::new(match &config.dns_upstreams {
            Some(list) => Upstreams::Fixed(list.clone()),
            None => Upstreams::Host,
        });
        let dialer = Arc::new(Dialer::new(
            Arc::clone(&registry),
            Arc::clone(&upstreams),
            Trust::new(config.extra_roots.clone()),
        ));
        let authority = Arc::clone(&config.authority);
        let services = services::start(config.subnet, &registry, &upstreams, &dialer, authority);
        let services = services.await;
        let services = services.map_err(SetupError::Listen)?;
        let warnings = firewall_warnings(&nft).await;
        let leaving = StdMutex::default();
        let rules_lock = Mutex::new(Rules::default());
        let mtu = uplinks.mtu;
        let nat = Self {
            config,
            names,
            nft,
            services,
            registry,
            dialer,
            mtu,
            warnings,
            rules: rules_lock,
            leaving,
        };
        nat.nft.apply(&nat.install(&rules, &rules.guarded)).await?;
        // After the guard is in force.
        uplink::enable(&uplinks.names)?;
        *nat.rules.lock().await = rules;
        Ok(nat)
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// See [`super::Network::keep_address`].
    pub(super) fn keep_address(&self, netns: BorrowedFd<'_>, slot: u32) -> Result<(), AttachError> {
        let pair = self.config.subnet.pair(slot);
        let pair = pair.ok_or(AttachError::NoSuchSlot(slot))?;
        Ok(link::keep_address(netns, pair.guest)?)
    }

    pub(super) async fn attach(
        &self,
        slot: u32,
        netns: OwnedFd,
        policy: EgressPolicy,
    ) -> Result<Attachment, AttachError> {
        let pair = self
            .config
            .subnet
            .pair(slot)
            .ok_or(AttachError::NoSuchSlot(slot))?;
        self.left(slot).await;
        if self.rules.lock().await.policies.contains_key(&slot) {
            return Err(AttachError::SlotInUse(slot));
        }
        self.set_policy(slot, policy).await?;
        let (names, mtu) = (self.names.clone(), self.mtu);
        let connect = move || link::connect(&names, slot, pair, mtu, netns.as_fd());
        let connected = tokio::task::spawn_blocking(connect).await;
        let connected = connected
            .map_err(|_| AttachError::Worker)
            .and_then(|r| Ok(r?));
        if connected.is_err() {
            // The first error is the one to report; the next policy of the slot replaces this.
            let _ = self.drop_policy(slot).await;
        }
        connected
    }

    pub(super) async fn update(&self, slot: u32, policy: EgressPolicy) -> Result<(), UpdateError> {
        if !self.rules.lock().await.policies.contains_key(&slot) {
            return Err(UpdateError::NotAttached(slot));
        }
        Ok(self.set_policy(slot, policy).await?)
    }

    pub(super) async fn check_route(&self, policy: &EgressPolicy) -> Result<(), PolicyError> {
        let Route::Proxy(proxy) = &policy.route else {
            return Ok(());
        };
        let found = self.dialer.proxy_addresses(proxy).await;
        found.map(drop).map_err(|error| PolicyError::Invalid {
            field: "egressProxy",
            reason: error.to_string(),
        })
    }

    pub(super) fn detach(nat: &Arc<Self>, slot: u32) {
        let mut leaving = nat.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|_, task| !task.is_finished());
        let before = leaving.remove(&slot);
        let worker = Arc::clone(nat);
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // Its own failures are logged there.
                let _ = before.await;
            }
            if let Err(error) = worker.disconnect(slot).await {
                tracing::warn!(slot, %error, "detaching is left to the next reconciliation");
            }
        });
        leaving.insert(slot, task);
    }

    pub(super) async fn settled(&self) {
        let tasks: Vec<_> = {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.drain().map(|(_, task)| task).collect()
        };
        for task in tasks {
            // Failures are logged by the task.
            let _ = task.await;
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<u32>, ReconcileError> {
        let names = self.names.clone();
        blocking(move || {
            let links = Netlink::open()?.links()?;
            Ok(links
                .iter()
                .filter_map(|link| names.slot_of(&link.name))
                .collect())
        })
        .await
    }

    pub(super) async fn reconcile(&self, live: &[u32]) -> Result<usize, ReconcileError> {
        self.settled().await;
        // First, because the rest takes the table for granted.
        self.refresh().await?;
        let live: HashSet<_> = live.iter().copied().collect();
        let stale: Vec<_> = self
            .list()
            .await?
            .into_iter()
            .filter(|slot| !live.contains(slot))
            .collect();
        for slot in &stale {
            self.disconnect(*slot).await?;
        }
        let known: Vec<_> = self.rules.lock().await.policies.keys().copied().collect();
        for slot in known.into_iter().filter(|slot| !live.contains(slot)) {
            self.drop_policy(slot).await?;
        }
        Ok(stale.len())
    }

    pub(super) async fn teardown(&self) -> Result<(), ReconcileError> {
        self.settled().await;
        let names = self.names.clone();
        let slots = self.list().await?;
        blocking(move || {
            for slot in slots {
                link::remove(&names.interface(slot))?;
            }
            Ok(())
        })
        .await?;
        let guarded = self.rules.lock().await.guarded.clone();
        let own = self.names.table();
        let others: HashSet<_> = self
            .nft
            .guarded()
            .await?
            .into_iter()
            .filter(|(table, _)| *table != own)
            .flat_map(|(_, list)| list)
            .collect();
        let alone: Vec<_> = guarded
            .into_iter()
            .filter(|name| !others.contains(name))
            .collect();
        uplink::disable(&alone);
        self.nft.apply(&script::uninstall(&self.names)).await?;
        services::delete_address(self.config.subnet)?;
        Ok(())
    }

    /// Exchanges the guard when the ways out or the host's own forwarding changed, and
    /// installs everything again when the table is gone.
    pub(super) async fn refresh(&self) -> Result<(), ReconcileError> {
        let mut rules = self.rules.lock().await;
        let mut earlier = self.nft.guarded().await?;
        let own = self.names.table();
        let present = earlier.iter().any(|(table, _)| *table == own);
        // A flushed table does not say any more what was switched on for us.
        earlier.push((own, rules.guarded.clone()));
        let (uplinks, guarded) = ways_out(&self.config, &earlier)?;
        if !present {
            tracing::warn!("the rules of the sandboxes were gone and are put back");
            self.nft.apply(&self.install(&rules, &guarded)).await?;
        } else if guarded != rules.guarded {
            self.nft
                .apply(&script::set_guarded(&self.names, &guarded))
                .await?;
        }
        rules.guarded = guarded;
        Ok(uplink::enable(&uplinks.names)?)
    }

    fn install(&self, rules: &Rules, guarded: &[String]) -> String {
        let policies: Vec<_> = rules
            .policies
            .iter()
            .map(|(s, p)| (*s, p.as_ref()))
            .collect();
        script::install(&self.table(guarded), &policies)
    }

    async fn disconnect(&self, slot: u32) -> Result<(), ReconcileError> {
        let interface = self.names.interface(slot);
        blocking(move || Ok(link::remove(&interface)?)).await?;
        Ok(self.drop_policy(slot).await?)
    }

    /// Makes a policy the slot's own, in the kernel first.
    async fn set_policy(&self, slot: u32, policy: EgressPolicy) -> Result<(), NftError> {
        let mut rules = self.rules.lock().await;
        let mut text = String::new();
        let old = rules.policies.get(&slot);
        if old.is_none_or(|old| **old != policy) {
            if let Some(old) = old {
                text += &script::remove_policy(&self.names, slot, old);
            }
            text += &script::policy_rules(&self.table(&rules.guarded), slot, &policy);
        }
        if !text.is_empty() {
            self.nft.apply(&text).await?;
        }
        let policy = Arc::new(policy);
        rules.policies.insert(slot, Arc::clone(&policy));
        self.registry.set(slot, policy);
        Ok(())
    }

    async fn drop_policy(&self, slot: u32) -> Result<(), NftError> {
        let mut rules = self.rules.lock().await;
        let Some(policy) = rules.policies.get(&slot) else {
            return Ok(());
        };
        let text = script::remove_policy(&self.names, slot, policy);
        if !text.is_empty() {
            self.nft.apply(&text).await?;
        }
        rules.policies.remove(&slot);
        self.registry.remove(slot);
        Ok(())
    }

    /// Waits for a pending detachment of this slot.
    async fn left(&self, slot: u32) {
        let task = {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.remove(&slot)
        };
        if let Some(task) = task {
            // Its failures are logged there, and a stale interface is replaced.
            let _ = task.await;
        }
    }

    fn table<'a>(&'a self, guarded: &'a [String]) -> Table<'a> {
        Table {
            names: &self.names,
            subnet: self.config.subnet,
            ports: self.services.ports,
            deny: &self.config.deny,
            allow: &self.config.allow,
            guarded,
        }
    }
}

/// The uplinks, and which of them forward for our sake alone.
fn ways_out(
    config: &NetworkConfig,
    earlier: &[(String, Vec<String>)],
) -> Result<(Uplinks, Vec<String>), uplink::UplinkError> {
    let uplinks = uplink::find(&config.uplinks, &config.allow)?;
    let ours: HashSet<_> = earlier
        .iter()
        .flat_map(|(_, list)| list.iter().cloned())
        .collect();
    let guarded = uplink::unguarded_switch(&uplinks.names, &ours);
    Ok((uplinks, guarded))
}

async fn firewall_warnings(nft: &Nft) -> Vec<String> {
    let chains = match nft.foreign_drop_chains().await {
        Ok(chains) => chains,
        Err(error) => return vec![format!("the host's firewall cannot be read: {error}")],
    };
    let warning =
        |chain| format!("chain `{chain}` drops by default: let interfaces `wf*` through it");
    chains.into_iter().map(warning).collect()
}
