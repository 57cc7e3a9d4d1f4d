//! The stored form of a snapshot.

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::snapshot::{
    ArchiveId, Snapshot, SnapshotPlace, SnapshotPurpose, SnapshotSize, SnapshotState,
};

use crate::mount::{StoredMount, mounts_from_stored, mounts_to_stored};
use crate::sleep::StoredContent;
use crate::{
    Columns, StoredResources, StringMap, corrupt, count_column, get, id_column, json_column, parse,
    time_column, to_json,
};

const WHAT: &str = "snapshot";

/// What is not in a column of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum Body {
    #[serde(rename = "1")]
    V1(BodyV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct BodyV1 {
    parent: Option<String>,
    content: StoredContent,
    purpose: StoredPurpose,
    state: StoredState,
    place: StoredPlace,
    labels: StringMap,
    template: String,
    template_alias: Option<String>,
    build: String,
    resources: StoredResources,
    env: StringMap,
    /// Missing in records of servers that mounted none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<StoredMount>,
    driver: String,
    size: StoredSize,
}

/// The name is also a column, and both must agree; as with the state.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum StoredPurpose {
    Sleep { sandbox: String },
    Checkpoint,
    Warm { build: String },
    Fork,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum StoredState {
    Writing,
    Ready,
    Damaged { detail: String },
    Deleting,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredPlace {
    Local,
    Both { id: String },
    Archive { id: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSize {
    memory: u64,
    written: u64,
    disk: u64,
}

/// The text of the `body` column.
pub fn snapshot_to_json(snapshot: &Snapshot) -> Result<String> {
    let body = Body::V1(BodyV1 {
        parent: snapshot.parent.as_ref().map(ToString::to_string),
        content: snapshot.content.into(),
        purpose: purpose_to_stored(&snapshot.purpose),
        state: state_to_stored(&snapshot.state),
        place: match &snapshot.place {
            SnapshotPlace::Local => StoredPlace::Local,
            SnapshotPlace::Both { archive } => StoredPlace::Both {
                id: archive.0.clone(),
            },
            SnapshotPlace::Archive { archive } => StoredPlace::Archive {
                id: archive.0.clone(),
            },
        },
        labels: snapshot.labels.clone(),
        template: snapshot.template.to_string(),
        template_alias: snapshot.template_alias.clone(),
        build: snapshot.build.to_string(),
        resources: snapshot.resources.into(),
        env: snapshot.env.clone(),
        volumes: mounts_to_stored(&snapshot.volumes),
        driver: snapshot.driver.clone(),
        size: StoredSize {
            memory: snapshot.size.memory_bytes,
            written: snapshot.size.written_bytes,
            disk: snapshot.size.disk_bytes,
        },
    });
    to_json(WHAT, &body)
}

/// A snapshot from all columns of its row.
pub fn snapshot_from_row(row: &dyn Columns) -> Result<Snapshot> {
    let Body::V1(body) = json_column(row, WHAT, "body")?;
    let purpose = purpose_from_stored(body.purpose)?;
    let state = state_from_stored(body.state);
    for (column, in_body) in [("purpose", purpose.as_str()), ("state", state.as_str())] {
        let name: String = get(row, WHAT, column)?;
        if name != in_body {
            let detail = format!("{column} `{name}` does not fit its body");
            return Err(corrupt(WHAT, detail));
        }
    }
    Ok(Snapshot {
        id: id_column(row, WHAT, "id")?,
        workspace: id_column(row, WHAT, "workspace")?,
        source: id_column(row, WHAT, "source")?,
        parent: body.parent.map(|id| parse(WHAT, &id)).transpose()?,
        content: body.content.into(),
        purpose,
        state,
        place: match body.place {
            StoredPlace::Local => SnapshotPlace::Local,
            StoredPlace::Both { id } => SnapshotPlace::Both {
                archive: ArchiveId(id),
            },
            StoredPlace::Archive { id } => SnapshotPlace::Archive {
                archive: ArchiveId(id),
            },
        },
        generation: count_column(row, WHAT, "generation")?,
        name: get(row, WHAT, "name")?,
        labels: body.labels,
        template: parse(WHAT, &body.template)?,
        template_alias: body.template_alias,
        build: parse(WHAT, &body.build)?,
        resources: body.resources.into(),
        env: body.env,
        volumes: mounts_from_stored(WHAT, body.volumes)?,
        driver: body.driver,
        size: SnapshotSize {
            memory_bytes: body.size.memory,
            written_bytes: body.size.written,
            disk_bytes: body.size.disk,
        },
        created_at: time_column(row, WHAT, "created_at")?,
    })
}

fn purpose_to_stored(purpose: &SnapshotPurpose) -> StoredPurpose {
    match purpose {
        SnapshotPurpose::Sleep { sandbox } => StoredPurpose::Sleep {
            sandbox: sandbox.to_string(),
        },
        SnapshotPurpose::Checkpoint => StoredPurpose::Checkpoint,
        SnapshotPurpose::Warm { build } => StoredPurpose::Warm {
            build: build.to_string(),
        },
        SnapshotPurpose::Fork => StoredPurpose::Fork,
    }
}

fn purpose_from_stored(stored: StoredPurpose) -> Result<SnapshotPurpose> {
    Ok(match stored {
        StoredPurpose::Sleep { sandbox } => SnapshotPurpose::Sleep {
            sandbox: parse(WHAT, &sandbox)?,
        },
        StoredPurpose::Checkpoint => SnapshotPurpose::Checkpoint,
        StoredPurpose::Warm { build } => SnapshotPurpose::Warm {
            build: parse(WHAT, &build)?,
        },
        StoredPurpose::Fork => SnapshotPurpose::Fork,
    })
}

fn state_to_stored(state: &SnapshotState) -> StoredState {
    match state {
        SnapshotState::Writing => StoredState::Writing,
        SnapshotState::Ready => StoredState::Ready,
        SnapshotState::Damaged { detail } => StoredState::Damaged {
            detail: detail.clone(),
        },
        SnapshotState::Deleting => StoredState::Deleting,
    }
}

fn state_from_stored(stored: StoredState) -> SnapshotState {
    match stored {
        StoredState::Writing => SnapshotState::Writing,
        StoredState::Ready => SnapshotState::Ready,
        StoredState::Damaged { detail } => SnapshotState::Damaged { detail },
        StoredState::Deleting => SnapshotState::Deleting,
    }
}
