//! Tags of a template with the builds that they named.

use serde::Serialize;

/// Reply of the count route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TagCount {
    pub total: usize,
}

/// Reply of the route that says whether a tag is there.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagExists {
    pub exists: bool,
    pub normalized_tag: String,
}

/// A page of tags.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagGroups {
    pub tags: Vec<TagGroup>,
    pub next_cursor: Option<String>,
}

/// One tag and the newest of its assignments.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagGroup {
    pub tag: String,
    pub assignments: Vec<TagAssignment>,
    /// There are more than are shown.
    pub has_more: bool,
}

/// A page of one tag's assignments.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagAssignments {
    pub data: Vec<TagAssignment>,
    pub next_cursor: Option<String>,
}

/// One build that a tag named.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagAssignment {
    pub assignment_id: String,
    pub build_id: String,
    pub assigned_at: String,
    pub build_created_at: String,
    pub build_finished_at: Option<String>,
}
