//! Keeping files while the run goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use woodfrog_artifacts::{Changed, Files, Mark};
use woodfrog_core::artifact;
use woodfrog_types::run::{ArtifactPolicy, Run};
use woodfrog_types::{Fault, SandboxId};

use super::{AHEAD, Earlier, Keeper, Patience, Report, walk};
use crate::service::Inner;

/// A pause is at least as many times as long as the look before it.
const PAUSE_FACTOR: u32 = 9;

/// Looks at the files of a run from time to time. It ends with this.
pub(crate) struct Capture {
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Capture {
    /// Begins to look, if the run wants files to be kept.
    pub(crate) fn start(inner: &Arc<Inner>, run: &Run) -> Option<Self> {
        let looker = Looker {
            inner: Arc::clone(inner),
            policy: run.setup.artifacts.clone()?,
            sandbox: run.sandbox.clone()?,
            run: run.clone(),
            seen: HashMap::new(),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(looker.go_on(stop.clone()));
        let stop = stop.drop_guard();
        Some(Self { stop, task })
    }

    /// Ends it; nothing is written any more when this returns.
    pub(crate) async fn end(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "files were not looked at while a run went on");
        }
    }
}

struct Looker {
    inner: Arc<Inner>,
    policy: ArtifactPolicy,
    sandbox: SandboxId,
    run: Run,
    /// At the look before, by path; as many as may be kept.
    seen: HashMap<String, Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    mark: Mark,
    kept: bool,
}

impl Looker {
    async fn go_on(mut self, stop: CancellationToken) {
        let every = self.inner.options.capture;
        let mut pause = every;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let began = Instant::now();
            if let Err(fault) = self.look(&stop).await {
                // The look at the end tells, if it fails as well.
                tracing::debug!(run = %self.run.id, %fault, "files are not kept meanwhile");
            }
            pause = every.max(began.elapsed() * PAUSE_FACTOR);
        }
    }

    async fn look(&mut self, stop: &CancellationToken) -> Result<(), Fault> {
        let files = self.inner.files()?.clone();
        let upper = self.inner.engine.written(&self.sandbox).await?;
        let (tell, mut changed) = mpsc::channel(AHEAD);
        let excluded = Arc::new(AtomicU64::new(0));
        let walking = walk(&files, &self.run, &self.policy, upper, excluded, tell)?;
        let mut now = HashMap::new();
        while let Some(one) = changed.recv().await {
            // Between files: what is begun is done, so that nothing is written after the end.
            if stop.is_cancelled() {
                return Ok(());
            }
            self.one(&files, one, &mut now).await?;
        }
        self.seen = now;
        let walked = walking.await.map_err(Fault::internal)?;
        walked.map_err(Fault::internal)
    }

    /// Keeps a file that is as it was at the look before: one that is being written is not whole.
    async fn one(
        &self,
        files: &Files,
        changed: Changed,
        now: &mut HashMap<String, Seen>,
    ) -> Result<(), Fault> {
        let count = u32::try_from(now.len()).unwrap_or(u32::MAX);
        let Changed {
            path,
            size,
            mark,
            file,
            ..
        } = changed;
        let judged = artifact::judge(&self.policy, &path, size, count);
        let (Ok(path), Ok(file)) = (judged, file) else {
            return Ok(());
        };
        let before = self.seen.get(&path).filter(|before| before.mark == mark);
        let mut kept = before.is_some_and(|before| before.kept);
        if before.is_some() && !kept {
            let mut keeper = Keeper {
                inner: &self.inner,
                run: &self.run,
                policy: &self.policy,
                report: Report::default(),
                earlier: Earlier::default(),
                patience: Patience::Not,
            };
            kept = keeper.store(files, path.clone(), file).await?.is_ok();
        }
        now.insert(path, Seen { mark, kept });
        Ok(())
    }
}
