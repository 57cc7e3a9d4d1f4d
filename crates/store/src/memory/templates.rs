//! Templates and builds in memory.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::template::{Build, BuildLogLine, BuildState, Template};
use woodfrog_types::{BuildId, TemplateId, WorkspaceId};

use super::{MemoryStore, State, cut_page};
use crate::cursor::{self, List};
use crate::{Result, StoreError, TemplateStore};

const TEMPLATE: &str = "template";
const BUILD: &str = "build";

#[async_trait]
impl TemplateStore for MemoryStore {
    async fn template_insert(&self, template: &Template) -> Result<()> {
        let mut state = self.lock();
        if state.templates.contains_key(&template.id) || name_is_taken(&state, template) {
            return Err(StoreError::Constraint { what: TEMPLATE });
        }
        state
            .templates
            .insert(template.id.clone(), template.clone());
        Ok(())
    }

    async fn template_update(&self, template: &Template) -> Result<()> {
        let mut state = self.lock();
        if !state.templates.contains_key(&template.id) {
            return Err(StoreError::NotFound { what: TEMPLATE });
        }
        if name_is_taken(&state, template) {
            return Err(StoreError::Constraint { what: TEMPLATE });
        }
        state
            .templates
            .insert(template.id.clone(), template.clone());
        Ok(())
    }

    async fn template_remove(&self, id: &TemplateId) -> Result<()> {
        let mut state = self.lock();
        state.templates.remove(id);
        let State {
            builds, build_logs, ..
        } = &mut *state;
        builds.retain(|build, record| {
            let keep = record.template != *id;
            if !keep {
                build_logs.remove(build);
            }
            keep
        });
        Ok(())
    }

    async fn template_fetch(&self, id: &TemplateId) -> Result<Option<Template>> {
        Ok(self.lock().templates.get(id).cloned())
    }

    async fn template_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Template>> {
        let state = self.lock();
        let of = |owner: Option<&WorkspaceId>| {
            state
                .templates
                .values()
                .find(|template| template.workspace.as_ref() == owner && template.name == name)
        };
        Ok(of(Some(workspace)).or_else(|| of(None)).cloned())
    }

    async fn template_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Template>> {
        let after = page
            .cursor
            .as_deref()
            .map(|cursor| cursor::decode(List::Templates, cursor))
            .transpose()?;
        let state = self.lock();
        let key = |template: &Template| (template.name.clone(), template.id.as_str().to_owned());
        let mut found: Vec<&Template> = state
            .templates
            .values()
            .filter(|template| {
                template
                    .workspace
                    .as_ref()
                    .is_none_or(|owner| owner == workspace)
            })
            .filter(|template| after.as_ref().is_none_or(|after| key(template) > *after))
            .collect();
        found.sort_by_key(|template| key(template));
        Ok(cut_page(
            found.into_iter().cloned(),
            cursor::page_items(page),
            |last| cursor::encode(List::Templates, &last.name, last.id.as_str()),
        ))
    }

    async fn build_insert(&self, build: &Build) -> Result<()> {
        let mut state = self.lock();
        if !state.templates.contains_key(&build.template) {
            return Err(StoreError::NotFound { what: TEMPLATE });
        }
        if state.builds.contains_key(&build.id) {
            return Err(StoreError::Constraint { what: BUILD });
        }
        state.builds.insert(build.id, build.clone());
        self.wrote_build(&mut state, build.id);
        Ok(())
    }

    async fn build_update(&self, build: &Build) -> Result<()> {
        let mut state = self.lock();
        match state.builds.get_mut(&build.id) {
            Some(stored) if stored.template == build.template => {
                *stored = build.clone();
            }
            _ => return Err(StoreError::NotFound { what: BUILD }),
        }
        self.wrote_build(&mut state, build.id);
        Ok(())
    }

    async fn build_fetch(&self, id: &BuildId) -> Result<Option<Build>> {
        Ok(self.lock().builds.get(id).cloned())
    }

    async fn build_list(&self, template: &TemplateId, page: &PageRequest) -> Result<Page<Build>> {
        let after = page
            .cursor
            .as_deref()
            .map(|cursor| cursor::decode_time(List::Builds, cursor))
            .transpose()?;
        let state = self.lock();
        let key = |build: &Build| (build.created_at.as_millis(), build.id.to_string());
        let mut found: Vec<&Build> = state
            .builds
            .values()
            .filter(|build| build.template == *template)
            .filter(|build| after.as_ref().is_none_or(|after| key(build) < *after))
            .collect();
        found.sort_by_key(|build| Reverse(key(build)));
        Ok(cut_page(
            found.into_iter().cloned(),
            cursor::page_items(page),
            |last| {
                let (at, id) = key(last);
                cursor::encode(List::Builds, &at.to_string(), &id)
            },
        ))
    }

    async fn build_unfinished(&self) -> Result<Vec<Build>> {
        let state = self.lock();
        let mut found: Vec<Build> = state
            .builds
            .values()
            .filter(|build| matches!(build.state, BuildState::Waiting | BuildState::Building))
            .filter(|build| self.builds_it(&state, build.id))
            .cloned()
            .collect();
        found.sort_by_key(|build| (build.created_at, build.id));
        Ok(found)
    }

    async fn build_log_append(&self, build: &BuildId, lines: Vec<BuildLogLine>) -> Result<()> {
        let mut state = self.lock();
        if !state.builds.contains_key(build) {
            return Err(StoreError::NotFound { what: BUILD });
        }
        state.build_logs.entry(*build).or_default().extend(lines);
        Ok(())
    }

    async fn build_log_list(
        &self,
        build: &BuildId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<BuildLogLine>> {
        let state = self.lock();
        let log = state.build_logs.get(build).map_or(&[][..], Vec::as_slice);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(log.iter().skip(offset).take(limit).cloned().collect())
    }

    async fn layer_cache_put(&self, key: &str, layer: &str, config: &str) -> Result<()> {
        self.lock()
            .layer_cache
            .insert(key.to_owned(), (layer.to_owned(), config.to_owned()));
        Ok(())
    }

    async fn layer_cache_get(&self, key: &str) -> Result<Option<(String, String)>> {
        Ok(self.lock().layer_cache.get(key).cloned())
    }

    async fn layers_cached(&self) -> Result<Vec<String>> {
        let state = self.lock();
        let layers = state.layer_cache.values().map(|(layer, _)| layer);
        let layers: BTreeSet<String> = layers.cloned().collect();
        Ok(layers.into_iter().collect())
    }

    async fn layer_cache_forget(&self, layer: &str) -> Result<()> {
        let cache = &mut self.lock().layer_cache;
        cache.retain(|_, (cached, _)| cached != layer);
        Ok(())
    }

    async fn layers_in_use(&self) -> Result<Vec<String>> {
        let state = self.lock();
        let built = state.builds.values().flat_map(|build| match &build.state {
            BuildState::Ready(image) => image.layers.as_slice(),
            BuildState::Waiting | BuildState::Building | BuildState::Failed { .. } => &[],
        });
        let all: BTreeSet<String> = built.cloned().collect();
        Ok(all.into_iter().collect())
    }
}

/// Whether another template of the same owner has the name.
fn name_is_taken(state: &State, template: &Template) -> bool {
    state.templates.values().any(|other| {
        other.id != template.id
            && other.workspace == template.workspace
            && other.name == template.name
    })
}
