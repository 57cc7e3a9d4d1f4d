//! The one way in which the engine starts tasks: named, counted, and with a policy on panics.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;

/// Between a panic and the next attempt, so that a task that always panics cannot burn a CPU.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// Runs a task once. A panic is logged and ends this task only.
pub(crate) fn spawn(
    tracker: &TaskTracker,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tracker.spawn(async move {
        let _ = guard(name, task).await;
    });
}

/// Runs the task that `make` gives, and another one after each panic, until one ends by itself.
pub(crate) fn supervise<F>(
    tracker: &TaskTracker,
    name: &'static str,
    mut make: impl FnMut() -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    tracker.spawn(async move {
        while guard(name, make()).await.is_err() {
            tokio::time::sleep(RESTART_DELAY).await;
        }
    });
}

/// The task panicked; the log says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs a future; a panic in it ends here.
pub(crate) async fn guard<T>(
    name: &'static str,
    task: impl Future<Output = T>,
) -> Result<T, Panicked> {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(value) => Ok(value),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(task = name, panic = text, "a task panicked");
            Err(Panicked)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_supervised_task_survives_its_panics() {
        let tracker = TaskTracker::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        supervise(&tracker, "test", move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(run >= 2, "not yet") }
        });
        spawn(&tracker, "once", async { panic!("only me") });
        tracker.close();
        tracker.wait().await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
