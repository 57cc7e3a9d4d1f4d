//! Pulls images from registries.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};
use std::time::Duration;

use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use tokio::io::AsyncWrite;

use super::layout::Import;
use super::oci::{self, ConfigDoc, MAX_DOCUMENT};
use super::{ImportError, Platform};
use crate::blocking;
use crate::config::Image;
use crate::progress::{Phase, Progress};
use crate::store::{LayerOrigin, LayerStore};
use crate::unpack::Limits;

/// Tries per layer; each starts from the beginning.
const ATTEMPTS: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes between two progress events.
const REPORT_EVERY: u64 = 1024 * 1024;

/// How to identify oneself at a registry.
#[derive(Clone)]
pub enum RegistryAuth {
    Anonymous,
    Basic { username: String, password: String },
    Bearer(String),
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    pub auth: RegistryAuth,
    pub platform: Platform,
    /// `host:port` of registries that speak plain HTTP. All others must speak HTTPS.
    pub insecure_hosts: Vec<String>,
    /// Per layer: the archive's bytes, compressed and unpacked, and its entries.
    pub limits: Limits,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            auth: RegistryAuth::Anonymous,
            platform: Platform::default(),
            insecure_hosts: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Pulls `reference` (`debian:12`, `ghcr.io/a/b@sha256:…`). Every byte is checked against the
/// manifest's digests before it is unpacked; layers that the store has are not fetched again.
pub async fn pull_registry(
    store: &LayerStore,
    reference: &str,
    options: PullOptions,
    progress: Progress,
) -> Result<Image, ImportError> {
    let parsed: Reference =
        reference
            .parse()
            .map_err(|e: oci_client::ParseError| ImportError::Reference {
                reference: reference.to_owned(),
                reason: e.to_string(),
            })?;
    progress.emit(Phase::Resolving, Some(0), Some(reference.to_owned()));
    let client = client(&options);
    let (manifest, _) = client
        .pull_image_manifest(&parsed, &auth(&options.auth))
        .await
        .map_err(failed("manifest"))?;
    let mut bytes = Vec::new();
    let out = Bounded::new(&mut bytes, MAX_DOCUMENT, |_| ());
    client
        .pull_blob(&parsed, &manifest.config, out)
        .await
        .map_err(failed("configuration"))?;
    let config: ConfigDoc = oci::parse("config", &bytes)?;
    let parsed_config = config.accept(manifest.layers.len(), &options.platform)?;
    for layer in &manifest.layers {
        oci::check_layer_type(&layer.media_type)?;
        oci::digest(&layer.digest)?;
    }
    let pull = Pull {
        store,
        client,
        reference: parsed,
        options: &options,
        progress: &progress,
    };
    let mut done = 0;
    for (layer, diff_id) in manifest.layers.iter().zip(&parsed_config.diff_ids) {
        if store.origin(diff_id) != Some(LayerOrigin::Archive) {
            pull.layer(&manifest, layer, diff_id, done).await?;
        }
        done += size(layer);
    }
    progress.emit(Phase::Unpacking, Some(100), None);
    Ok(Image::new(parsed_config.diff_ids, parsed_config.config))
}

struct Pull<'a> {
    store: &'a LayerStore,
    client: Client,
    reference: Reference,
    options: &'a PullOptions,
    progress: &'a Progress,
}

impl Pull<'_> {
    async fn layer(
        &self,
        manifest: &OciImageManifest,
        layer: &OciDescriptor,
        diff_id: &crate::Digest,
        done: u64,
    ) -> Result<(), ImportError> {
        let total: u64 = manifest.layers.iter().map(size).sum();
        let workspace = self.store.workspace()?;
        let path = workspace.path().join("blob");
        self.download(layer, &path, done, total).await?;
        self.progress.emit(
            Phase::Unpacking,
            percent(done + size(layer), total),
            Some(layer.digest.clone()),
        );
        let (store, progress, limits) = (
            self.store.clone(),
            self.progress.clone(),
            self.options.limits,
        );
        let (what, diff_id) = (layer.digest.clone(), diff_id.clone());
        blocking::run(move |cancelled| {
            let import = Import {
                store: &store,
                limits,
                progress: &progress,
                cancelled: &cancelled,
            };
            let unpacked = import.layer(&what, std::fs::File::open(&path)?, &diff_id);
            drop(workspace);
            unpacked
        })
        .await
    }

    /// Streams the layer to `path`; the client checks its digest at the end.
    async fn download(
        &self,
        layer: &OciDescriptor,
        path: &Path,
        done: u64,
        total: u64,
    ) -> Result<(), ImportError> {
        let limit = size(layer).min(self.options.limits.max_bytes);
        let mut attempt = 1;
        loop {
            let mut file = tokio::fs::File::create(path).await?;
            let (item, mut reported) = (layer.digest.clone(), 0);
            let out = Bounded::new(&mut file, limit, |received| {
                if received >= reported + REPORT_EVERY {
                    reported = received;
                    self.progress.emit(
                        Phase::Downloading,
                        percent(done + received, total),
                        Some(item.clone()),
                    );
                }
            });
            match self.client.pull_blob(&self.reference, layer, out).await {
                Ok(()) => return Ok(()),
                Err(OciDistributionError::RequestError(error)) if attempt < ATTEMPTS => {
                    tracing::warn!(%error, layer = layer.digest, "fetching a layer failed, trying again");
                    tokio::time::sleep(BACKOFF * attempt).await;
                    attempt += 1;
                }
                Err(error) => return Err(failed(&layer.digest)(error)),
            }
        }
    }
}

fn client(options: &PullOptions) -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails when the program chose one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let Platform { os, architecture } = options.platform.clone();
    Client::new(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(options.insecure_hosts.clone()),
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: "woodfrog",
        platform_resolver: Some(Box::new(move |entries| {
            let fits = |entry: &&oci_client::manifest::ImageIndexEntry| {
                let platform = entry.platform.as_ref();
                platform.is_some_and(|p| {
                    p.os.to_string() == os && p.architecture.to_string() == architecture
                })
            };
            entries.iter().find(fits).map(|entry| entry.digest.clone())
        })),
        ..ClientConfig::default()
    })
}

fn auth(auth: &RegistryAuth) -> oci_client::secrets::RegistryAuth {
    use oci_client::secrets::RegistryAuth as Theirs;
    match auth {
        RegistryAuth::Anonymous => Theirs::Anonymous,
        RegistryAuth::Basic { username, password } => {
            Theirs::Basic(username.clone(), password.clone())
        }
        RegistryAuth::Bearer(token) => Theirs::Bearer(token.clone()),
    }
}

fn failed(context: &str) -> impl FnOnce(OciDistributionError) -> ImportError {
    let context = context.to_owned();
    move |source| ImportError::Registry { context, source }
}

fn size(layer: &OciDescriptor) -> u64 {
    u64::try_from(layer.size).unwrap_or(0)
}

fn percent(done: u64, total: u64) -> Option<u8> {
    u8::try_from(done.saturating_mul(100).checked_div(total)?.min(100)).ok()
}

/// Passes writes on up to a limit: a registry may send more than it announced.
struct Bounded<'a, W, F> {
    inner: &'a mut W,
    received: u64,
    limit: u64,
    report: F,
}

impl<'a, W, F> Bounded<'a, W, F> {
    fn new(inner: &'a mut W, limit: u64, report: F) -> Self {
        Self {
            inner,
            received: 0,
            limit,
            report,
        }
    }
}

impl<W: AsyncWrite + Unpin, F: FnMut(u64) + Unpin> AsyncWrite for Bounded<'_, W, F> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.received + bytes.len() as u64 > this.limit {
            let text = "the registry sent more than the manifest says";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let written = std::task::ready!(Pin::new(&mut *this.inner).poll_write(cx, bytes))?;
        this.received += written as u64;
        (this.report)(this.received);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().inner).poll_shutdown(cx)
    }
}
