//! Templates, builds, build logs and the layer cache.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, StoreError, TemplateStore};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::template::{Build, BuildLogLine, Template};
use woodfrog_types::{BuildId, TemplateId, WorkspaceId};

use crate::reader::{all, first};
use crate::stored::{template_from_row, template_to_json, to_sql_int};
use crate::writer::change;
use crate::{SqliteStore, builds};

const WHAT: &str = "template";

#[async_trait]
impl TemplateStore for SqliteStore {
    async fn template_insert(&self, template: &Template) -> Result<()> {
        let template = template.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO templates (id, workspace, name, created_at, updated_at, body) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            write_row(conn, sql, &template).map(drop)
        })
        .await
    }

    async fn template_update(&self, template: &Template) -> Result<()> {
        let template = template.clone();
        self.write(move |conn| {
            let sql = "UPDATE templates SET workspace = ?2, name = ?3, created_at = ?4, \
                       updated_at = ?5, body = ?6 WHERE id = ?1";
            match write_row(conn, sql, &template)? {
                0 => Err(StoreError::NotFound { what: WHAT }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn template_remove(&self, id: &TemplateId) -> Result<()> {
        let id = id.clone();
        self.write(move |conn| {
            // Builds and their logs go with it (ON DELETE CASCADE).
            let sql = "DELETE FROM templates WHERE id = ?1";
            change(conn, WHAT, sql, [id.as_str()]).map(drop)
        })
        .await
    }

    async fn template_fetch(&self, id: &TemplateId) -> Result<Option<Template>> {
        let id = id.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM templates WHERE id = ?1";
            first(conn, WHAT, sql, [id.as_str()], template_from_row)
        })
        .await
    }

    async fn template_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Template>> {
        let (workspace, name) = (workspace.clone(), name.to_owned());
        self.read(move |conn| {
            // The empty string sorts last: the workspace's own comes first.
            let sql = "SELECT * FROM templates \
                       WHERE ifnull(workspace, '') IN (?1, '') AND name = ?2 \
                       ORDER BY ifnull(workspace, '') DESC LIMIT 1";
            let params = params![workspace.as_str(), name];
            first(conn, WHAT, sql, params, template_from_row)
        })
        .await
    }

    async fn template_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Template>> {
        let (workspace, page) = (workspace.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &page)).await
    }

    async fn build_insert(&self, build: &Build) -> Result<()> {
        let build = build.clone();
        self.write(move |conn| builds::insert(conn, &build)).await
    }

    async fn build_update(&self, build: &Build) -> Result<()> {
        let build = build.clone();
        self.write(move |conn| builds::update(conn, &build)).await
    }

    async fn build_fetch(&self, id: &BuildId) -> Result<Option<Build>> {
        let id = *id;
        self.read(move |conn| builds::fetch(conn, id)).await
    }

    async fn build_list(&self, template: &TemplateId, page: &PageRequest) -> Result<Page<Build>> {
        let (template, page) = (template.clone(), page.clone());
        self.read(move |conn| builds::list(conn, &template, &page))
            .await
    }

    async fn build_unfinished(&self) -> Result<Vec<Build>> {
        self.read(builds::unfinished).await
    }

    async fn build_log_append(&self, build: &BuildId, lines: Vec<BuildLogLine>) -> Result<()> {
        let build = *build;
        self.write(move |conn| builds::log_append(conn, build, &lines))
            .await
    }

    async fn build_log_list(
        &self,
        build: &BuildId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<BuildLogLine>> {
        let build = *build;
        self.read(move |conn| builds::log_list(conn, build, offset, limit))
            .await
    }

    async fn layer_cache_put(&self, key: &str, layer: &str, config: &str) -> Result<()> {
        let row = [key.to_owned(), layer.to_owned(), config.to_owned()];
        self.write(move |conn| {
            let sql = "INSERT INTO layer_cache (key, layer, config) VALUES (?1, ?2, ?3) \
                       ON CONFLICT (key) DO UPDATE SET layer = ?2, config = ?3";
            change(conn, "cached layer", sql, row).map(drop)
        })
        .await
    }

    async fn layer_cache_get(&self, key: &str) -> Result<Option<(String, String)>> {
        let key = key.to_owned();
        self.read(move |conn| builds::cached_layer(conn, &key))
            .await
    }

    async fn layers_cached(&self) -> Result<Vec<String>> {
        self.read(builds::layers_cached).await
    }

    async fn layer_cache_forget(&self, layer: &str) -> Result<()> {
        let layer = [layer.to_owned()];
        self.write(move |conn| {
            let sql = "DELETE FROM layer_cache WHERE layer = ?1";
            change(conn, "cached layer", sql, layer).map(drop)
        })
        .await
    }

    async fn layers_in_use(&self) -> Result<Vec<String>> {
        self.read(builds::layers_in_use).await
    }
}

fn write_row(conn: &Connection, sql: &str, template: &Template) -> Result<usize> {
    let params = params![
        template.id.as_str(),
        template.workspace.as_ref().map(WorkspaceId::as_str),
        template.name,
        template.created_at.as_millis(),
        template.updated_at.as_millis(),
        template_to_json(template)?,
    ];
    change(conn, WHAT, sql, params)
}

fn list(conn: &Connection, workspace: &WorkspaceId, page: &PageRequest) -> Result<Page<Template>> {
    let limit = cursor::page_items(page);
    let after = page
        .cursor
        .as_deref()
        .map(|cursor| cursor::decode(List::Templates, cursor))
        .transpose()?;
    // A page may cost all names of the workspace: templates are few.
    let sql = "SELECT * FROM templates WHERE ifnull(workspace, '') IN (?1, '') \
               AND (?2 IS NULL OR (name, id) > (?2, ?3)) ORDER BY name, id LIMIT ?4";
    let (name, id) = after.unzip();
    let params = params![workspace.as_str(), name, id, to_sql_int(limit + 1)];
    let mut items = all(conn, WHAT, sql, params, template_from_row)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items
        .last()
        .filter(|_| more)
        .map(|last| cursor::encode(List::Templates, &last.name, last.id.as_str()));
    Ok(Page { items, next })
}
