//! Heavy work on blocking threads, stopped when its future is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when the caller of an async function went away; blocking work looks at it between steps.
#[derive(Clone, Default, Debug)]
pub(crate) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct CancelOnDrop(Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a blocking thread. Dropping the future sets the flag given to `work`.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce(Cancelled) -> T + Send + 'static,
) -> T {
    let guard = CancelOnDrop(Cancelled::default());
    let flag = guard.0.clone();
    match tokio::task::spawn_blocking(move || work(flag)).await {
        Ok(value) => value,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels a blocking task; nobody polls us then.
            Err(_) => std::future::pending().await,
        },
    }
}
