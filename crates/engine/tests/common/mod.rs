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
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use woodfrog_engine::images::{CopyRequest, ProgressSink};
use woodfrog_engine::{CreateSandbox, Engine, ImageError, Images, ImportSource, Options, Ports};
use woodfrog_sandbox::fake::FakeDriver;
use woodfrog_store::memory::MemoryStore;
use woodfrog_types::WorkspaceId;
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::OnTimeout;
use woodfrog_types::template::{BuildState, BuiltImage, SecurityOptions};

/// Images that are names only; layers exist once they were made.
#[derive(Default)]
pub struct FakeImages {
    layers: Mutex<Vec<String>>,
    pub copies: Mutex<Vec<CopyRequest>>,
}

impl FakeImages {
    fn add(&self, name: String) -> String {
        let mut layers = self.layers.lock().unwrap();
        if !layers.contains(&name) {
            layers.push(name.clone());
        }
        name
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
        }
        Ok(layers.iter().map(PathBuf::from).collect())
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

    async fn copy(&self, request: CopyRequest) -> Result<String, ImageError> {
        let name = format!("copy:{}:{}", request.src, request.dst);
        self.copies.lock().unwrap().push(request);
        Ok(self.add(name))
    }
}

/// What outlives an engine: the store, the machine, the disk.
pub struct World {
    pub store: Arc<MemoryStore>,
    pub driver: Arc<FakeDriver>,
    pub images: Arc<FakeImages>,
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Arc::new(MemoryStore::new()),
            driver: Arc::new(FakeDriver::new(dir.path().join("uppers"))),
            images: Arc::default(),
            dir,
        }
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(self.dir.path());
        options.guest_timeout = Duration::from_millis(300);
        options.ready_timeout = Duration::from_millis(800);
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
        };
        Engine::start(ports, options).await.unwrap()
    }

    /// An engine whose base template is ready.
    pub async fn ready(&self) -> Engine {
        let engine = self.start().await;
        base(&engine).await;
        engine
    }

    /// Runs `work` with an engine on a runtime of its own, then drops all of it without a word,
    /// as `kill -9` would.
    pub fn killed_after<F: Future<Output = T>, T: Send>(
        &self,
        work: impl FnOnce(Engine) -> F + Send,
    ) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let result = runtime.block_on(async { work(self.ready().await).await });
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
        sleep: None,
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        network: NetworkSpec::default(),
        secure: true,
        resources: None,
        idempotency_key: None,
    }
}

/// Polls until `holds`, at most for five seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(5), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}
