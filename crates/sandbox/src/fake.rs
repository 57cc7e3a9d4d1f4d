//! A driver that makes nothing: sandboxes are entries of a map, and their guests answer from a
//! script. It can be slow, fail, and lose sandboxes on demand.
//!
//! The map outlives the engine that uses it, as real sandboxes do: tests of restarts give the
//! same driver to a second engine.

mod guest;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::sync::watch;
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::InstanceState;

use crate::{
    Adopted, Capabilities, Capability, Driver, DriverError, Egress, LaunchSpec, Launched, Result,
    Usage,
};

pub use guest::{GuestScript, Heard, Outcome};

/// The calls that can be made slow or fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Launch,
    Adopt,
    Destroy,
    Connect,
    SetEgress,
    Usage,
    TakeUpper,
}

struct Machine {
    spec: LaunchSpec,
    instance: InstanceState,
    /// Set once its init has ended.
    exited: watch::Sender<Option<String>>,
    cpu: Duration,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<SandboxId, Machine>,
    calls: BTreeMap<Call, u64>,
    failures: BTreeSet<(Call, u64)>,
    broken: BTreeSet<Call>,
    delays: BTreeMap<Call, Duration>,
}

/// The driver; share it by `Arc`.
pub struct FakeDriver {
    state: Mutex<State>,
    capabilities: Capabilities,
    guest: Arc<GuestScript>,
    /// Where [`Driver::take_upper`] makes its directories.
    uppers: PathBuf,
}

impl FakeDriver {
    /// A layer that is never there.
    pub const NO_LAYER: &'static str = "/no-such-layer";

    /// A driver without sandboxes; `uppers` is a directory for writable layers.
    pub fn new(uppers: impl Into<PathBuf>) -> Self {
        Self {
            state: Mutex::default(),
            capabilities: Capabilities::default(),
            guest: Arc::default(),
            uppers: uppers.into(),
        }
    }

    /// The driver without one of its capabilities.
    #[must_use]
    pub fn without(mut self, capability: Capability, why: &str) -> Self {
        self.capabilities.missing.push((capability, why.to_owned()));
        self
    }

    fn refuse(&self, egress: &Egress) -> Result<()> {
        let why = self.capabilities.why_missing(Capability::Network);
        match why.filter(|_| egress.internet || !egress.allow.is_empty()) {
            None => Ok(()),
            Some(why) => Err(DriverError::Unsupported {
                what: "a sandbox with a network".to_owned(),
                hint: why.to_owned(),
            }),
        }
    }

    /// What the guests answer, and what they heard.
    pub fn guest(&self) -> &GuestScript {
        &self.guest
    }

    /// The `nth` call (from 1, counted from the beginning) of this kind fails.
    pub fn fail_nth(&self, call: Call, nth: u64) {
        self.lock().failures.insert((call, nth));
    }

    /// Every call of this kind fails from now on, or not any more.
    pub fn set_broken(&self, call: Call, broken: bool) {
        let mut state = self.lock();
        if broken {
            state.broken.insert(call);
        } else {
            state.broken.remove(&call);
        }
    }

    /// Calls of this kind take this long.
    pub fn set_delay(&self, call: Call, delay: Duration) {
        self.lock().delays.insert(call, delay);
    }

    /// The sandbox's init ends by itself.
    pub fn exit(&self, id: &SandboxId, how: &str) {
        if let Some(machine) = self.lock().machines.get(id) {
            machine.exited.send_replace(Some(how.to_owned()));
        }
    }

    /// The sandbox vanishes, as after a reboot of the machine.
    pub fn lose(&self, id: &SandboxId) {
        self.lock().machines.remove(id);
    }

    /// What adopting the sandbox will answer.
    pub fn set_instance(&self, id: &SandboxId, instance: &str) {
        if let Some(machine) = self.lock().machines.get_mut(id) {
            machine.instance = InstanceState(instance.to_owned());
        }
    }

    /// How many calls of this kind were made.
    pub fn calls(&self, call: Call) -> u64 {
        self.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// What exists.
    pub fn sandboxes(&self) -> Vec<SandboxId> {
        self.lock().machines.keys().cloned().collect()
    }

    /// The spec of a sandbox, with the egress that is in force.
    pub fn spec(&self, id: &SandboxId) -> Option<LaunchSpec> {
        self.lock()
            .machines
            .get(id)
            .map(|machine| machine.spec.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, waits as long as it is to take, and fails if it is to fail.
    async fn enter(&self, call: Call) -> Result<()> {
        let (delay, fails) = {
            let mut state = self.lock();
            let count = state.calls.entry(call).or_insert(0);
            *count += 1;
            let nth = *count;
            let fails = state.failures.remove(&(call, nth)) || state.broken.contains(&call);
            (state.delays.get(&call).copied(), fails)
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if fails {
            return Err(DriverError::Step {
                step: format!("{call:?}"),
                source: "scripted failure".into(),
            });
        }
        Ok(())
    }

    fn with<T>(&self, id: &SandboxId, read: impl FnOnce(&mut Machine) -> T) -> Result<T> {
        let mut state = self.lock();
        state
            .machines
            .get_mut(id)
            .map(read)
            .ok_or_else(|| DriverError::NotFound { id: id.to_string() })
    }
}

#[async_trait]
impl Driver for FakeDriver {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn launch(&self, spec: LaunchSpec) -> Result<Launched> {
        self.enter(Call::Launch).await?;
        self.refuse(&spec.egress)?;
        if spec
            .layers
            .iter()
            .any(|layer| layer.as_os_str() == Self::NO_LAYER)
        {
            return Err(DriverError::Invalid {
                field: "layers".to_owned(),
                detail: "a layer of the template is missing".to_owned(),
            });
        }
        let id = spec.id.clone();
        let mut state = self.lock();
        if state.machines.contains_key(&id) {
            return Err(DriverError::AlreadyExists { id: id.to_string() });
        }
        let instance = InstanceState(format!("{{\"fake\":\"{id}\"}}"));
        let machine = Machine {
            spec,
            instance: instance.clone(),
            exited: watch::Sender::new(None),
            cpu: Duration::ZERO,
        };
        state.machines.insert(id.clone(), machine);
        Ok(Launched {
            instance,
            timings: Vec::new(),
        })
    }

    async fn adopt(&self, id: &SandboxId, _instance: &InstanceState) -> Result<Adopted> {
        self.enter(Call::Adopt).await?;
        let gone = self.with(id, |machine| machine.exited.borrow().is_some())?;
        if gone {
            return Err(DriverError::NotFound { id: id.to_string() });
        }
        let instance = self.with(id, |machine| machine.instance.clone())?;
        Ok(Adopted { instance })
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.enter(Call::Destroy).await?;
        if let Some(machine) = self.lock().machines.remove(id) {
            machine.exited.send_replace(Some("destroyed".to_owned()));
        }
        Ok(())
    }

    async fn reconcile(&self, live: &[SandboxId]) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        self.lock().machines.retain(|id, _| {
            let keep = live.contains(id);
            if !keep {
                removed.push(id.to_string());
            }
            keep
        });
        Ok(removed)
    }

    async fn connect(&self, id: &SandboxId) -> Result<UnixStream> {
        self.enter(Call::Connect).await?;
        let exited = self.with(id, |machine| machine.exited.clone())?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| DriverError::Guest {
            id: id.to_string(),
            detail: error.to_string(),
        })?;
        tokio::spawn(guest::serve(
            Arc::clone(&self.guest),
            id.clone(),
            exited,
            theirs,
        ));
        Ok(ours)
    }

    async fn exited(&self, id: &SandboxId) -> Result<String> {
        let mut exited = self.with(id, |machine| machine.exited.subscribe())?;
        match exited.wait_for(Option::is_some).await {
            Ok(how) => Ok(how.clone().unwrap_or_default()),
            Err(_) => Err(DriverError::NotFound { id: id.to_string() }),
        }
    }

    async fn set_egress(&self, id: &SandboxId, egress: Egress) -> Result<()> {
        self.enter(Call::SetEgress).await?;
        self.with(id, |_| ())?;
        self.refuse(&egress)?;
        self.with(id, |machine| machine.spec.egress = egress)
    }

    async fn usage(&self, id: &SandboxId) -> Result<Usage> {
        self.enter(Call::Usage).await?;
        self.with(id, |machine| {
            machine.cpu += Duration::from_millis(10);
            Usage {
                cpu: machine.cpu,
                memory_bytes: 3 << 20,
                memory_cache_bytes: 1 << 20,
                pids: 1,
                disk_bytes: Some(4096),
            }
        })
    }

    async fn take_upper(&self, id: &SandboxId) -> Result<PathBuf> {
        self.enter(Call::TakeUpper).await?;
        self.with(id, |_| ())?;
        let step = |source: std::io::Error| DriverError::Step {
            step: "take upper".to_owned(),
            source: Box::new(source),
        };
        let dir = self.uppers.join(id.as_str());
        std::fs::create_dir_all(&dir).map_err(step)?;
        std::fs::write(dir.join("written"), id.as_str()).map_err(step)?;
        Ok(dir)
    }

    async fn shutdown(&self) {}
}
