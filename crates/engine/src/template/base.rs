//! Images that are not built from steps: the server's own base, and imports.

use std::collections::BTreeMap;
use std::sync::Arc;

use woodfrog_types::key::Principal;
use woodfrog_types::sandbox::Resources;
use woodfrog_types::template::{Build, BuildState, DEFAULT_TAG, Template};
use woodfrog_types::{BuildId, Fault, TemplateId, Timestamp, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::images::ImportSource;
use crate::layers;
use crate::request::NewTemplate;
use crate::template::build::{self, Failure};
use crate::view::BuildView;

/// The name of the server's own template.
pub(super) const BASE: &str = "base";

impl Engine {
    /// The server's base template: begins to make it, in the background, unless it is there or
    /// under way. Poll [`Engine::build_fetch`]; the log tells how far it is.
    pub async fn template_base(&self) -> Result<BuildView, Fault> {
        self.inner.accepting()?;
        let inner = &self.inner;
        // Held across the look-up: two callers begin one build.
        let mut under_way = inner.builds.base.lock().await;
        let template = self.base_template().await?;
        for id in [*under_way, template.tags.get(DEFAULT_TAG).copied()] {
            let Some(id) = id else { continue };
            let Some(build) = self.build_known(&id).await? else {
                continue;
            };
            if let BuildState::Ready(image) = &build.state
                && let Err(fault) = layers::bring(inner, &image.layers).await
            {
                tracing::debug!(
                    error = &fault as &dyn std::error::Error,
                    "the base is made here"
                );
            }
            if self.is_usable(&build) {
                return Ok(BuildView { template, build });
            }
        }
        let build = Build {
            id: BuildId::generate(),
            template: template.id.clone(),
            state: BuildState::Building,
            tags: vec![DEFAULT_TAG.to_owned()],
            created_at: Timestamp::now(),
            finished_at: None,
        };
        inner
            .store
            .build_insert(&build)
            .await
            .map_err(fault::store)?;
        *under_way = Some(build.id);
        drop(under_way);
        let images = Arc::clone(&inner.images);
        let used = inner.layer_uses.begin(&*inner.images);
        build::spawn(inner, build.clone(), used, move |_, log| async move {
            let image = images.base(log.at(BASE).sink()).await;
            image.map_err(|error| Failure::image(BASE, error))
        });
        Ok(BuildView { template, build })
    }

    /// Whether the build is under way or its layers are there.
    fn is_usable(&self, build: &Build) -> bool {
        match &build.state {
            BuildState::Waiting | BuildState::Building => true,
            BuildState::Ready(image) => self.inner.images.paths(&image.layers).is_ok(),
            BuildState::Failed { .. } => false,
        }
    }

    async fn base_template(&self) -> Result<Template, Fault> {
        let store = &self.inner.store;
        // No workspace has this id, so only the server's own template can answer.
        let nobody = WorkspaceId::generate();
        let known = store.template_by_name(&nobody, BASE).await;
        if let Some(template) = known.map_err(fault::store)? {
            return Ok(template);
        }
        let now = Timestamp::now();
        let template = Template {
            id: TemplateId::generate(),
            workspace: None,
            name: BASE.to_owned(),
            resources: Resources::default(),
            tags: BTreeMap::new(),
            created_at: now,
            updated_at: now,
        };
        let stored = store.template_insert(&template).await;
        stored.map_err(fault::store)?;
        Ok(template)
    }

    /// Makes a template from an image from outside, in the background; poll
    /// [`Engine::build_fetch`]. Paths are on the server's machine, so they need admin scope.
    pub async fn template_import(
        &self,
        principal: &Principal,
        name: &str,
        source: ImportSource,
    ) -> Result<BuildView, Fault> {
        self.inner.accepting()?;
        match &source {
            ImportSource::RootfsTar(_) | ImportSource::OciLayout(_) => {
                crate::keys::need_admin(principal)?;
            }
            ImportSource::Registry { .. } => {}
        }
        let request = NewTemplate {
            name: name.to_owned(),
            tags: Vec::new(),
            resources: None,
        };
        let view = self
            .new_build(principal, request, BuildState::Building)
            .await?;
        let images = Arc::clone(&self.inner.images);
        let used = self.inner.layer_uses.begin(&*self.inner.images);
        build::spawn(
            &self.inner,
            view.build.clone(),
            used,
            move |_, log| async move {
                let image = images.import(source, log.at(BASE).sink()).await;
                image.map_err(|error| Failure::image(BASE, error))
            },
        );
        Ok(view)
    }
}
