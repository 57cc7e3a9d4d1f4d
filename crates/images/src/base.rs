//! The `base` template, made from the distribution's own packages with the machine's own apt
//! configuration.
//!
//! The finished root filesystem is kept as `base-<recipe>.tar.zst` in a directory of the machine,
//! so that several data directories share one build. A lock file makes concurrent callers, also in
//! different processes, wait for the first and use its result.

mod build;
mod recipe;
mod sources;
mod watch;

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use thiserror::Error;

use crate::blocking::{self, Cancelled};
use crate::config::{Image, ImageConfig};
use crate::digest::Digest;
use crate::progress::{Phase, Progress};
use crate::store::{LayerStore, StoreError};
use crate::unpack::{Limits, Whiteouts};
use recipe::Recipe;

const DEFAULT_CACHE: &str = "/var/cache/woodfrog";
/// Overrides the cache directory.
const CACHE_VARIABLE: &str = "WOODFROG_CACHE_DIR";
const LOCK_POLL: std::time::Duration = std::time::Duration::from_millis(50);

/// Why there is no base template.
#[derive(Debug, Error)]
pub enum BaseError {
    #[error(
        "the base template is made from Debian packages, but this machine runs `{0}`: import a root filesystem instead"
    )]
    NotDebian(String),
    #[error("apt on this machine has no Debian archive for `{0}` configured")]
    NoSources(String),
    #[error("`{0}` is not installed: run `apt-get install {1}`")]
    NoTool(&'static str, &'static str),
    #[error("making the base template needs root")]
    NotRoot,
    #[error("mmdebstrap failed ({status}): {output}")]
    Failed { status: ExitStatus, output: String },
    #[error("cannot read {what}")]
    Read {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the process that builds the base template was lost")]
    Lost,
    #[error("making the base template was given up")]
    Cancelled,
    #[error("making the base template")]
    Io(#[from] io::Error),
    #[error("storing the base template")]
    Store(#[from] StoreError),
}

/// Where the finished root filesystem is kept.
#[derive(Clone, Debug)]
pub struct BaseOptions {
    /// `WOODFROG_CACHE_DIR`, else `/var/cache/woodfrog`.
    pub cache_dir: PathBuf,
}

impl Default for BaseOptions {
    fn default() -> Self {
        let dir = std::env::var_os(CACHE_VARIABLE).filter(|dir| !dir.is_empty());
        Self {
            cache_dir: dir.map_or_else(|| DEFAULT_CACHE.into(), PathBuf::from),
        }
    }
}

/// Makes the `base` template.
#[derive(Clone, Debug, Default)]
pub struct BaseBuilder {
    options: BaseOptions,
}

impl BaseBuilder {
    pub fn new(options: BaseOptions) -> Self {
        Self { options }
    }

    /// The base image in `store`: from the store, else from the cache, else built, which takes
    /// about half a minute and the machine's apt mirror. Needs root.
    pub async fn ensure(&self, store: &LayerStore, progress: Progress) -> Result<Image, BaseError> {
        let (options, store) = (self.options.clone(), store.clone());
        blocking::run(move |cancelled| {
            let note =
                archive_path(&options.cache_dir, &Recipe::of_machine()?).with_extension("digest");
            if let Some(digest) = noted(&note).filter(|digest| store.exists(digest)) {
                progress.emit(Phase::Unpacking, Some(100), None);
                return Ok(Image::new(vec![digest], base_config()));
            }
            let archive = cached(&options.cache_dir, &progress, &cancelled)?;
            progress.emit(Phase::Unpacking, Some(95), None);
            let layer = store.unpack_blocking(
                archive,
                Limits::default(),
                Whiteouts::Literal,
                &Progress::none(),
                &cancelled,
            )?;
            // Without the note the next call unpacks once more: no reason to fail.
            if let Err(error) = std::fs::write(&note, layer.digest.as_str()) {
                tracing::warn!(%error, path = %note.display(), "cannot note the base layer");
            }
            progress.emit(Phase::Unpacking, Some(100), None);
            Ok(Image::new(vec![layer.digest], base_config()))
        })
        .await
    }

    /// The archive with the base root filesystem, built if this machine has none yet.
    pub async fn archive(&self, progress: Progress) -> Result<PathBuf, BaseError> {
        let dir = self.options.cache_dir.clone();
        blocking::run(move |cancelled| {
            cached(&dir, &progress, &cancelled)?;
            Ok(archive_path(&dir, &Recipe::of_machine()?))
        })
        .await
    }
}

fn base_config() -> ImageConfig {
    let mut config = ImageConfig {
        user: Some("user".to_owned()),
        workdir: Some("/home/user".to_owned()),
        cmd: vec!["/bin/bash".to_owned()],
        ..ImageConfig::default()
    };
    config.set_env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    config.set_env("LANG", "C.UTF-8");
    config
}

/// The layer that the cached archive unpacks to, noted when it was last done.
fn noted(path: &Path) -> Option<Digest> {
    std::fs::read_to_string(path).ok()?.parse().ok()
}

fn archive_path(dir: &Path, recipe: &Recipe) -> PathBuf {
    dir.join(format!("base-{}.tar.zst", &recipe.hash().as_str()[..32]))
}

/// Opens the cached archive; under the lock of its recipe, builds it first if it is missing.
fn cached(dir: &Path, progress: &Progress, cancelled: &Cancelled) -> Result<File, BaseError> {
    if !rustix::process::geteuid().is_root() {
        return Err(BaseError::NotRoot);
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let recipe = Recipe::of_machine()?;
    let path = archive_path(dir, &recipe);
    if let Some(archive) = open(&path)? {
        return Ok(archive);
    }
    let lock = File::create(path.with_extension("lock"))?;
    acquire(&lock, progress, cancelled)?;
    if let Some(archive) = open(&path)? {
        return Ok(archive);
    }
    if !in_path("mmdebstrap") {
        return Err(BaseError::NoTool("mmdebstrap", "mmdebstrap"));
    }
    sweep(dir)?;
    let scratch = tempfile::Builder::new().prefix(".build-").tempdir_in(dir)?;
    // Held as long as the scratch directory is ours: a sweep leaves locked ones alone.
    let owner = File::create(scratch.path().join("owner"))?;
    owner.lock()?;
    let unfinished = scratch.path().join("base.tar.zst");
    let output = File::create_new(&unfinished)?;
    build::build(&recipe, scratch.path(), &output, progress, cancelled)?;
    output.sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    File::open(dir)?.sync_all()?;
    open(&path)?.ok_or(BaseError::Lost)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits for the lock, saying so, as long as somebody wants the result. The kernel lets go of it
/// when its holder dies.
fn acquire(lock: &File, progress: &Progress, cancelled: &Cancelled) -> Result<(), BaseError> {
    let mut said = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
            Err(std::fs::TryLockError::WouldBlock) if cancelled.is_set() => {
                return Err(BaseError::Cancelled);
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                if !said {
                    progress.emit(
                        Phase::Waiting,
                        None,
                        Some("another build of the same".to_owned()),
                    );
                    said = true;
                }
                std::thread::sleep(LOCK_POLL);
            }
        }
    }
}

/// Removes scratch directories whose builder died.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(".build-") {
            continue;
        }
        let owner = open(&entry.path().join("owner"))?;
        if owner.is_some_and(|owner| owner.try_lock().is_ok()) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn in_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
}
