//! Configuration in layers: flag > environment > file > default.
//!
//! Every setting is one row of [`registry::SETTINGS`]; the layers are merged as text with the
//! origin of each value kept, then parsed once into an immutable [`Config`].

mod layers;
pub mod registry;
mod traces;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use woodfrog_types::health::HealthPolicy;
use woodfrog_types::limits::VOLUME_BYTES_MIN;
use woodfrog_types::retention::Retention;
use woodfrog_types::sleep::{Fallback, SleepPolicy};
use woodfrog_types::workspace::WorkspaceLimits;

pub use traces::{Pace, Traces};

pub use layers::{Layers, Origin, Resolved, parse_bytes, parse_duration};

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not valid TOML")]
    Syntax {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    #[error("unknown setting `{key}` in {path}{hint}")]
    UnknownKey {
        path: PathBuf,
        key: String,
        hint: String,
    },
    #[error("{key} = `{value}` (from {origin}): {why}")]
    Value {
        key: &'static str,
        value: String,
        origin: Origin,
        why: String,
    },
    #[error("{0}")]
    Combination(String),
}

/// The value as it may be shown: a URL with a password is not.
fn shown<'a>(key: &str, value: &'a str) -> &'a str {
    match key {
        "traces.headers" if !value.is_empty() => "(set; not shown, they may hold a key)",
        "store.url" if !value.is_empty() => "(set; not shown, it may hold a password)",
        _ => value,
    }
}

/// Prints every setting with its value and origin.
///
/// # Errors
/// Standard output is closed.
pub fn show(resolved: &Resolved, json: bool) -> std::io::Result<()> {
    if json {
        let settings: serde_json::Map<String, serde_json::Value> = resolved
            .iter()
            .map(|(key, value, origin)| {
                let value = shown(key, value);
                let entry = serde_json::json!({ "value": value, "origin": origin.to_string() });
                (key.to_owned(), entry)
            })
            .collect();
        return crate::output::json(&settings);
    }
    let rows: Vec<Vec<String>> = resolved
        .iter()
        .map(|(key, value, origin)| vec![key.into(), shown(key, value).into(), origin.to_string()])
        .collect();
    crate::output::table(&["SETTING", "VALUE", "FROM"], &rows)
}

/// How TLS is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    Off,
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
    /// A private authority in the data directory.
    SelfSigned,
}

/// Where records are kept if not in the data directory.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    pub url: String,
    pub schema: String,
    /// What this server is called there; `None`: as its host is.
    pub node_name: Option<String>,
    /// How long a sandbox stays a server's that says nothing.
    pub lease: Duration,
}

/// A URL holds a password.
impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Postgres, schema {}", self.schema)
    }
}

/// What `woodfrog serve` runs with: validated, immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// Postgres; `None` is a file in the data directory.
    pub store: Option<Postgres>,
    pub domain: Option<String>,
    pub tls: Tls,
    pub dev: bool,
    pub log: String,
    pub log_json: bool,
    pub sandboxes_max: u32,
    pub sandboxes_per_workspace_max: u32,
    pub sandbox_timeout_max: Duration,
    pub shutdown_timeout: Duration,
    pub network_cidr: Option<String>,
    pub network_allow_private: Vec<String>,
    pub network_egress_proxies: Vec<String>,
    pub network_extra_ca: Option<PathBuf>,
    pub network_name_servers: Vec<SocketAddr>,
    pub webhooks_allow_private: bool,
    /// Where spans of runs are sent; `None`: nowhere.
    pub traces: Option<Traces>,
    pub insecure_registries: Vec<String>,
    pub uid_base: u32,
    pub pool_size: Option<u64>,
    /// Bytes of layers that only the cache of build steps needs.
    pub build_cache: u64,
    /// What a volume holds whose request does not say.
    pub volume_bytes: u64,
    pub volume_bytes_max: u64,
    pub launchers: u32,
    /// Sandboxes of each kind that are made ahead.
    pub spares: u32,
    /// When sandboxes go to sleep whose request does not say.
    pub sleep: SleepPolicy,
    /// Where archived snapshots are kept; `None`: there is no archive.
    pub archive_url: Option<String>,
    /// It was set, and may be other servers', too.
    pub archive_is_set: bool,
    /// A cron line in UTC: when idle sandboxes go down one rung.
    pub sleep_sweep: Option<String>,
    /// How long they must have been idle.
    pub sleep_sweep_idle: Duration,
    /// How running sandboxes are asked whether they answer; `None`: they are not.
    pub health: Option<HealthPolicy>,
    /// Whose pages may call the agent API of sandboxes.
    pub agent_cors_origins: Vec<String>,
    /// How long sessions with agents are kept whose workspace does not say.
    pub retention: Retention,
    pub cgroup_favor_moves: bool,
    pub lazy_pages: LazyPages,
    /// Whether gVisor's sandboxes are saved with their memory.
    pub gvisor_memory_snapshots: bool,
    /// Whose bearer tokens are taken beside API keys.
    pub oidc: Option<Oidc>,
    /// What workspaces may use whose limits nobody set.
    pub limits: WorkspaceLimits,
}

/// An identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    pub issuer: String,
    pub audience: String,
    /// A file or a URL.
    pub jwks: String,
}

/// Whether big sandboxes go on before their memory is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LazyPages {
    Off,
    /// Where the machine allows it already.
    Auto,
    /// The server allows it.
    On,
}

impl Config {
    /// Parses the merged layers.
    ///
    /// # Errors
    /// The first setting that cannot be used, with its origin.
    pub fn from_resolved(resolved: &Resolved) -> Result<Self, ConfigError> {
        let domain = resolved.optional("domain");
        let tls = tls(resolved)?;
        if let Some(name) = &domain {
            check_domain(resolved, name)?;
        }
        if tls == Tls::SelfSigned && domain.is_none() {
            return Err(ConfigError::Combination(
                "tls_self_signed needs domain: the certificate is made for `domain` and `*.domain`"
                    .into(),
            ));
        }
        let archive_url = archive_url(resolved)?;
        let sleep = sleep(resolved)?;
        if sleep.archive_after.is_some() && archive_url.is_none() {
            return Err(ConfigError::Combination(
                "sleep.archive_after needs an archive, and archive.url is `none`".into(),
            ));
        }
        Ok(Self {
            listen: resolved.parse("listen", "an address and port such as 127.0.0.1:7070")?,
            // Absolute once and for all: other processes of the server have other folders.
            data_dir: std::path::absolute(resolved.text("data_dir"))
                .map_err(|error| resolved.bad("data_dir", &error.to_string()))?,
            store: postgres(resolved)?,
            domain,
            tls,
            dev: resolved.flag("dev")?,
            oidc: oidc(resolved)?,
            limits: limits(resolved)?,
            log: resolved.text("log").to_owned(),
            log_json: resolved.flag("log_json")?,
            sandboxes_max: resolved.parse("sandboxes_max", "a whole number")?,
            sandboxes_per_workspace_max: resolved
                .parse("sandboxes_per_workspace_max", "a whole number")?,
            sandbox_timeout_max: resolved.duration("sandbox_timeout_max")?,
            shutdown_timeout: resolved.duration("shutdown_timeout")?,
            network_cidr: resolved.optional("network.cidr"),
            network_allow_private: resolved.list("network.allow_private"),
            network_egress_proxies: resolved.list("network.egress_proxies"),
            network_extra_ca: resolved.optional("network.extra_ca").map(PathBuf::from),
            network_name_servers: resolved.parse_list(
                "network.name_servers",
                "addresses with ports, comma-separated",
            )?,
            webhooks_allow_private: resolved.flag("webhooks.allow_private")?,
            traces: traces::of(resolved)?,
            insecure_registries: resolved.list("images.insecure_registries"),
            uid_base: resolved.parse("uid_base", "a whole number")?,
            pool_size: resolved.optional_bytes("pool_size")?,
            build_cache: resolved.bytes("build_cache")?,
            volume_bytes: volume_bytes(resolved)?,
            volume_bytes_max: resolved.bytes("volumes.size_max")?,
            sleep,
            sleep_sweep: resolved.optional("sleep.sweep"),
            sleep_sweep_idle: resolved.duration("sleep.sweep_idle")?,
            archive_url,
            archive_is_set: resolved.optional("archive.url").is_some(),
            health: health(resolved)?,
            retention: retention(resolved)?,
            agent_cors_origins: resolved.list("agent.cors_origins"),
            launchers: resolved.parse("launchers", "a whole number")?,
            spares: spares(resolved)?,
            cgroup_favor_moves: resolved.flag("cgroup_favor_moves")?,
            lazy_pages: match resolved.text("lazy_pages").trim() {
                "auto" => LazyPages::Auto,
                "on" => LazyPages::On,
                "off" => LazyPages::Off,
                _ => return Err(resolved.bad("lazy_pages", "want auto, on or off")),
            },
            gvisor_memory_snapshots: resolved.flag("gvisor_memory_snapshots")?,
        })
    }
}

/// More would take longer to make than anybody could ask for them.
const SPARES_MAX: u32 = 64;

fn spares(resolved: &Resolved) -> Result<u32, ConfigError> {
    match resolved.parse("spares", "a whole number")? {
        count if count <= SPARES_MAX => Ok(count),
        _ => Err(resolved.bad("spares", "want 0 to 64")),
    }
}

/// Within what requests may ask for.
fn volume_bytes(resolved: &Resolved) -> Result<u64, ConfigError> {
    let bytes = resolved.bytes("volumes.size")?;
    match (VOLUME_BYTES_MIN..=resolved.bytes("volumes.size_max")?).contains(&bytes) {
        true => Ok(bytes),
        false => Err(resolved.bad("volumes.size", "want 1MiB to `volumes.size_max`")),
    }
}

/// The shortest lease: a server has to come round to renewing it.
const LEASE_MIN: Duration = Duration::from_secs(1);

fn postgres(resolved: &Resolved) -> Result<Option<Postgres>, ConfigError> {
    let schema = resolved.text("store.schema").to_owned();
    let named = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let starts_well = !schema.starts_with(|c: char| c.is_ascii_digit());
    if !(1..=63).contains(&schema.len()) || !schema.chars().all(named) || !starts_well {
        let want = "want small letters, digits and `_`, not a digit first";
        return Err(resolved.bad("store.schema", want));
    }
    let Some(url) = resolved.optional("store.url") else {
        return Ok(None);
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        // The value is not repeated: it may hold a password.
        return Err(ConfigError::Combination(
            "store.url: want postgres://user:password@host/database".into(),
        ));
    }
    let lease = resolved.duration("node.lease")?;
    if lease < LEASE_MIN {
        return Err(resolved.bad("node.lease", "want at least 1s"));
    }
    Ok(Some(Postgres {
        url,
        schema,
        node_name: resolved.optional("node.name"),
        lease,
    }))
}

fn oidc(resolved: &Resolved) -> Result<Option<Oidc>, ConfigError> {
    let parts = ["auth.oidc.issuer", "auth.oidc.audience", "auth.oidc.jwks"];
    let [issuer, audience, jwks] = parts.map(|key| resolved.optional(key));
    let (issuer, audience, jwks) = match (issuer, audience, jwks) {
        (None, None, None) => return Ok(None),
        (Some(issuer), Some(audience), Some(jwks)) => (issuer, audience, jwks),
        _ => {
            let text = "auth.oidc needs issuer, audience and jwks";
            return Err(ConfigError::Combination(text.into()));
        }
    };
    let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    if jwks.starts_with("http://") && !local.iter().any(|start| jwks.starts_with(start)) {
        let text = "want https, or http to this machine: whoever can change the keys is anybody";
        return Err(resolved.bad("auth.oidc.jwks", text));
    }
    Ok(Some(Oidc {
        issuer,
        audience,
        jwks,
    }))
}

fn limits(resolved: &Resolved) -> Result<WorkspaceLimits, ConfigError> {
    let rate = |key: &'static str| match resolved.text(key).trim() {
        "none" => Ok(None),
        _ => resolved.parse(key, "a whole number, or none").map(Some),
    };
    let days = |key: &'static str| {
        let days = rate(key)?;
        match days.filter(|days| *days > WorkspaceLimits::DAYS_MAX) {
            Some(_) => Err(resolved.bad(key, "more days than can be counted")),
            None => Ok(days),
        }
    };
    Ok(WorkspaceLimits {
        user_runs_per_minute: rate("limits.user_runs_per_minute")?,
        runs_per_minute: rate("limits.runs_per_minute")?,
        user_requests_per_minute: rate("limits.user_requests_per_minute")?,
        requests_per_minute: rate("limits.requests_per_minute")?,
        request_burst: resolved.parse("limits.request_burst", "a whole number")?,
        prompt_retention_days: days("limits.prompt_retention_days")?,
        run_retention_days: days("limits.run_retention_days")?,
        artifact_retention_days: days("limits.artifact_retention_days")?,
        audit_retention_days: days("limits.audit_retention_days")?,
        ..WorkspaceLimits::default()
    })
}

/// The store of archives: by default in the data directory.
fn archive_url(resolved: &Resolved) -> Result<Option<String>, ConfigError> {
    match resolved.optional("archive.url") {
        None => {
            let data_dir = std::path::absolute(resolved.text("data_dir"))
                .map_err(|error| resolved.bad("data_dir", &error.to_string()))?;
            let directory = data_dir.join("archive");
            let text = directory.to_str();
            let text = text.ok_or_else(|| resolved.bad("data_dir", "want UTF-8"))?;
            Ok(Some(text.to_owned()))
        }
        Some(url) if url == "none" => Ok(None),
        Some(url)
            if url.starts_with("s3://") || url.starts_with("file:///") || url.starts_with('/') =>
        {
            Ok(Some(url))
        }
        Some(_) => {
            let want = "want file:///DIRECTORY, s3://BUCKET/PREFIX or none";
            Err(resolved.bad("archive.url", want))
        }
    }
}

fn sleep(resolved: &Resolved) -> Result<SleepPolicy, ConfigError> {
    Ok(SleepPolicy {
        pause_after: resolved.rung("sleep.pause_after")?,
        hibernate_after: resolved.rung("sleep.hibernate_after")?,
        archive_after: resolved.rung("sleep.archive_after")?,
        delete_after: resolved.rung("sleep.delete_after")?,
        fallback: match resolved.text("sleep.fallback").trim() {
            "stay_paused" => Fallback::StayPaused,
            "filesystem" => Fallback::Filesystem,
            _ => return Err(resolved.bad("sleep.fallback", "want stay_paused or filesystem")),
        },
        checkpoint_every: match resolved.rung("sleep.checkpoint_every")? {
            Some(every) if every < Duration::from_secs(10) => {
                return Err(resolved.bad("sleep.checkpoint_every", "want at least 10s"));
            }
            every => every,
        },
    })
}

fn health(resolved: &Resolved) -> Result<Option<HealthPolicy>, ConfigError> {
    let policy = HealthPolicy {
        timeout: resolved.duration("health.timeout")?,
        misses: resolved.parse("health.misses", "a whole number")?,
        interval: Duration::ZERO,
    };
    if policy.misses == 0 {
        return Err(resolved.bad("health.misses", "must be at least 1"));
    }
    if policy.timeout.is_zero() {
        return Err(resolved.bad("health.timeout", "must be longer than nothing"));
    }
    let interval = resolved.rung("health.interval")?;
    Ok(interval.map(|interval| HealthPolicy { interval, ..policy }))
}

fn retention(resolved: &Resolved) -> Result<Retention, ConfigError> {
    let entries = resolved.optional("sessions.keep_entries");
    let entries = entries
        .map(|text| text.parse().ok().filter(|entries| *entries >= 1_000))
        .map(|entries: Option<u64>| {
            entries.ok_or_else(|| {
                resolved.bad(
                    "sessions.keep_entries",
                    "want a whole number, at least 1000",
                )
            })
        });
    let time = |key| match resolved.rung(key)? {
        Some(time) if time < Duration::from_secs(60) => {
            Err(resolved.bad(key, "want `never` or a time of at least 1m"))
        }
        time => Ok(time),
    };
    Ok(Retention {
        ended: time("sessions.keep_ended")?,
        age: time("sessions.keep_age")?,
        entries: entries.transpose()?,
    })
}

fn tls(resolved: &Resolved) -> Result<Tls, ConfigError> {
    let cert = resolved.optional("tls_cert").map(PathBuf::from);
    let key = resolved.optional("tls_key").map(PathBuf::from);
    match (cert, key, resolved.flag("tls_self_signed")?) {
        (None, None, false) => Ok(Tls::Off),
        (None, None, true) => Ok(Tls::SelfSigned),
        (Some(cert), Some(key), false) => Ok(Tls::Files { cert, key }),
        (Some(_), Some(_), true) => Err(ConfigError::Combination(
            "tls_self_signed and tls_cert exclude each other".into(),
        )),
        _ => Err(ConfigError::Combination(
            "tls_cert and tls_key go together".into(),
        )),
    }
}

/// `name` or `name:port`, lower case, at least one label.
fn check_domain(resolved: &Resolved, name: &str) -> Result<(), ConfigError> {
    let (host, port) = name
        .split_once(':')
        .map_or((name, None), |(h, p)| (h, Some(p)));
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    if host.len() <= 200 && host.split('.').all(label_ok) && port_ok {
        return Ok(());
    }
    Err(resolved.bad(
        "domain",
        "want a lower-case host name, with `:port` if it is not 443",
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn resolve(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags: BTreeMap<String, String> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let layers = Layers {
            flags,
            environment: BTreeMap::new(),
            file: None,
        };
        Config::from_resolved(&layers.resolve()?)
    }

    #[test]
    fn defaults_are_valid() {
        let config = resolve(&[]).expect("defaults");
        assert_eq!(config.listen.port(), 7070);
        assert_eq!(config.tls, Tls::Off);
        assert_eq!(config.sleep, SleepPolicy::default());
    }

    #[test]
    fn the_store_may_be_a_postgres_and_its_password_is_not_shown() {
        assert_eq!(resolve(&[]).expect("defaults").store, None);
        let url = "postgres://u:secret@h/db";
        let config = resolve(&[("store.url", url), ("store.schema", "one")]).expect("valid");
        assert!(!format!("{config:?}").contains("secret"));
        let store = config.store.expect("set");
        assert_eq!((store.url.as_str(), store.schema.as_str()), (url, "one"));
        assert!(!shown("store.url", url).contains("secret"));
        let error = resolve(&[("store.url", "mysql://u:secret@h")]).expect_err("not ours");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn headers_of_traces_are_not_shown() {
        assert_eq!(resolve(&[]).expect("defaults").traces, None);
        let (endpoint, line) = (
            "http://127.0.0.1:4318/v1/traces",
            "authorization=Bearer hush",
        );
        let set = [("traces.endpoint", endpoint), ("traces.headers", line)];
        let config = resolve(&set).expect("valid");
        assert!(!format!("{config:?}").contains("hush"));
        let traces = config.traces.expect("set");
        assert_eq!(traces.endpoint, endpoint);
        assert_eq!((traces.sample, traces.pace), (1.0, Pace::AtEnd));
        assert_eq!(traces.headers["authorization"], "Bearer hush");
        let broken = [set[0], ("traces.headers", "hush")];
        let error = resolve(&broken).expect_err("no pair").to_string();
        assert!(
            error.contains("traces.headers") && !error.contains("hush"),
            "{error}"
        );
        assert!(!shown("traces.headers", line).contains("hush"));
    }

    #[test]
    fn sleep_may_be_never() {
        let config = resolve(&[
            ("sleep.pause_after", "never"),
            ("sleep.archive_after", "2h"),
        ]);
        let sleep = config.expect("valid").sleep;
        assert_eq!(sleep.pause_after, None);
        assert_eq!(sleep.archive_after, Some(Duration::from_secs(7200)));
    }

    #[test]
    fn bad_values_name_the_setting_and_its_origin() {
        for (key, value) in [
            ("listen", "nowhere"),
            ("dev", "maybe"),
            ("sandboxes_max", "-1"),
            ("spares", "65"),
            ("shutdown_timeout", "soon"),
            ("domain", "Bad_Name"),
            ("domain", "x:0"),
            ("sleep.pause_after", "0s"),
            ("sleep.delete_after", "soon"),
            ("sleep.fallback", "perhaps"),
            ("sleep.checkpoint_every", "2s"),
            ("sleep.sweep_idle", "soon"),
            ("health.interval", "0s"),
            ("health.misses", "0"),
            ("sessions.keep_ended", "1s"),
            ("sessions.keep_entries", "10"),
            ("lazy_pages", "maybe"),
            ("store.schema", "a-b"),
            ("archive.url", "ftp://there"),
            ("traces.endpoint", "localhost:4318"),
            ("traces.sample", "2"),
            ("traces.mode", "sometimes"),
        ] {
            let error = resolve(&[(key, value)]).expect_err(key).to_string();
            assert!(error.contains(key) && error.contains("flag"), "{error}");
        }
    }

    #[test]
    fn the_archive_is_in_the_data_directory_unless_it_is_elsewhere_or_off() {
        let url = |pairs: &[_]| resolve(pairs).expect("valid").archive_url;
        let data = ("data_dir", "/data");
        assert_eq!(url(&[data]).as_deref(), Some("/data/archive"));
        let bucket = [data, ("archive.url", "s3://bucket/here")];
        assert_eq!(url(&bucket).as_deref(), Some("s3://bucket/here"));
        let none = [("archive.url", "none"), ("sleep.archive_after", "1h")];
        assert_eq!(url(&none[..1]), None);
        assert!(resolve(&none).is_err());
    }

    #[test]
    fn tls_settings_must_fit_together() {
        assert!(resolve(&[("tls_cert", "a")]).is_err());
        assert!(resolve(&[("tls_self_signed", "true")]).is_err());
        let both = [
            ("tls_self_signed", "true"),
            ("domain", "wf.test"),
            ("tls_cert", "a"),
            ("tls_key", "b"),
        ];
        assert!(resolve(&both).is_err());
        assert_eq!(resolve(&both[..2]).expect("valid").tls, Tls::SelfSigned);
    }
}
