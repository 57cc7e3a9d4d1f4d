//! Tags of a template, counted, looked up and listed with the builds that they named.

use axum::extract::State;
use axum::{Extension, Json};
use sha2::{Digest, Sha256};
use woodfrog_core::names;
use woodfrog_engine::TagAssignment;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::{Fault, Timestamp};
use woodfrog_wire::e2b::tag as wire;

use super::error::Result;
use super::extract::{Params, Segment, Segments};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/templates/{id}/tags/count", count)
        .get("/templates/{id}/tags/exists", exists)
        .get("/templates/{id}/tags/groups", groups)
        .get("/templates/{id}/tags/{tag}/assignments", assignments)
}

/// Items of a page where the request names no number.
const PAGE_DEFAULT: usize = 50;
/// Assignments of each tag in a list of tags, where the request names no number.
const IN_GROUP_DEFAULT: usize = 10;

async fn count(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
) -> Result<Json<wire::TagCount>> {
    let view = app.engine.template_resolve(&principal, &name).await?;
    let total = view.template.tags.len();
    Ok(Json(wire::TagCount { total }))
}

async fn exists(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
    params: Params,
) -> Result<Json<wire::TagExists>> {
    let tag = params.get("tag").unwrap_or_default().trim().to_owned();
    names::tag(&tag)?;
    let view = app.engine.template_resolve(&principal, &name).await?;
    Ok(Json(wire::TagExists {
        exists: view.template.tags.contains_key(&tag),
        normalized_tag: tag,
    }))
}

async fn groups(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
    params: Params,
) -> Result<Json<wire::TagGroups>> {
    let sort = Sort::parse(params.get("sort"))?;
    let in_group = limit(&params, "assignmentLimit", IN_GROUP_DEFAULT)?;
    let limit = limit(&params, "tagsLimit", PAGE_DEFAULT)?;
    let search = params.get("search").unwrap_or_default().to_lowercase();
    let all = app.engine.template_assignments(&principal, &name).await?;
    let mut found: Vec<_> = all
        .into_iter()
        .filter(|(tag, _)| tag.to_lowercase().contains(&search))
        .collect();
    sort.order(&mut found);
    let keys: Vec<String> = found.iter().map(|(tag, _)| sort.cursor(tag)).collect();
    let (from, to, next_cursor) = page(&keys, params.get("tagsCursor"), "tagsCursor", limit)?;
    let group = |(tag, history): &(String, Vec<TagAssignment>)| wire::TagGroup {
        assignments: entries(tag, &history[..history.len().min(in_group)]),
        has_more: history.len() > in_group,
        tag: tag.clone(),
    };
    Ok(Json(wire::TagGroups {
        tags: found[from..to].iter().map(group).collect(),
        next_cursor,
    }))
}

async fn assignments(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(name, tag): Segments,
    params: Params,
) -> Result<Json<wire::TagAssignments>> {
    names::tag(&tag)?;
    let limit = limit(&params, "limit", PAGE_DEFAULT)?;
    let mut all = app.engine.template_assignments(&principal, &name).await?;
    let mut data = entries(&tag, &all.remove(&tag).unwrap_or_default());
    let keys: Vec<String> = data
        .iter()
        .map(|entry| entry.assignment_id.clone())
        .collect();
    let (from, to, next_cursor) = page(&keys, params.get("cursor"), "cursor", limit)?;
    data.truncate(to);
    Ok(Json(wire::TagAssignments {
        data: data.split_off(from),
        next_cursor,
    }))
}

/// In which order tags are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    LatestDesc,
    LatestAsc,
    NameAsc,
    NameDesc,
}

impl Sort {
    fn parse(text: Option<&str>) -> std::result::Result<Self, Fault> {
        match text {
            None | Some("latest_desc") => Ok(Self::LatestDesc),
            Some("latest_asc") => Ok(Self::LatestAsc),
            Some("name_asc") => Ok(Self::NameAsc),
            Some("name_desc") => Ok(Self::NameDesc),
            Some(_) => Err(Fault::invalid(
                "sort",
                "sort is one of latest_desc, latest_asc, name_asc, name_desc",
            )),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::LatestDesc => "latest_desc",
            Self::LatestAsc => "latest_asc",
            Self::NameAsc => "name_asc",
            Self::NameDesc => "name_desc",
        }
    }

    /// Orders tags that come by name.
    fn order(self, found: &mut [(String, Vec<TagAssignment>)]) {
        let latest = |history: &[TagAssignment]| history.first().map(|newest| newest.at);
        match self {
            Self::NameAsc => {}
            Self::NameDesc => found.reverse(),
            Self::LatestAsc => found.sort_by_key(|(_, history)| latest(history)),
            Self::LatestDesc => {
                found.sort_by_key(|(_, history)| std::cmp::Reverse(latest(history)));
            }
        }
    }

    /// A cursor is good for the order that it was made in only.
    fn cursor(self, tag: &str) -> String {
        format!("{}|{tag}", self.as_str())
    }
}

/// The bounds of a page of the items with these keys, and the next page's cursor: the key of the
/// last item before it.
fn page(
    keys: &[String],
    cursor: Option<&str>,
    field: &str,
    limit: usize,
) -> std::result::Result<(usize, usize, Option<String>), Fault> {
    let from = match cursor {
        None => 0,
        Some(cursor) => {
            let last = keys.iter().position(|key| key == cursor);
            let gone = || Fault::invalid(field, format!("invalid {field}; start again without it"));
            last.ok_or_else(gone)? + 1
        }
    };
    let to = keys.len().min(from + limit);
    let next = (to < keys.len()).then(|| keys[to - 1].clone());
    Ok((from, to, next))
}

/// A number of items, at most what a page has.
fn limit(params: &Params, name: &str, default: usize) -> std::result::Result<usize, Fault> {
    let wanted = params.parse::<usize>(name)?.unwrap_or(default);
    Ok(wanted.clamp(1, PAGE_ITEMS_MAX))
}

fn entries(tag: &str, history: &[TagAssignment]) -> Vec<wire::TagAssignment> {
    let entry = |assignment: &TagAssignment| wire::TagAssignment {
        assignment_id: assignment_id(tag, assignment),
        build_id: assignment.build.id.to_string(),
        assigned_at: assignment.at.to_rfc3339(),
        build_created_at: assignment.build.created_at.to_rfc3339(),
        build_finished_at: assignment.build.finished_at.map(Timestamp::to_rfc3339),
    };
    history.iter().map(entry).collect()
}

/// A UUID, the same each time: assignments have no rows of their own.
fn assignment_id(tag: &str, assignment: &TagAssignment) -> String {
    let digest = Sha256::digest(format!("{}:{tag}", assignment.build.id));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes)
        .into_uuid()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let keys: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut seen = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let (from, to, next) = page(&keys, cursor.as_deref(), "cursor", 2).expect("a page");
            seen.extend_from_slice(&keys[from..to]);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, keys);
        assert_eq!(page(&[], None, "cursor", 2).expect("a page"), (0, 0, None));
        assert!(page(&keys, Some("x"), "cursor", 2).is_err());
    }
}
