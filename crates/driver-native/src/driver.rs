//! The driver itself.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::pool::{Pool, PoolKind};
use woodfrog_linux::{btrfs, process};
use woodfrog_network::Network;
use woodfrog_sandbox::{
    Adopted, Capabilities, Capability, Driver, DriverError, Egress, LaunchSpec, Launched, Result,
    Usage,
};
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::InstanceState;

use crate::ahead::Ahead;
use crate::egress::wanted;
use crate::error::{StartError, step};
use crate::instance::Instance;
use crate::launchers::Launchers;
use crate::note::Note;
use crate::paths::{Paths, instance_id};
use crate::slots::Slots;
use crate::socket;
use crate::start::{self, NativeOptions};

/// How long the processes of a sandbox may take to be gone after SIGKILL.
const KILL_MAX: Duration = Duration::from_secs(10);

/// Makes sandboxes with the kernel's own means.
pub struct NativeDriver {
    pub(crate) shared: Arc<Shared>,
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
    pub(crate) capabilities: Capabilities,
    running: Mutex<HashMap<SandboxId, Arc<Instance>>>,
}

impl NativeDriver {
    /// Sets the machine up and takes hold of what runs already.
    ///
    /// # Errors
    /// The pool, the cgroups or the launchers cannot be had. A missing network only takes
    /// capabilities away.
    pub async fn start(options: NativeOptions) -> std::result::Result<Self, StartError> {
        let paths = Paths::new(&options.data_dir);
        start::directories(&[&options.data_dir, &paths.notes])?;
        let pool = start::pool(&options).await?;
        start::directories(&[&paths.sandboxes, &paths.skeletons])?;
        let skeleton = start::skeleton_layer(&paths, options.guest)?;
        let cgroups = start::cgroups(&options)?;
        let notes = Note::all(&paths.notes).map_err(|source| StartError::Directory {
            path: paths.notes.clone(),
            source,
        })?;
        let notes: Vec<Note> = notes.into_iter().filter(Note::is_alive).collect();
        let network = start::network(&options, &notes).await?;
        let running = start::running(notes);
        let disk_limits = match &pool.kind {
            PoolKind::BtrfsDirectory | PoolKind::BtrfsImage => Ok(()),
            PoolKind::Plain { reason } => Err(reason.clone()),
        };
        let shared = Shared {
            group: format!("woodfrog-{}", instance_id(&options.data_dir)),
            uid_base: options.uid_base,
            skeleton,
            capabilities: start::capabilities(&network, disk_limits),
            pool,
            cgroups,
            network,
            launchers: start::launchers(&options)?,
            slots: start::slots(&running),
            namespaces: Arc::default(),
            running: Mutex::new(
                running
                    .into_iter()
                    .map(|(id, i)| (id, Arc::new(i)))
                    .collect(),
            ),
            paths,
        };
        let shared = Arc::new(shared);
        Ahead::refill(&shared.namespaces);
        tokio::spawn(crate::reconcile::watch_network(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Ends every sandbox and removes all that the driver has on the machine, the pool included.
    /// For taking a server away for good.
    ///
    /// # Errors
    /// Something could not be removed; calling again goes on.
    pub async fn purge(self) -> Result<()> {
        self.reconcile(&[]).await?;
        self.shared.network.settled().await;
        self.shared.launchers.close();
        let shared = self.shared;
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

impl Shared {
    /// Whether sandboxes are subvolumes with quotas.
    pub(crate) fn has_subvolumes(&self) -> bool {
        !matches!(self.pool.kind, PoolKind::Plain { .. })
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

    pub(crate) fn insert(&self, id: &SandboxId, instance: Instance) {
        self.lock().insert(id.clone(), Arc::new(instance));
    }

    pub(crate) fn cgroup(&self, id: &SandboxId) -> woodfrog_linux::cgroup::Group {
        self.cgroups.group(&format!("{}/{id}", self.group))
    }

    /// Kills what runs in it and waits until it is gone.
    async fn kill(&self, id: &SandboxId) -> Result<()> {
        let Ok(instance) = self.instance(id) else {
            return Ok(());
        };
        let mut ended = instance.ended();
        process::kill(instance.pidfd.as_fd()).map_err(|e| step("kill", e))?;
        let gone = tokio::time::timeout(KILL_MAX, ended.wait_for(|ended| *ended)).await;
        match gone {
            Ok(_) => Ok(()),
            Err(_) => Err(step("kill", "processes of the sandbox do not end")),
        }
    }

    /// Removes files and cgroups. Blocking; everything may be gone already.
    pub(crate) fn remove_traces(&self, id: &SandboxId) -> Result<()> {
        let group = self.cgroup(id);
        match group.kill_all() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(step("kill the cgroup", error));
            }
            _ => {}
        }
        group.remove().map_err(|e| step("remove the cgroup", e))?;
        self.remove_files(id)
            .map_err(|e| step("remove the files", e))?;
        Note::remove(&self.paths.notes, id).map_err(|e| step("remove the note", e))
    }

    fn remove_files(&self, id: &SandboxId) -> io::Result<()> {
        let path = self.paths.sandbox(id);
        if !path.exists() {
            return Ok(());
        }
        if self.has_subvolumes() && btrfs::delete_subvolume(&path).is_ok() {
            return Ok(());
        }
        fs::remove_dir_all(path)
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
        if self.shared.instance(&spec.id).is_ok() {
            return Err(DriverError::AlreadyExists {
                id: spec.id.to_string(),
            });
        }
        crate::launch::launch(&self.shared, spec).await
    }

    async fn adopt(&self, id: &SandboxId, _instance: &InstanceState) -> Result<Adopted> {
        // The driver's own note is newer than the engine's record: it was written first.
        let instance = self.shared.instance(id)?;
        if *instance.ended().borrow() {
            return Err(DriverError::NotFound { id: id.to_string() });
        }
        Ok(Adopted {
            instance: instance.note.to_instance(),
        })
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.shared.kill(id).await?;
        let slot = self
            .shared
            .instance(id)
            .ok()
            .map(|instance| instance.note.slot);
        if let Some(slot) = slot {
            self.shared.network.detach(slot);
        }
        let (shared, removed) = (Arc::clone(&self.shared), id.clone());
        blocking(move || shared.remove_traces(&removed)).await?;
        self.shared.lock().remove(id);
        if let Some(slot) = slot {
            self.shared.slots.give(slot);
        }
        Ok(())
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
        // Once it listens, connecting takes microseconds: no need for another thread.
        let at_once = socket::try_connect(&instance.root)
            .and_then(|stream| socket::check_peer(stream, &instance.note.init));
        let stream = match at_once {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(failed(error));
            }
            Err(_) => {
                let instance = Arc::clone(&instance);
                let connect = move || socket::connect(&instance.root, &instance.note.init);
                tokio::task::spawn_blocking(connect)
                    .await
                    .map_err(|e| step("connect", e))?
                    .map_err(failed)?
            }
        };
        socket::into_tokio(stream).map_err(failed)
    }

    async fn exited(&self, id: &SandboxId) -> Result<String> {
        let instance = self.shared.instance(id)?;
        let mut ended = instance.ended();
        // An error means that the watching task is gone, and it goes only after the end.
        let _ = ended.wait_for(|ended| *ended).await;
        Ok(match process::exit_of(instance.pidfd.as_fd()) {
            Ok(Some(process::Exit::Code(code))) => format!("its init ended with code {code}"),
            Ok(Some(process::Exit::Signal(signal))) => {
                format!("its init was killed by signal {signal}")
            }
            Ok(None) | Err(_) => "its init ended".to_owned(),
        })
    }

    async fn set_egress(&self, id: &SandboxId, egress: Egress) -> Result<()> {
        let instance = self.shared.instance(id)?;
        let policy = wanted(&egress)?.policy;
        self.shared
            .network
            .update(instance.note.slot, policy)
            .await
            .map_err(|e| step("replace the network rules", e))?;
        let mut note = instance.note.clone();
        note.egress = (&egress).into();
        note.write(&self.shared.paths.notes)
            .map_err(|e| step("write the note", e))
    }

    async fn usage(&self, id: &SandboxId) -> Result<Usage> {
        self.shared.instance(id)?;
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        blocking(move || crate::usage::usage(&shared, &id)).await
    }

    async fn take_upper(&self, id: &SandboxId) -> Result<PathBuf> {
        self.shared.kill(id).await?;
        let upper = self.shared.paths.sandbox(id).join("u");
        if !upper.is_dir() {
            return Err(DriverError::NotFound { id: id.to_string() });
        }
        Ok(upper)
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
