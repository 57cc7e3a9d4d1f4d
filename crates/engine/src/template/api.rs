//! Templates and builds as callers see them.

use woodfrog_core::names::{self, TemplateRef};
use woodfrog_core::validate;
use woodfrog_types::key::Principal;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::Resources;
use woodfrog_types::template::{Build, BuildLogLine, BuildState, DEFAULT_TAG, Template};
use woodfrog_types::{BuildId, Code, Fault, TemplateId, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::request::NewTemplate;
use crate::sandbox::check_page;
use crate::view::{BuildView, TemplateView};

/// Lines of a build's log that one call returns at most.
const LOG_LINES_MAX: usize = 1000;

impl Engine {
    /// A build that waits for its instructions; the template is made if the workspace has none
    /// of that name.
    pub async fn template_request(
        &self,
        principal: &Principal,
        request: NewTemplate,
    ) -> Result<BuildView, Fault> {
        self.inner.accepting()?;
        self.new_build(principal, request, BuildState::Waiting)
            .await
    }

    pub(super) async fn new_build(
        &self,
        principal: &Principal,
        request: NewTemplate,
        state: BuildState,
    ) -> Result<BuildView, Fault> {
        let parsed = TemplateRef::parse(&request.name)?;
        names::tags(&request.tags)?;
        if let Some(resources) = &request.resources {
            validate::resources(resources)?;
        }
        let mut tags = request.tags.clone();
        tags.extend(parsed.tag.map(str::to_owned));
        if tags.is_empty() {
            tags.push(DEFAULT_TAG.to_owned());
        }
        tags.sort();
        tags.dedup();
        let template = self
            .own_template(principal, parsed.name, request.resources)
            .await?;
        let build = Build {
            id: BuildId::generate(),
            template: template.id.clone(),
            state,
            tags,
            created_at: Timestamp::now(),
            finished_at: None,
        };
        let stored = self.inner.store.build_insert(&build).await;
        stored.map_err(fault::store)?;
        Ok(BuildView { template, build })
    }

    /// The workspace's template of that name, made if there is none.
    async fn own_template(
        &self,
        principal: &Principal,
        name: &str,
        resources: Option<Resources>,
    ) -> Result<Template, Fault> {
        let store = &self.inner.store;
        let now = Timestamp::now();
        let known = match name.parse::<TemplateId>() {
            Ok(_) => Some(self.template_find(principal, name).await?),
            Err(_) => {
                let found = store.template_by_name(&principal.workspace, name).await;
                found.map_err(fault::store)?
            }
        };
        if let Some(mut template) = known.filter(|template| template.workspace.is_some()) {
            if let Some(resources) = resources {
                template.resources = resources;
                template.updated_at = now;
                let stored = store.template_update(&template).await;
                stored.map_err(fault::store)?;
            }
            return Ok(template);
        }
        let template = Template {
            id: TemplateId::generate(),
            workspace: Some(principal.workspace.clone()),
            name: name.to_owned(),
            resources: resources.unwrap_or_default(),
            tags: std::collections::BTreeMap::new(),
            created_at: now,
            updated_at: now,
        };
        store
            .template_insert(&template)
            .await
            .map_err(fault::store)?;
        Ok(template)
    }

    /// A build of that template.
    pub async fn build_fetch(
        &self,
        principal: &Principal,
        template: &TemplateId,
        build: &BuildId,
    ) -> Result<BuildView, Fault> {
        let template = self.template_find(principal, template.as_str()).await?;
        let known = self.build_known(build).await?;
        let build = known
            .filter(|known| known.template == template.id)
            .ok_or_else(|| no_build(build))?;
        Ok(BuildView { template, build })
    }

    /// Lines of a build's log from `offset` (0 is the first), at most `limit`.
    pub async fn build_log(
        &self,
        principal: &Principal,
        build: &BuildId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<BuildLogLine>, Fault> {
        let known = self.build_known(build).await?;
        let known = known.ok_or_else(|| no_build(build))?;
        let visible = self.template_find(principal, known.template.as_str()).await;
        visible.map_err(|_| no_build(build))?;
        let limit = limit.min(LOG_LINES_MAX);
        let lines = self.inner.store.build_log_list(build, offset, limit).await;
        lines.map_err(fault::store)
    }

    /// A template's builds, newest first.
    pub async fn build_list(
        &self,
        principal: &Principal,
        template: &TemplateId,
        page: PageRequest,
    ) -> Result<Page<Build>, Fault> {
        check_page(&page)?;
        let template = self.template_find(principal, template.as_str()).await?;
        let builds = self.inner.store.build_list(&template.id, &page).await;
        builds.map_err(fault::store)
    }

    /// A template by id or name (a tag is ignored), with the build that its default tag names.
    pub async fn template_resolve(
        &self,
        principal: &Principal,
        id_or_name: &str,
    ) -> Result<TemplateView, Fault> {
        let parsed = TemplateRef::parse(id_or_name)?;
        let template = self.template_find(principal, parsed.name).await?;
        self.template_view(template).await
    }

    async fn template_view(&self, template: Template) -> Result<TemplateView, Fault> {
        let current = match template.tags.get(DEFAULT_TAG) {
            Some(id) => self.build_known(id).await?,
            None => None,
        };
        Ok(TemplateView { template, current })
    }

    /// The workspace's templates and the server's, by name.
    pub async fn template_list(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<TemplateView>, Fault> {
        check_page(&page)?;
        let listed = self
            .inner
            .store
            .template_list(&principal.workspace, &page)
            .await;
        let Page { items, next } = listed.map_err(fault::store)?;
        let mut views = Vec::with_capacity(items.len());
        for template in items {
            views.push(self.template_view(template).await?);
        }
        Ok(Page { items: views, next })
    }
}

pub(super) fn no_build(id: &BuildId) -> Fault {
    Fault::new(Code::BuildNotFound, format!("build '{id}' not found"))
}
