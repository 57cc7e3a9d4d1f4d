//! Sweeps: at set times sandboxes that nobody used for long go down one rung.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use woodfrog_types::Timestamp;
use woodfrog_types::sandbox::{Sandbox, SandboxState};

use crate::inner::Inner;
use crate::sandbox::live::{Command, Live};
use crate::sandbox::owner;

/// Sandboxes that go down at once.
const AT_ONCE: usize = 2;
/// The longest sleep: bounds what a jump of the wall clock can delay.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Sweeps at the times that the options say, until the server stops. A time at which it was not
/// running is not made up for.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let Some(plan) = inner.options.sweep.clone() else {
        return;
    };
    let mut after = Timestamp::now();
    while let Some(next) = (plan.next)(after) {
        loop {
            let now = Timestamp::now();
            if next <= now {
                break;
            }
            tokio::select! {
                () = inner.stopping.cancelled() => return,
                () = tokio::time::sleep(next.since(now).min(SLEEP_MAX)) => {}
            }
        }
        sweep(&inner, plan.idle).await;
        after = Timestamp::now().max(next);
    }
    tracing::warn!("the times of `sleep.sweep` are over");
}

/// Asks every sandbox that may go down whether it does.
async fn sweep(inner: &Arc<Inner>, idle: Duration) {
    // Damaged ones have no owner that could be asked.
    let all = match inner.store.sandbox_recover().await {
        Ok(found) => found.sandboxes,
        Err(error) => {
            tracing::error!(%error, "a sweep cannot list sandboxes");
            return;
        }
    };
    let asked = all.into_iter().filter(may_go_down).map(|record| {
        let live = match inner.registry.get(&record.id) {
            Some(live) => live,
            None => owner::spawn(inner, Live::new(&inner.registry.gates, record, None), None),
        };
        async move {
            let reply = live.ask(|reply| Command::Sweep { idle, reply }).await;
            if let Some(Err(fault)) = reply {
                tracing::warn!(sandbox = %live.id, error = &fault as &dyn std::error::Error, "not swept");
            }
        }
    });
    let done = futures_util::stream::iter(asked)
        .buffer_unordered(AT_ONCE)
        .count();
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        count = done => tracing::info!(count, "swept"),
    }
}

fn may_go_down(record: &Sandbox) -> bool {
    match record.state {
        SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernated { .. } => true,
        SandboxState::Archived { .. }
        | SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => false,
    }
}
