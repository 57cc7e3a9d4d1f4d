//! Two drivers as one: sandboxes go to the one that their template names, and what is asked of them
//! later goes to the one that has them.
//!
//! The gVisor driver, with a network of its own, is started by the first sandbox that wants it, or
//! by what an earlier server left to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result as Anyhow};
use async_trait::async_trait;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use woodfrog_driver_gvisor::{GvisorDriver, GvisorOptions, Paths};
use woodfrog_driver_native::NativeDriver;
use woodfrog_sandbox::{
    Adopted, Capabilities, CheckpointSpec, Checkpointed, Driver, DriverError, Egress, LaunchSpec,
    Launched, RestoreSpec, Result, SnapshotHealth, Usage,
};
use woodfrog_types::sandbox::InstanceState;
use woodfrog_types::template::Runtime;
use woodfrog_types::{SandboxId, SnapshotId};

/// The native driver, and gVisor's where it is wanted.
pub(crate) struct Drivers {
    native: NativeDriver,
    gvisor: OnceCell<GvisorDriver>,
    options: GvisorOptions,
    /// Sandboxes that went to gVisor in this process: known here before they are there.
    with_gvisor: Mutex<HashSet<SandboxId>>,
    /// Imports under way: whose they are shows at their ends.
    imports: Mutex<HashMap<SnapshotId, PathBuf>>,
}

impl Drivers {
    /// Takes hold of what runs already.
    ///
    /// # Errors
    /// There is something of gVisor's in the data directory, and the driver cannot start.
    pub(crate) async fn start(native: NativeDriver, options: GvisorOptions) -> Anyhow<Self> {
        let drivers = Self {
            native,
            gvisor: OnceCell::new(),
            options,
            with_gvisor: Mutex::default(),
            imports: Mutex::default(),
        };
        if drivers.left_behind() {
            drivers
                .wanted()
                .await
                .context("sandboxes with gVisor are in the data directory")?;
        }
        Ok(drivers)
    }

    /// Whether an earlier process had a gVisor driver here.
    fn left_behind(&self) -> bool {
        Paths::new(&self.options.data_dir).home.exists()
    }

    /// Ends every sandbox and removes all that the drivers have on the machine.
    pub(crate) async fn purge(self) -> Anyhow<()> {
        if let Some(gvisor) = self.gvisor.into_inner() {
            gvisor
                .purge()
                .await
                .context("remove what gVisor's driver has")?;
        }
        let purged = self.native.purge().await;
        purged.context("remove what the server had on the machine")
    }

    /// gVisor's driver, started if need be.
    async fn wanted(&self) -> Result<&GvisorDriver> {
        let start = || GvisorDriver::start(self.options.clone());
        let driver = self.gvisor.get_or_try_init(start).await;
        driver.map_err(|error| DriverError::Unsupported {
            what: "gVisor".to_owned(),
            hint: chain(&error),
        })
    }

    fn with_gvisor(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.with_gvisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn imports(&self) -> MutexGuard<'_, HashMap<SnapshotId, PathBuf>> {
        self.imports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver that has a sandbox; the native one for one that nobody has.
    fn of(&self, id: &SandboxId) -> &dyn Driver {
        match self.gvisor.get() {
            Some(gvisor) if self.with_gvisor().contains(id) || gvisor.knows(id) => gvisor,
            _ => &self.native,
        }
    }

    /// The driver that has a snapshot.
    fn of_snapshot(&self, id: &SnapshotId) -> &dyn Driver {
        match self.gvisor.get() {
            Some(gvisor) if gvisor.has_snapshot(id) => gvisor,
            _ => &self.native,
        }
    }
}

/// What an error says, and why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[async_trait]
impl Driver for Drivers {
    fn name(&self) -> &'static str {
        self.native.name()
    }

    /// Those of the native driver; what gVisor's lacks it refuses by itself.
    fn capabilities(&self) -> &Capabilities {
        self.native.capabilities()
    }

    async fn launch(&self, spec: LaunchSpec) -> Result<Launched> {
        match spec.security.runtime {
            Runtime::Native => self.native.launch(spec).await,
            Runtime::Gvisor => {
                let gvisor = self.wanted().await?;
                let id = spec.id.clone();
                self.with_gvisor().insert(id.clone());
                let launched = gvisor.launch(spec).await;
                if launched.is_err() {
                    self.with_gvisor().remove(&id);
                }
                launched
            }
        }
    }

    async fn adopt(&self, id: &SandboxId, instance: &InstanceState) -> Result<Adopted> {
        self.of(id).adopt(id, instance).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.of(id).destroy(id).await?;
        self.with_gvisor().remove(id);
        Ok(())
    }

    async fn reconcile(&self, live: &[SandboxId]) -> Result<Vec<String>> {
        let mut removed = self.native.reconcile(live).await?;
        if let Some(gvisor) = self.gvisor.get() {
            removed.extend(gvisor.reconcile(live).await?);
        }
        Ok(removed)
    }

    async fn connect(&self, id: &SandboxId) -> Result<UnixStream> {
        self.of(id).connect(id).await
    }

    async fn exited(&self, id: &SandboxId) -> Result<String> {
        self.of(id).exited(id).await
    }

    /// All drivers have the same rules; only the native one is always there.
    async fn check_egress(&self, egress: &Egress) -> Result<()> {
        self.native.check_egress(egress).await
    }

    async fn set_egress(&self, id: &SandboxId, egress: Egress) -> Result<()> {
        self.of(id).set_egress(id, egress).await
    }

    async fn usage(&self, id: &SandboxId) -> Result<Usage> {
        self.of(id).usage(id).await
    }

    async fn pause(&self, id: &SandboxId) -> Result<()> {
        self.of(id).pause(id).await
    }

    async fn resume(&self, id: &SandboxId) -> Result<()> {
        self.of(id).resume(id).await
    }

    async fn checkpoint(&self, id: &SandboxId, spec: CheckpointSpec) -> Result<Checkpointed> {
        self.of(id).checkpoint(id, spec).await
    }

    /// By who has the snapshot: its template may have been given another runtime since.
    async fn restore(&self, spec: RestoreSpec) -> Result<Launched> {
        match self.gvisor.get() {
            Some(gvisor) if gvisor.has_snapshot(&spec.snapshot) => {
                let id = spec.launch.id.clone();
                self.with_gvisor().insert(id.clone());
                let restored = gvisor.restore(spec).await;
                if restored.is_err() {
                    self.with_gvisor().remove(&id);
                }
                restored
            }
            _ => self.native.restore(spec).await,
        }
    }

    async fn snapshot_remove(&self, snapshot: &SnapshotId) -> Result<()> {
        self.of_snapshot(snapshot).snapshot_remove(snapshot).await
    }

    async fn snapshot_verify(&self, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
        self.of_snapshot(snapshot).snapshot_verify(snapshot).await
    }

    async fn snapshot_reconcile(&self, known: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        let mut complete = self.native.snapshot_reconcile(known).await?;
        if let Some(gvisor) = self.gvisor.get() {
            complete.extend(gvisor.snapshot_reconcile(known).await?);
        }
        Ok(complete)
    }

    async fn snapshot_export(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        self.of_snapshot(snapshot).snapshot_export(snapshot).await
    }

    async fn snapshot_import_begin(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        let folder = self.native.snapshot_import_begin(snapshot).await?;
        self.imports().insert(snapshot.clone(), folder.clone());
        Ok(folder)
    }

    async fn snapshot_import_finish(&self, snapshot: &SnapshotId) -> Result<()> {
        let folder = self.imports().remove(snapshot);
        let Some(folder) = folder.filter(|folder| is_of_gvisor(folder)) else {
            return self.native.snapshot_import_finish(snapshot).await;
        };
        let gvisor = self.wanted().await?;
        gvisor.import_from(snapshot, folder).await?;
        self.native.snapshot_remove(snapshot).await?;
        gvisor.snapshot_import_finish(snapshot).await
    }

    async fn take_upper(&self, id: &SandboxId) -> Result<PathBuf> {
        self.of(id).take_upper(id).await
    }

    async fn open_upper(&self, id: &SandboxId) -> Result<std::os::fd::OwnedFd> {
        self.of(id).open_upper(id).await
    }

    async fn layers_in_use(&self) -> Result<BTreeSet<String>> {
        let mut layers = self.native.layers_in_use().await?;
        if let Some(gvisor) = self.gvisor.get() {
            layers.append(&mut gvisor.layers_in_use().await?);
        }
        Ok(layers)
    }

    async fn shutdown(&self) {
        self.native.shutdown().await;
        if let Some(gvisor) = self.gvisor.get() {
            gvisor.shutdown().await;
        }
    }
}

/// Whose manifest is in the folder of an archived snapshot. Checked by the driver that it names.
fn is_of_gvisor(folder: &std::path::Path) -> bool {
    let text = std::fs::read(folder.join("manifest.json")).unwrap_or_default();
    let manifest = serde_json::from_slice::<Value>(&text).unwrap_or_default();
    manifest["manifest"]["driver"] == "gvisor"
}
