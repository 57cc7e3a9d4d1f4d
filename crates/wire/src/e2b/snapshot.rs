//! Snapshots. E2B names them as it names templates: `namespace/name:tag`, and `id:tag` where there
//! is no name. The namespace is the workspace; the tag is always `default`.

use serde::{Deserialize, Serialize};
use woodfrog_types::snapshot::{Snapshot as Record, SnapshotContent};
use woodfrog_types::{Code, Fault, SnapshotId, WorkspaceId};

use super::sleep::content;

/// The only tag there is.
const TAG: &str = "default";

/// Body of the snapshot route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct NewSnapshot {
    pub name: Option<String>,
    pub memory: Option<bool>,
}

impl NewSnapshot {
    /// The name without namespace and tag.
    pub fn name(&self, workspace: &WorkspaceId) -> Result<Option<String>, Fault> {
        let Some(name) = self.name.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        match Reference::parse(name, workspace) {
            Reference::Name(name) => Ok(Some(name)),
            Reference::Id(_) => Err(Fault::invalid("name", "a name must not look like an id")),
            Reference::Elsewhere => {
                let why = "a snapshot's name is in this workspace and has no tag but `default`";
                Err(Fault::invalid("name", why))
            }
        }
    }

    /// What is kept.
    pub fn content(&self) -> SnapshotContent {
        content(self.memory)
    }
}

/// What a text that is to name a snapshot names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Id(SnapshotId),
    Name(String),
    /// Another namespace or tag: nothing of this workspace has it.
    Elsewhere,
}

impl Reference {
    /// Reads `name`, `name:default`, `namespace/name:default`, `id`, `id:default`.
    pub fn parse(text: &str, workspace: &WorkspaceId) -> Self {
        let (namespace, rest) = match text.split_once('/') {
            Some((namespace, rest)) => (Some(namespace), rest),
            None => (None, text),
        };
        let (name, tag) = rest.split_once(':').unwrap_or((rest, TAG));
        if tag != TAG || namespace.is_some_and(|given| given != workspace.as_str()) {
            return Self::Elsewhere;
        }
        match name.parse() {
            Ok(id) => Self::Id(id),
            Err(_) => Self::Name(name.to_owned()),
        }
    }

    /// As the engine takes it.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Id(id) => Some(id.to_string()),
            Self::Name(name) => Some(name),
            Self::Elsewhere => None,
        }
    }
}

/// The fault for a text that names no snapshot.
pub fn not_found(text: &str) -> Fault {
    let shown: String = text.chars().take(200).collect();
    Fault::new(
        Code::SnapshotNotFound,
        format!("snapshot `{shown}` not found"),
    )
}

/// A snapshot in replies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    pub names: Vec<String>,
}

impl From<&Record> for Snapshot {
    fn from(record: &Record) -> Self {
        let full = |name: &String| format!("{}/{name}:{TAG}", record.workspace);
        let named = record.name.as_ref().map(full);
        Self {
            snapshot_id: named
                .clone()
                .unwrap_or_else(|| format!("{}:{TAG}", record.id)),
            names: named.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_read() {
        let ours = WorkspaceId::default_workspace();
        let id = SnapshotId::generate();
        let name = |text: &str| Reference::parse(text, &ours);
        let snap = Reference::Name("snap".to_owned());
        for text in ["snap", "snap:default", &format!("{ours}/snap:default")] {
            assert_eq!(name(text), snap, "{text}");
        }
        for text in [
            format!("{id}"),
            format!("{id}:default"),
            format!("{ours}/{id}"),
        ] {
            assert_eq!(name(&text), Reference::Id(id.clone()), "{text}");
        }
        for text in ["snap:v2", "team/snap", "team/snap:default"] {
            assert_eq!(name(text), Reference::Elsewhere, "{text}");
        }
    }
}
