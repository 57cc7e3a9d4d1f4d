//! Builds: one background task each, from instructions to an image or an error.

use std::future::Future;
use std::sync::Arc;

use woodfrog_core::validate;
use woodfrog_types::event::Level;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::BUILD_STEPS_MAX;
use woodfrog_types::template::{Build, BuildState, BuiltImage, SecurityOptions, Template};
use woodfrog_types::{BuildId, Code, Fault, TemplateId, Timestamp};

use crate::engine::Engine;
use crate::images::ImageError;
use crate::inner::Inner;
use crate::layers::{self, LayerUse};
use crate::request::{StartBuild, TemplateBase, TemplateStep};
use crate::template::files;
use crate::template::log::Log;
use crate::template::steps::Steps;
use crate::{fault, tasks};

/// Bytes of one command, path or name in a build's instructions.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Why a build failed, for the one who asked for it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    /// As E2B counts them: `1` is the first, `base` and `finalize` come before and after.
    pub(super) step: Option<String>,
}

impl Failure {
    pub(super) fn new(step: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            step: Some(step.to_owned()),
        }
    }

    pub(super) fn fault(step: &str, fault: &Fault) -> Self {
        tracing::warn!(
            step,
            error = fault as &dyn std::error::Error,
            "a build step failed"
        );
        Self::new(step, fault.message.clone())
    }

    pub(super) fn image(step: &str, error: ImageError) -> Self {
        match error {
            ImageError::Rejected(message) => Self::new(step, message),
            error @ ImageError::Failed { .. } => {
                tracing::error!(
                    step,
                    error = &error as &dyn std::error::Error,
                    "a build failed"
                );
                Self::new(step, error.to_string())
            }
        }
    }
}

impl Engine {
    /// Starts a waiting build, in the background. Poll [`Engine::build_fetch`]. Security options
    /// of a template that it starts from are not inherited: a new build has all off.
    pub async fn template_build(
        &self,
        principal: &Principal,
        template: &TemplateId,
        build: &BuildId,
        request: StartBuild,
    ) -> Result<(), Fault> {
        self.inner.accepting()?;
        let view = self.build_fetch(principal, template, build).await?;
        check(&self.inner, &view.template, &request)?;
        if view.build.state != BuildState::Waiting {
            return Err(Fault::new(Code::Conflict, "the build was started already"));
        }
        let used = self.inner.layer_uses.begin(&*self.inner.images);
        let source = match &request.base {
            TemplateBase::Template(name) => {
                let mut image = self.template_source(principal, name).await?.image;
                image.security = SecurityOptions::default();
                // They are kept from now on, though the template may go. The build says what lacks.
                let _ = self.inner.images.paths(&image.layers);
                Some(image)
            }
            TemplateBase::Image { .. } => None,
        };
        let started = Build {
            state: BuildState::Building,
            ..view.build
        };
        let stored = self.inner.store.build_update(&started).await;
        stored.map_err(fault::store)?;
        let template = view.template;
        spawn(&self.inner, started, used, move |inner, log| async move {
            Steps::new(inner, log, template).run(request, source).await
        });
        Ok(())
    }
}

fn check(inner: &Inner, template: &Template, request: &StartBuild) -> Result<(), Fault> {
    if request.steps.len() > BUILD_STEPS_MAX {
        return Err(Fault::invalid(
            "steps",
            format!("at most {BUILD_STEPS_MAX} steps are allowed"),
        ));
    }
    let text = |field: &str, text: &str| {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains('\0') {
            let message = format!("must have 1 to {TEXT_BYTES_MAX} bytes and no NUL");
            return Err(Fault::invalid(field, message));
        }
        Ok(())
    };
    for (index, step) in request.steps.iter().enumerate() {
        let field = format!("steps[{index}]");
        match step {
            TemplateStep::Copy {
                src,
                dst,
                files_hash,
                ..
            } => {
                text(&field, src)?;
                text(&field, dst)?;
                files::archive_path(inner, template, files_hash)?;
            }
            TemplateStep::Run { command, .. } => text(&field, command)?,
            TemplateStep::Env { pairs } => {
                validate::env(&pairs.iter().cloned().collect())
                    .map_err(|fault| Fault::invalid(field, fault.message))?;
            }
            TemplateStep::Workdir { path } => text(&field, path)?,
            TemplateStep::User { name } => text(&field, name)?,
        }
    }
    for command in [&request.start_cmd, &request.ready_cmd] {
        command
            .as_ref()
            .map_or(Ok(()), |command| text("start_cmd", command))?;
    }
    Ok(())
}

/// Runs a build that is recorded as building, and records how it ended. `used` keeps its layers until
/// then.
pub(super) fn spawn<F>(
    inner: &Arc<Inner>,
    build: Build,
    used: LayerUse,
    work: impl FnOnce(Arc<Inner>, Log) -> F + Send + 'static,
) where
    F: Future<Output = Result<BuiltImage, Failure>> + Send + 'static,
{
    let shared = Arc::clone(inner);
    tasks::spawn(&inner.tasks, "template build", async move {
        let inner = shared;
        let (log, writer) = Log::open(&inner.store, build.id);
        let work = async {
            let turn = inner.builds.turns.acquire().await;
            let result = work(Arc::clone(&inner), log.clone()).await;
            drop(turn);
            if let Ok(image) = &result
                && let Err(fault) = layers::ship(&inner, &image.layers).await
            {
                tracing::warn!(build = %build.id, error = &fault as &dyn std::error::Error, "other servers cannot have its layers yet");
            }
            result
        };
        let result = tokio::select! {
            result = tasks::guard("template build", work) => result.unwrap_or_else(|_| {
                Err(Failure { message: "internal error".to_owned(), step: None })
            }),
            () = inner.stopping.cancelled() => {
                Err(Failure { message: "the server was stopped during the build".to_owned(), step: None })
            }
        };
        match &result {
            Ok(_) => log.info("the build is ready"),
            Err(failure) => log.line(Level::Error, failure.message.clone()),
        }
        drop(log);
        // Before the state: who sees the end has seen the whole log.
        writer.finish().await;
        if let Err(fault) = record(&inner, build.clone(), result).await {
            tracing::error!(build = %build.id, error = &fault as &dyn std::error::Error, "the end of a build could not be recorded");
        }
        drop(used);
    });
}

async fn record(
    inner: &Inner,
    mut build: Build,
    result: Result<BuiltImage, Failure>,
) -> Result<(), Fault> {
    build.finished_at = Some(Timestamp::now());
    let ready = result.is_ok();
    build.state = match result {
        Ok(image) => BuildState::Ready(image),
        Err(Failure { message, step }) => BuildState::Failed { message, step },
    };
    let store = &inner.store;
    // The tags move first: who sees a build as ready can use it by name. A tag never points at a
    // build for long that is not ready, and sandboxes are refused until it is.
    if ready
        && let Some(mut template) = store
            .template_fetch(&build.template)
            .await
            .map_err(fault::store)?
    {
        for tag in &build.tags {
            template.tags.insert(tag.clone(), build.id);
        }
        template.updated_at = Timestamp::now();
        let stored = store.template_update(&template).await;
        stored.map_err(fault::store)?;
    }
    store.build_update(&build).await.map_err(fault::store)
}
