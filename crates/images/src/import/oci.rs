//! The parts of OCI's JSON documents that an import needs.

use serde::Deserialize;

use super::{ImportError, MAX_LAYERS, Platform};
use crate::config::{ImageConfig, MAX_ENV};
use crate::digest::Digest;

/// Of an index, a manifest or a configuration.
pub(crate) const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) platform: Option<PlatformDoc>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PlatformDoc {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
}

/// An index (`manifests`) or a manifest (`config`, `layers`): which, its fields tell.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConfigDoc {
    #[serde(default)]
    config: Option<RunDoc>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    rootfs: RootfsDoc,
}

#[derive(Debug, Deserialize)]
struct RootfsDoc {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunDoc {
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

/// What a configuration says.
pub(crate) struct ParsedConfig {
    pub(crate) config: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

pub(crate) fn parse<T: for<'a> Deserialize<'a>>(
    what: &str,
    bytes: &[u8],
) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|e| ImportError::Malformed(format!("{what}: {e}")))
}

pub(crate) fn digest(text: &str) -> Result<Digest, ImportError> {
    text.parse()
        .map_err(|_| ImportError::Malformed(format!("`{text}` is not a SHA-256 digest")))
}

/// The manifest for `platform`. An entry without a platform is taken when it is the only one.
pub(crate) fn choose<'a>(
    entries: &'a [Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ImportError> {
    let fits = |entry: &&Descriptor| {
        let doc = entry.platform.as_ref();
        doc.is_some_and(|doc| doc.os == platform.os && doc.architecture == platform.architecture)
    };
    if let Some(entry) = entries.iter().find(fits) {
        return Ok(entry);
    }
    match entries {
        [only] if only.platform.is_none() => Ok(only),
        _ => {
            let docs = entries.iter().filter_map(|entry| entry.platform.as_ref());
            let found: Vec<_> = docs
                .map(|p| format!("{}/{}", p.os, p.architecture))
                .take(20)
                .collect();
            Err(ImportError::Platform {
                wanted: platform.to_string(),
                found: found.join(", "),
            })
        }
    }
}

pub(crate) fn check_layer_type(media_type: &str) -> Result<(), ImportError> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(()),
        other => Err(ImportError::LayerType(other.to_owned())),
    }
}

impl ConfigDoc {
    /// Checks the document against the number of layers and the platform asked for.
    pub(crate) fn accept(
        self,
        layers: usize,
        platform: &Platform,
    ) -> Result<ParsedConfig, ImportError> {
        if layers > MAX_LAYERS {
            return Err(ImportError::TooManyLayers(layers));
        }
        if self.rootfs.diff_ids.len() != layers {
            return Err(ImportError::Malformed(
                "layers and diff_ids differ in number".to_owned(),
            ));
        }
        let named = !self.os.is_empty() && !self.architecture.is_empty();
        if named && (self.os != platform.os || self.architecture != platform.architecture) {
            let found = format!("{}/{}", self.os, self.architecture);
            return Err(ImportError::Platform {
                wanted: platform.to_string(),
                found,
            });
        }
        let diff_ids = self
            .rootfs
            .diff_ids
            .iter()
            .map(|id| digest(id))
            .collect::<Result<_, _>>()?;
        let run = self.config.unwrap_or_default();
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut config = ImageConfig {
            env: Vec::new(),
            user: some(run.user),
            workdir: some(run.working_dir).map(|dir| crate::config::join_absolute("/", &dir)),
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
        };
        for line in run.env.unwrap_or_default().iter().take(MAX_ENV) {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            config.set_env(name, value);
        }
        Ok(ParsedConfig { config, diff_ids })
    }
}
