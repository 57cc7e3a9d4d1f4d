//! The stored form of a sandbox.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rusqlite::Row;
use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::Timestamp;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{EndReason, InstanceState, OnTimeout, Sandbox, SandboxState};

use super::{
    StoredResources, StringMap, count_column, duration_to_millis, id_column, json_column, parse,
    time_column, time_column_opt, to_json,
};
use crate::error::corrupt;
use crate::reader::get;

const WHAT: &str = "sandbox";

/// What is not in a column of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum Body {
    #[serde(rename = "1")]
    V1(BodyV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct BodyV1 {
    template_alias: Option<String>,
    build: String,
    /// The running driver's note; only with state `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// Only with state `deleting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_reason: Option<String>,
    created_at: i64,
    timeout_ms: Option<u64>,
    on_timeout: StoredOnTimeout,
    auto_resume: bool,
    resources: StoredResources,
    env: StringMap,
    network: StoredNetwork,
    secure: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredOnTimeout {
    Kill,
    Pause,
    PauseWithMemory,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredNetwork {
    internet: bool,
    allow_out: Vec<String>,
    deny_out: Vec<String>,
    dns_servers: Vec<IpAddr>,
    allow_public_traffic: bool,
    mask_request_host: Option<String>,
    header_rules: BTreeMap<String, Vec<StringMap>>,
}

/// The text of the `body` column.
pub(crate) fn sandbox_to_json(sandbox: &Sandbox) -> Result<String> {
    let (instance, end_reason) = match &sandbox.state {
        SandboxState::Creating => (None, None),
        SandboxState::Running { instance } => (Some(instance.0.clone()), None),
        SandboxState::Deleting { reason } => (None, Some(reason.as_str().to_owned())),
    };
    let body = Body::V1(BodyV1 {
        template_alias: sandbox.template_alias.clone(),
        build: sandbox.build.to_string(),
        instance,
        end_reason,
        created_at: sandbox.created_at.as_millis(),
        timeout_ms: sandbox.timeout.map(duration_to_millis),
        on_timeout: on_timeout_to_stored(sandbox.on_timeout),
        auto_resume: sandbox.auto_resume,
        resources: sandbox.resources.into(),
        env: sandbox.env.clone(),
        network: network_to_stored(&sandbox.network),
        secure: sandbox.secure,
    });
    to_json(WHAT, &body)
}

/// A sandbox from all columns of its row.
pub(crate) fn sandbox_from_row(row: &Row<'_>) -> Result<Sandbox> {
    let Body::V1(body) = json_column(row, WHAT, "body")?;
    let state: String = get(row, WHAT, "state")?;
    Ok(Sandbox {
        id: id_column(row, WHAT, "id")?,
        workspace: id_column(row, WHAT, "workspace")?,
        template: id_column(row, WHAT, "template")?,
        template_alias: body.template_alias,
        build: parse(WHAT, &body.build)?,
        state: state_from_stored(&state, body.instance, body.end_reason.as_deref())?,
        generation: count_column(row, WHAT, "generation")?,
        created_at: Timestamp::from_millis(body.created_at),
        started_at: time_column(row, WHAT, "started_at")?,
        deadline: time_column_opt(row, WHAT, "deadline")?,
        timeout: body.timeout_ms.map(Duration::from_millis),
        on_timeout: on_timeout_from_stored(body.on_timeout),
        auto_resume: body.auto_resume,
        resources: body.resources.into(),
        env: body.env,
        metadata: json_column(row, WHAT, "metadata")?,
        network: network_from_stored(body.network),
        secure: body.secure,
    })
}

fn state_from_stored(
    state: &str,
    instance: Option<String>,
    reason: Option<&str>,
) -> Result<SandboxState> {
    match (state, instance, reason) {
        ("creating", None, None) => Ok(SandboxState::Creating),
        ("running", Some(note), None) => Ok(SandboxState::Running {
            instance: InstanceState(note),
        }),
        ("deleting", None, Some(reason)) => [
            EndReason::Requested,
            EndReason::Expired,
            EndReason::Exited,
            EndReason::Lost,
        ]
        .into_iter()
        .find(|known| known.as_str() == reason)
        .map(|reason| SandboxState::Deleting { reason })
        .ok_or_else(|| corrupt(WHAT, format!("unknown end reason `{reason}`"))),
        (state, ..) => Err(corrupt(
            WHAT,
            format!("state `{state}` does not fit its body"),
        )),
    }
}

fn on_timeout_to_stored(on_timeout: OnTimeout) -> StoredOnTimeout {
    match on_timeout {
        OnTimeout::Kill => StoredOnTimeout::Kill,
        OnTimeout::Pause { memory: false } => StoredOnTimeout::Pause,
        OnTimeout::Pause { memory: true } => StoredOnTimeout::PauseWithMemory,
    }
}

fn on_timeout_from_stored(stored: StoredOnTimeout) -> OnTimeout {
    match stored {
        StoredOnTimeout::Kill => OnTimeout::Kill,
        StoredOnTimeout::Pause => OnTimeout::Pause { memory: false },
        StoredOnTimeout::PauseWithMemory => OnTimeout::Pause { memory: true },
    }
}

fn network_to_stored(network: &NetworkSpec) -> StoredNetwork {
    let NetworkSpec {
        internet,
        allow_out,
        deny_out,
        dns_servers,
        allow_public_traffic,
        mask_request_host,
        header_rules,
    } = network.clone();
    StoredNetwork {
        internet,
        allow_out,
        deny_out,
        dns_servers,
        allow_public_traffic,
        mask_request_host,
        header_rules,
    }
}

fn network_from_stored(stored: StoredNetwork) -> NetworkSpec {
    NetworkSpec {
        internet: stored.internet,
        allow_out: stored.allow_out,
        deny_out: stored.deny_out,
        dns_servers: stored.dns_servers,
        allow_public_traffic: stored.allow_public_traffic,
        mask_request_host: stored.mask_request_host,
        header_rules: stored.header_rules,
    }
}
