//! Merging the layers and parsing single values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::ConfigError;
use super::registry::{SETTINGS, find};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("a flag"),
            Self::Environment(name) => write!(f, "${name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// The layers above the defaults.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Setting key → value, of the flags that were given.
    pub flags: BTreeMap<String, String>,
    /// The process environment (or a test's).
    pub environment: BTreeMap<String, String>,
    /// A TOML file; it must exist.
    pub file: Option<PathBuf>,
}

/// One value per setting, with its origin.
#[derive(Debug, Clone)]
pub struct Resolved {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Layers {
    /// Merges: flag over environment over file over default.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has a key that is no setting.
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        let file = match &self.file {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        let pick = |setting: &'static super::registry::Setting| {
            if let Some(value) = self.flags.get(setting.key) {
                (value.clone(), Origin::Flag)
            } else if let Some(value) = self.environment.get(setting.env) {
                (value.clone(), Origin::Environment(setting.env))
            } else if let (Some(value), Some(path)) = (file.get(setting.key), &self.file) {
                (value.clone(), Origin::File(path.clone()))
            } else {
                (setting.default.to_owned(), Origin::Default)
            }
        };
        Ok(Resolved {
            values: SETTINGS.iter().map(|s| (s.key, pick(s))).collect(),
        })
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })?;
    let table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
        path: path.into(),
        source,
    })?;
    let mut flat = BTreeMap::new();
    flatten("", &table, &mut flat);
    for key in flat.keys() {
        if find(key).is_none() {
            let hint = closest(key).map_or_else(String::new, |k| format!("; did you mean `{k}`?"));
            return Err(ConfigError::UnknownKey {
                path: path.into(),
                key: key.clone(),
                hint,
            });
        }
    }
    Ok(flat)
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{key}."), inner, out),
            toml::Value::String(text) => drop(out.insert(key, text.clone())),
            toml::Value::Array(items) => {
                let texts: Vec<String> = items
                    .iter()
                    .map(|item| {
                        item.as_str()
                            .map_or_else(|| item.to_string(), str::to_owned)
                    })
                    .collect();
                out.insert(key, texts.join(","));
            }
            other => drop(out.insert(key, other.to_string())),
        }
    }
}

/// A setting that shares its last part with `key`, or begins alike.
fn closest(key: &str) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().replace('-', "_");
    SETTINGS
        .iter()
        .map(|setting| setting.key)
        .find(|known| last(known) == last(key) || known.starts_with(key) || key.starts_with(known))
}

impl Resolved {
    /// Every setting with its value and origin, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str, &Origin)> {
        self.values
            .iter()
            .map(|(key, (value, origin))| (*key, value.as_str(), origin))
    }

    pub(super) fn text(&self, key: &'static str) -> &str {
        self.values.get(key).map_or("", |(value, _)| value.as_str())
    }

    pub(super) fn optional(&self, key: &'static str) -> Option<String> {
        let text = self.text(key).trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    pub(super) fn list(&self, key: &'static str) -> Vec<String> {
        let parts = self.text(key).split(',').map(str::trim);
        parts
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn bad(&self, key: &'static str, why: &str) -> ConfigError {
        let origin = self
            .values
            .get(key)
            .map_or(Origin::Default, |(_, origin)| origin.clone());
        ConfigError::Value {
            key,
            value: self.text(key).to_owned(),
            origin,
            why: why.to_owned(),
        }
    }

    pub(super) fn parse<T: FromStr>(
        &self,
        key: &'static str,
        want: &str,
    ) -> Result<T, ConfigError> {
        self.text(key)
            .trim()
            .parse()
            .map_err(|_| self.bad(key, &format!("want {want}")))
    }

    /// Several, comma-separated; none is fine.
    pub(super) fn parse_list<T: FromStr>(
        &self,
        key: &'static str,
        want: &str,
    ) -> Result<Vec<T>, ConfigError> {
        let parts = self.list(key);
        let parsed: Result<_, _> = parts.iter().map(|part| part.parse()).collect();
        parsed.map_err(|_| self.bad(key, &format!("want {want}")))
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        match self.text(key).trim() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" | "" => Ok(false),
            _ => Err(self.bad(key, "want true or false")),
        }
    }

    pub(super) fn duration(&self, key: &'static str) -> Result<Duration, ConfigError> {
        parse_duration(self.text(key))
            .ok_or_else(|| self.bad(key, "want a number with a unit: 500ms, 10s, 5m, 12h, 30d"))
    }

    /// A time on a rung of sleep; `None` is never.
    pub(super) fn rung(&self, key: &'static str) -> Result<Option<Duration>, ConfigError> {
        match self.text(key).trim() {
            "never" => Ok(None),
            text => match parse_duration(text) {
                Some(time) if time >= Duration::from_secs(1) => Ok(Some(time)),
                _ => Err(self.bad(key, "want `never` or a time of at least 1s: 10m, 12h, 30d")),
            },
        }
    }

    pub(super) fn bytes(&self, key: &'static str) -> Result<u64, ConfigError> {
        parse_bytes(self.text(key)).ok_or_else(|| self.bad(key, WANT_BYTES))
    }

    pub(super) fn optional_bytes(&self, key: &'static str) -> Result<Option<u64>, ConfigError> {
        match self.optional(key) {
            None => Ok(None),
            Some(text) => parse_bytes(&text)
                .map(Some)
                .ok_or_else(|| self.bad(key, WANT_BYTES)),
        }
    }
}

const WANT_BYTES: &str = "want a size: 512MiB, 20GiB, 1TiB";

/// `500ms`, `10s`, `5m`, `12h`, `30d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// Bytes: `4096`, `512MiB`, `20GiB`, `1TiB` (`MB` and `GB` mean the same binary units).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("woodfrog.toml");
        std::fs::write(&path, "log = \"f\"\ndata_dir = \"/f\"\nlisten = \"1.1.1.1:1\"\n[network]\nallow_private = [\"10.0.0.0/8\", \"172.16.0.0/12\"]\n").expect("write");
        let layers = Layers {
            flags: BTreeMap::from([("log".into(), "flag".into())]),
            environment: BTreeMap::from([
                ("WOODFROG_LOG".into(), "env".into()),
                ("WOODFROG_DATA_DIR".into(), "/env".into()),
            ]),
            file: Some(path),
        };
        let resolved = layers.resolve().expect("resolves");
        assert_eq!(resolved.text("log"), "flag");
        assert_eq!(resolved.text("data_dir"), "/env");
        assert_eq!(resolved.text("listen"), "1.1.1.1:1");
        assert_eq!(
            resolved.list("network.allow_private"),
            ["10.0.0.0/8", "172.16.0.0/12"]
        );
        assert_eq!(resolved.text("dev"), "false");
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("woodfrog.toml");
        std::fs::write(&path, "data-dir = \"/x\"\n").expect("write");
        let layers = Layers {
            file: Some(path),
            ..Layers::default()
        };
        let error = layers.resolve().expect_err("unknown").to_string();
        assert!(
            error.contains("data-dir") && error.contains("data_dir"),
            "{error}"
        );
    }

    #[test]
    fn units_are_required_and_bounded() {
        assert_eq!(parse_duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration("99999999999999999999s"), None);
        assert_eq!(parse_bytes("20GiB"), Some(20 << 30));
        assert_eq!(parse_bytes("x"), None);
        assert_eq!(parse_bytes("18446744073709551615TiB"), None);
    }
}
