//! Templates, builds, build logs and the layer cache.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, StoreError, TemplateStore};
use woodfrog_store_rows::{get, template_from_row, template_to_json, to_sql_int};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::template::{Build, BuildLogLine, Template};
use woodfrog_types::{BuildId, TemplateId, WorkspaceId};

use crate::client::{Arg, all, change, first};
use crate::text::{Text, TextBuf};
use crate::{PostgresStore, builds};

const WHAT: &str = "template";
const LAYER: &str = "cached layer";

#[async_trait]
impl TemplateStore for PostgresStore {
    async fn template_insert(&self, template: &Template) -> Result<()> {
        let sql = "INSERT INTO templates (id, workspace, name, created_at, updated_at, body) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        write_row(&self.client().await?, sql, template)
            .await
            .map(drop)
    }

    async fn template_update(&self, template: &Template) -> Result<()> {
        let sql = "UPDATE templates SET workspace = $2, name = $3, created_at = $4, \
                   updated_at = $5, body = $6 WHERE id = $1";
        match write_row(&self.client().await?, sql, template).await? {
            0 => Err(StoreError::NotFound { what: WHAT }),
            _ => Ok(()),
        }
    }

    async fn template_remove(&self, id: &TemplateId) -> Result<()> {
        // Builds and their logs go with it (ON DELETE CASCADE).
        let sql = "DELETE FROM templates WHERE id = $1";
        let removed = change(&self.client().await?, WHAT, sql, &[&id.as_str()]).await;
        removed.map(drop)
    }

    async fn template_fetch(&self, id: &TemplateId) -> Result<Option<Template>> {
        let sql = "SELECT * FROM templates WHERE id = $1";
        let client = self.client().await?;
        first(&client, WHAT, sql, &[&id.as_str()], template_from_row).await
    }

    async fn template_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Template>> {
        // The empty string sorts last: the workspace's own comes first.
        let sql = "SELECT * FROM templates \
                   WHERE coalesce(workspace, '') IN ($1, '') AND name = $2 \
                   ORDER BY coalesce(workspace, '') DESC LIMIT 1";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(name)];
        first(&self.client().await?, WHAT, sql, &args, template_from_row).await
    }

    async fn template_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Template>> {
        let limit = cursor::page_items(page);
        let after = page.cursor.as_deref();
        let after = after.map(|cursor| cursor::decode(List::Templates, cursor));
        let (name, id) = after.transpose()?.unzip();
        let (name, id) = (name.map(TextBuf), id.map(TextBuf));
        let sql = "SELECT * FROM templates WHERE coalesce(workspace, '') IN ($1, '') \
                   AND ($2::text IS NULL OR (name, id) > ($2, $3)) ORDER BY name, id LIMIT $4";
        let args: [Arg<'_>; 4] = [&workspace.as_str(), &name, &id, &to_sql_int(limit + 1)];
        let mut items = all(&self.client().await?, WHAT, sql, &args, template_from_row).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| more);
        let next = last.map(|last| cursor::encode(List::Templates, &last.name, last.id.as_str()));
        Ok(Page { items, next })
    }

    async fn build_insert(&self, build: &Build) -> Result<()> {
        builds::insert(&mut self.client().await?, build).await
    }

    async fn build_update(&self, build: &Build) -> Result<()> {
        builds::update(&self.client().await?, build).await
    }

    async fn build_fetch(&self, id: &BuildId) -> Result<Option<Build>> {
        builds::fetch(&self.client().await?, *id).await
    }

    async fn build_list(&self, template: &TemplateId, page: &PageRequest) -> Result<Page<Build>> {
        builds::list(&self.client().await?, template, page).await
    }

    async fn build_unfinished(&self) -> Result<Vec<Build>> {
        builds::unfinished(&self.client().await?).await
    }

    async fn build_log_append(&self, build: &BuildId, lines: Vec<BuildLogLine>) -> Result<()> {
        builds::log_append(&mut self.client().await?, *build, &lines).await
    }

    async fn build_log_list(
        &self,
        build: &BuildId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<BuildLogLine>> {
        builds::log_list(&self.client().await?, *build, offset, limit).await
    }

    async fn layer_cache_put(&self, key: &str, layer: &str, config: &str) -> Result<()> {
        let sql = "INSERT INTO layer_cache (key, layer, config) VALUES ($1, $2, $3) \
                   ON CONFLICT (key) DO UPDATE SET layer = $2, config = $3";
        let args: [Arg<'_>; 3] = [&Text(key), &Text(layer), &Text(config)];
        change(&self.client().await?, LAYER, sql, &args)
            .await
            .map(drop)
    }

    async fn layer_cache_get(&self, key: &str) -> Result<Option<(String, String)>> {
        let sql = "SELECT layer, config FROM layer_cache WHERE key = $1";
        first(&self.client().await?, LAYER, sql, &[&Text(key)], |row| {
            Ok((get(row, LAYER, "layer")?, get(row, LAYER, "config")?))
        })
        .await
    }

    async fn layers_cached(&self) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT layer COLLATE \"C\" AS layer FROM layer_cache ORDER BY 1";
        let client = self.client().await?;
        all(&client, LAYER, sql, &[], |row| get(row, LAYER, "layer")).await
    }

    async fn layer_cache_forget(&self, layer: &str) -> Result<()> {
        let sql = "DELETE FROM layer_cache WHERE layer = $1";
        change(&self.client().await?, LAYER, sql, &[&Text(layer)])
            .await
            .map(drop)
    }

    async fn layers_in_use(&self) -> Result<Vec<String>> {
        builds::layers_in_use(&self.client().await?).await
    }
}

async fn write_row(client: &impl GenericClient, sql: &str, template: &Template) -> Result<u64> {
    let workspace = template.workspace.as_ref().map(WorkspaceId::as_str);
    let body = template_to_json(template)?;
    let args: [Arg<'_>; 6] = [
        &template.id.as_str(),
        &workspace,
        &Text(&template.name),
        &template.created_at.as_millis(),
        &template.updated_at.as_millis(),
        &body,
    ];
    change(client, WHAT, sql, &args).await
}
