//! The stored form of a sandbox.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::Timestamp;
use woodfrog_types::network::{EgressProxy, Hidden, NetworkSpec, ProxyTls};
use woodfrog_types::sandbox::{EndReason, OnTimeout, Sandbox};
use woodfrog_types::secret::Sealed;
use woodfrog_types::sleep::SleepPolicy;

use crate::mount::{StoredMount, mounts_from_stored, mounts_to_stored};
use crate::sleep::{StoredEnd, StoredPolicy, StoredState, state_from_stored, state_to_stored};
use crate::{
    Columns, StoredResources, StringMap, corrupt, count_column, duration_to_millis, get, id_column,
    json_column, parse, time_column, time_column_opt, to_json,
};

const WHAT: &str = "sandbox";

/// What is not in a column of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum Body {
    #[serde(rename = "1")]
    V1(BodyV1),
    #[serde(rename = "2")]
    V2(BodyV2),
}

/// Before there was sleep.
#[derive(Debug, Serialize, Deserialize)]
struct BodyV1 {
    /// The running driver's note; only with state `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// Only with state `deleting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_reason: Option<String>,
    #[serde(flatten)]
    common: Common,
}

#[derive(Debug, Serialize, Deserialize)]
struct BodyV2 {
    state: StoredState,
    sleep: StoredPolicy,
    sleep_due: Option<i64>,
    last_snapshot: Option<String>,
    #[serde(flatten)]
    common: Common,
}

/// What both versions have.
#[derive(Debug, Serialize, Deserialize)]
struct Common {
    template_alias: Option<String>,
    build: String,
    created_at: i64,
    timeout_ms: Option<u64>,
    on_timeout: StoredOnTimeout,
    auto_resume: bool,
    resources: StoredResources,
    env: StringMap,
    network: StoredNetwork,
    secure: bool,
    /// Missing in records of servers that mounted none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<StoredMount>,
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
    /// Host → at most one set of headers, with sealed values.
    header_rules: BTreeMap<String, Vec<StringMap>>,
    #[serde(default)]
    egress_proxy: Option<StoredProxy>,
    #[serde(default)]
    https_ports: Vec<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredProxy {
    address: String,
    username: Option<String>,
    /// Sealed.
    password: Option<String>,
    tls: Option<StoredProxyTls>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredProxyTls {
    server_name: Option<String>,
    ca_cert: Option<String>,
}

/// The text of the `body` column.
pub fn sandbox_to_json(sandbox: &Sandbox) -> Result<String> {
    let body = Body::V2(BodyV2 {
        state: state_to_stored(&sandbox.state),
        sleep: sandbox.sleep.into(),
        sleep_due: sandbox.sleep_due.map(Timestamp::as_millis),
        last_snapshot: sandbox.last_snapshot.as_ref().map(ToString::to_string),
        common: Common {
            template_alias: sandbox.template_alias.clone(),
            build: sandbox.build.to_string(),
            created_at: sandbox.created_at.as_millis(),
            timeout_ms: sandbox.timeout.map(duration_to_millis),
            on_timeout: on_timeout_to_stored(sandbox.on_timeout),
            auto_resume: sandbox.auto_resume,
            resources: sandbox.resources.into(),
            env: sandbox.env.clone(),
            network: network_to_stored(&sandbox.network)?,
            secure: sandbox.secure,
            volumes: mounts_to_stored(&sandbox.volumes),
        },
    });
    to_json(WHAT, &body)
}

/// A sandbox from all columns of its row.
pub fn sandbox_from_row(row: &dyn Columns) -> Result<Sandbox> {
    let name: String = get(row, WHAT, "state")?;
    let body = match json_column(row, WHAT, "body")? {
        Body::V1(body) => upgrade(body, &name)?,
        Body::V2(body) => body,
    };
    let state = state_from_stored(body.state)?;
    if state.as_str() != name {
        return Err(misfit(&name));
    }
    let common = body.common;
    Ok(Sandbox {
        id: id_column(row, WHAT, "id")?,
        workspace: id_column(row, WHAT, "workspace")?,
        template: id_column(row, WHAT, "template")?,
        template_alias: common.template_alias,
        build: parse(WHAT, &common.build)?,
        state,
        generation: count_column(row, WHAT, "generation")?,
        created_at: Timestamp::from_millis(common.created_at),
        started_at: time_column(row, WHAT, "started_at")?,
        deadline: time_column_opt(row, WHAT, "deadline")?,
        timeout: common.timeout_ms.map(Duration::from_millis),
        on_timeout: on_timeout_from_stored(common.on_timeout),
        auto_resume: common.auto_resume,
        sleep: body.sleep.into(),
        sleep_due: body.sleep_due.map(Timestamp::from_millis),
        last_snapshot: body.last_snapshot.map(|id| parse(WHAT, &id)).transpose()?,
        resources: common.resources.into(),
        env: common.env,
        metadata: json_column(row, WHAT, "metadata")?,
        network: network_from_stored(common.network)?,
        secure: common.secure,
        volumes: mounts_from_stored(WHAT, common.volumes)?,
    })
}

/// A sandbox of the time before sleep never sleeps by itself: whoever made it counts on finding
/// it running until its deadline, and a newer server must not change that.
fn upgrade(body: BodyV1, name: &str) -> Result<BodyV2> {
    let state = match (name, body.instance, body.end_reason.as_deref()) {
        ("creating", None, None) => StoredState::Creating,
        ("running", Some(instance), None) => StoredState::Running { instance },
        ("deleting", None, Some(reason)) => StoredState::Deleting {
            reason: end_reason(reason)?,
        },
        _ => return Err(misfit(name)),
    };
    Ok(BodyV2 {
        state,
        sleep: SleepPolicy::NEVER.into(),
        sleep_due: None,
        last_snapshot: None,
        common: body.common,
    })
}

fn end_reason(name: &str) -> Result<StoredEnd> {
    [
        EndReason::Requested,
        EndReason::Expired,
        EndReason::Exited,
        EndReason::Lost,
    ]
    .into_iter()
    .find(|known| known.as_str() == name)
    .map(StoredEnd::from)
    .ok_or_else(|| corrupt(WHAT, format!("unknown end reason `{name}`")))
}

fn misfit(name: &str) -> woodfrog_store::StoreError {
    corrupt(WHAT, format!("state `{name}` does not fit its body"))
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

fn network_to_stored(network: &NetworkSpec) -> Result<StoredNetwork> {
    let NetworkSpec {
        internet,
        allow_out,
        deny_out,
        dns_servers,
        allow_public_traffic,
        mask_request_host,
        header_rules,
        egress_proxy,
        https_ports,
    } = network.clone();
    let rules = header_rules.into_iter().map(|(host, headers)| {
        let sealed = headers
            .into_iter()
            .map(|(name, value)| Ok((name, hidden_to_stored(value)?)));
        Ok((host, vec![sealed.collect::<Result<StringMap>>()?]))
    });
    let proxy = egress_proxy.map(|proxy| {
        Ok(StoredProxy {
            address: proxy.address,
            username: proxy.username,
            password: proxy.password.map(hidden_to_stored).transpose()?,
            tls: proxy.tls.map(|tls| StoredProxyTls {
                server_name: tls.server_name,
                ca_cert: tls.ca_cert,
            }),
        })
    });
    Ok(StoredNetwork {
        internet,
        allow_out,
        deny_out,
        dns_servers,
        allow_public_traffic,
        mask_request_host,
        header_rules: rules.collect::<Result<_>>()?,
        egress_proxy: proxy.transpose()?,
        https_ports,
    })
}

fn network_from_stored(stored: StoredNetwork) -> Result<NetworkSpec> {
    let rules = stored.header_rules.into_iter().map(|(host, sets)| {
        let sealed = sets.into_iter().flatten();
        let headers = sealed.map(|(name, value)| Ok((name, hidden_from_stored(&value)?)));
        Ok((host, headers.collect::<Result<BTreeMap<_, _>>>()?))
    });
    let proxy = stored.egress_proxy.map(|proxy| {
        Ok(EgressProxy {
            address: proxy.address,
            username: proxy.username,
            password: proxy
                .password
                .as_deref()
                .map(hidden_from_stored)
                .transpose()?,
            tls: proxy.tls.map(|tls| ProxyTls {
                server_name: tls.server_name,
                ca_cert: tls.ca_cert,
            }),
        })
    });
    Ok(NetworkSpec {
        internet: stored.internet,
        allow_out: stored.allow_out,
        deny_out: stored.deny_out,
        dns_servers: stored.dns_servers,
        allow_public_traffic: stored.allow_public_traffic,
        mask_request_host: stored.mask_request_host,
        header_rules: rules.collect::<Result<_>>()?,
        egress_proxy: proxy.transpose()?,
        https_ports: stored.https_ports,
    })
}

/// What is not sealed does not get into a database.
fn hidden_to_stored(value: Hidden) -> Result<String> {
    match value {
        Hidden::Sealed(Sealed(bytes)) => Ok(hex::encode(bytes)),
        Hidden::Plain(_) => Err(corrupt(WHAT, "a value to be hidden was not sealed")),
    }
}

fn hidden_from_stored(text: &str) -> Result<Hidden> {
    let bytes = hex::decode(text).map_err(|_| corrupt(WHAT, "a sealed value is not one"))?;
    Ok(Hidden::Sealed(Sealed(bytes)))
}
