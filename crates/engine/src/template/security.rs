//! What a template's sandboxes may do beyond the default.

use woodfrog_core::names::TemplateRef;
use woodfrog_types::key::Principal;
use woodfrog_types::template::{Build, BuildState, BuiltImage, SecurityOptions};
use woodfrog_types::{Code, Fault};

use crate::engine::Engine;
use crate::fault;
use crate::keys::need_admin;
use crate::view::BuildView;

impl Engine {
    /// Sets what new sandboxes of a finished build may do; `id_or_name` may have a tag. Sandboxes
    /// that run keep what they started with.
    ///
    /// The options are the build's: every tag of it has them, a later build of the template starts
    /// with all off, and so does a build from it. The server's own templates need admin scope.
    ///
    /// # Errors
    /// `TemplateNotFound`, `PermissionDenied`, or `TemplateNotReady` if the tag has no finished
    /// build.
    pub async fn template_security(
        &self,
        principal: &Principal,
        id_or_name: &str,
        security: SecurityOptions,
    ) -> Result<BuildView, Fault> {
        self.inner.accepting()?;
        let parsed = TemplateRef::parse(id_or_name)?;
        let template = self.template_find(principal, parsed.name).await?;
        if template.workspace.is_none() {
            need_admin(principal)?;
        }
        let tag = parsed.tag_or_default();
        let known = match template.tags.get(tag) {
            Some(id) => self.build_known(id).await?,
            None => None,
        };
        let Some((build, mut image)) = known.and_then(ready) else {
            let name = &template.name;
            return Err(Fault::new(
                Code::TemplateNotReady,
                format!("template `{name}` has no finished build tagged `{tag}`"),
            ));
        };
        image.security = security;
        let build = Build {
            state: BuildState::Ready(image),
            ..build
        };
        let stored = self.inner.store.build_update(&build).await;
        stored.map_err(fault::store)?;
        Ok(BuildView { template, build })
    }
}

fn ready(build: Build) -> Option<(Build, BuiltImage)> {
    match &build.state {
        BuildState::Ready(image) => {
            let image = image.clone();
            Some((build, image))
        }
        BuildState::Waiting | BuildState::Building | BuildState::Failed { .. } => None,
    }
}
