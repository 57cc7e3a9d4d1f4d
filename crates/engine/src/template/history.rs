//! Which builds a template's tags named, and since when.

use std::collections::BTreeMap;

use woodfrog_core::names::TemplateRef;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::template::{Build, BuildState, Template};
use woodfrog_types::{Fault, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::view::TagAssignment;

/// Builds that are looked at, from the newest: what is older is not part of the history.
const BUILDS_MAX: usize = 1000;

impl Engine {
    /// Every tag of a template with the builds that it named, the present one first, then from
    /// the newest. A tag that was given to an older build by hand and moved on since is not
    /// recorded: of the past, a tag knows the builds that were made for it.
    pub async fn template_assignments(
        &self,
        principal: &Principal,
        id_or_name: &str,
    ) -> Result<BTreeMap<String, Vec<TagAssignment>>, Fault> {
        let parsed = TemplateRef::parse(id_or_name)?;
        let template = self.template_find(principal, parsed.name).await?;
        let builds = self.ready_builds(&template).await?;
        let mut all = BTreeMap::new();
        for (tag, current) in &template.tags {
            let known = builds.iter().find(|build| build.id == *current).cloned();
            let current = match known {
                Some(build) => Some(build),
                None => self.build_known(current).await?,
            };
            all.insert(tag.clone(), history(tag, current, &builds, &template));
        }
        Ok(all)
    }

    async fn ready_builds(&self, template: &Template) -> Result<Vec<Build>, Fault> {
        let mut builds = Vec::new();
        let mut cursor = None;
        loop {
            let limit = PAGE_ITEMS_MAX;
            let page = PageRequest { limit, cursor };
            let page = self.inner.store.build_list(&template.id, &page).await;
            let page = page.map_err(fault::store)?;
            builds.extend(page.items);
            cursor = page.next;
            if cursor.is_none() || builds.len() >= BUILDS_MAX {
                builds.retain(|build| matches!(build.state, BuildState::Ready(_)));
                return Ok(builds);
            }
        }
    }
}

/// The assignments of one tag; `builds` are ready and come newest first.
fn history(
    tag: &str,
    current: Option<Build>,
    builds: &[Build],
    template: &Template,
) -> Vec<TagAssignment> {
    let made_for = |build: &Build| build.tags.iter().any(|name| name == tag);
    let finished = |build: &Build| build.finished_at.unwrap_or(build.created_at);
    let mut all: Vec<TagAssignment> = Vec::new();
    if let Some(build) = &current {
        let at: Timestamp = match made_for(build) {
            true => finished(build),
            false => template.updated_at,
        };
        all.push(TagAssignment {
            build: build.clone(),
            at,
        });
    }
    let before = builds
        .iter()
        .filter(|build| made_for(build))
        .filter(|build| current.as_ref().is_none_or(|now| now.id != build.id));
    all.extend(before.map(|build| TagAssignment {
        build: build.clone(),
        at: finished(build),
    }));
    all
}
