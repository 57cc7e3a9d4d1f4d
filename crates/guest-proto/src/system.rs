//! The guest itself: health, configuration, metrics, ports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the guest's build.
    pub version: String,
    /// Protocol version.
    pub protocol: u8,
    /// Random per start of the guest; survives checkpoint and restore.
    pub boot_id: String,
    pub uptime_ms: u64,
    pub pid: u32,
}

/// Defaults for later operations. Set fields replace, unset fields leave as they were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configure {
    pub default_user: Option<String>,
    pub default_workdir: Option<String>,
    /// Replaces the environment that every process gets.
    pub env: Option<BTreeMap<String, String>>,
    pub hostname: Option<String>,
    /// Absolute path → content: small files that everybody inside may read. One that cannot be
    /// written (the disk is full, say) is left out; that is no reason to refuse the rest.
    pub files: BTreeMap<String, String>,
    /// Whom programs inside trust besides those that the image's certificates name. As with
    /// files, what cannot be written is left out.
    pub trust: Option<Trust>,
}

/// A certificate authority that programs inside trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Its certificate (PEM); `None`: it is not trusted any more.
    pub certificate: Option<String>,
    /// Its name in a directory where OpenSSL looks certificates up.
    pub link: String,
}

impl Trust {
    /// The file that has this certificate alone.
    pub const FILE: &str = "/usr/local/share/ca-certificates/woodfrog-egress.crt";
    /// The file that has all certificates, which is made if need be.
    pub const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
}

/// What is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    pub default_user: String,
    pub default_workdir: Option<String>,
    pub env: BTreeMap<String, String>,
}

/// Use of resources as seen from inside. Bytes unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Unix time, milliseconds.
    pub ts_ms: u64,
    pub cpu_count: u32,
    pub cpu_used_ns: u64,
    /// Of all CPUs together, 0 to 100, since the previous metrics operation (or start).
    pub cpu_used_pct: f64,
    pub mem_total: u64,
    pub mem_used: u64,
    pub mem_cache: u64,
    pub disk_total: u64,
    pub disk_used: u64,
}

/// One listening TCP socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub port: u16,
    pub address: std::net::IpAddr,
    pub uid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub ports: Vec<Port>,
}

/// An answer without content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}
