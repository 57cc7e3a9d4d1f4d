//! A server without a socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use woodfrog_engine::images::{CopyRequest, ProgressSink};
use woodfrog_engine::{Engine, ImageError, Images, ImportSource, NewKey, Options, Ports};
use woodfrog_runs::Pace;
use woodfrog_sandbox::Driver;
use woodfrog_sandbox::fake::FakeDriver;
use woodfrog_server::agent::cors::CorsOptions;
use woodfrog_server::{App, ServerOptions};
use woodfrog_store::TemplateStore;
use woodfrog_store::memory::MemoryStore;
use woodfrog_testkit::collector::Collector;
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::sandbox::Resources;
use woodfrog_types::template::{Build, BuildState, BuiltImage, DEFAULT_TAG, Template};
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{BuildId, TemplateId, Timestamp, WorkspaceId};

use crate::reach::{Reaching, RealGuest};

/// Whose pages may call the agent API.
pub(crate) const PAGES: &str = "https://pages.frog.test";

/// A server, its router and keys for it.
pub(crate) struct Server {
    router: Router,
    pub(crate) app: App,
    /// Of the default workspace.
    pub(crate) admin: String,
    /// Of another workspace, not an admin's.
    pub(crate) other: String,
    dir: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&self.body));
        })
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with_fake().await.0
    }

    /// With the driver, to be told what fails.
    pub(crate) async fn with_fake() -> (Self, Arc<FakeDriver>) {
        let dir = tempfile::tempdir().expect("a directory");
        let driver = Arc::new(FakeDriver::new(dir.path()));
        let server = Self::over(Arc::clone(&driver) as Arc<dyn Driver>, dir).await;
        (server, driver)
    }

    /// With a real guest, the same one in every sandbox.
    pub(crate) async fn with_guest() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let driver = Reaching {
            fake: FakeDriver::new(dir.path()),
            guest: RealGuest::start(dir.path()),
        };
        Self::over(Arc::new(driver), dir).await
    }

    /// The same server, with webhooks that reach these addresses.
    pub(crate) fn with_reach(mut self, reach: woodfrog_billing::Reach) -> Self {
        let billing = woodfrog_billing::Billing::new(&self.app.engine, reach);
        self.app = self.app.with_billing(billing);
        self.router = woodfrog_server::control(&self.app);
        self
    }

    /// The same server, with a collector that is told of its runs.
    pub(crate) fn with_traces(mut self, to: &Collector, rate: f64, pace: Pace) -> Self {
        let options = woodfrog_otlp::Options {
            endpoint: to.url().to_owned(),
            headers: Default::default(),
            gather: false,
            service_version: "0",
        };
        let (exporter, sender) = woodfrog_otlp::Exporter::new(options).expect("an exporter");
        tokio::spawn(sender.run(CancellationToken::new()));
        self.app = self.app.with_traces(exporter, rate, pace);
        self.router = woodfrog_server::control(&self.app);
        self
    }

    /// The same server, with runs that are held so.
    pub(crate) fn with_run_options(mut self, options: woodfrog_runs::Options) -> Self {
        self.app = self.app.with_run_options(options);
        self.router = woodfrog_server::control(&self.app);
        self
    }

    /// A path in the directory that the real guest's user has as home.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    async fn over(driver: Arc<dyn Driver>, dir: tempfile::TempDir) -> Self {
        let store = Arc::new(MemoryStore::new());
        add_base(&store).await;
        let ports = Ports {
            store,
            driver,
            images: Arc::new(Bare(dir.path().into())),
            archive: None,
        };
        let engine = Engine::start(ports, Options::new(dir.path())).await;
        let engine = engine.expect("the engine starts");
        let (admin, other) = keys(&engine).await;
        let options = ServerOptions {
            domain: Some("frog.test".to_owned()),
            agent_cors: CorsOptions {
                origins: vec![PAGES.to_owned()],
                ..CorsOptions::default()
            }
            .layer()
            .expect("an origin"),
        };
        let files = woodfrog_runs::Files::open(&dir.path().join("artifacts")).expect("a directory");
        let mut app = App::new(engine, options)
            .with_spool(dir.path())
            .with_artifacts(files);
        app.keep_no_remains();
        Self {
            router: woodfrog_server::control(&app),
            app,
            admin,
            other,
            dir,
        }
    }

    /// Sends a request with the admin's key.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, Some(&self.admin), body).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method.parse::<Method>().expect("a method"))
            .uri(path)
            .header("host", "api.frog.test");
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let request = request
            .body(Body::from(body.to_owned()))
            .expect("a request");
        self.send_request(request).await
    }

    /// Sends a request; its answer is not read yet.
    pub(crate) async fn open(&self, request: Request<Body>) -> axum::response::Response {
        let response = self.router.clone().oneshot(request).await;
        response.expect("infallible")
    }

    pub(crate) async fn send_request(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await;
        let (parts, body) = response.expect("infallible").into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes().to_vec(),
        }
    }

    /// Uploads that wait to be read.
    pub(crate) fn spooled(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path()).expect("the directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("import-"))
            .count()
    }

    /// Makes a sandbox and returns its id.
    pub(crate) async fn sandbox(&self) -> String {
        let made = self
            .call("POST", "/v2/sandboxes", r#"{"templateID":"base"}"#)
            .await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["sandboxID"].as_str().expect("an id").to_owned()
    }
}

async fn keys(engine: &Engine) -> (String, String) {
    let made = engine.bootstrap_admin_key().await.expect("a key");
    let admin = format!("e2b_{}", made.expect("the first").secret_hex);
    let principal = Principal {
        workspace: WorkspaceId::default_workspace(),
        user: UserId::operator(),
        role: Role::Owner,
        key: None,
        scope: Scope::Admin,
    };
    let wanted = NewKey::new("other", WorkspaceId::generate());
    let made = engine.key_create(&principal, wanted).await.expect("a key");
    (admin, format!("wf_{}", made.secret_hex))
}

async fn add_base(store: &MemoryStore) {
    let now = Timestamp::now();
    let mut template = Template {
        id: TemplateId::generate(),
        workspace: None,
        name: "base".to_owned(),
        resources: Resources::default(),
        tags: Default::default(),
        created_at: now,
        updated_at: now,
    };
    let build = Build {
        id: BuildId::generate(),
        template: template.id.clone(),
        state: BuildState::Ready(image()),
        tags: vec![DEFAULT_TAG.to_owned()],
        created_at: now,
        finished_at: Some(now),
    };
    template.tags.insert(DEFAULT_TAG.to_owned(), build.id);
    store.template_insert(&template).await.expect("inserted");
    store.build_insert(&build).await.expect("inserted");
}

fn image() -> BuiltImage {
    BuiltImage {
        layers: vec!["sha256:00".to_owned()],
        env: Default::default(),
        user: "user".to_owned(),
        workdir: None,
        start_cmd: None,
        ready_cmd: None,
        security: Default::default(),
    }
}

/// Layers that are all the same empty directory.
struct Bare(PathBuf);

#[async_trait]
impl Images for Bare {
    fn paths(&self, layers: &[String]) -> Result<Vec<PathBuf>, ImageError> {
        Ok(layers.iter().map(|_| self.0.clone()).collect())
    }

    async fn base(&self, _: ProgressSink) -> Result<BuiltImage, ImageError> {
        Ok(image())
    }

    async fn import(&self, _: ImportSource, _: ProgressSink) -> Result<BuiltImage, ImageError> {
        Ok(image())
    }

    async fn commit(&self, _: &Path) -> Result<String, ImageError> {
        Ok("sha256:01".to_owned())
    }

    async fn copy(&self, _: CopyRequest) -> Result<String, ImageError> {
        Ok("sha256:02".to_owned())
    }
}

/// Every route of the native API as (method, path), from its document.
pub(crate) fn native_routes() -> Vec<(String, String)> {
    let document = serde_json::to_value(woodfrog_server::native::document()).expect("json");
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut routes = Vec::new();
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            routes.push((method.to_uppercase(), format!("/api/v1{path}")));
        }
    }
    routes
}

/// A path with its parameters filled in: `id` for the sandbox, something valid for the rest.
pub(crate) fn fill(path: &str, id: &str) -> String {
    let filled = path
        .replace("{workspace}", "current")
        .replace("{build}", "01890000-0000-7000-8000-000000000000")
        .replace("{process}", "1")
        .replace("{hash}", &"a".repeat(64))
        .replace("{alias}", "nosuch")
        .replace("{token}", "nosuch")
        .replace("{name}", "nosuch");
    let id = if path.contains("/sandboxes/") {
        id
    } else {
        "nosuch"
    };
    let filled = filled.replace("{id}", id);
    match path.rsplit_once("/files") {
        Some((before, _)) if before.ends_with('}') && path.contains("/api/") => {
            format!("{filled}?path=/x")
        }
        _ => filled,
    }
}
