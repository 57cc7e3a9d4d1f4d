//! A driver that makes nothing: sandboxes are entries of a map, and their guests answer from a
//! script. It can be slow, fail, and lose sandboxes on demand.
//!
//! The map outlives the engine that uses it, as real sandboxes do: tests of restarts give the
//! same driver to a second engine.

mod guest;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::sync::watch;
use woodfrog_types::sandbox::InstanceState;
use woodfrog_types::{SandboxId, SnapshotId};

use crate::{
    Adopted, Capabilities, Capability, CheckpointSpec, Checkpointed, Driver, DriverError, Egress,
    LaunchSpec, Launched, RestoreSpec, Result, SnapshotHealth, Usage,
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
    OpenUpper,
    Pause,
    Resume,
    Checkpoint,
    Restore,
    SnapshotRemove,
    SnapshotVerify,
    SnapshotReconcile,
    SnapshotExport,
    /// Both halves of it.
    SnapshotImport,
}

struct Machine {
    spec: LaunchSpec,
    instance: InstanceState,
    /// Set once its init has ended.
    exited: watch::Sender<Option<String>>,
    cpu: Duration,
    /// Survives a checkpoint with its memory, and nothing else.
    boot: String,
    paused: watch::Sender<bool>,
    /// Rises when the open connections are cut.
    cuts: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<SandboxId, Machine>,
    snapshots: snapshots::Snapshots,
    boots: u64,
    late: BTreeMap<Call, Duration>,
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
    /// Where [`Driver::take_upper`] and [`Driver::open_upper`] make their directories.
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
        if egress.internet || !egress.allow.is_empty() {
            self.require(Capability::Network, "a sandbox with a network")?;
        }
        Ok(())
    }

    fn require(&self, capability: Capability, what: &str) -> Result<()> {
        match self.capabilities.why_missing(capability) {
            None => Ok(()),
            Some(why) => Err(DriverError::Unsupported {
                what: what.to_owned(),
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

    /// Calls of this kind answer this much later than their work is done.
    pub fn set_late(&self, call: Call, delay: Duration) {
        self.lock().late.insert(call, delay);
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

    /// Whether a sandbox is frozen; `false` for an unknown one.
    pub fn is_paused(&self, id: &SandboxId) -> bool {
        self.with(id, |machine| *machine.paused.borrow())
            .unwrap_or(false)
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

    /// Puts a machine on the map; it boots unless it is given what it booted as before.
    fn make(&self, spec: LaunchSpec, boot: Option<String>) -> Result<Launched> {
        self.refuse(&spec.egress)?;
        if !spec.volumes.is_empty() {
            self.require(Capability::Volumes, "a sandbox with volumes")?;
        }
        if let Some(lost) = spec.volumes.iter().find(|volume| !volume.source.is_dir()) {
            return Err(DriverError::Invalid {
                field: "volumes".to_owned(),
                detail: format!("the files of the volume '{}' are missing", lost.name),
            });
        }
        let missing = |layer: &PathBuf| layer.as_os_str() == Self::NO_LAYER;
        if spec.layers.iter().any(missing) {
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
        let boot = boot.unwrap_or_else(|| {
            state.boots += 1;
            format!("{id}-{}", state.boots)
        });
        let instance = InstanceState(format!("{{\"fake\":\"{id}\"}}"));
        let machine = Machine {
            spec,
            instance: instance.clone(),
            exited: watch::Sender::new(None),
            cpu: Duration::ZERO,
            boot,
            paused: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
        };
        state.machines.insert(id, machine);
        Ok(Launched {
            instance,
            timings: Vec::new(),
        })
    }

    /// Waits as long as the answer is to be late.
    async fn leave(&self, call: Call) {
        let late = self.lock().late.get(&call).copied();
        if let Some(late) = late {
            tokio::time::sleep(late).await;
        }
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
        let launched = self.make(spec, None)?;
        self.leave(Call::Launch).await;
        Ok(launched)
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
        let mut state = self.lock();
        state.snapshots.disks.remove(id);
        if let Some(machine) = state.machines.remove(id) {
            machine.exited.send_replace(Some("destroyed".to_owned()));
        }
        Ok(())
    }

    async fn reconcile(&self, live: &[SandboxId]) -> Result<Vec<String>> {
        let mut state = self.lock();
        let mut removed = BTreeSet::new();
        let mut keep = |id: &SandboxId| {
            let keep = live.contains(id);
            if !keep {
                removed.insert(id.to_string());
            }
            keep
        };
        state.machines.retain(|id, _| keep(id));
        state.snapshots.disks.retain(|id, _| keep(id));
        Ok(removed.into_iter().collect())
    }

    async fn connect(&self, id: &SandboxId) -> Result<UnixStream> {
        self.enter(Call::Connect).await?;
        let view = self.with(id, |machine| guest::View {
            sandbox: id.clone(),
            boot: machine.boot.clone(),
            exited: machine.exited.clone(),
            paused: machine.paused.subscribe(),
            cuts: machine.cuts.subscribe(),
        })?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| DriverError::Guest {
            id: id.to_string(),
            detail: error.to_string(),
        })?;
        tokio::spawn(guest::serve(Arc::clone(&self.guest), view, theirs));
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

    async fn pause(&self, id: &SandboxId) -> Result<()> {
        self.enter(Call::Pause).await?;
        self.require(Capability::Pause, "pausing a sandbox")?;
        self.with(id, |machine| machine.paused.send_replace(true))?;
        self.leave(Call::Pause).await;
        Ok(())
    }

    async fn resume(&self, id: &SandboxId) -> Result<()> {
        self.enter(Call::Resume).await?;
        self.require(Capability::Pause, "pausing a sandbox")?;
        self.with(id, |machine| machine.paused.send_replace(false))?;
        self.leave(Call::Resume).await;
        Ok(())
    }

    async fn checkpoint(&self, id: &SandboxId, spec: CheckpointSpec) -> Result<Checkpointed> {
        self.enter(Call::Checkpoint).await?;
        let taken = self.take_snapshot(id, &spec)?;
        self.leave(Call::Checkpoint).await;
        Ok(taken)
    }

    async fn restore(&self, spec: RestoreSpec) -> Result<Launched> {
        self.enter(Call::Restore).await?;
        let launched = self.use_snapshot(spec)?;
        self.leave(Call::Restore).await;
        Ok(launched)
    }

    async fn snapshot_remove(&self, snapshot: &SnapshotId) -> Result<()> {
        self.enter(Call::SnapshotRemove).await?;
        self.drop_snapshot(snapshot)
    }

    async fn snapshot_verify(&self, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
        self.enter(Call::SnapshotVerify).await?;
        self.health(snapshot)
    }

    async fn snapshot_reconcile(&self, known: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        self.enter(Call::SnapshotReconcile).await?;
        self.sweep_snapshots(known)
    }

    async fn snapshot_export(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        self.enter(Call::SnapshotExport).await?;
        self.export(snapshot)
    }

    async fn snapshot_import_begin(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        self.enter(Call::SnapshotImport).await?;
        self.import_begin(snapshot)
    }

    async fn snapshot_import_finish(&self, snapshot: &SnapshotId) -> Result<()> {
        self.enter(Call::SnapshotImport).await?;
        self.import_finish(snapshot)
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

    async fn open_upper(&self, id: &SandboxId) -> Result<std::os::fd::OwnedFd> {
        self.enter(Call::OpenUpper).await?;
        self.with(id, |_| ())?;
        let step = |source: std::io::Error| DriverError::Step {
            step: "open upper".to_owned(),
            source: Box::new(source),
        };
        let dir = self.uppers.join(id.as_str());
        std::fs::create_dir_all(&dir).map_err(step)?;
        Ok(std::fs::File::open(dir).map_err(step)?.into())
    }

    async fn layers_in_use(&self) -> Result<BTreeSet<String>> {
        let state = self.lock();
        let layers = state.machines.values().flat_map(|one| &one.spec.layers);
        let names = layers.filter_map(|layer| layer.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    async fn shutdown(&self) {}
}
