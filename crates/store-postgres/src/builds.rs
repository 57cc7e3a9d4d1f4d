//! Builds, their logs and the step cache: the second half of [`woodfrog_store::TemplateStore`].

use std::collections::BTreeSet;

use deadpool_postgres::{Client, GenericClient};
use woodfrog_store::cursor::List;
use woodfrog_store::{Result, StoreError};
use woodfrog_store_rows::{
    Columns, build_from_row, build_layers, build_to_json, get, image_layers, line_from_row,
    to_sql_int,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::template::{Build, BuildLogLine};
use woodfrog_types::{BuildId, TemplateId};

use crate::client::{Arg, all, begin, change, commit, finds, first};
use crate::listing::Listing;
use crate::text::Text;

const WHAT: &str = "build";
const LINE: &str = "build log line";

pub(crate) async fn insert(client: &mut Client, build: &Build) -> Result<()> {
    let transaction = begin(client, WHAT).await?;
    // Locked: the template does not go before its build is there.
    let exists = "SELECT 1 FROM templates WHERE id = $1 FOR KEY SHARE";
    if !finds(&transaction, WHAT, exists, &[&build.template.as_str()]).await? {
        return Err(StoreError::NotFound { what: "template" });
    }
    let sql = "INSERT INTO builds (id, template, state, created_at, layers, body) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    write_row(&transaction, sql, build).await?;
    commit(transaction, WHAT).await
}

pub(crate) async fn update(client: &impl GenericClient, build: &Build) -> Result<()> {
    let sql = "UPDATE builds SET state = $3, created_at = $4, layers = $5, body = $6 \
               WHERE id = $1 AND template = $2";
    match write_row(client, sql, build).await? {
        0 => Err(StoreError::NotFound { what: WHAT }),
        _ => Ok(()),
    }
}

async fn write_row(client: &impl GenericClient, sql: &str, build: &Build) -> Result<u64> {
    let (layers, body) = (build_layers(build)?, build_to_json(build)?);
    let args: [Arg<'_>; 6] = [
        &build.id.to_string(),
        &build.template.as_str(),
        &build.state.as_str(),
        &build.created_at.as_millis(),
        &Text(&layers),
        &body,
    ];
    change(client, WHAT, sql, &args).await
}

pub(crate) async fn fetch(client: &impl GenericClient, id: BuildId) -> Result<Option<Build>> {
    let sql = "SELECT * FROM builds WHERE id = $1";
    first(client, WHAT, sql, &[&id.to_string()], build_from_row).await
}

pub(crate) async fn list(
    client: &impl GenericClient,
    template: &TemplateId,
    page: &PageRequest,
) -> Result<Page<Build>> {
    let list = Listing::new(WHAT, List::Builds, "builds", "created_at", true);
    let list = list.text("template", template.as_str());
    let convert = |row: &dyn Columns| build_from_row(row).map(Some);
    list.page(client, page, convert, |last| {
        (last.created_at.as_millis(), last.id.to_string())
    })
    .await
}

pub(crate) async fn unfinished(client: &impl GenericClient) -> Result<Vec<Build>> {
    let sql = "SELECT * FROM builds WHERE state IN ('waiting', 'building') \
               AND (this_node() IS NULL OR node = this_node()) ORDER BY created_at, id";
    all(client, WHAT, sql, &[], build_from_row).await
}

pub(crate) async fn log_append(
    client: &mut Client,
    build: BuildId,
    lines: &[BuildLogLine],
) -> Result<()> {
    let build = build.to_string();
    let transaction = begin(client, LINE).await?;
    // Locked: whoever appends at the same time comes after this.
    let exists = "SELECT 1 FROM builds WHERE id = $1 FOR UPDATE";
    if !finds(&transaction, WHAT, exists, &[&build]).await? {
        return Err(StoreError::NotFound { what: WHAT });
    }
    let sql = "SELECT coalesce(max(line) + 1, 0) AS next FROM build_log WHERE build = $1";
    let next = first(&transaction, LINE, sql, &[&build], |row| {
        get::<i64>(row, LINE, "next")
    })
    .await?;
    for (number, line) in (next.unwrap_or(0)..).zip(lines) {
        let sql = "INSERT INTO build_log (build, line, at, level, step, message) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let args: [Arg<'_>; 6] = [
            &build,
            &number,
            &line.at.as_millis(),
            &line.level.as_str(),
            &line.step.as_deref().map(Text),
            &Text(&line.message),
        ];
        change(&transaction, LINE, sql, &args).await?;
    }
    commit(transaction, LINE).await
}

pub(crate) async fn log_list(
    client: &impl GenericClient,
    build: BuildId,
    offset: u64,
    limit: usize,
) -> Result<Vec<BuildLogLine>> {
    let sql = "SELECT * FROM build_log WHERE build = $1 AND line >= $2 ORDER BY line LIMIT $3";
    let args: [Arg<'_>; 3] = [&build.to_string(), &to_sql_int(offset), &to_sql_int(limit)];
    all(client, LINE, sql, &args, line_from_row).await
}

pub(crate) async fn layers_in_use(client: &impl GenericClient) -> Result<Vec<String>> {
    let sql = "SELECT layers FROM builds WHERE layers <> '[]'";
    let stacks = all(client, WHAT, sql, &[], image_layers).await?;
    let layers: BTreeSet<String> = stacks.into_iter().flatten().collect();
    Ok(layers.into_iter().collect())
}
