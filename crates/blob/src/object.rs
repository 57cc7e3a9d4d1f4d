//! The adapter over `object_store`: a directory, memory, or S3.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::port::missing;
use crate::{BlobError, BlobStore, Found, Key, Kind, Result};

/// Archives' objects in some object store.
pub struct ObjectBlobs {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The directory, where it is one.
    directory: Option<PathBuf>,
}

impl ObjectBlobs {
    /// The store of the setting `archive.url`: `file:///directory` (or an absolute path),
    /// `s3://bucket/prefix`, or `memory:`. Credentials, region and endpoint of S3 come from
    /// `options`, named as in the AWS tools (`AWS_ACCESS_KEY_ID` …).
    ///
    /// # Errors
    /// The URL names no store, or it cannot be opened.
    pub fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        if let Some(path) = url.strip_prefix("file://") {
            return Self::directory(FsPath::new(path));
        }
        match url {
            "memory:" => Ok(Self::memory()),
            _ if url.starts_with("s3://") => Self::s3(url, options),
            _ if url.starts_with('/') => Self::directory(FsPath::new(url)),
            _ => Err(BlobError::Setting(format!(
                "`{url}` is neither file:///DIRECTORY nor s3://BUCKET/PREFIX"
            ))),
        }
    }

    /// In memory, for tests.
    pub fn memory() -> Self {
        Self {
            store: Arc::new(InMemory::new()),
            prefix: Path::default(),
            directory: None,
        }
    }

    /// In a directory, which is made if need be, for root alone.
    ///
    /// # Errors
    /// The path is not absolute, or it cannot be made.
    pub fn directory(directory: &FsPath) -> Result<Self> {
        if !directory.is_absolute() {
            let why = format!("{} is not an absolute path", directory.display());
            return Err(BlobError::Setting(why));
        }
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| BlobError::Backend {
            action: format!("open {}", directory.display()),
            source,
        };
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(directory).map_err(|e| failed(e.into()))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(|e| failed(e.into()))?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            prefix: Path::default(),
            directory: Some(directory.to_path_buf()),
        })
    }

    /// In a bucket.
    ///
    /// # Errors
    /// The URL or an option is wrong.
    pub fn s3(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        // The client finds it there; whoever was first has set the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bucket = url.strip_prefix("s3://").unwrap_or(url);
        let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
        for (name, value) in options {
            // Others are of no concern to S3 (an environment has many).
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let setting = |error: Error| BlobError::Setting(error.to_string());
        Ok(Self {
            store: Arc::new(builder.build().map_err(setting)?),
            prefix: Path::parse(prefix).map_err(|error| setting(error.into()))?,
            directory: None,
        })
    }

    fn path(&self, key: Key) -> Path {
        let parts = self.prefix.parts().map(|part| part.as_ref().to_owned());
        let own = key.path();
        Path::from_iter(parts.chain(own.split('/').map(str::to_owned)))
    }
}

fn backend(action: impl Into<String>, error: Error) -> BlobError {
    BlobError::Backend {
        action: action.into(),
        source: Box::new(error),
    }
}

fn found(key: Key, meta: &ObjectMeta) -> Found {
    Found {
        key,
        size: meta.size,
        modified: SystemTime::from(meta.last_modified),
    }
}

#[async_trait]
impl BlobStore for ObjectBlobs {
    async fn put(&self, key: Key, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&self.path(key), bytes.into()).await;
        put.map(drop)
            .map_err(|error| backend(format!("write {key}"), error))
    }

    async fn get(&self, key: Key, max: usize) -> Result<Bytes> {
        let failed = |error| match error {
            Error::NotFound { .. } => missing(key),
            other => backend(format!("read {key}"), other),
        };
        let object = self.store.get(&self.path(key)).await.map_err(failed)?;
        if object.meta.size > max as u64 {
            return Err(BlobError::corrupt(
                key.to_string(),
                format!("it has {} bytes, at most {max}", object.meta.size),
            ));
        }
        object.bytes().await.map_err(failed)
    }

    async fn head(&self, key: Key) -> Result<Option<Found>> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(found(key, &meta))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(backend(format!("look for {key}"), error)),
        }
    }

    fn list(&self, kind: Kind) -> BoxStream<'static, Result<Found>> {
        let folder = self.prefix.clone().join(kind.folder());
        let listed = self
            .store
            .list(Some(&folder))
            .map_err(|e| backend("list", e));
        listed
            .try_filter_map(async |meta| {
                let key = Key::parse(meta.location.as_ref());
                Ok(key.map(|key| found(key, &meta)))
            })
            .boxed()
    }

    async fn delete(&self, key: Key) -> Result<()> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(backend(format!("delete {key}"), error)),
        }
    }

    async fn sweep_partial(&self, older: Duration) -> Result<u64> {
        let Some(directory) = self.directory.clone() else {
            return Ok(0);
        };
        let swept = tokio::task::spawn_blocking(move || sweep(&directory, older)).await;
        let swept = swept.map_err(|error| BlobError::ended("sweep", error))?;
        swept.map_err(|error| BlobError::Backend {
            action: "sweep".into(),
            source: error.into(),
        })
    }
}

/// Removes files `NAME#NUMBER`, under which objects are written before they get their name.
fn sweep(directory: &FsPath, older: Duration) -> std::io::Result<u64> {
    let mut removed = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            removed += sweep(&entry.path(), older)?;
        } else if entry.file_name().as_encoded_bytes().contains(&b'#') {
            let modified = entry.metadata()?.modified()?;
            if modified.elapsed().is_ok_and(|age| age >= older) {
                std::fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
