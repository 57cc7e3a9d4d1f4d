//! The driver itself.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::criu::Criu;
use woodfrog_linux::pool::{Pool, PoolKind};
use woodfrog_linux::process;
use woodfrog_network::Network;
use woodfrog_sandbox::{
    Adopted, Capabilities, Capability, CheckpointSpec, Checkpointed, Driver, DriverError, Egress,
    LaunchSpec, Launched, RestoreSpec, Result, SnapshotHealth, Usage,
};
use woodfrog_types::sandbox::InstanceState;
use woodfrog_types::{SandboxId, SnapshotId};

use crate::ahead::Ahead;
use crate::disk;
use crate::egress::{check_proxy, wanted};
use crate::error::{StartError, step};
use crate::instance::Instance;
use crate::launch::Origin;
use crate::launchers::Launchers;
use crate::locks::Locks;
use crate::note::Note;
use crate::paging::{self, LazyPages};
use crate::paths::{Paths, instance_id};
use crate::slots::Slots;
use crate::snapshots;
use crate::socket;
use crate::start::{self, NativeOptions};

/// How long the processes of a sandbox may take to be gone after SIGKILL.
const KILL_MAX: Duration = Duration::from_secs(10);
/// After this, what may hold them back is looked for.
const KILL_SOON: Duration = Duration::from_secs(1);

/// Makes sandboxes with the kernel's own means.
pub struct NativeDriver {
    pub(crate) shared: Arc<Shared>,
    /// Puts the network's rules back.
    network_watch: JoinHandle<()>,
}

impl Drop for NativeDriver {
    fn drop(&mut self) {
        self.network_watch.abort();
    }
}

/// What every operation can reach.
pub(crate) struct Shared {
    pub(crate) paths: Paths,
    /// Prefix of our cgroups: `woodfrog-<instance>`.
    pub(crate) group: String,
    pub(crate) uid_base: u32,
    pub(crate) skeleton: PathBuf,
    pub(crate) pool: Pool,
    pub(crate) cgroups: Hierarchies,
    pub(crate) network: Network,
    pub(crate) launchers: Launchers,
    pub(crate) slots: Slots,
    pub(crate) namespaces: Arc<Ahead>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) capabilities: Capabilities,
    /// What saves and restores memory, or why there is none.
    pub(crate) criu: std::result::Result<Criu, String>,
    pub(crate) lazy_pages: LazyPages,
    running: Mutex<HashMap<SandboxId, Arc<Instance>>>,
}

impl NativeDriver {
    /// Sets the machine up and takes hold of what runs already.
    ///
    /// # Errors
    /// The pool, the cgroups or the launchers cannot be had. A missing network only takes
    /// capabilities away.
    pub async fn start(options: NativeOptions) -> std::result::Result<Self, StartError> {
        start::check_uid_base(options.uid_base)?;
        let paths = Paths::new(&options.data_dir);
        start::directories(&[&options.data_dir, &paths.notes])?;
        let pool = start::pool(&options).await?;
        start::directories(&[&paths.sandboxes, &paths.skeletons])?;
        let criu = start::criu().await;
        let skeleton = start::skeleton_layer(&paths, options.guest)?;
        let cgroups = start::cgroups(&options)?;
        let notes = Note::all(&paths.notes).map_err(|source| StartError::Directory {
            path: paths.notes.clone(),
            source,
        })?;
        let notes = start::settled(notes, &paths.staging).await;
        start::snapshot_directories(&paths, &pool)?;
        crate::paging::clear(&paths.notes, &notes).map_err(|source| StartError::Directory {
            path: paths.notes.clone(),
            source,
        })?;
        options.lazy_pages.set_up();
        let network = start::network(&options, &notes).await?;
        let slots = start::slots(&notes);
        let running = start::running(notes, &paths.notes);
        let shared = Shared {
            group: format!("woodfrog-{}", instance_id(&options.data_dir)),
            uid_base: options.uid_base,
            skeleton,
            capabilities: start::capabilities(&network, &pool, &criu),
            criu,
            lazy_pages: options.lazy_pages,
            pool,
            cgroups,
            network,
            launchers: start::launchers(&options)?,
            namespaces: Arc::default(),
            slots,
            locks: Arc::default(),
            running: Mutex::new(
                running
                    .into_iter()
                    .map(|(id, i)| (id, Arc::new(i)))
                    .collect(),
            ),
            paths,
        };
        let shared = Arc::new(shared);
        shared.tidy_all();
        Ahead::refill(&shared.namespaces);
        let watch = crate::reconcile::watch_network(Arc::downgrade(&shared));
        let network_watch = tokio::spawn(watch);
        Ok(Self {
            shared,
            network_watch,
        })
    }

    /// Ends every sandbox and removes all that the driver has on the machine, the pool included.
    /// For taking a server away for good.
    ///
    /// # Errors
    /// Something could not be removed; calling again goes on.
    pub async fn purge(mut self) -> Result<()> {
        self.reconcile(&[]).await?;
        // Or it would put the rules back that are taken away below.
        self.network_watch.abort();
        let _ = (&mut self.network_watch).await;
        self.shared.network.settled().await;
        self.shared.launchers.close();
        let shared = Arc::clone(&self.shared);
        shared
            .network
            .teardown()
            .await
            .map_err(|e| step("remove the network", e))?;
        let _ = shared.cgroups.group(&shared.group).remove();
        shared
            .pool
            .unmount()
            .map_err(|e| step("unmount the pool", e))
    }
}

impl NativeDriver {
    /// Does file-system work off the async threads.
    async fn off<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        blocking(move || work(&shared)).await
    }

    fn require_snapshots(&self) -> Result<()> {
        let capability = Capability::FilesystemSnapshot;
        require(&self.shared.capabilities, capability, "a snapshot")
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
        self.running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn instance(&self, id: &SandboxId) -> Result<Arc<Instance>> {
        let found = self.lock().get(id).cloned();
        found.ok_or_else(|| DriverError::NotFound { id: id.to_string() })
    }

    pub(crate) fn insert(self: &Arc<Self>, id: &SandboxId, instance: Instance) {
        let instance = Arc::new(instance);
        self.lock().insert(id.clone(), Arc::clone(&instance));
        paging::tidy_later(self, id, &instance);
    }

    /// Goes on with what an earlier server has begun.
    fn tidy_all(self: &Arc<Self>) {
        for (id, instance) in &*self.lock() {
            paging::tidy_later(self, id, instance);
        }
    }

    pub(crate) fn cgroup(&self, id: &SandboxId) -> woodfrog_linux::cgroup::Group {
        self.cgroups.group(&format!("{}/{id}", self.group))
    }

    /// Kills what runs in it and waits until it is gone.
    async fn kill(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        let Ok(instance) = self.instance(id) else {
            return Ok(());
        };
        process::kill(instance.pidfd.as_fd()).map_err(|e| step("kill", e))?;
        if tokio::time::timeout(KILL_SOON, instance.wait_end())
            .await
            .is_ok()
        {
            return Ok(());
        }
        // A version 1 freezer holds back even SIGKILL; this thaws.
        let group = self.cgroup(id);
        blocking(move || group.kill_all().map_err(|e| step("kill the cgroup", e))).await?;
        tokio::time::timeout(KILL_MAX, instance.wait_end())
            .await
            .map_err(|_| step("kill", "processes of the sandbox do not end"))
    }

    /// Whether there is anything of a sandbox that does not run, but the disk it sleeps with.
    pub(crate) fn has_remains(&self, id: &SandboxId) -> bool {
        self.slots.of(id).is_some()
            || self.instance(id).is_ok()
            || self.paths.sandbox(id).exists()
            || self.cgroup(id).dirs().any(std::path::Path::exists)
    }

    /// Ends it and removes all that it had on the machine, but for the disk that it sleeps with.
    /// The caller holds its lock.
    pub(crate) async fn clear(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        self.leave(id, |shared, id| {
            disk::remove(shared, &shared.paths.sandbox(id))
        })
        .await
    }

    /// Waits for the end of its processes, and speaks of it no more.
    pub(crate) async fn dismiss(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        self.kill(id).await?;
        let gone = self.lock().remove(id);
        if let Some(paging) = gone.as_ref().and_then(|gone| gone.note.paging.as_ref()) {
            paging::forget(&self.paths.notes, paging);
        }
        Ok(())
    }

    /// Ends it and keeps its disk, which holds what `snapshot` does. The caller holds its lock.
    pub(crate) async fn put_away(
        self: &Arc<Self>,
        id: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<()> {
        let snapshot = snapshot.clone();
        self.leave(id, move |shared, id| {
            fs::rename(shared.paths.sandbox(id), shared.paths.asleep(id, &snapshot))
        })
        .await
    }

    /// Ends it and removes all that it had on the machine. May be repeated. The caller holds its
    /// lock.
    pub(crate) async fn end(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        self.leave(id, |shared, id| {
            disk::remove(shared, &shared.paths.sandbox(id))?;
            disk::remove_asleep(shared, id)
        })
        .await
    }

    /// Ends it, has something done about its disk, and removes the rest.
    async fn leave(
        self: &Arc<Self>,
        id: &SandboxId,
        disk: impl FnOnce(&Self, &SandboxId) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        self.kill(id).await?;
        if let Some(slot) = self.slots.of(id) {
            self.network.detach(slot);
        }
        let (shared, removed) = (Arc::clone(self), id.clone());
        blocking(move || shared.remove_traces(&removed, disk)).await?;
        self.lock().remove(id);
        // The next holder's network waits for the detachment.
        self.slots.give(id);
        Ok(())
    }

    /// Removes files and cgroups. Blocking; everything may be gone already.
    fn remove_traces(
        &self,
        id: &SandboxId,
        disk: impl FnOnce(&Self, &SandboxId) -> io::Result<()>,
    ) -> Result<()> {
        let group = self.cgroup(id);
        match group.kill_all() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(step("kill the cgroup", error));
            }
            _ => {}
        }
        group.remove().map_err(|e| step("remove the cgroup", e))?;
        disk(self, id).map_err(|e| step("remove the files", e))?;
        Note::remove(&self.paths.notes, id).map_err(|e| step("remove the note", e))?;
        if let Ok(instance) = self.instance(id)
            && let Some(paging) = &instance.note.paging
        {
            paging::forget(&self.paths.notes, paging);
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for NativeDriver {
    fn name(&self) -> &'static str {
        "native"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    async fn launch(&self, spec: LaunchSpec) -> Result<Launched> {
        let (shared, id) = (Arc::clone(&self.shared), spec.id.clone());
        let held = shared.locks.lock(&id).await;
        // A task of its own: a caller that goes away must not leave half a sandbox behind, which
        // the launcher would finish without anybody knowing.
        let work = tokio::spawn(async move {
            let _held = held;
            crate::launch::launch(&shared, spec, Origin::Template).await
        });
        match work.await {
            Ok(result) => result,
            Err(panicked) => {
                self.destroy(&id).await?;
                Err(step("launch", panicked))
            }
        }
    }

    async fn adopt(&self, id: &SandboxId, _instance: &InstanceState) -> Result<Adopted> {
        // The driver's own note is newer than the engine's record: it was written first.
        let instance = self.shared.instance(id)?;
        let ended = instance.has_ended();
        if ended.map_err(|e| step("look at the sandbox", e))? {
            return Err(DriverError::NotFound { id: id.to_string() });
        }
        Ok(Adopted {
            instance: instance.note_now().to_instance(),
        })
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        let held = self.shared.locks.lock(id).await;
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        // A task of its own, as for `launch`.
        let work = tokio::spawn(async move {
            let _held = held;
            shared.end(&id).await
        });
        work.await.map_err(|e| step("destroy", e))?
    }

    async fn reconcile(&self, live: &[SandboxId]) -> Result<Vec<String>> {
        crate::reconcile::reconcile(self, live).await
    }

    async fn connect(&self, id: &SandboxId) -> Result<UnixStream> {
        let instance = self.shared.instance(id)?;
        let failed = |error: io::Error| DriverError::Guest {
            id: id.to_string(),
            detail: error.to_string(),
        };
        let stream = socket::connect(&instance.root, instance.note.init).await;
        UnixStream::from_std(stream.map_err(failed)?).map_err(failed)
    }

    async fn exited(&self, id: &SandboxId) -> Result<String> {
        let instance = self.shared.instance(id)?;
        instance.wait_end().await;
        Ok(match process::exit_of(instance.pidfd.as_fd()) {
            Ok(Some(process::Exit::Code(code))) => format!("its init ended with code {code}"),
            Ok(Some(process::Exit::Signal(signal))) => {
                format!("its init was killed by signal {signal}")
            }
            Ok(None) | Err(_) => "its init ended".to_owned(),
        })
    }

    async fn check_egress(&self, egress: &Egress) -> Result<()> {
        let policy = wanted(egress)?.policy;
        check_proxy(&self.shared.network, &policy).await
    }

    async fn set_egress(&self, id: &SandboxId, egress: Egress) -> Result<()> {
        // The note has one writer at a time.
        let _held = self.shared.locks.lock(id).await;
        let instance = self.shared.instance(id)?;
        let policy = wanted(&egress)?.policy;
        let (notes, old) = (&self.shared.paths.notes, instance.note_now());
        let mut note = old.clone();
        note.egress = (&egress).into();
        // Before the rules: a server that dies in between applies them when it starts again.
        note.write(notes).map_err(|e| step("write the note", e))?;
        let updated = if self.shared.network.unavailable().is_some() {
            require_network(&self.shared.capabilities, &egress)
        } else {
            let update = self.shared.network.update(old.slot, policy).await;
            update.map_err(|e| step("replace the network rules", e))
        };
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
        crate::freeze::pause(&self.shared, id).await
    }

    async fn resume(&self, id: &SandboxId) -> Result<()> {
        crate::freeze::resume(&self.shared, id).await
    }

    async fn checkpoint(&self, id: &SandboxId, spec: CheckpointSpec) -> Result<Checkpointed> {
        crate::checkpoint::checkpoint(&self.shared, id, spec).await
    }

    async fn restore(&self, spec: RestoreSpec) -> Result<Launched> {
        crate::restore::restore(&self.shared, spec).await
    }

    async fn snapshot_remove(&self, snapshot: &SnapshotId) -> Result<()> {
        let snapshot = snapshot.clone();
        self.off(move |shared| snapshots::remove(shared, &snapshot))
            .await
    }

    async fn snapshot_verify(&self, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
        let snapshot = snapshot.clone();
        self.off(move |shared| snapshots::verify(shared, &snapshot))
            .await
    }

    async fn snapshot_reconcile(&self, _known: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        self.off(snapshots::reconcile).await
    }

    async fn snapshot_export(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        let snapshot = snapshot.clone();
        self.off(move |shared| snapshots::export(shared, &snapshot))
            .await
    }

    async fn snapshot_import_begin(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        self.require_snapshots()?;
        let snapshot = snapshot.clone();
        self.off(move |shared| snapshots::import_begin(shared, &snapshot))
            .await
    }

    async fn snapshot_import_finish(&self, snapshot: &SnapshotId) -> Result<()> {
        self.require_snapshots()?;
        let snapshot = snapshot.clone();
        self.off(move |shared| snapshots::import_finish(shared, &snapshot))
            .await
    }

    async fn take_upper(&self, id: &SandboxId) -> Result<PathBuf> {
        self.shared.kill(id).await?;
        let upper = self.shared.paths.sandbox(id).join("u");
        if !upper.is_dir() {
            return Err(DriverError::NotFound { id: id.to_string() });
        }
        Ok(upper)
    }

    async fn open_upper(&self, id: &SandboxId) -> Result<OwnedFd> {
        let id = id.clone();
        self.off(move |shared| disk::open_upper(shared, &id)).await
    }

    async fn layers_in_use(&self) -> Result<BTreeSet<String>> {
        let mut layers = BTreeSet::new();
        for (id, instance) in &*self.shared.lock() {
            let made = instance.note.made.as_ref();
            let made = made.ok_or_else(|| DriverError::Unsupported {
                what: format!("telling the layers of the sandbox {id}"),
                hint: "a server of before made it; delete it, or save it and bring it back".into(),
            })?;
            layers.extend(made.layers.iter().cloned());
        }
        Ok(layers)
    }

    async fn shutdown(&self) {
        self.shared.launchers.close();
        self.shared.network.settled().await;
    }
}

/// Runs file-system work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| step("worker", e))?
}

/// Egress that needs a network is refused where there is none; a sandbox that may reach nothing
/// can be had everywhere.
pub(crate) fn require_network(capabilities: &Capabilities, egress: &Egress) -> Result<()> {
    if !egress.internet && egress.allow.is_empty() {
        return Ok(());
    }
    require(
        capabilities,
        Capability::Network,
        "a sandbox with a network",
    )
}

/// What the driver cannot do here is refused before anything is made.
pub(crate) fn require(
    capabilities: &Capabilities,
    capability: Capability,
    what: &str,
) -> Result<()> {
    match capabilities.why_missing(capability) {
        None => Ok(()),
        Some(why) => Err(DriverError::Unsupported {
            what: what.into(),
            hint: why.into(),
        }),
    }
}
