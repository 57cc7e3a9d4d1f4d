//! From a template's name to its image.

use std::time::Duration;

use woodfrog_core::names::TemplateRef;
use woodfrog_types::key::Principal;
use woodfrog_types::template::{Build, BuildState, BuiltImage, Template};
use woodfrog_types::{BuildId, Code, Fault, TemplateId};

use crate::engine::Engine;
use crate::fault;
use crate::sandbox::may_see;
use crate::template::base::BASE;

/// What a sandbox starts from.
pub(crate) struct Source {
    pub(crate) template: Template,
    pub(crate) build: BuildId,
    pub(crate) image: BuiltImage,
}

/// Between two looks whether the base template is there now.
const BASE_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why there is no source.
enum Missing {
    /// The server's own base is being made: waiting helps.
    BeingMade(Fault),
    No(Fault),
}

impl From<Fault> for Missing {
    fn from(fault: Fault) -> Self {
        Self::No(fault)
    }
}

impl Engine {
    /// The finished image that `reference` names. Waits for the server's own base while it is
    /// being made, as long as the options say.
    pub(crate) async fn template_source(
        &self,
        principal: &Principal,
        reference: &str,
    ) -> Result<Source, Fault> {
        let until = tokio::time::Instant::now() + self.inner.options.base_wait;
        loop {
            match self.source_now(principal, reference).await {
                Ok(source) => return Ok(source),
                Err(Missing::No(fault)) => return Err(fault),
                Err(Missing::BeingMade(fault)) if tokio::time::Instant::now() >= until => {
                    return Err(fault);
                }
                Err(Missing::BeingMade(_)) => {
                    self.inner.accepting()?;
                    tokio::time::sleep(BASE_LOOK_EVERY).await;
                }
            }
        }
    }

    async fn source_now(&self, principal: &Principal, reference: &str) -> Result<Source, Missing> {
        let parsed = TemplateRef::parse(reference)
            .map_err(|fault| Fault::invalid("template", fault.message))?;
        let template = match self.template_find(principal, parsed.name).await {
            Err(_) if parsed.name == BASE => {
                return Err(Missing::BeingMade(self.base_not_ready().await?));
            }
            found => found?,
        };
        let tag = parsed.tag_or_default();
        let not_ready = |what: &str| {
            Fault::new(
                Code::TemplateNotReady,
                format!("template `{}` {what} `{tag}`", template.name),
            )
        };
        let Some(&id) = template.tags.get(tag) else {
            if template.workspace.is_none() && parsed.tag.is_none() {
                return Err(Missing::BeingMade(self.base_not_ready().await?));
            }
            return Err(not_ready("has no finished build tagged").into());
        };
        let state = self.build_known(&id).await?.map(|build| build.state);
        match state {
            // The layers of the server's own base can be made again.
            Some(BuildState::Ready(image))
                if template.workspace.is_none()
                    && self.inner.images.paths(&image.layers).is_err() =>
            {
                Err(Missing::BeingMade(self.base_not_ready().await?))
            }
            Some(BuildState::Ready(image)) => Ok(Source {
                template,
                build: id,
                image,
            }),
            Some(_) | None => Err(not_ready("is not ready under tag").into()),
        }
    }

    /// Begins to make the base template, which somebody wants to use, and says so.
    async fn base_not_ready(&self) -> Result<Fault, Fault> {
        let view = self.template_base().await?;
        Ok(Fault::new(
            Code::TemplateNotReady,
            format!(
                "the base template is being made (build {}); try again when it is ready",
                view.build.id
            ),
        ))
    }

    /// A template by id or name, if the principal may see it.
    pub(crate) async fn template_find(
        &self,
        principal: &Principal,
        id_or_name: &str,
    ) -> Result<Template, Fault> {
        let store = &self.inner.store;
        let found = match id_or_name.parse::<TemplateId>() {
            Ok(id) => store.template_fetch(&id).await,
            Err(_) => {
                let workspace = &principal.workspace;
                store.template_by_name(workspace, id_or_name).await
            }
        };
        found
            .map_err(fault::store)?
            .filter(|template| {
                let owner = template.workspace.as_ref();
                owner.is_none_or(|owner| may_see(principal, owner))
            })
            .ok_or_else(|| {
                Fault::new(
                    Code::TemplateNotFound,
                    format!("template '{id_or_name}' not found"),
                )
            })
    }

    pub(crate) async fn build_known(&self, id: &BuildId) -> Result<Option<Build>, Fault> {
        self.inner.store.build_fetch(id).await.map_err(fault::store)
    }
}
