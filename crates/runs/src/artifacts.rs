//! Which files a run leaves, and keeping them.
//!
//! Before the run's process starts, what is in its sandbox's writable layer is written down; while it
//! goes on and at its end the layer is compared with that. What is kept meanwhile is what is left if
//! the sandbox is lost; otherwise the look at the end decides. An artifact's id follows from the run and the path, so that
//! whoever goes on after a crash stores the same files at the same places.

mod capture;
mod earlier;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use woodfrog_artifacts::{
    Baseline, Change, Changed, Files, FilesError, Kept, Layer, LayerError, Put, changes,
};
use woodfrog_core::artifact::{self, Exclude, LeftOut};
use woodfrog_guest_client::proto::{EntryKind, PathRequest};
use woodfrog_store::{ArtifactPut, StoreError};
use woodfrog_types::artifact::Artifact;
use woodfrog_types::run::{ArtifactPolicy, Run, RunState};
use woodfrog_types::{ArtifactId, Code, Fault, RunId, SandboxId, Timestamp};

use crate::service::{Inner, fault};

pub(crate) use capture::Capture;
use earlier::Earlier;

/// How long it may take to look at a run's files and keep them.
const KEEP_MAX: Duration = Duration::from_secs(120);
/// Changed files that wait, open, while another is stored.
const AHEAD: usize = 4;
/// Files that are left out and told one by one; of more, how many.
const TOLD_MAX: usize = 100;
/// Characters of a path that is told.
const TOLD_CHARS_MAX: usize = 500;
/// Between two tries while the store is out of reach.
const RETRY: Duration = Duration::from_millis(500);

/// What became of the files of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) created: u64,
    pub(crate) modified: u64,
    kept: u32,
    bytes: u64,
    excluded: u64,
    left_out: Vec<Value>,
    left_out_count: u64,
    /// Files that stay as they were kept while the run went on, because nobody could look again.
    kept_before: usize,
    /// Why there may be more.
    incomplete: Option<String>,
}

impl Report {
    /// As the run's log has it.
    pub(crate) fn data(&self) -> Value {
        let mut artifacts = json!({
            "kept": self.kept,
            "bytes": self.bytes,
            "excluded": self.excluded,
            "left_out": self.left_out,
            "left_out_count": self.left_out_count,
        });
        if let Some(why) = &self.incomplete {
            artifacts["incomplete"] = why.as_str().into();
            artifacts["kept_before"] = self.kept_before.into();
        }
        json!({"status": "running", "artifacts": artifacts})
    }

    fn leave_out(&mut self, path: &[u8], size: u64, reason: LeftOut) {
        self.left_out_count += 1;
        if self.left_out.len() < TOLD_MAX {
            let path = String::from_utf8_lossy(path);
            let path: String = path.chars().take(TOLD_CHARS_MAX).collect();
            let entry = json!({"path": path, "size": size, "reason": reason.as_str()});
            self.left_out.push(entry);
        }
    }
}

/// Writes down what is there before the run begins, unless a try before did.
pub(crate) async fn begin(inner: &Inner, run: &Run, sandbox: &SandboxId) -> Result<(), Fault> {
    let Some(policy) = &run.setup.artifacts else {
        return Ok(());
    };
    let at = inner.files()?.baseline(run.id.as_str());
    if at.exists() {
        return Ok(());
    }
    let folders = folders(inner, run, sandbox, policy).await?;
    let upper = inner.engine.written(sandbox).await?;
    let exclude = Exclude::new(&policy.exclude)?;
    let written = tokio::task::spawn_blocking(move || {
        let layer = Layer::new(upper);
        Baseline::write(&at, &layer, &folders, |below| exclude.leaves_out(below))
    });
    match written.await.map_err(Fault::internal)? {
        Ok(()) => Ok(()),
        Err(error @ LayerError::TooMuch) => {
            let text = format!("artifacts: {error}; name fewer folders, or leave more out");
            Err(Fault::new(Code::InvalidArgument, text))
        }
        Err(error @ (LayerError::Unknown | LayerError::Io(_))) => Err(Fault::internal(error)),
    }
}

/// Where files are looked for, as the sandbox names it.
async fn folders(
    inner: &Inner,
    run: &Run,
    sandbox: &SandboxId,
    policy: &ArtifactPolicy,
) -> Result<Vec<String>, Fault> {
    let access = inner.engine.access(sandbox).await?;
    let lease = inner.engine.guest(sandbox).await?;
    let resolve = async |path: &str| {
        let request = PathRequest {
            path: path.to_owned(),
            user: Some(access.default_user.clone()),
            xattr_prefix: None,
        };
        let found = lease.stat(request).await.ok()?;
        match found.link {
            // What a link leads to is in the layer, the link may not be.
            Some(link) => link
                .target
                .filter(|target| target.kind == EntryKind::Directory)
                .map(|target| target.path),
            None => (found.kind == EntryKind::Directory).then_some(found.path),
        }
    };
    let mut cwd = None;
    let asked = run.setup.cwd.as_deref();
    for place in asked
        .into_iter()
        .chain(access.default_workdir.as_deref())
        .chain(["~"])
    {
        cwd = resolve(place).await;
        if cwd.is_some() {
            break;
        }
    }
    let cwd = cwd.unwrap_or_else(|| "/".to_owned());
    if policy.paths.is_empty() {
        return Ok(vec![cwd]);
    }
    let mut folders = Vec::new();
    for path in &policy.paths {
        let absolute = match path.starts_with(['/', '~']) {
            true => path.clone(),
            false => format!("{cwd}/{path}"),
        };
        // One that is not there yet may be made by the run.
        folders.push(resolve(&absolute).await.unwrap_or(absolute));
    }
    Ok(folders)
}

/// Keeps what the run left, as its policy says. `None` if it says that nothing is kept, or if the
/// run never began.
pub(crate) async fn keep(inner: &Arc<Inner>, run: &Run) -> Option<Report> {
    let policy = run.setup.artifacts.as_ref()?;
    let sandbox = run.sandbox.as_ref()?;
    if !matches!(run.state, RunState::Running { .. }) {
        return None;
    }
    let mut keeper = Keeper {
        inner,
        run,
        policy,
        report: Report::default(),
        earlier: Earlier::default(),
        patience: Patience::UntilItIsBack,
    };
    let kept = tokio::time::timeout(KEEP_MAX, keeper.all(sandbox)).await;
    let why = match kept {
        Ok(Ok(())) => None,
        Ok(Err(fault)) => {
            tracing::warn!(run = %run.id, %fault, "not all files of a run are kept");
            Some(fault.message)
        }
        Err(_) => Some(format!("it took longer than {} s", KEEP_MAX.as_secs())),
    };
    keeper.report.incomplete = why;
    keeper.report.kept_before = keeper.earlier.len();
    Some(keeper.report)
}

/// What was written down for a run that is over is of no use any more.
pub(crate) async fn forget(inner: &Inner, run: &RunId) {
    let Some(files) = inner.files.clone() else {
        return;
    };
    let id = run.clone();
    let forgotten = tokio::task::spawn_blocking(move || files.forget_baseline(id.as_str())).await;
    if let Ok(Err(error)) = forgotten {
        tracing::warn!(%run, %error, "what was written down for a run stays for now");
    }
}

/// How long a store that is out of reach is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    UntilItIsBack,
    /// There will be another time.
    Not,
}

struct Keeper<'a> {
    inner: &'a Arc<Inner>,
    run: &'a Run,
    policy: &'a ArtifactPolicy,
    report: Report,
    earlier: Earlier,
    patience: Patience,
}

impl Keeper<'_> {
    async fn all(&mut self, sandbox: &SandboxId) -> Result<(), Fault> {
        let files = self.inner.files()?.clone();
        self.earlier = self
            .patiently(|| earlier::load(self.inner, self.run))
            .await?;
        let upper = self.inner.engine.written(sandbox).await?;
        let (tell, mut changed) = mpsc::channel(AHEAD);
        let excluded = Arc::new(AtomicU64::new(0));
        let walking = walk(
            &files,
            self.run,
            self.policy,
            upper,
            Arc::clone(&excluded),
            tell,
        )?;
        while let Some(one) = changed.recv().await {
            self.one(&files, one).await?;
        }
        self.report.excluded = excluded.load(Ordering::Relaxed);
        match walking.await.map_err(Fault::internal)? {
            Ok(()) => {
                // A sandbox that went meanwhile took its files along: nothing says that they were
                // removed, and what was kept of them stays.
                self.inner.engine.written(sandbox).await?;
                // What the look did not come by is not there any more, or not to be kept.
                self.remove_earlier().await
            }
            Err(error @ (LayerError::TooMuch | LayerError::Unknown)) => {
                Err(Fault::new(Code::Conflict, error.to_string()))
            }
            Err(error @ LayerError::Io(_)) => Err(Fault::internal(error)),
        }
    }

    async fn remove_earlier(&mut self) -> Result<(), Fault> {
        while let Some(old) = self.earlier.pop() {
            self.inner.remove_artifact(&old).await?;
        }
        Ok(())
    }

    async fn one(&mut self, files: &Files, changed: Changed) -> Result<(), Fault> {
        match changed.change {
            Change::Created => self.report.created += 1,
            Change::Modified => self.report.modified += 1,
        }
        let Changed {
            path, size, file, ..
        } = changed;
        let judged = artifact::judge(self.policy, &path, size, self.report.kept);
        let stored = match (judged, file) {
            (Err(reason), _) => Err(reason),
            (Ok(_), Err(_)) => Err(LeftOut::Unreadable),
            (Ok(text), Ok(file)) => self.store(files, text, file).await?,
        };
        match stored {
            Ok(bytes) => {
                self.report.kept += 1;
                self.report.bytes += bytes;
            }
            Err(reason) => self.report.leave_out(&path, size, reason),
        }
        Ok(())
    }

    /// The bytes first, then the record: what has a record can be had.
    async fn store(
        &mut self,
        files: &Files,
        path: String,
        file: std::fs::File,
    ) -> Result<Result<u64, LeftOut>, Fault> {
        let run = self.run;
        let id = id_of(&run.id, &path);
        let place = [run.workspace.as_str(), run.id.as_str(), id.as_str()];
        let kept = match files.put(place, file, self.policy.max_bytes).await {
            Ok(Put::Kept(kept)) => kept,
            Ok(Put::TooLarge) => return Ok(Err(LeftOut::TooLarge)),
            Err(FilesError::Source(error)) => {
                tracing::debug!(run = %run.id, path, %error, "a file of a run cannot be read");
                return Ok(Err(LeftOut::Unreadable));
            }
            Err(error @ (FilesError::NotFound | FilesError::Store(_))) => {
                let text = "artifacts cannot be stored on this server now";
                return Err(Fault::new(Code::NoSpace, text).because(error));
            }
        };
        let bytes = kept.size;
        let max = u64::from(self.policy.max_files);
        let found = self
            .patiently(|| self.inner.store.artifact_fetch(&id))
            .await?;
        if found.is_some_and(|known| known.digest == kept.digest && known.path == path) {
            // A try before stored it, and somebody may have looked at it since.
            self.earlier.confirm(&path);
            return Ok(Ok(bytes));
        }
        let artifact = self.artifact(id.clone(), path, kept);
        loop {
            let put = self.patiently(|| self.inner.store.artifact_put(&artifact, max));
            match put.await? {
                ArtifactPut::New | ArtifactPut::Replaced(_) => {
                    self.earlier.confirm(&artifact.path);
                    return Ok(Ok(bytes));
                }
                ArtifactPut::Full => {}
            }
            let Some(old) = self.earlier.make_room(&artifact.path) else {
                // Nobody refers to it; what stays goes with the run.
                let _gone = files.delete(place).await;
                return Ok(Err(LeftOut::TooMany));
            };
            self.inner.remove_artifact(&old).await?;
        }
    }

    fn artifact(&self, id: ArtifactId, path: String, kept: Kept) -> Artifact {
        Artifact {
            id,
            workspace: self.run.workspace.clone(),
            run: self.run.id.clone(),
            thread: self.run.thread.clone(),
            kind: artifact::kind(&path),
            title: artifact::title(&path),
            content_type: artifact::content_type(&path),
            size: kept.size,
            digest: kept.digest,
            review: None,
            created_at: Timestamp::now(),
            path,
        }
    }

    /// Asks the store until it can be reached.
    async fn patiently<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, Fault>
    where
        F: Future<Output = woodfrog_store::Result<T>>,
    {
        loop {
            match ask().await {
                Err(StoreError::Unavailable(error)) if self.patience != Patience::Not => {
                    tracing::warn!(run = %self.run.id, %error, "artifacts cannot be recorded now");
                    tokio::time::sleep(RETRY).await;
                }
                other => return other.map_err(fault),
            }
        }
    }
}

/// Begins to look for what changed.
fn walk(
    files: &Files,
    run: &Run,
    policy: &ArtifactPolicy,
    upper: OwnedFd,
    excluded: Arc<AtomicU64>,
    tell: mpsc::Sender<Changed>,
) -> Result<tokio::task::JoinHandle<Result<(), LayerError>>, Fault> {
    let at = files.baseline(run.id.as_str());
    let exclude = Exclude::new(&policy.exclude)?;
    Ok(tokio::task::spawn_blocking(move || {
        let leave_out = |below: &[u8]| {
            let out = exclude.leaves_out(below);
            if out {
                excluded.fetch_add(1, Ordering::Relaxed);
            }
            out
        };
        let tell = |changed| match tell.blocking_send(changed) {
            Ok(()) => std::ops::ControlFlow::Continue(()),
            // It took too long, or what comes cannot be stored.
            Err(_) => std::ops::ControlFlow::Break(()),
        };
        changes(&Layer::new(upper), Baseline::open(&at)?, leave_out, tell)
    }))
}

/// The id of a run's file: the same each time.
fn id_of(run: &RunId, path: &str) -> ArtifactId {
    let digest = Sha256::new()
        .chain_update(run.as_str())
        .chain_update([0])
        .chain_update(path)
        .finalize();
    let mut value = [0; 16];
    value.copy_from_slice(&digest[..16]);
    ArtifactId::of_value(u128::from_be_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_run_and_path() {
        let (run, other) = (RunId::generate(), RunId::generate());
        assert_eq!(id_of(&run, "/a"), id_of(&run, "/a"));
        assert_ne!(id_of(&run, "/a"), id_of(&run, "/b"));
        assert_ne!(id_of(&run, "/a"), id_of(&other, "/a"));
    }

    #[test]
    fn no_more_is_told_than_fits() {
        let mut report = Report::default();
        for _ in 0..TOLD_MAX + 5 {
            report.leave_out(&[b'a'; 9000], 7, LeftOut::TooMany);
        }
        let data = report.data();
        assert_eq!(data["artifacts"]["left_out_count"], TOLD_MAX + 5);
        let told = data["artifacts"]["left_out"].as_array().expect("a list");
        assert_eq!(told.len(), TOLD_MAX);
        assert_eq!(told[0]["reason"], "too_many");
        assert_eq!(told[0]["path"].as_str().map(str::len), Some(TOLD_CHARS_MAX));
    }
}
