//! The driver itself.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use woodfrog_driver_common::egress::{check_proxy, wanted};
use woodfrog_driver_common::instance_id;
use woodfrog_driver_common::locks::Locks;
use woodfrog_driver_common::slots::Slots;
use woodfrog_linux::cgroup::{Group, Hierarchies};
use woodfrog_linux::pool::{Pool, PoolKind};
use woodfrog_linux::{btrfs, process};
use woodfrog_network::Network;
use woodfrog_sandbox::{
    Adopted, Capabilities, Capability, CheckpointSpec, Checkpointed, Driver, DriverError, Egress,
    LaunchSpec, Launched, RestoreSpec, Result, SnapshotHealth, Usage,
};
use woodfrog_types::sandbox::InstanceState;
use woodfrog_types::{SandboxId, SnapshotId};

use crate::error::{StartError, step};
use crate::instance::Instance;
use crate::launch::Origin;
use crate::note::Note;
use crate::paths::Paths;
use crate::runsc::{Caller, START_MAX, WORD_MAX};
use crate::start::{self, GvisorOptions};
use crate::{files, relay, restore, snapshot};

/// How long the processes of a sandbox may take to be gone after SIGKILL.
const KILL_MAX: Duration = Duration::from_secs(10);

/// Makes sandboxes with gVisor.
pub struct GvisorDriver {
    pub(crate) shared: Arc<Shared>,
    /// Puts the network's rules back.
    network_watch: JoinHandle<()>,
}

impl Drop for GvisorDriver {
    fn drop(&mut self) {
        self.network_watch.abort();
    }
}

/// What every operation can reach.
pub(crate) struct Shared {
    pub(crate) paths: Paths,
    /// Prefix of our cgroups: `woodfrog-<instance>`.
    pub(crate) group: String,
    pub(crate) skeleton: PathBuf,
    pub(crate) pool: Pool,
    pub(crate) cgroups: Hierarchies,
    pub(crate) network: Network,
    pub(crate) runsc: Caller,
    pub(crate) slots: Slots,
    pub(crate) locks: Arc<Locks>,
    pub(crate) capabilities: Capabilities,
    running: Mutex<HashMap<SandboxId, Arc<Instance>>>,
}

impl GvisorDriver {
    /// Sets the machine up and takes hold of what runs already.
    ///
    /// # Errors
    /// There is no `runsc`, no network, or the pool or the cgroups cannot be had.
    pub async fn start(options: GvisorOptions) -> std::result::Result<Self, StartError> {
        let paths = Paths::new(&options.data_dir);
        let runsc = start::caller(&options, &paths)?;
        let (home, notes) = (&paths.home, &paths.notes);
        start::directories(&[&options.data_dir, home, notes, &paths.bundles, &paths.state])?;
        let pool = start::pool(&options).await?;
        start::directories(&[&paths.sandboxes, &paths.snapshots, &paths.skeletons])?;
        let skeleton = start::skeleton_layer(&paths, options.guest)?;
        let cgroups = Hierarchies::detect().map_err(StartError::Cgroups)?;
        let notes = Note::all(&paths.notes).map_err(|source| StartError::Directory {
            path: paths.notes.clone(),
            source,
        })?;
        let notes: Vec<Note> = notes.into_iter().filter(Note::is_alive).collect();
        let network = start::network(&options, &paths, &notes).await?;
        let group = format!("woodfrog-{}", instance_id(&paths.home));
        let shared = Arc::new(Shared {
            skeleton,
            capabilities: start::capabilities(&pool, options.memory_snapshots),
            pool,
            network,
            runsc,
            slots: start::slots(&notes),
            locks: Arc::default(),
            running: Mutex::new(start::running(notes, &cgroups, &group)),
            cgroups,
            group,
            paths,
        });
        let watch = crate::reconcile::watch_network(Arc::downgrade(&shared));
        let network_watch = tokio::spawn(watch);
        Ok(Self {
            shared,
            network_watch,
        })
    }

    /// Ends every sandbox and removes all that the driver has on the machine but the pool, which it
    /// shares. For taking a server away for good.
    ///
    /// # Errors
    /// Something could not be removed; calling again goes on.
    pub async fn purge(mut self) -> Result<()> {
        self.reconcile(&[]).await?;
        // Or it would put the rules back that are taken away below.
        self.network_watch.abort();
        let _ = (&mut self.network_watch).await;
        let shared = Arc::clone(&self.shared);
        shared.network.settled().await;
        let torn_down = shared.network.teardown().await;
        torn_down.map_err(|e| step("remove the network", e))?;
        let _ = shared.cgroups.group(&shared.group).remove();
        Ok(())
    }

    /// Whether anything is known of a sandbox of that id.
    pub fn knows(&self, id: &SandboxId) -> bool {
        self.shared.slots.of(id).is_some() || self.shared.instance(id).is_ok()
    }

    /// Whether there is a snapshot of that id.
    pub fn has_snapshot(&self, id: &SnapshotId) -> bool {
        self.shared.paths.snapshot(id).exists() || self.shared.paths.import(id).exists()
    }

    /// Takes over what was put into the subvolume at `from` for a snapshot to be imported, whose
    /// manifest turned out to name this driver. `from` stays. Followed by
    /// [`Driver::snapshot_import_finish`].
    ///
    /// # Errors
    /// It cannot be copied.
    pub async fn import_from(&self, snapshot: &SnapshotId, from: PathBuf) -> Result<()> {
        let (shared, snapshot) = (Arc::clone(&self.shared), snapshot.clone());
        blocking(move || {
            let dir = shared.paths.import(&snapshot);
            shared
                .remove_tree(&dir)
                .and_then(|()| btrfs::snapshot(&from, &dir))
                .map_err(|e| step("take the snapshot over", e))
        })
        .await
    }

    /// Does something to a sandbox that nobody else does anything to meanwhile, in a task of its
    /// own: a caller that goes away leaves it whole.
    async fn alone<T: Send + 'static, W>(
        &self,
        id: &SandboxId,
        work: impl FnOnce(Arc<Shared>) -> W,
    ) -> Result<T>
    where
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let held = self.shared.locks.lock(id).await;
        let work = work(Arc::clone(&self.shared));
        let work = tokio::spawn(async move {
            let _held = held;
            work.await
        });
        work.await.map_err(|e| step("gVisor driver", e))?
    }
}

impl Shared {
    /// Whether sandboxes are subvolumes.
    pub(crate) fn has_subvolumes(&self) -> bool {
        !matches!(self.pool.kind, PoolKind::Plain { .. })
    }

    /// Whether the subvolumes have quotas.
    pub(crate) fn has_quotas(&self) -> bool {
        self.pool.disk_limits.is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, Arc<Instance>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn instance(&self, id: &SandboxId) -> Result<Arc<Instance>> {
        let found = self.lock().get(id).cloned();
        found.ok_or_else(|| DriverError::NotFound { id: id.to_string() })
    }

    /// One that has not ended.
    pub(crate) fn alive(&self, id: &SandboxId) -> Result<Arc<Instance>> {
        let instance = self.instance(id)?;
        match instance.has_ended() {
            Ok(false) => Ok(instance),
            Ok(true) => Err(DriverError::NotFound { id: id.to_string() }),
            Err(error) => Err(step("look at the sandbox", error)),
        }
    }

    pub(crate) fn insert(&self, id: &SandboxId, instance: Instance) {
        self.lock().insert(id.clone(), Arc::new(instance));
    }

    /// The name of its cgroup.
    pub(crate) fn group_of(&self, id: &SandboxId) -> String {
        format!("{}/{id}", self.group)
    }

    pub(crate) fn cgroup(&self, id: &SandboxId) -> Group {
        self.cgroups.group(&self.group_of(id))
    }

    /// Kills what runs in it, gVisor included, and waits until it is gone.
    async fn kill(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        let group = self.cgroup(id);
        blocking(move || match group.kill_all() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(step("kill the cgroup", error))
            }
            _ => Ok(()),
        })
        .await?;
        if let Ok(instance) = self.instance(id) {
            process::kill(instance.pidfd.as_fd()).map_err(|e| step("kill", e))?;
            tokio::time::timeout(KILL_MAX, instance.wait_end())
                .await
                .map_err(|_| step("kill", "processes of the sandbox do not end"))?;
        }
        Ok(())
    }

    /// Ends it and removes all that it had on the machine. May be repeated. The caller holds its
    /// lock.
    pub(crate) async fn end(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        self.kill(id).await?;
        if let Some(slot) = self.slots.of(id) {
            self.network.detach(slot);
        }
        let (shared, removed) = (Arc::clone(self), id.clone());
        blocking(move || shared.remove_traces(&removed)).await?;
        self.lock().remove(id);
        // The next holder's network waits for the detachment.
        self.slots.give(id);
        Ok(())
    }

    /// Removes files and cgroups. Blocking; everything may be gone already.
    fn remove_traces(&self, id: &SandboxId) -> Result<()> {
        let group = self.cgroup(id);
        group.remove().map_err(|e| step("remove the cgroup", e))?;
        self.runsc
            .forget(id)
            .and_then(|()| files::remove_dir(&self.paths.bundle(id)))
            .and_then(|()| self.remove_tree(&self.paths.sandbox(id)))
            .map_err(|e| step("remove the files", e))?;
        Note::remove(&self.paths.notes, id).map_err(|e| step("remove the note", e))
    }

    /// Removes a subvolume, or a folder.
    pub(crate) fn remove_tree(&self, path: &std::path::Path) -> io::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        if self.has_subvolumes() && btrfs::delete_subvolume(path).is_ok() {
            return Ok(());
        }
        fs::remove_dir_all(path)
    }

    /// What the driver cannot do here is refused before anything is made.
    pub(crate) fn require(&self, capability: Capability, what: &str) -> Result<()> {
        match self.capabilities.why_missing(capability) {
            None => Ok(()),
            Some(why) => Err(DriverError::Unsupported {
                what: what.into(),
                hint: why.into(),
            }),
        }
    }

    async fn set_frozen(self: Arc<Self>, id: SandboxId, frozen: bool) -> Result<()> {
        let instance = self.alive(&id)?;
        let group = self.cgroup(&id);
        let set = move || match frozen {
            true => group.freeze().map_err(|e| step("freeze", e)),
            false => group.thaw().map_err(|e| step("thaw", e)),
        };
        // Before it is: who connects meanwhile waits, in place of giving up.
        if frozen {
            instance.set_paused(true);
        }
        let done = blocking(set).await;
        instance.set_paused(frozen == done.is_ok());
        done
    }

    /// Writes what gVisor holds of files to the host's.
    pub(crate) fn sync(&self, id: &SandboxId) -> Result<()> {
        let guest = woodfrog_linux::skeleton::GUEST_PATH;
        Ok(self
            .runsc
            .say(&["exec"], id, &[guest, "--sync"], WORD_MAX)?)
    }
}

/// Runs what blocks off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| step("worker", e))?
}

#[async_trait]
impl Driver for GvisorDriver {
    fn name(&self) -> &'static str {
        "gvisor"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    async fn launch(&self, spec: LaunchSpec) -> Result<Launched> {
        let id = spec.id.clone();
        self.alone(&id, |shared| async move {
            crate::launch::launch(&shared, spec, Origin::Template, START_MAX).await
        })
        .await
    }

    async fn adopt(&self, id: &SandboxId, _instance: &InstanceState) -> Result<Adopted> {
        // The driver's own note is newer than the engine's record: it was written first.
        let instance = self.shared.alive(id)?;
        Ok(Adopted {
            instance: instance.note_now().to_instance(),
        })
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        let removed = id.clone();
        self.alone(id, |shared| async move { shared.end(&removed).await })
            .await
    }

    async fn reconcile(&self, live: &[SandboxId]) -> Result<Vec<String>> {
        crate::reconcile::reconcile(self, live).await
    }

    async fn connect(&self, id: &SandboxId) -> Result<UnixStream> {
        relay::connect(&self.shared.instance(id)?).await
    }

    async fn exited(&self, id: &SandboxId) -> Result<String> {
        let instance = self.shared.instance(id)?;
        instance.wait_end().await;
        // gVisor ends with the sandbox's init, whose exit it keeps to itself.
        Ok("its init, or gVisor itself, ended".to_owned())
    }

    async fn check_egress(&self, egress: &Egress) -> Result<()> {
        let policy = wanted(egress)?.policy;
        check_proxy(&self.shared.network, &policy).await
    }

    async fn set_egress(&self, id: &SandboxId, egress: Egress) -> Result<()> {
        let instance = self.shared.instance(id)?;
        let policy = wanted(&egress)?.policy;
        let (notes, old) = (&self.shared.paths.notes, instance.note_now());
        let mut note = old.clone();
        note.egress = (&egress).into();
        // Before the rules: a server that dies in between applies them when it starts again.
        note.write(notes).map_err(|e| step("write the note", e))?;
        let updated = self.shared.network.update(old.slot, policy).await;
        let updated = updated.map_err(|e| step("replace the network rules", e));
        match &updated {
            Ok(()) => instance.set_egress(note.egress),
            Err(_) => old.write(notes).map_err(|e| step("write the note", e))?,
        }
        updated
    }

    async fn usage(&self, id: &SandboxId) -> Result<Usage> {
        self.shared.instance(id)?;
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        blocking(move || crate::usage::usage(&shared, &id)).await
    }

    async fn pause(&self, id: &SandboxId) -> Result<()> {
        let paused = id.clone();
        self.alone(id, |shared| shared.set_frozen(paused, true))
            .await
    }

    async fn resume(&self, id: &SandboxId) -> Result<()> {
        let resumed = id.clone();
        self.alone(id, |shared| shared.set_frozen(resumed, false))
            .await
    }

    async fn checkpoint(&self, id: &SandboxId, spec: CheckpointSpec) -> Result<Checkpointed> {
        let taken = id.clone();
        self.alone(id, |shared| async move {
            snapshot::checkpoint(&shared, &taken, spec).await
        })
        .await
    }

    async fn restore(&self, spec: RestoreSpec) -> Result<Launched> {
        let id = spec.launch.id.clone();
        self.alone(&id, |shared| async move {
            restore::restore(&shared, spec).await
        })
        .await
    }

    async fn snapshot_remove(&self, snapshot: &SnapshotId) -> Result<()> {
        let (shared, snapshot) = (Arc::clone(&self.shared), snapshot.clone());
        blocking(move || snapshot::remove(&shared, &snapshot)).await
    }

    async fn snapshot_verify(&self, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
        let (shared, snapshot) = (Arc::clone(&self.shared), snapshot.clone());
        blocking(move || snapshot::verify(&shared, &snapshot)).await
    }

    async fn snapshot_reconcile(&self, _known: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || snapshot::complete(&shared)).await
    }

    async fn snapshot_export(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        let (shared, snapshot) = (Arc::clone(&self.shared), snapshot.clone());
        blocking(move || snapshot::export(&shared, &snapshot)).await
    }

    async fn snapshot_import_begin(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        let (shared, snapshot) = (Arc::clone(&self.shared), snapshot.clone());
        blocking(move || snapshot::import_begin(&shared, &snapshot)).await
    }

    async fn snapshot_import_finish(&self, snapshot: &SnapshotId) -> Result<()> {
        let (shared, snapshot) = (Arc::clone(&self.shared), snapshot.clone());
        blocking(move || snapshot::import_finish(&shared, &snapshot)).await
    }

    async fn take_upper(&self, id: &SandboxId) -> Result<PathBuf> {
        if self.shared.alive(id).is_ok() {
            let (shared, id) = (Arc::clone(&self.shared), id.clone());
            blocking(move || shared.sync(&id)).await?;
        }
        self.shared.kill(id).await?;
        let upper = self.shared.paths.sandbox(id).join("u");
        if !upper.is_dir() {
            return Err(DriverError::NotFound { id: id.to_string() });
        }
        Ok(upper)
    }

    async fn open_upper(&self, id: &SandboxId) -> Result<std::os::fd::OwnedFd> {
        self.shared.alive(id)?;
        // What the guest wrote is in its own memory until it is synced, and its names are gVisor's.
        Err(DriverError::Unsupported {
            what: "looking at what a sandbox wrote".to_owned(),
            hint: "sandboxes with gVisor keep it to themselves; use a template with the native \
                   runtime"
                .to_owned(),
        })
    }

    async fn layers_in_use(&self) -> Result<BTreeSet<String>> {
        let running = self.shared.lock();
        let layers = running.values().flat_map(|instance| &instance.note.layers);
        let names = layers.filter_map(|layer| layer.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    async fn shutdown(&self) {
        self.shared.network.settled().await;
    }
}
