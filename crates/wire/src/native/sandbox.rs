//! Sandboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::metric::MetricSample;
use woodfrog_types::sandbox::{Resources as DomainResources, Sandbox as Record};
use woodfrog_types::secret::{VolumeMount as DomainMount, WantedMount};
use woodfrog_types::{Fault, Timestamp};

use super::network::Network;
use super::sleep::{NextRung, OnTimeout, SetSleepPolicy, Sleep, SleepPolicy};
use crate::e2b::sandbox::timeout_or_now;

/// A sandbox to be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewSandbox {
    /// A template's id or name, `name:tag` allowed, or a snapshot's id or name; `base` if absent.
    pub template: Option<String>,
    /// Seconds until its time is over; it lives until it is deleted if absent.
    pub timeout_seconds: Option<i64>,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Any access wakes it after its timeout put it to sleep.
    pub auto_resume: bool,
    /// When it goes to sleep by itself.
    pub sleep: SetSleepPolicy,
    pub metadata: BTreeMap<String, String>,
    /// Environment of every process in it.
    pub env: BTreeMap<String, String>,
    pub network: Network,
    /// `false`: its guest does not ask for the access token. `true` if absent.
    pub secure: Option<bool>,
    /// Volumes of the workspace that it sees, at most 8. Of one made from a snapshot: those of the
    /// snapshot, if absent.
    pub volumes: Vec<VolumeMount>,
    pub resources: Option<NewResources>,
}

/// A volume in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeMount {
    /// The volume's name.
    pub name: String,
    /// Where it is inside: absolute. What is missing of it is made.
    pub path: String,
}

impl From<VolumeMount> for WantedMount {
    fn from(mount: VolumeMount) -> Self {
        Self {
            name: mount.name,
            path: mount.path,
        }
    }
}

impl From<DomainMount> for VolumeMount {
    fn from(mount: DomainMount) -> Self {
        Self {
            name: mount.name,
            path: mount.path,
        }
    }
}

/// Resources; what is absent is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewResources {
    pub cpu_count: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub pids: Option<u32>,
}

impl NewResources {
    /// Over `base`.
    pub fn over(self, base: DomainResources) -> DomainResources {
        DomainResources {
            cpu_count: self.cpu_count.unwrap_or(base.cpu_count),
            memory_bytes: self.memory_bytes.unwrap_or(base.memory_bytes),
            disk_bytes: self.disk_bytes.unwrap_or(base.disk_bytes),
            pids: self.pids.unwrap_or(base.pids),
        }
    }
}

impl NewSandbox {
    /// How long it lives; `None` until it is deleted.
    pub fn timeout(&self) -> Result<Option<Duration>, Fault> {
        self.timeout_seconds.map(positive).transpose()
    }
}

fn positive(seconds: i64) -> Result<Duration, Fault> {
    if seconds <= 0 {
        let message = "timeout_seconds must be greater than 0";
        return Err(Fault::invalid("timeout_seconds", message));
    }
    timeout_or_now(seconds).map_err(|fault| Fault::invalid("timeout_seconds", fault.message))
}

/// How the deadline moves. Times count from now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineMode {
    /// To exactly this.
    #[default]
    Set,
    /// Only ever later.
    Extend,
}

/// A new deadline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// Seconds from now; 0 ends the sandbox, `null` takes the deadline away.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    pub timeout_seconds: Option<i64>,
    #[serde(default)]
    pub mode: DeadlineMode,
}

impl Deadline {
    /// The time from now; `None` for no deadline.
    pub fn timeout(&self) -> Result<Option<Duration>, Fault> {
        let check = |seconds| {
            timeout_or_now(seconds)
                .map_err(|fault| Fault::invalid("timeout_seconds", fault.message))
        };
        self.timeout_seconds.map(check).transpose()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    pub cpu_count: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub pids: u32,
}

impl From<DomainResources> for Resources {
    fn from(resources: DomainResources) -> Self {
        Self {
            cpu_count: resources.cpu_count,
            memory_bytes: resources.memory_bytes,
            disk_bytes: resources.disk_bytes,
            pids: resources.pids,
        }
    }
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sandbox {
    pub id: String,
    pub template_id: String,
    /// The template's name when the sandbox was made.
    pub template: Option<String>,
    pub build_id: String,
    /// `creating`, `running`, `paused`, `hibernating`, `hibernated`, `waking`, `archiving`,
    /// `archived` or `deleting`.
    pub state: String,
    /// How it sleeps; null while it is awake.
    pub sleep: Option<Sleep>,
    /// Of one that sleeps: what becomes of it if nothing wakes it; null is nothing.
    pub next: Option<NextRung>,
    /// When it goes to sleep by itself.
    pub sleep_policy: SleepPolicy,
    pub created_at: i64,
    pub started_at: i64,
    /// When its time is over; `null` is never.
    pub deadline: Option<i64>,
    pub on_timeout: OnTimeout,
    /// Any access wakes it after its timeout, or E2B's pause, put it to sleep.
    pub auto_resume: bool,
    pub resources: Resources,
    pub metadata: BTreeMap<String, String>,
    pub network: Network,
    pub secure: bool,
    pub volumes: Vec<VolumeMount>,
    /// Opens the guest's own port.
    pub access_token: String,
    /// Opens ports inside where public traffic is off.
    pub traffic_token: Option<String>,
}

impl Sandbox {
    /// The reply for a record and its tokens.
    pub fn new(record: Record, access_token: String, traffic_token: Option<String>) -> Self {
        let (sleep, next) = (Sleep::of(&record), NextRung::of(&record));
        Self {
            id: record.id.to_string(),
            template_id: record.template.to_string(),
            template: record.template_alias,
            build_id: record.build.to_string(),
            state: record.state.as_str().to_owned(),
            sleep,
            next,
            sleep_policy: record.sleep.into(),
            created_at: record.created_at.as_millis(),
            started_at: record.started_at.as_millis(),
            deadline: record.deadline.map(Timestamp::as_millis),
            on_timeout: record.on_timeout.into(),
            auto_resume: record.auto_resume,
            resources: record.resources.into(),
            metadata: record.metadata,
            network: record.network.into(),
            secure: record.secure,
            volumes: record.volumes.into_iter().map(Into::into).collect(),
            access_token,
            traffic_token,
        }
    }
}

/// Which sandboxes a list wants, besides paging.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SandboxQuery {
    /// A template's id or name.
    pub template: Option<String>,
    /// `key=value`, separated by commas: every pair must be there.
    pub metadata: Option<String>,
    /// Milliseconds since the epoch.
    pub started_after: Option<i64>,
    /// States, separated by commas: any of them.
    pub state: Option<String>,
    /// `asc` or `desc` by start time; newest first if absent.
    pub order: Option<String>,
    /// Items of the page, 1 to 100; 100 if absent.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// One sample of a sandbox's resource use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metric {
    pub at: i64,
    pub cpu_count: u32,
    /// Percent of one CPU: 200 is two CPUs busy.
    pub cpu_used_pct: f64,
    pub memory_used_bytes: u64,
    pub memory_total_bytes: u64,
    pub memory_cache_bytes: u64,
    pub disk_used_bytes: u64,
    pub disk_total_bytes: u64,
}

impl From<MetricSample> for Metric {
    fn from(sample: MetricSample) -> Self {
        Self {
            at: sample.at.as_millis(),
            cpu_count: sample.cpu_count,
            cpu_used_pct: sample.cpu_used_pct,
            memory_used_bytes: sample.mem_used,
            memory_total_bytes: sample.mem_total,
            memory_cache_bytes: sample.mem_cache,
            disk_used_bytes: sample.disk_used,
            disk_total_bytes: sample.disk_total,
        }
    }
}

/// A sandbox's resource use, oldest sample first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metrics {
    pub items: Vec<Metric>,
}

/// The part of time that is wanted, milliseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MetricQuery {
    pub from: Option<i64>,
    pub to: Option<i64>,
}

/// One entry of a sandbox's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Dense, from 1. Pass the last one as `after` to go on.
    pub seq: u64,
    pub at: i64,
    pub level: String,
    pub kind: String,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

impl From<SandboxEvent> for Event {
    fn from(event: SandboxEvent) -> Self {
        Self {
            seq: event.seq,
            at: event.at.as_millis(),
            level: event.level.as_str().to_owned(),
            kind: event.kind,
            message: event.message,
            fields: event.fields,
        }
    }
}

/// A part of a sandbox's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    pub items: Vec<Event>,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Entries after this sequence number (or offset); 0 if absent.
    pub after: Option<u64>,
    /// Entries at most, 1 to 1000; 100 if absent.
    pub limit: Option<usize>,
}

impl EventQuery {
    /// Entries of one reply.
    pub const LIMIT_MAX: usize = 1000;

    /// The checked limit.
    pub fn limit(&self) -> Result<usize, Fault> {
        let limit = self.limit.unwrap_or(100);
        if !(1..=Self::LIMIT_MAX).contains(&limit) {
            let message = format!("limit must be between 1 and {}", Self::LIMIT_MAX);
            return Err(Fault::invalid("limit", message));
        }
        Ok(limit)
    }
}
