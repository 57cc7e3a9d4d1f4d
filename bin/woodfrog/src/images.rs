//! The engine's image source: the layer store of this machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use woodfrog_engine::{CopyRequest, ImageError, Images, ImportSource, LayerOnDisk, ProgressSink};
use woodfrog_images::{
    BaseBuilder, CopyError, CopySpec, Digest, Event, Image, ImportError, Layer, LayerStore, Limits,
    Platform, Progress, PullOptions, RegistryAuth, ensure_e2b_basics, import_oci_layout,
    import_rootfs_tar, prepare_copy_layer, pull_registry,
};
use woodfrog_types::Timestamp;
use woodfrog_types::template::{BuiltImage, SecurityOptions};

/// Layers on local disk.
pub(crate) struct LocalImages {
    layers: LayerStore,
    base: BaseBuilder,
    insecure_registries: Vec<String>,
}

impl LocalImages {
    pub(crate) fn new(layers: LayerStore, insecure_registries: Vec<String>) -> Self {
        Self {
            layers,
            base: BaseBuilder::default(),
            insecure_registries,
        }
    }

    async fn fetch(&self, source: ImportSource, progress: Progress) -> Result<Image, ImportError> {
        match source {
            ImportSource::RootfsTar(path) => {
                let file = File::open(path)?;
                import_rootfs_tar(&self.layers, file, Limits::default(), progress).await
            }
            ImportSource::OciLayout(path) => {
                let platform = Platform::default();
                import_oci_layout(&self.layers, &path, platform, Limits::default(), progress).await
            }
            ImportSource::Registry {
                reference,
                username,
                password,
            } => {
                let auth = match (username, password) {
                    (Some(username), Some(password)) => RegistryAuth::Basic { username, password },
                    _ => RegistryAuth::Anonymous,
                };
                let options = PullOptions {
                    auth,
                    insecure_hosts: self.insecure_registries.clone(),
                    ..PullOptions::default()
                };
                pull_registry(&self.layers, &reference, options, progress).await
            }
        }
    }
}

#[async_trait]
impl Images for LocalImages {
    fn paths(&self, layers: &[String]) -> Result<Vec<PathBuf>, ImageError> {
        self.layers
            .paths(&digests(layers)?)
            .map_err(|e| failed("finding the layers", e))
    }

    async fn base(&self, progress: ProgressSink) -> Result<BuiltImage, ImageError> {
        let image = self.base.ensure(&self.layers, sink(progress)).await;
        image
            .map(|image| built(&image))
            .map_err(|e| failed("making the base template", e))
    }

    async fn import(
        &self,
        source: ImportSource,
        progress: ProgressSink,
    ) -> Result<BuiltImage, ImageError> {
        let mut image = self.fetch(source, sink(progress)).await.map_err(rejected)?;
        let basics = ensure_e2b_basics(&self.layers, &image.layers)
            .await
            .map_err(|e| failed("adding what every sandbox needs", e))?;
        image.layers.extend(basics.map(|layer| layer.digest));
        // What E2B's clients work as, whatever the image's own default was.
        image.config.user = Some("user".to_owned());
        image.config.workdir = None;
        Ok(built(&image))
    }

    async fn commit(&self, upper: &Path) -> Result<String, ImageError> {
        let layer = self.layers.commit_dir(upper, None).await;
        layer
            .map(|layer| layer.digest.as_str().to_owned())
            .map_err(|e| failed("keeping a layer", e))
    }

    async fn adopt(&self, folder: &Path, layer: &str) -> Result<(), ImageError> {
        let wrong = |e| failed("reading a digest", e);
        let digest: Digest = layer.parse().map_err(wrong)?;
        let adopted = self.layers.commit_dir(folder, Some(digest)).await;
        adopted.map(drop).map_err(|e| failed("keeping a layer", e))
    }

    async fn copy(&self, request: CopyRequest) -> Result<String, ImageError> {
        let archive = File::open(&request.archive).map_err(|e| failed("reading the upload", e))?;
        let spec = CopySpec {
            src: request.src,
            dst: request.dst,
            owner: request.owner,
            mode: request.mode,
            user: request.user,
            workdir: request.workdir,
        };
        let layers = digests(&request.layers)?;
        let layer =
            prepare_copy_layer(&self.layers, &layers, archive, spec, Limits::default()).await;
        layer
            .map(|layer| layer.digest.as_str().to_owned())
            .map_err(|error| match error {
                error @ (CopyError::Store(_) | CopyError::Io(_)) => failed("copying files", error),
                error => ImageError::Rejected(chain(&error)),
            })
    }

    async fn list(&self) -> Result<Vec<LayerOnDisk>, ImageError> {
        let listed = self.layers.list().await;
        let listed = listed.map_err(|e| failed("listing the layers", e))?;
        let layer = |layer: Layer| LayerOnDisk {
            made_at: made_at(self.layers.made_at(&layer.digest)),
            name: layer.digest.as_str().to_owned(),
            bytes: layer.bytes,
        };
        Ok(listed.into_iter().map(layer).collect())
    }

    fn moment(&self) -> u64 {
        self.layers.moment()
    }

    fn next_moment(&self) -> u64 {
        self.layers.next_moment()
    }

    async fn remove_unused(&self, layer: &str, since: u64) -> Result<bool, ImageError> {
        let removed = self.layers.remove_unused(&digest(layer)?, since).await;
        removed.map_err(|e| failed("removing a layer", e))
    }
}

fn made_at(time: Option<std::time::SystemTime>) -> Timestamp {
    let since = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or_default())
}

fn digest(layer: &str) -> Result<Digest, ImageError> {
    layer.parse().map_err(|e| failed("reading a digest", e))
}

fn digests(layers: &[String]) -> Result<Vec<Digest>, ImageError> {
    layers.iter().map(|layer| digest(layer)).collect()
}

fn built(image: &Image) -> BuiltImage {
    BuiltImage {
        layers: image
            .layers
            .iter()
            .map(|digest| digest.as_str().to_owned())
            .collect(),
        env: image.config.env.iter().cloned().collect(),
        user: image
            .config
            .user
            .clone()
            .unwrap_or_else(|| "root".to_owned()),
        workdir: image.config.workdir.clone(),
        start_cmd: None,
        ready_cmd: None,
        security: SecurityOptions::default(),
    }
}

fn sink(lines: ProgressSink) -> Progress {
    Progress::new(move |event: Event| {
        let mut line = event.phase.as_str().to_owned();
        if let Some(percent) = event.percent {
            line.push_str(&format!(" {percent} %"));
        }
        if let Some(item) = event.item {
            line.push_str(&format!(": {item}"));
        }
        Arc::clone(&lines)(line);
    })
}

/// An import that fails is most often the source's fault: its owner gets the whole story.
fn rejected(error: ImportError) -> ImageError {
    match error {
        error @ (ImportError::Store(_) | ImportError::Io(_)) => {
            failed("importing the image", error)
        }
        error => ImageError::Rejected(chain(&error)),
    }
}

fn failed(
    what: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ImageError {
    ImageError::Failed {
        what,
        source: source.into(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
