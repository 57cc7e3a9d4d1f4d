//! Builds, their logs and the step cache: the second half of [`woodfrog_store::TemplateStore`].

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, StoreError};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::template::{Build, BuildLogLine};
use woodfrog_types::{BuildId, TemplateId};

use crate::reader::{all, first};
use crate::stored::{
    build_from_row, build_layers, build_to_json, get, image_layers, line_from_row, to_sql_int,
};
use crate::writer::change;

const WHAT: &str = "build";
const LINE: &str = "build log line";

pub(crate) fn insert(conn: &Connection, build: &Build) -> Result<()> {
    let sql = "SELECT 1 FROM templates WHERE id = ?1";
    let template = [build.template.as_str()];
    if first(conn, WHAT, sql, template, |_| Ok(()))?.is_none() {
        return Err(StoreError::NotFound { what: "template" });
    }
    let sql = "INSERT INTO builds (id, template, state, created_at, layers, body) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    write_row(conn, sql, build).map(drop)
}

pub(crate) fn update(conn: &Connection, build: &Build) -> Result<()> {
    let sql = "UPDATE builds SET state = ?3, created_at = ?4, layers = ?5, body = ?6 \
               WHERE id = ?1 AND template = ?2";
    match write_row(conn, sql, build)? {
        0 => Err(StoreError::NotFound { what: WHAT }),
        _ => Ok(()),
    }
}

fn write_row(conn: &Connection, sql: &str, build: &Build) -> Result<usize> {
    let params = params![
        build.id.to_string(),
        build.template.as_str(),
        build.state.as_str(),
        build.created_at.as_millis(),
        build_layers(build)?,
        build_to_json(build)?,
    ];
    change(conn, WHAT, sql, params)
}

pub(crate) fn fetch(conn: &Connection, id: BuildId) -> Result<Option<Build>> {
    let sql = "SELECT * FROM builds WHERE id = ?1";
    first(conn, WHAT, sql, [id.to_string()], build_from_row)
}

pub(crate) fn list(
    conn: &Connection,
    template: &TemplateId,
    page: &PageRequest,
) -> Result<Page<Build>> {
    let limit = cursor::page_items(page);
    let after = page
        .cursor
        .as_deref()
        .map(|cursor| cursor::decode_time(List::Builds, cursor))
        .transpose()?;
    let more_than = to_sql_int(limit + 1);
    let mut items = match after {
        None => {
            let sql = "SELECT * FROM builds WHERE template = ?1 \
                       ORDER BY created_at DESC, id DESC LIMIT ?2";
            let params = params![template.as_str(), more_than];
            all(conn, WHAT, sql, params, build_from_row)?
        }
        Some((at, id)) => {
            let sql = "SELECT * FROM builds WHERE template = ?1 AND (created_at, id) < (?3, ?4) \
                       ORDER BY created_at DESC, id DESC LIMIT ?2";
            let params = params![template.as_str(), more_than, at, id];
            all(conn, WHAT, sql, params, build_from_row)?
        }
    };
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| {
        let at = last.created_at.as_millis().to_string();
        cursor::encode(List::Builds, &at, &last.id.to_string())
    });
    Ok(Page { items, next })
}

pub(crate) fn unfinished(conn: &Connection) -> Result<Vec<Build>> {
    let sql = "SELECT * FROM builds WHERE state IN ('waiting', 'building') \
               ORDER BY created_at, id";
    all(conn, WHAT, sql, [], build_from_row)
}

pub(crate) fn log_append(conn: &Connection, build: BuildId, lines: &[BuildLogLine]) -> Result<()> {
    let build = build.to_string();
    let sql = "SELECT (SELECT ifnull(max(line) + 1, 0) FROM build_log WHERE build = ?1) AS next \
               FROM builds WHERE id = ?1";
    let next = first(conn, LINE, sql, [&build], |row| {
        get::<i64>(row, LINE, "next")
    })?;
    let next = next.ok_or(StoreError::NotFound { what: WHAT })?;
    for (number, line) in (next..).zip(lines) {
        let sql = "INSERT INTO build_log (build, line, at, level, step, message) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let params = params![
            build,
            number,
            line.at.as_millis(),
            line.level.as_str(),
            line.step,
            line.message,
        ];
        change(conn, LINE, sql, params)?;
    }
    Ok(())
}

pub(crate) fn log_list(
    conn: &Connection,
    build: BuildId,
    offset: u64,
    limit: usize,
) -> Result<Vec<BuildLogLine>> {
    let sql = "SELECT * FROM build_log WHERE build = ?1 AND line >= ?2 ORDER BY line LIMIT ?3";
    let params = params![build.to_string(), to_sql_int(offset), to_sql_int(limit)];
    all(conn, LINE, sql, params, line_from_row)
}

pub(crate) fn cached_layer(conn: &Connection, key: &str) -> Result<Option<(String, String)>> {
    let what = "cached layer";
    let sql = "SELECT layer, config FROM layer_cache WHERE key = ?1";
    first(conn, what, sql, [key], |row| {
        Ok((get(row, what, "layer")?, get(row, what, "config")?))
    })
}

pub(crate) fn layers_cached(conn: &Connection) -> Result<Vec<String>> {
    let what = "cached layer";
    let sql = "SELECT DISTINCT layer FROM layer_cache ORDER BY layer";
    all(conn, what, sql, [], |row| get(row, what, "layer"))
}

pub(crate) fn layers_in_use(conn: &Connection) -> Result<Vec<String>> {
    let sql = "SELECT layers FROM builds WHERE layers <> '[]'";
    let stacks = all(conn, WHAT, sql, [], image_layers)?;
    let layers: BTreeSet<String> = stacks.into_iter().flatten().collect();
    Ok(layers.into_iter().collect())
}
