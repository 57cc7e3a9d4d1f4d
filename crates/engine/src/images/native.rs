//! The image sources of this machine: the layer store, the base builder, registries.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use woodfrog_images::{
    BaseBuilder, BaseOptions, CopyError, CopySpec, Digest, Event, Image, ImageConfig, ImportError,
    LayerStore, Limits, Platform, Progress, PullOptions, RegistryAuth, ensure_e2b_basics,
    import_oci_layout, import_rootfs_tar, prepare_copy_layer, pull_registry,
};
use woodfrog_types::template::{BuiltImage, SecurityOptions};

use super::{CopyRequest, ImageError, Images, ImportSource, ProgressSink};

/// The user that E2B programs run as, unless the image names another.
const DEFAULT_USER: &str = "user";

/// Images of one layer store.
pub struct NativeImages {
    store: LayerStore,
    base: BaseBuilder,
}

impl NativeImages {
    /// On an open store; `base` says where the finished base image is cached.
    pub fn new(store: LayerStore, base: BaseOptions) -> Self {
        Self {
            store,
            base: BaseBuilder::new(base),
        }
    }

    /// Adds what E2B clients expect in an image.
    async fn finish(&self, mut image: Image) -> Result<BuiltImage, ImageError> {
        let added = ensure_e2b_basics(&self.store, &image.layers).await;
        if let Some(layer) = added.map_err(|error| failed("adding the default user", error))? {
            image.layers.push(layer.digest);
        }
        Ok(built(image))
    }
}

#[async_trait]
impl Images for NativeImages {
    fn paths(&self, layers: &[String]) -> Result<Vec<PathBuf>, ImageError> {
        let paths = self.store.paths(&digests(layers)?);
        paths.map_err(|error| failed("finding the image's layers", error))
    }

    async fn base(&self, progress: ProgressSink) -> Result<BuiltImage, ImageError> {
        let image = self.base.ensure(&self.store, lines(progress)).await;
        self.finish(image.map_err(|error| failed("making the base image", error))?)
            .await
    }

    async fn import(
        &self,
        source: ImportSource,
        progress: ProgressSink,
    ) -> Result<BuiltImage, ImageError> {
        let (store, limits, progress) = (&self.store, Limits::default(), lines(progress));
        let image = match source {
            ImportSource::RootfsTar(path) => {
                let file = open(&path)?;
                import_rootfs_tar(store, file, limits, progress).await
            }
            ImportSource::OciLayout(path) => {
                import_oci_layout(store, &path, Platform::default(), limits, progress).await
            }
            ImportSource::Registry {
                reference,
                username,
                password,
            } => {
                let auth = match (username, password) {
                    (Some(username), Some(password)) => RegistryAuth::Basic { username, password },
                    (None, Some(token)) => RegistryAuth::Bearer(token),
                    (_, None) => RegistryAuth::Anonymous,
                };
                let options = PullOptions {
                    auth,
                    ..PullOptions::default()
                };
                pull_registry(store, &reference, options, progress).await
            }
        };
        self.finish(image.map_err(import_failed)?).await
    }

    async fn commit(&self, upper: &Path) -> Result<String, ImageError> {
        let layer = self.store.commit_dir(upper, None).await;
        let layer = layer.map_err(|error| failed("storing the layer", error))?;
        Ok(layer.digest.to_string())
    }

    async fn copy(&self, request: CopyRequest) -> Result<String, ImageError> {
        let spec = CopySpec {
            src: request.src,
            dst: request.dst,
            owner: request.owner,
            mode: request.mode,
            user: request.user,
            workdir: request.workdir,
        };
        let archive = open(&request.archive)?;
        let layers = digests(&request.layers)?;
        let layer =
            prepare_copy_layer(&self.store, &layers, archive, spec, Limits::default()).await;
        match layer {
            Ok(layer) => Ok(layer.digest.to_string()),
            Err(
                error @ (CopyError::MissingSource(_)
                | CopyError::UnknownOwner(_)
                | CopyError::Conflict(_)
                | CopyError::Unpack(_)),
            ) => Err(ImageError::Rejected(with_causes(&error))),
            Err(error) => Err(failed("copying files into the image", error)),
        }
    }
}

fn failed(what: &'static str, source: impl Error + Send + Sync + 'static) -> ImageError {
    ImageError::Failed {
        what,
        source: Box::new(source),
    }
}

/// Most reasons why an import fails lie with its source, and whoever gave it has to know them.
fn import_failed(error: ImportError) -> ImageError {
    ImageError::Rejected(with_causes(&error))
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn open(path: &Path) -> Result<File, ImageError> {
    File::open(path).map_err(|error| ImageError::Rejected(format!("cannot read the file: {error}")))
}

fn digests(layers: &[String]) -> Result<Vec<Digest>, ImageError> {
    let parse = |layer: &String| layer.parse::<Digest>();
    let digests: Result<Vec<_>, _> = layers.iter().map(parse).collect();
    digests.map_err(|error| failed("reading the image's layers", error))
}

fn lines(sink: ProgressSink) -> Progress {
    Progress::new(move |event: Event| {
        let mut line = event.phase.as_str().to_owned();
        if let Some(item) = &event.item {
            line.push(' ');
            line.push_str(item);
        }
        if let Some(percent) = event.percent {
            line.push_str(&format!(" ({percent}%)"));
        }
        sink(line);
    })
}

fn built(image: Image) -> BuiltImage {
    let ImageConfig {
        env, user, workdir, ..
    } = image.config;
    BuiltImage {
        layers: image.layers.iter().map(Digest::to_string).collect(),
        env: env.into_iter().collect(),
        user: user_name(user.as_deref()),
        workdir,
        start_cmd: None,
        ready_cmd: None,
        security: SecurityOptions::default(),
    }
}

/// A name: images may also give numbers and groups, which programs here do not.
fn user_name(user: Option<&str>) -> String {
    let name = user.and_then(|user| user.split(':').next()).unwrap_or("");
    match name {
        "0" => "root".to_owned(),
        name if name.is_empty() || name.bytes().all(|byte| byte.is_ascii_digit()) => {
            DEFAULT_USER.to_owned()
        }
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        for (given, name) in [
            (None, "user"),
            (Some(""), "user"),
            (Some("0:0"), "root"),
            (Some("1000"), "user"),
            (Some("node"), "node"),
            (Some("app:app"), "app"),
        ] {
            assert_eq!(user_name(given), name, "{given:?}");
        }
    }
}
