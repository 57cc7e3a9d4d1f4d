//! An engine over the in-memory store and the fake driver.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests; every file uses a part"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use woodfrog_engine::archive::{Archive, ArchiveError, Kept, Listed};
use woodfrog_engine::images::{CopyRequest, ProgressSink};
use woodfrog_engine::{
    CreateSandbox, Engine, ImageError, Images, ImportSource, LayerOnDisk, Options, Ports,
};
use woodfrog_sandbox::fake::FakeDriver;
use woodfrog_store::memory::MemoryStore;
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::OnTimeout;
use woodfrog_types::sleep::SleepChanges;
use woodfrog_types::snapshot::ArchiveId;
use woodfrog_types::template::{BuildState, BuiltImage, SecurityOptions};
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{Timestamp, WorkspaceId};

/// Images that are names only; layers exist once they were made.
#[derive(Default)]
pub struct FakeImages {
    /// Where layers are folders, for those who bring them somewhere.
    pub dir: Option<tempfile::TempDir>,
    layers: Mutex<Vec<String>>,
    pub copies: Mutex<Vec<CopyRequest>>,
    /// The present moment, and those at which layers were used last.
    uses: Mutex<(u64, BTreeMap<String, u64>)>,
}

/// What each layer of [`FakeImages`] takes.
pub const LAYER_BYTES: u64 = 1000;

impl FakeImages {
    fn add(&self, name: String) -> String {
        let mut layers = self.layers.lock().unwrap();
        if !layers.contains(&name) {
            layers.push(name.clone());
        }
        self.note(&name);
        name
    }

    fn note(&self, layer: &str) {
        let (now, last) = &mut *self.uses.lock().unwrap();
        last.insert(layer.to_owned(), *now);
    }

    /// The layers that there are.
    pub fn names(&self) -> Vec<String> {
        self.layers.lock().unwrap().clone()
    }

    fn image(&self, layer: &str) -> BuiltImage {
        BuiltImage {
            layers: vec![self.add(layer.to_owned())],
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]),
            user: "user".to_owned(),
            workdir: None,
            start_cmd: None,
            ready_cmd: None,
            security: SecurityOptions::default(),
        }
    }
}

#[async_trait]
impl Images for FakeImages {
    fn paths(&self, layers: &[String]) -> Result<Vec<PathBuf>, ImageError> {
        let known = self.layers.lock().unwrap();
        for layer in layers {
            if !known.contains(layer) {
                return Err(ImageError::Rejected(format!("no layer {layer}")));
            }
            self.note(layer);
        }
        let path = |layer: &String| match &self.dir {
            None => PathBuf::from(layer),
            Some(dir) => {
                let folder = dir.path().join(layer);
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join("layer"), layer).unwrap();
                folder
            }
        };
        Ok(layers.iter().map(path).collect())
    }

    async fn base(&self, progress: ProgressSink) -> Result<BuiltImage, ImageError> {
        progress("installing".to_owned());
        Ok(self.image("base"))
    }

    async fn import(
        &self,
        source: ImportSource,
        progress: ProgressSink,
    ) -> Result<BuiltImage, ImageError> {
        progress("downloading".to_owned());
        match source {
            ImportSource::Registry { reference, .. } if reference.contains("missing") => {
                Err(ImageError::Rejected(format!("no image {reference}")))
            }
            ImportSource::Registry { reference, .. } => Ok(self.image(&reference)),
            ImportSource::RootfsTar(_) | ImportSource::OciLayout(_) => Ok(self.image("archive")),
        }
    }

    async fn commit(&self, upper: &Path) -> Result<String, ImageError> {
        let name = upper.file_name().unwrap().to_string_lossy().into_owned();
        Ok(self.add(name))
    }

    async fn adopt(&self, folder: &Path, layer: &str) -> Result<(), ImageError> {
        assert_eq!(
            std::fs::read_to_string(folder.join("layer")).unwrap(),
            layer
        );
        std::fs::remove_dir_all(folder).unwrap();
        self.add(layer.to_owned());
        Ok(())
    }

    async fn copy(&self, request: CopyRequest) -> Result<String, ImageError> {
        let name = format!("copy:{}:{}", request.src, request.dst);
        self.copies.lock().unwrap().push(request);
        Ok(self.add(name))
    }

    async fn list(&self) -> Result<Vec<LayerOnDisk>, ImageError> {
        let layer = |(at, name): (usize, String)| LayerOnDisk {
            name,
            bytes: LAYER_BYTES,
            made_at: Timestamp::from_millis(at as i64),
        };
        Ok(self.names().into_iter().enumerate().map(layer).collect())
    }

    fn moment(&self) -> u64 {
        self.uses.lock().unwrap().0
    }

    fn next_moment(&self) -> u64 {
        let now = &mut self.uses.lock().unwrap().0;
        *now += 1;
        *now
    }

    async fn remove_unused(&self, layer: &str, since: u64) -> Result<bool, ImageError> {
        let mut layers = self.layers.lock().unwrap();
        let (_, last) = &mut *self.uses.lock().unwrap();
        if last.get(layer).is_some_and(|last| *last >= since) {
            return Ok(false);
        }
        let before = layers.len();
        layers.retain(|other| other != layer);
        Ok(layers.len() < before)
    }
}

/// What a fake archive keeps: a label, and files by name.
type KeptFolder = (String, BTreeMap<String, Vec<u8>>);

/// An archive that is a map.
#[derive(Default)]
pub struct FakeArchive {
    kept: Mutex<BTreeMap<ArchiveId, KeptFolder>>,
    /// Nothing reaches it.
    pub down: AtomicBool,
    /// Stores and fetches take this many milliseconds.
    pub delay: AtomicU64,
    stores: AtomicU64,
    pub collections: AtomicU64,
}

impl FakeArchive {
    /// The labels of what is kept.
    pub fn labels(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        kept.values().map(|(label, _)| label.clone()).collect()
    }

    pub fn stores(&self) -> u64 {
        self.stores.load(Ordering::SeqCst)
    }

    /// What is kept is not what was stored any more.
    pub fn damage_all(&self) {
        for (_, files) in self.kept.lock().unwrap().values_mut() {
            files.clear();
        }
    }

    /// What [`Self::damage_all`] did is undone by whoever has a copy.
    pub fn swap(&self, other: &Self) {
        let (mut mine, mut theirs) = (self.kept.lock().unwrap(), other.kept.lock().unwrap());
        std::mem::swap(&mut *mine, &mut *theirs);
    }

    pub fn copy(&self) -> Self {
        Self {
            kept: Mutex::new(self.kept.lock().unwrap().clone()),
            ..Self::default()
        }
    }

    async fn reach(&self) -> Result<(), ArchiveError> {
        tokio::time::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst))).await;
        match self.down.load(Ordering::SeqCst) {
            true => Err(ArchiveError::Unavailable("no route to it".to_owned())),
            false => Ok(()),
        }
    }

    fn files(&self, id: &ArchiveId) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
        let kept = self.kept.lock().unwrap();
        match kept.get(id) {
            Some((_, files)) if !files.is_empty() => Ok(files.clone()),
            Some(_) => Err(ArchiveError::Unusable("chunk 00 is damaged".to_owned())),
            None => Err(ArchiveError::Unusable(format!("{id} is not there"))),
        }
    }
}

#[async_trait]
impl Archive for FakeArchive {
    async fn store(&self, folder: &Path, label: &str) -> Result<Kept, ArchiveError> {
        self.reach().await?;
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
        let number = self.stores.fetch_add(1, Ordering::SeqCst);
        let id = ArchiveId(format!("kept-{number}"));
        let mut kept = self.kept.lock().unwrap();
        kept.insert(id.clone(), (label.to_owned(), files));
        Ok(Kept {
            id,
            bytes: 10,
            written_bytes: 10,
        })
    }

    async fn verify(&self, id: &ArchiveId) -> Result<u64, ArchiveError> {
        self.reach().await?;
        self.files(id).map(|_| 10)
    }

    async fn fetch(&self, id: &ArchiveId, folder: &Path) -> Result<u64, ArchiveError> {
        self.reach().await?;
        for (name, content) in self.files(id)? {
            std::fs::write(folder.join(name), content).unwrap();
        }
        Ok(10)
    }

    async fn delete(&self, id: &ArchiveId) -> Result<(), ArchiveError> {
        self.reach().await?;
        self.kept.lock().unwrap().remove(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, ArchiveError> {
        self.reach().await?;
        let kept = self.kept.lock().unwrap();
        let one = |(id, (label, _)): (&ArchiveId, &KeptFolder)| Listed {
            id: id.clone(),
            label: label.clone(),
            // Old enough for what has no record to go.
            created_at: Timestamp::from_millis(0),
        };
        Ok(kept.iter().map(one).collect())
    }

    async fn collect(&self) -> Result<u64, ArchiveError> {
        self.reach().await?;
        self.collections.fetch_add(1, Ordering::SeqCst);
        Ok(7)
    }
}

/// How long one waits for guests that are mute.
pub const MUTE: Duration = Duration::from_millis(300);

/// What outlives an engine: the store, the machine, the disk, the archive.
pub struct World {
    pub store: Arc<MemoryStore>,
    pub driver: Arc<FakeDriver>,
    pub images: Arc<FakeImages>,
    pub archive: Arc<FakeArchive>,
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Arc::new(MemoryStore::new()),
            driver: Arc::new(FakeDriver::new(dir.path().join("uppers"))),
            images: Arc::default(),
            archive: Arc::default(),
            dir,
        }
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(self.dir.path());
        options.guest_timeout = Duration::from_secs(20);
        options.ready_timeout = Duration::from_secs(20);
        options.metric_interval = Duration::from_millis(20);
        options.warm = false;
        options.drain_timeout = Duration::from_secs(5);
        options
    }

    pub async fn start(&self) -> Engine {
        self.start_with(self.options()).await
    }

    pub async fn start_with(&self, options: Options) -> Engine {
        let ports = Ports {
            store: self.store.clone(),
            driver: self.driver.clone(),
            images: self.images.clone(),
            archive: Some(self.archive.clone()),
        };
        Engine::start(ports, options).await.unwrap()
    }

    /// An engine that has nowhere to archive to.
    pub async fn without_archive(&self) -> Engine {
        let ports = Ports {
            store: self.store.clone(),
            driver: self.driver.clone(),
            images: self.images.clone(),
            archive: None,
        };
        let engine = Engine::start(ports, self.options()).await.unwrap();
        base(&engine).await;
        engine
    }

    /// An engine whose base template is ready.
    pub async fn ready(&self) -> Engine {
        self.ready_with(self.options()).await
    }

    pub async fn ready_with(&self, options: Options) -> Engine {
        let engine = self.start_with(options).await;
        base(&engine).await;
        engine
    }

    /// Runs `work` with an engine on a runtime of its own, then drops all of it without a word,
    /// as `kill -9` would.
    pub fn killed_after<F: Future<Output = T>, T: Send>(
        &self,
        work: impl FnOnce(Engine) -> F + Send,
    ) -> T {
        self.killed_after_with(self.options(), work)
    }

    /// As [`Self::killed_after`], with other options.
    pub fn killed_after_with<F: Future<Output = T>, T: Send>(
        &self,
        options: Options,
        work: impl FnOnce(Engine) -> F + Send,
    ) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let result = runtime.block_on(async { work(self.ready_with(options).await).await });
                runtime.shutdown_background();
                result
            });
            thread.join().unwrap()
        })
    }
}

/// Waits until the base template is ready.
pub async fn base(engine: &Engine) {
    let view = engine.template_base().await.unwrap();
    let me = owner();
    eventually("the base is ready", async || {
        let view = engine
            .build_fetch(&me, &view.template.id, &view.build.id)
            .await
            .unwrap();
        matches!(view.build.state, BuildState::Ready(_))
    })
    .await;
}

pub fn owner() -> Principal {
    Principal {
        workspace: WorkspaceId::default_workspace(),
        user: UserId::operator(),
        role: Role::Owner,
        key: None,
        scope: Scope::Workspace,
    }
}

pub fn admin() -> Principal {
    Principal {
        scope: Scope::Admin,
        ..owner()
    }
}

pub fn stranger() -> Principal {
    Principal {
        workspace: WorkspaceId::generate(),
        user: UserId::operator(),
        role: Role::Owner,
        key: None,
        scope: Scope::Workspace,
    }
}

pub fn request() -> CreateSandbox {
    CreateSandbox {
        template: "base".to_owned(),
        timeout: Some(Duration::from_secs(300)),
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        sleep: SleepChanges::default(),
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        network: NetworkSpec::default(),
        secure: true,
        volumes: Vec::new(),
        resources: None,
        idempotency_key: None,
    }
}

/// Long enough for a busy machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `holds`, at most for [`PATIENCE`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}
