//! Sandboxes: what is asked and what is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use woodfrog_types::limits::SANDBOX_TIMEOUT_MAX;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{OnTimeout, Sandbox as Record};
use woodfrog_types::secret::WantedMount;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Fault, Timestamp};

use super::network::{ALL_TRAFFIC, Network, NetworkDetail};
use super::sleep::{self, State};
use super::{CLIENT_ID, ENVD_VERSION};

/// The two generations of the create and connect routes differ in defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    V1,
    V2,
}

impl Generation {
    /// The timeout of a create request that names none.
    pub const fn default_timeout(self) -> Duration {
        match self {
            Self::V1 => Duration::from_secs(15),
            Self::V2 => Duration::from_secs(300),
        }
    }
}

/// Body of the create routes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSandbox {
    #[serde(rename = "templateID")]
    pub template_id: String,
    pub timeout: Option<i64>,
    pub auto_pause: Option<bool>,
    pub auto_pause_memory: Option<bool>,
    pub auto_resume: Option<AutoResume>,
    #[serde(rename = "allow_internet_access")]
    pub allow_internet_access: Option<bool>,
    /// First generation only; the second is always secure.
    pub secure: Option<bool>,
    pub network: Option<Network>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub env_vars: Option<BTreeMap<String, String>>,
    pub iam: Option<Value>,
    pub volume_mounts: Option<Vec<VolumeMount>>,
    // `mcp` is not read: the client itself starts the gateway inside, and removes the sandbox
    // when the template has none.
}

/// A volume in a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume's.
    pub name: String,
    /// Absolute.
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

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AutoResume {
    pub enabled: Option<bool>,
}

/// Body of the connect routes. The first generation requires `timeout`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Connect {
    pub timeout: Option<i64>,
    /// `false`: a paused sandbox boots anew with its files.
    pub memory: Option<bool>,
}

/// Body of the timeout route.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SetTimeout {
    pub timeout: i64,
}

/// Body of the refresh route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Refresh {
    pub duration: Option<i64>,
}

/// The longest life that a refresh asks for, in seconds.
const REFRESH_MAX: i64 = 3600;
/// The shortest.
const REFRESH_MIN: i64 = 15;

/// A timeout in seconds that must be positive and within the server's limit.
pub fn timeout(seconds: i64) -> Result<Duration, Fault> {
    if seconds <= 0 {
        return Err(Fault::invalid("timeout", "Timeout must be greater than 0"));
    }
    timeout_or_now(seconds)
}

/// A timeout in seconds where zero means now.
pub fn timeout_or_now(seconds: i64) -> Result<Duration, Fault> {
    let Ok(seconds) = u64::try_from(seconds) else {
        return Err(Fault::invalid("timeout", "Timeout cannot be negative"));
    };
    if seconds > SANDBOX_TIMEOUT_MAX.as_secs() {
        let hours = SANDBOX_TIMEOUT_MAX.as_secs() / 3600;
        let message = format!("Timeout cannot be greater than {hours} hours");
        return Err(Fault::invalid("timeout", message));
    }
    Ok(Duration::from_secs(seconds))
}

impl Refresh {
    /// How long from now the sandbox must live at least.
    pub fn duration(&self) -> Result<Duration, Fault> {
        let seconds = self.duration.unwrap_or(REFRESH_MIN);
        if !(0..=REFRESH_MAX).contains(&seconds) {
            let message = format!("duration must be between 0 and {REFRESH_MAX} seconds");
            return Err(Fault::invalid("duration", message));
        }
        timeout(seconds.max(REFRESH_MIN))
    }
}

impl Connect {
    /// What of a paused sandbox is brought back.
    pub fn content(&self) -> SnapshotContent {
        sleep::content(self.memory)
    }

    /// How long from now the sandbox must live at least.
    pub fn timeout(&self, generation: Generation) -> Result<Duration, Fault> {
        match (self.timeout, generation) {
            (Some(seconds), _) => timeout(seconds),
            (None, Generation::V2) => Ok(generation.default_timeout()),
            (None, Generation::V1) => Err(Fault::invalid("timeout", "timeout is required")),
        }
    }
}

impl NewSandbox {
    /// How long it lives.
    pub fn timeout(&self, generation: Generation) -> Result<Duration, Fault> {
        self.timeout
            .map_or(Ok(generation.default_timeout()), timeout)
    }

    /// Whether its guest asks for the access token.
    pub fn is_secure(&self, generation: Generation) -> bool {
        match generation {
            Generation::V1 => self.secure.unwrap_or(false),
            Generation::V2 => true,
        }
    }

    /// Refuses combinations that E2B refuses, and features that this server does not have.
    pub fn check(&self, generation: Generation) -> Result<(), Fault> {
        let auto_pause = self.auto_pause.unwrap_or(false);
        let auto_resume = self.auto_resume.as_ref().and_then(|resume| resume.enabled);
        if self.auto_pause_memory == Some(false) {
            if !auto_pause {
                return invalid("autoPauseMemory", "autoPauseMemory requires autoPause");
            }
            if auto_resume == Some(true) {
                let why = "a sandbox that is paused without its memory cannot resume automatically";
                return invalid("autoResume", why);
            }
        }
        if self.iam.as_ref().is_some_and(asks_for_something) {
            return invalid("iam", "iam tokens are not supported by this server");
        }
        let private = self.network.as_ref().and_then(|n| n.allow_public_traffic) == Some(false);
        if private && !self.is_secure(generation) {
            let why = "allowPublicTraffic can be false only for secure sandboxes";
            return invalid("network.allowPublicTraffic", why);
        }
        Ok(())
    }

    /// What happens at the timeout.
    pub fn on_timeout(&self) -> OnTimeout {
        match self.auto_pause {
            Some(true) => OnTimeout::Pause {
                memory: self.auto_pause_memory.unwrap_or(true),
            },
            Some(false) | None => OnTimeout::Kill,
        }
    }

    /// Whether any access wakes it when it is paused.
    pub fn auto_resume(&self) -> bool {
        let resume = self.auto_resume.as_ref();
        resume.and_then(|resume| resume.enabled).unwrap_or(false)
    }

    /// Takes the volumes out of the request.
    pub fn take_volumes(&mut self) -> Vec<WantedMount> {
        let mounts = self.volume_mounts.take().unwrap_or_default();
        mounts.into_iter().map(Into::into).collect()
    }

    /// Takes the network out of the request.
    pub fn take_network(&mut self) -> Result<NetworkSpec, Fault> {
        let network = self.network.take().unwrap_or_default();
        network.into_spec(self.allow_internet_access)
    }
}

fn invalid(field: &str, message: &str) -> Result<(), Fault> {
    Err(Fault::invalid(field, message))
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => map.values().any(asks_for_something),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// What goes beside a record in replies.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub access: String,
    pub traffic: Option<String>,
    /// The server's wildcard domain.
    pub domain: Option<String>,
}

/// Reply of create and connect.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    #[serde(rename = "clientID")]
    pub client_id: &'static str,
    pub envd_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    pub traffic_access_token: Option<String>,
    pub domain: Option<String>,
}

impl Sandbox {
    /// The reply for a record.
    pub fn new(record: &Record, tokens: Tokens) -> Self {
        Self {
            template_id: record.template.to_string(),
            sandbox_id: record.id.to_string(),
            client_id: CLIENT_ID,
            envd_version: ENVD_VERSION,
            alias: record.template_alias.clone(),
            envd_access_token: record.secure.then_some(tokens.access),
            traffic_access_token: tokens.traffic,
            domain: tokens.domain,
        }
    }
}

/// One sandbox of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedSandbox {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    #[serde(rename = "clientID")]
    pub client_id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    pub started_at: String,
    pub end_at: String,
    pub cpu_count: u32,
    #[serde(rename = "memoryMB")]
    pub memory_mb: u64,
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u64,
    pub metadata: BTreeMap<String, String>,
    pub state: &'static str,
    pub envd_version: &'static str,
    pub volume_mounts: Vec<VolumeMount>,
}

impl From<&Record> for ListedSandbox {
    fn from(record: &Record) -> Self {
        Self {
            template_id: record.template.to_string(),
            sandbox_id: record.id.to_string(),
            client_id: CLIENT_ID,
            alias: record.template_alias.clone(),
            started_at: record.started_at.to_rfc3339(),
            end_at: end_at(record).to_rfc3339(),
            cpu_count: record.resources.cpu_count,
            memory_mb: record.resources.memory_bytes >> 20,
            disk_size_mb: record.resources.disk_bytes >> 20,
            metadata: record.metadata.clone(),
            state: State::of(record).as_str(),
            envd_version: ENVD_VERSION,
            volume_mounts: (record.volumes.iter())
                .map(|mount| VolumeMount {
                    name: mount.name.clone(),
                    path: mount.path.clone(),
                })
                .collect(),
        }
    }
}

/// A paused sandbox's time was over when it was paused.
fn end_at(record: &Record) -> Timestamp {
    match State::of(record) {
        State::Running => record.deadline.unwrap_or(NEVER),
        State::Paused { since, .. } => since,
    }
}

/// `endAt` is required, so a sandbox without a deadline ends here: 9999-12-31T00:00:00Z.
const NEVER: Timestamp = Timestamp::from_millis(253_402_214_400_000);

/// Reply of the details route.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxDetail {
    #[serde(flatten)]
    pub listed: ListedSandbox,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    pub allow_internet_access: bool,
    pub domain: Option<String>,
    pub network: NetworkDetail,
    pub lifecycle: Lifecycle,
    /// `full` or `filesystem`; of paused ones only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_mode: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    pub auto_resume: bool,
    pub on_timeout: &'static str,
}

impl SandboxDetail {
    /// The reply for a record.
    pub fn new(record: &Record, tokens: Tokens) -> Self {
        let network = &record.network;
        let denies_all = network.deny_out.iter().any(|entry| entry == ALL_TRAFFIC);
        Self {
            listed: record.into(),
            envd_access_token: record.secure.then_some(tokens.access),
            allow_internet_access: network.internet && !denies_all,
            domain: tokens.domain,
            network: network.into(),
            lifecycle: Lifecycle {
                auto_resume: record.auto_resume,
                on_timeout: match record.on_timeout {
                    OnTimeout::Kill => "kill",
                    OnTimeout::Pause { .. } => "pause",
                },
            },
            pause_mode: match State::of(record) {
                State::Running => None,
                State::Paused { content, .. } => Some(match content {
                    SnapshotContent::Memory => "full",
                    SnapshotContent::Filesystem => "filesystem",
                }),
            },
        }
    }
}
