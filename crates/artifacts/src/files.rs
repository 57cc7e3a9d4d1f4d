//! Where the bytes of artifacts are kept: `workspace/run/artifact` below a directory.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

/// Bytes that are in memory at a time.
const PIECE: usize = 5 << 20;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The bytes are not there.
    #[error("there is no such file")]
    NotFound,
    /// The sandbox's file cannot be read.
    #[error("it cannot be read")]
    Source(#[source] io::Error),
    /// The directory failed: it is full, for one.
    #[error("it cannot be stored")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl FilesError {
    fn store(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Store(error.into())
    }
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub digest: String,
}

/// What came of the wish to store a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Kept(Kept),
    /// It has more bytes than it may; nothing was stored.
    TooLarge,
}

/// Bytes, as they are read.
pub type Content = BoxStream<'static, Result<Bytes, FilesError>>;

/// A directory with files of runs. A cheap clone.
#[derive(Debug, Clone)]
pub struct Files {
    store: Arc<LocalFileSystem>,
    directory: PathBuf,
    baselines: PathBuf,
}

/// What is being read: the source, what of it was hashed, and how much.
struct Source {
    file: File,
    hasher: Sha256,
    size: u64,
}

impl Files {
    /// Those in a directory, which is made if need be, for its owner alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &FsPath) -> Result<Self, FilesError> {
        let bytes = directory.join("bytes");
        let baselines = directory.join("baselines");
        for path in [&bytes, &baselines] {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
            builder.create(path).map_err(FilesError::store)?;
        }
        let store = LocalFileSystem::new_with_prefix(&bytes).map_err(FilesError::store)?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            directory: bytes,
            baselines,
        })
    }

    /// Where the baseline of a run is.
    pub fn baseline(&self, run: &str) -> PathBuf {
        self.baselines.join(run)
    }

    /// The runs that have a baseline.
    pub fn baselines(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.baselines)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    /// Forgets the baseline of a run, or a half-written one.
    pub fn forget_baseline(&self, run: &str) -> io::Result<()> {
        let at = self.baseline(run);
        gone(std::fs::remove_file(at.with_extension("new")))?;
        gone(std::fs::remove_file(at))
    }

    /// Stores a file of at most `max` bytes, over an older one; durable and whole when this
    /// returns, and not there at all before.
    pub async fn put(&self, place: [&str; 3], file: File, max: u64) -> Result<Put, FilesError> {
        let path = Path::from_iter(place);
        let source = Source {
            file,
            hasher: Sha256::new(),
            size: 0,
        };
        let (mut source, first, mut over) = piece(source).await?;
        if source.size > max {
            return Ok(Put::TooLarge);
        }
        if over {
            let put = self.store.put(&path, first.into()).await;
            put.map_err(FilesError::store)?;
            return Ok(Put::Kept(source.kept()));
        }
        let upload = self.store.put_multipart(&path).await;
        let mut upload = upload.map_err(FilesError::store)?;
        let mut next = Some(first);
        while let Some(bytes) = next.take() {
            let part = upload.put_part(bytes.into()).await;
            part.map_err(FilesError::store)?;
            if over {
                break;
            }
            let read = piece(source).await;
            let bytes;
            (source, bytes, over) = match read {
                Ok(read) => read,
                Err(error) => {
                    let _undone = upload.abort().await;
                    return Err(error);
                }
            };
            if source.size > max {
                let _undone = upload.abort().await;
                return Ok(Put::TooLarge);
            }
            next = Some(bytes).filter(|bytes| !bytes.is_empty());
        }
        upload.complete().await.map_err(FilesError::store)?;
        Ok(Put::Kept(source.kept()))
    }

    /// Reads a part of a file that is not empty.
    pub async fn get(&self, place: [&str; 3], part: Range<u64>) -> Result<Content, FilesError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(part)),
            ..GetOptions::default()
        };
        let got = self.store.get_opts(&Path::from_iter(place), options).await;
        let got = got.map_err(|error| match error {
            Error::NotFound { .. } => FilesError::NotFound,
            error => FilesError::store(error),
        })?;
        Ok(got.into_stream().map_err(FilesError::store).boxed())
    }

    /// Removes a file; one that is gone is fine.
    pub async fn delete(&self, place: [&str; 3]) -> Result<(), FilesError> {
        match self.store.delete(&Path::from_iter(place)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(FilesError::store(error)),
        }
    }

    /// Removes all files of a run, with what interrupted writes left; none is fine.
    pub async fn delete_run(&self, workspace: &str, run: &str) -> Result<(), FilesError> {
        self.remove(self.directory.join(workspace).join(run)).await
    }

    /// Removes all files of a workspace.
    pub async fn delete_workspace(&self, workspace: &str) -> Result<(), FilesError> {
        self.remove(self.directory.join(workspace)).await
    }

    async fn remove(&self, path: PathBuf) -> Result<(), FilesError> {
        let removed = tokio::task::spawn_blocking(move || gone(std::fs::remove_dir_all(path)));
        let removed = removed.await.map_err(FilesError::store)?;
        removed.map_err(FilesError::store)
    }
}

impl Source {
    fn kept(self) -> Kept {
        Kept {
            size: self.size,
            digest: hex::encode(self.hasher.finalize()),
        }
    }
}

/// The next bytes, and whether there are no more.
async fn piece(mut source: Source) -> Result<(Source, Bytes, bool), FilesError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        (&mut source.file)
            .take(PIECE as u64)
            .read_to_end(&mut bytes)?;
        source.hasher.update(&bytes);
        source.size += bytes.len() as u64;
        let over = bytes.len() < PIECE;
        Ok((source, Bytes::from(bytes), over))
    });
    let read = read.await.map_err(FilesError::store)?;
    read.map_err(FilesError::Source)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
