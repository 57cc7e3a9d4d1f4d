//! Configuration in layers: flag > environment > file > default.
//!
//! Every setting is one row of [`registry::SETTINGS`]; the layers are merged as text with the
//! origin of each value kept, then parsed once into an immutable [`Config`].

mod layers;
pub mod registry;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use woodfrog_types::sleep::{Fallback, SleepPolicy};

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
    pub insecure_registries: Vec<String>,
    pub uid_base: u32,
    pub pool_size: Option<u64>,
    pub launchers: u32,
    /// When sandboxes go to sleep whose request does not say.
    pub sleep: SleepPolicy,
    pub cgroup_favor_moves: bool,
    /// Whether gVisor's sandboxes are saved with their memory.
    pub gvisor_memory_snapshots: bool,
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
        Ok(Self {
            listen: resolved.parse("listen", "an address and port such as 127.0.0.1:7070")?,
            // Absolute once and for all: other processes of the server have other folders.
            data_dir: std::path::absolute(resolved.text("data_dir"))
                .map_err(|error| resolved.bad("data_dir", &error.to_string()))?,
            store: postgres(resolved)?,
            domain,
            tls,
            dev: resolved.flag("dev")?,
            log: resolved.text("log").to_owned(),
            log_json: resolved.flag("log_json")?,
            sandboxes_max: resolved.parse("sandboxes_max", "a whole number")?,
            sandboxes_per_workspace_max: resolved
                .parse("sandboxes_per_workspace_max", "a whole number")?,
            sandbox_timeout_max: resolved.duration("sandbox_timeout_max")?,
            shutdown_timeout: resolved.duration("shutdown_timeout")?,
            network_cidr: resolved.optional("network.cidr"),
            network_allow_private: resolved.list("network.allow_private"),
            insecure_registries: resolved.list("images.insecure_registries"),
            uid_base: resolved.parse("uid_base", "a whole number")?,
            pool_size: resolved.optional_bytes("pool_size")?,
            sleep: sleep(resolved)?,
            launchers: resolved.parse("launchers", "a whole number")?,
            cgroup_favor_moves: resolved.flag("cgroup_favor_moves")?,
            gvisor_memory_snapshots: resolved.flag("gvisor_memory_snapshots")?,
        })
    }
}

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
    Ok(Some(Postgres { url, schema }))
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
            ("shutdown_timeout", "soon"),
            ("domain", "Bad_Name"),
            ("domain", "x:0"),
            ("sleep.pause_after", "0s"),
            ("sleep.delete_after", "soon"),
            ("sleep.fallback", "perhaps"),
            ("store.schema", "a-b"),
        ] {
            let error = resolve(&[(key, value)]).expect_err(key).to_string();
            assert!(error.contains(key) && error.contains("flag"), "{error}");
        }
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
