//! Tags, and the removal of templates.

use std::sync::Arc;

use woodfrog_core::names::{self, TemplateRef};
use woodfrog_types::key::Principal;
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::SnapshotPurpose;
use woodfrog_types::template::{BuildState, DEFAULT_TAG, Template};
use woodfrog_types::{BuildId, Code, Fault, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::layers;
use crate::sandbox::{shelf, warm};
use crate::template::api::no_build;
use crate::view::BuildView;

impl Engine {
    /// Points tags at the finished build that `target` (`name`, `name:tag` or `name:build`) names.
    pub async fn template_tag(
        &self,
        principal: &Principal,
        target: &str,
        tags: &[String],
    ) -> Result<BuildView, Fault> {
        self.inner.accepting()?;
        names::tags(tags)?;
        let parsed = TemplateRef::parse(target)?;
        let mut template = self.template_owned(principal, parsed.name).await?;
        let tag = parsed.tag_or_default();
        let tagged = template.tags.get(tag).copied();
        let named = tagged.or_else(|| tag.parse::<BuildId>().ok());
        let id = named.ok_or_else(|| no_tag(target))?;
        let build = self.build_known(&id).await?;
        let build = build.filter(|build| build.template == template.id);
        let build = build.ok_or_else(|| no_build(&id))?;
        if !matches!(build.state, BuildState::Ready(_)) {
            return Err(Fault::new(
                Code::TemplateNotReady,
                format!("`{target}` is not ready"),
            ));
        }
        for tag in tags {
            template.tags.insert(tag.clone(), id);
        }
        check_count(&template)?;
        self.store_template(&mut template).await?;
        Ok(BuildView { template, build })
    }

    /// Removes tags; the builds stay.
    pub async fn template_untag(
        &self,
        principal: &Principal,
        name: &str,
        tags: &[String],
    ) -> Result<(), Fault> {
        self.inner.accepting()?;
        let parsed = TemplateRef::parse(name)?;
        let mut template = self.template_owned(principal, parsed.name).await?;
        for tag in tags {
            if template.tags.remove(tag).is_none() {
                return Err(no_tag(&format!("{}:{tag}", parsed.name)));
            }
        }
        self.store_template(&mut template).await
    }

    /// Removes a template with its builds; with `name:tag` the tag only. Running sandboxes go on;
    /// they cannot be saved to disk any more. `Conflict` while sandboxes sleep or snapshots are
    /// kept that need its layers to come back.
    pub async fn template_delete(
        &self,
        principal: &Principal,
        id_or_name: &str,
    ) -> Result<(), Fault> {
        self.inner.accepting()?;
        let parsed = TemplateRef::parse(id_or_name)?;
        if let Some(tag) = parsed.tag
            && tag != DEFAULT_TAG
        {
            return self
                .template_untag(principal, parsed.name, &[tag.to_owned()])
                .await;
        }
        let template = self.template_owned(principal, parsed.name).await?;
        if let Some(tag) = parsed.tag
            && template.tags.len() > 1
        {
            return self
                .template_untag(principal, parsed.name, &[tag.to_owned()])
                .await;
        }
        self.check_unneeded(&template).await?;
        let removed = self.inner.store.template_remove(&template.id).await;
        removed.map_err(fault::store)?;
        warm::forget(&self.inner, &template).await;
        layers::collect_later(&self.inner);
        Ok(())
    }

    async fn check_unneeded(&self, template: &Template) -> Result<(), Fault> {
        let snapshots = self.inner.store.snapshot_all().await;
        let mut snapshots = snapshots.map_err(fault::store)?;
        snapshots.retain(|snapshot| snapshot.template == template.id);
        for snapshot in &snapshots {
            let who = match &snapshot.purpose {
                SnapshotPurpose::Checkpoint => format!("the snapshot {}", snapshot.id),
                SnapshotPurpose::Sleep { sandbox } => {
                    let record = self.record_of(sandbox).await?;
                    let needed = |record: &Arc<Sandbox>| {
                        // One that runs, and is saved meanwhile, comes back from that if it is lost.
                        let saved = record.sleep.checkpoint_every.is_some()
                            && record.last_snapshot.as_ref() == Some(&snapshot.id);
                        saved || shelf::names(record, &snapshot.id)
                    };
                    match record.filter(needed) {
                        Some(saved) => format!("the sandbox {}, which is saved in one,", saved.id),
                        None => continue,
                    }
                }
                SnapshotPurpose::Warm { .. } | SnapshotPurpose::Fork => continue,
            };
            return Err(Fault::new(
                Code::Conflict,
                format!(
                    "{who} needs the template '{}'; delete that first",
                    template.name
                ),
            ));
        }
        Ok(())
    }

    /// A template that the principal may change.
    async fn template_owned(&self, principal: &Principal, name: &str) -> Result<Template, Fault> {
        let template = self.template_find(principal, name).await?;
        if template.workspace.is_none() {
            return Err(Fault::new(
                Code::PermissionDenied,
                format!("template '{name}' belongs to the server"),
            ));
        }
        Ok(template)
    }

    async fn store_template(&self, template: &mut Template) -> Result<(), Fault> {
        template.updated_at = Timestamp::now();
        let stored = self.inner.store.template_update(template).await;
        stored.map_err(fault::store)
    }
}

fn check_count(template: &Template) -> Result<(), Fault> {
    if template.tags.len() <= names::TAGS_MAX {
        return Ok(());
    }
    Err(Fault::invalid(
        "tags",
        format!("a template has at most {} tags", names::TAGS_MAX),
    ))
}

fn no_tag(target: &str) -> Fault {
    Fault::new(
        Code::TemplateNotFound,
        format!("template tag '{target}' not found"),
    )
}
