//! The steps of a build: each RUN in a sandbox of its own, whose writes become a layer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use woodfrog_sandbox::{Egress, LaunchSpec};
use woodfrog_types::event::Level;
use woodfrog_types::sandbox::Resources;
use woodfrog_types::template::{BuiltImage, Template};
use woodfrog_types::{Fault, SandboxId};

use crate::guest::{self, Command};
use crate::images::{CopyRequest, ImportSource};
use crate::inner::Inner;
use crate::request::{StartBuild, TemplateBase, TemplateStep};
use crate::template::base::BASE;
use crate::template::build::Failure;
use crate::template::files;
use crate::template::log::{Lines, Log};
use crate::{fault, sandbox};

/// The name of what comes after the last step.
const FINALIZE: &str = "finalize";
/// How long a guest may take to end its sandbox.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether layers of earlier builds are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    Use,
    /// From the first step on that was forced: what follows it was made on another ground.
    Ignore,
}

pub(super) struct Steps {
    inner: Arc<Inner>,
    log: Log,
    template: Template,
}

impl Steps {
    pub(super) fn new(inner: Arc<Inner>, log: Log, template: Template) -> Self {
        Self {
            inner,
            log,
            template,
        }
    }

    /// From the base through all steps; `source` is the base if it is a template.
    pub(super) async fn run(
        &self,
        request: StartBuild,
        source: Option<BuiltImage>,
    ) -> Result<BuiltImage, Failure> {
        let mut image = match (source, request.base) {
            (Some(image), _) => image,
            (
                None,
                TemplateBase::Image {
                    reference,
                    username,
                    password,
                },
            ) => {
                let log = self.log.at(BASE);
                log.info(format!("FROM {reference}"));
                let source = ImportSource::Registry {
                    reference,
                    username,
                    password,
                };
                let image = self.inner.images.import(source, log.sink()).await;
                image.map_err(|error| Failure::image(BASE, error))?
            }
            (None, TemplateBase::Template(name)) => {
                return Err(Failure::new(BASE, format!("template '{name}' not found")));
            }
        };
        let mut cache = if request.force {
            Cache::Ignore
        } else {
            Cache::Use
        };
        let mut key = base_key(files::owner(&self.template), &image);
        for (index, step) in request.steps.iter().enumerate() {
            let name = (index + 1).to_string();
            key = step_key(&key, step);
            if is_forced(step) {
                cache = Cache::Ignore;
            }
            self.step(&name, step, &key, cache, &mut image).await?;
        }
        image.start_cmd = request.start_cmd.or(image.start_cmd);
        image.ready_cmd = request.ready_cmd.or(image.ready_cmd);
        self.finalize(&image).await?;
        Ok(image)
    }

    async fn step(
        &self,
        name: &str,
        step: &TemplateStep,
        key: &str,
        cache: Cache,
        image: &mut BuiltImage,
    ) -> Result<(), Failure> {
        let log = self.log.at(name);
        match step {
            TemplateStep::Env { pairs } => {
                log.info(format!("[{name}] ENV ({} variables)", pairs.len()));
                image.env.extend(pairs.iter().cloned());
                return Ok(());
            }
            TemplateStep::Workdir { path } => {
                log.info(format!("[{name}] WORKDIR {path}"));
                image.workdir = Some(join(&workdir(image), path));
                return Ok(());
            }
            TemplateStep::User { name: user } => {
                log.info(format!("[{name}] USER {user}"));
                image.user.clone_from(user);
                return Ok(());
            }
            TemplateStep::Copy { src, dst, .. } => log.info(format!("[{name}] COPY {src} {dst}")),
            TemplateStep::Run { command, .. } => log.info(format!("[{name}] RUN {command}")),
        }
        let store = &self.inner.store;
        if cache == Cache::Use {
            let known = store.layer_cache_get(key).await;
            let known = known.map_err(|error| Failure::fault(name, &fault::store(error)))?;
            if let Some((layer, _)) = known
                && self
                    .inner
                    .images
                    .paths(std::slice::from_ref(&layer))
                    .is_ok()
            {
                log.info(format!("[{name}] CACHED"));
                image.layers.push(layer);
                return Ok(());
            }
        }
        let layer = match step {
            TemplateStep::Copy {
                src,
                dst,
                user,
                mode,
                files_hash,
                ..
            } => {
                let archive = files::archive_path(&self.inner, &self.template, files_hash);
                let request = CopyRequest {
                    archive: archive.map_err(|fault| Failure::fault(name, &fault))?,
                    layers: image.layers.clone(),
                    src: src.clone(),
                    dst: dst.clone(),
                    owner: user.clone(),
                    mode: *mode,
                    user: image.user.clone(),
                    workdir: image.workdir.clone(),
                };
                let layer = self.inner.images.copy(request).await;
                layer.map_err(|error| Failure::image(name, error))?
            }
            TemplateStep::Run { command, user, .. } => {
                self.run_command(name, command, user.as_deref(), image, &log)
                    .await?
            }
            TemplateStep::Env { .. } | TemplateStep::Workdir { .. } | TemplateStep::User { .. } => {
                return Ok(());
            }
        };
        let put = store.layer_cache_put(key, &layer, "{}").await;
        put.map_err(|error| Failure::fault(name, &fault::store(error)))?;
        image.layers.push(layer);
        Ok(())
    }

    /// Runs a command in a sandbox of the image so far; what it wrote is the layer.
    async fn run_command(
        &self,
        name: &str,
        command: &str,
        user: Option<&str>,
        image: &BuiltImage,
        log: &Log,
    ) -> Result<String, Failure> {
        let mut run = Command::new(command);
        run.user = user.filter(|user| !user.is_empty()).map(str::to_owned);
        run.timeout = Some(self.inner.options.build_step_timeout);
        self.in_sandbox(name, image, async |id: &SandboxId| {
            let mut lines = Lines::default();
            let ended = guest::run(&self.inner, id, &run, |bytes| {
                lines.push(bytes, |line| log.info(line));
            })
            .await;
            lines.flush(|line| log.info(line));
            let end = ended.map_err(|fault| Failure::fault(name, &fault))?;
            if !end.succeeded() {
                return Err(Failure::new(
                    name,
                    format!("command failed: {}: {command}", end.status()),
                ));
            }
            self.stop(id)
                .await
                .map_err(|fault| Failure::fault(name, &fault))?;
            let upper = self.inner.driver.take_upper(id).await;
            let upper = upper.map_err(|error| Failure::fault(name, &fault::driver(error)))?;
            let layer = self.inner.images.commit(&upper).await;
            layer.map_err(|error| Failure::image(name, error))
        })
        .await
    }

    /// The start and ready commands are tried once, so that a template that cannot start is
    /// refused here and not at its first sandbox.
    async fn finalize(&self, image: &BuiltImage) -> Result<(), Failure> {
        if image.start_cmd.is_none() && image.ready_cmd.is_none() {
            return Ok(());
        }
        self.log
            .at(FINALIZE)
            .info("trying the start and ready commands");
        self.in_sandbox(FINALIZE, image, async |id: &SandboxId| {
            let started = guest::start_services(&self.inner, id, image).await;
            started.map_err(|fault| Failure::fault(FINALIZE, &fault))
        })
        .await
    }

    /// Makes a sandbox for `work` and removes it afterwards, also if the build is dropped.
    async fn in_sandbox<T>(
        &self,
        name: &str,
        image: &BuiltImage,
        work: impl AsyncFnOnce(&SandboxId) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let id = SandboxId::generate();
        let guard = DestroyOnDrop::new(&self.inner, &id);
        let result = match self.launch(&id, image).await {
            Ok(()) => work(&id).await,
            Err(fault) => Err(Failure::fault(name, &fault)),
        };
        guard.destroy().await;
        result
    }

    async fn launch(&self, id: &SandboxId, image: &BuiltImage) -> Result<(), Fault> {
        let inner = &self.inner;
        let layers = inner.images.paths(&image.layers);
        let spec = LaunchSpec {
            id: id.clone(),
            layers: layers.map_err(sandbox::launch::image_fault)?,
            hostname: "build".to_owned(),
            resources: self.resources(),
            egress: Egress {
                internet: true,
                ..Egress::default()
            },
            security: image.security,
            volumes: Vec::new(),
        };
        inner.driver.launch(spec).await.map_err(fault::driver)?;
        let mut env: BTreeMap<String, String> = image.env.clone();
        env.insert("E2B_SANDBOX".to_owned(), "true".to_owned());
        guest::configure_with(inner, id, image, env).await
    }

    /// At least what a default sandbox has: package managers need more than some programs.
    fn resources(&self) -> Resources {
        let least = Resources::default();
        let own = self.template.resources;
        Resources {
            cpu_count: own.cpu_count.max(least.cpu_count),
            memory_bytes: own.memory_bytes.max(2 * least.memory_bytes),
            disk_bytes: own.disk_bytes.max(least.disk_bytes),
            pids: own.pids.max(least.pids),
        }
    }

    /// Ends a build sandbox from within: its guest is PID 1, takes everything with it, and leaves
    /// the file system at rest.
    async fn stop(&self, id: &SandboxId) -> Result<(), Fault> {
        let exited = self.inner.driver.exited(id);
        // The guest may be gone before it has answered; that it is gone is what counts.
        if let Err(error) = guest::client(&self.inner, id).shutdown().await {
            self.log.line(Level::Debug, error.to_string());
        }
        match tokio::time::timeout(STOP_TIMEOUT, exited).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(fault::driver(error)),
            Err(_) => Err(Fault::internal("a build sandbox did not stop")),
        }
    }
}

/// Removes a build sandbox even if the build's future is dropped.
struct DestroyOnDrop {
    inner: Arc<Inner>,
    id: Option<SandboxId>,
}

impl DestroyOnDrop {
    fn new(inner: &Arc<Inner>, id: &SandboxId) -> Self {
        Self {
            inner: Arc::clone(inner),
            id: Some(id.clone()),
        }
    }

    async fn destroy(mut self) {
        if let Some(id) = self.id.take()
            && let Err(fault) = sandbox::launch::destroy(&self.inner, &id).await
        {
            tracing::error!(sandbox = %id, error = &fault as &dyn std::error::Error, "a build sandbox could not be removed");
        }
    }
}

impl Drop for DestroyOnDrop {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let inner = Arc::clone(&self.inner);
        crate::tasks::spawn(&self.inner.tasks, "build sandbox removal", async move {
            if let Err(fault) = sandbox::launch::destroy(&inner, &id).await {
                tracing::error!(sandbox = %id, error = &fault as &dyn std::error::Error, "a build sandbox could not be removed");
            }
        });
    }
}

fn is_forced(step: &TemplateStep) -> bool {
    match step {
        TemplateStep::Copy { force, .. } | TemplateStep::Run { force, .. } => *force,
        TemplateStep::Env { .. } | TemplateStep::Workdir { .. } | TemplateStep::User { .. } => {
            false
        }
    }
}

/// The name of the state before the first step. The owner is part of it: an archive's hash is what
/// its uploader says, and what a command fetched is what its network gave. So nobody's build gets a
/// layer that another workspace made.
fn base_key(owner: &str, image: &BuiltImage) -> String {
    let mut text = format!("woodfrog build 2\n{owner}\n");
    for layer in &image.layers {
        text.push_str(layer);
        text.push('\n');
    }
    text.push_str(&format!(
        "{:?}{:?}{:?}",
        image.env, image.user, image.workdir
    ));
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// The name of the state after a step. Steps that only set something name a state too, since what
/// follows depends on them.
fn step_key(parent: &str, step: &TemplateStep) -> String {
    let text = match step {
        TemplateStep::Copy {
            src,
            dst,
            user,
            mode,
            files_hash,
            force: _,
        } => format!("COPY {:?}", (src, dst, user, mode, files_hash)),
        TemplateStep::Run {
            command,
            user,
            force: _,
        } => format!("RUN {:?}", (command, user)),
        TemplateStep::Env { pairs } => format!("ENV {pairs:?}"),
        TemplateStep::Workdir { path } => format!("WORKDIR {path:?}"),
        TemplateStep::User { name } => format!("USER {name:?}"),
    };
    hex::encode(Sha256::digest(format!("{parent}\n{text}").as_bytes()))
}

fn workdir(image: &BuiltImage) -> String {
    match (&image.workdir, image.user.as_str()) {
        (Some(path), _) => path.clone(),
        (None, "root") => "/root".to_owned(),
        (None, user) => format!("/home/{user}"),
    }
}

/// `path` seen from `from`, absolute, by text alone.
fn join(from: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{from}/{path}")
    };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
