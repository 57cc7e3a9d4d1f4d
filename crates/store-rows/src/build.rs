//! The stored form of a build.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::template::{Build, BuildState, BuiltImage, Runtime, SecurityOptions, Template};
use woodfrog_types::{BuildId, Timestamp, WorkspaceId};

use crate::{
    Columns, StoredResources, StringMap, corrupt, get, id_column, json_column, parse, time_column,
    to_json,
};

const TEMPLATE: &str = "template";
const BUILD: &str = "build";

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum TemplateBody {
    #[serde(rename = "1")]
    V1(TemplateV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct TemplateV1 {
    resources: StoredResources,
    tags: StringMap,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum BuildBody {
    #[serde(rename = "1")]
    V1(BuildV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct BuildV1 {
    tags: Vec<String>,
    finished_at: Option<i64>,
    /// Only with state `ready`; its layers are a column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<StoredImage>,
    /// Only with state `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<StoredFailure>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredImage {
    env: StringMap,
    user: String,
    workdir: Option<String>,
    start_cmd: Option<String>,
    ready_cmd: Option<String>,
    security: StoredSecurity,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSecurity {
    nested_namespaces: bool,
    io_uring: bool,
    userfaultfd: bool,
    landlock: bool,
    /// Absent in what was stored before they were refused: off, as in all new builds.
    #[serde(default)]
    message_queues: bool,
    /// Absent in what was stored before there was a choice. One that is not known here makes the
    /// record unreadable: a sandbox must not get less than was asked for.
    #[serde(default)]
    runtime: StoredRuntime,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredRuntime {
    #[default]
    Native,
    Gvisor,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredFailure {
    message: String,
    step: Option<String>,
}

/// The text of a template's `body` column.
pub fn template_to_json(template: &Template) -> Result<String> {
    let tags = template
        .tags
        .iter()
        .map(|(tag, build)| (tag.clone(), build.to_string()))
        .collect();
    let body = TemplateBody::V1(TemplateV1 {
        resources: template.resources.into(),
        tags,
    });
    to_json(TEMPLATE, &body)
}

/// A template from all columns of its row.
pub fn template_from_row(row: &dyn Columns) -> Result<Template> {
    let TemplateBody::V1(body) = json_column(row, TEMPLATE, "body")?;
    let workspace: Option<String> = get(row, TEMPLATE, "workspace")?;
    let tags = body
        .tags
        .into_iter()
        .map(|(tag, build)| Ok((tag, parse::<BuildId>(TEMPLATE, &build)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    Ok(Template {
        id: id_column(row, TEMPLATE, "id")?,
        workspace: workspace
            .map(|id| parse::<WorkspaceId>(TEMPLATE, &id))
            .transpose()?,
        name: get(row, TEMPLATE, "name")?,
        resources: body.resources.into(),
        tags,
        created_at: time_column(row, TEMPLATE, "created_at")?,
        updated_at: time_column(row, TEMPLATE, "updated_at")?,
    })
}

/// The text of a build's `layers` column.
pub fn build_layers(build: &Build) -> Result<String> {
    match &build.state {
        BuildState::Ready(image) => to_json(BUILD, &image.layers),
        BuildState::Waiting | BuildState::Building | BuildState::Failed { .. } => {
            Ok("[]".to_owned())
        }
    }
}

/// The layers of any build's row.
pub fn image_layers(row: &dyn Columns) -> Result<Vec<String>> {
    json_column(row, BUILD, "layers")
}

/// The text of a build's `body` column.
pub fn build_to_json(build: &Build) -> Result<String> {
    let (image, failure) = match &build.state {
        BuildState::Waiting | BuildState::Building => (None, None),
        BuildState::Ready(image) => (Some(image_to_stored(image)), None),
        BuildState::Failed { message, step } => {
            let failure = StoredFailure {
                message: message.clone(),
                step: step.clone(),
            };
            (None, Some(failure))
        }
    };
    let body = BuildBody::V1(BuildV1 {
        tags: build.tags.clone(),
        finished_at: build.finished_at.map(Timestamp::as_millis),
        image,
        failure,
    });
    to_json(BUILD, &body)
}

/// A build from all columns of its row.
pub fn build_from_row(row: &dyn Columns) -> Result<Build> {
    let BuildBody::V1(body) = json_column(row, BUILD, "body")?;
    let state: String = get(row, BUILD, "state")?;
    let state = match (state.as_str(), body.image, body.failure) {
        ("waiting", None, None) => BuildState::Waiting,
        ("building", None, None) => BuildState::Building,
        ("ready", Some(image), None) => {
            BuildState::Ready(image_from_stored(image, image_layers(row)?))
        }
        ("error", None, Some(StoredFailure { message, step })) => {
            BuildState::Failed { message, step }
        }
        (state, ..) => {
            let detail = format!("state `{state}` does not fit its body");
            return Err(corrupt(BUILD, detail));
        }
    };
    Ok(Build {
        id: id_column(row, BUILD, "id")?,
        template: id_column(row, BUILD, "template")?,
        state,
        tags: body.tags,
        created_at: time_column(row, BUILD, "created_at")?,
        finished_at: body.finished_at.map(Timestamp::from_millis),
    })
}

fn image_to_stored(image: &BuiltImage) -> StoredImage {
    let SecurityOptions {
        nested_namespaces,
        io_uring,
        userfaultfd,
        landlock,
        message_queues,
        runtime,
    } = image.security;
    StoredImage {
        env: image.env.clone(),
        user: image.user.clone(),
        workdir: image.workdir.clone(),
        start_cmd: image.start_cmd.clone(),
        ready_cmd: image.ready_cmd.clone(),
        security: StoredSecurity {
            nested_namespaces,
            io_uring,
            userfaultfd,
            landlock,
            message_queues,
            runtime: match runtime {
                Runtime::Native => StoredRuntime::Native,
                Runtime::Gvisor => StoredRuntime::Gvisor,
            },
        },
    }
}

fn image_from_stored(stored: StoredImage, layers: Vec<String>) -> BuiltImage {
    BuiltImage {
        layers,
        env: stored.env,
        user: stored.user,
        workdir: stored.workdir,
        start_cmd: stored.start_cmd,
        ready_cmd: stored.ready_cmd,
        security: SecurityOptions {
            nested_namespaces: stored.security.nested_namespaces,
            io_uring: stored.security.io_uring,
            userfaultfd: stored.security.userfaultfd,
            landlock: stored.security.landlock,
            message_queues: stored.security.message_queues,
            runtime: match stored.security.runtime {
                StoredRuntime::Native => Runtime::Native,
                StoredRuntime::Gvisor => Runtime::Gvisor,
            },
        },
    }
}
