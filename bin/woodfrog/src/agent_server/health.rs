//! The child is asked whether it answers. One that stays silent is ended and started anew.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use woodfrog_core::health::{Health, HealthPolicy, Verdict};
use woodfrog_engine::Life;

use super::process::Process;

/// How often the child is asked, and how long it may take to answer.
const INTERVAL: &str = "WOODFROG_AGENT_SERVER_HEALTH_MS";
/// Told to those who read from what it had started.
const ANEW: &str = "the process driver did not answer and was started anew";

/// The child's lives, one after the other.
#[derive(Debug, Default)]
pub(super) struct Lives(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    present: Arc<Life>,
    over: bool,
}

impl Lives {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that goes on now.
    pub(super) fn present(&self) -> Arc<Life> {
        Arc::clone(&self.lock().present)
    }

    /// The server ends.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        state.present.end();
    }

    pub(super) fn are_over(&self) -> bool {
        self.lock().over
    }

    fn begin_anew(&self) {
        let mut state = self.lock();
        let before = std::mem::take(&mut state.present);
        before.end_anew(ANEW);
    }
}

/// Resolves when the child has ended by itself, or could not be brought back.
pub(super) async fn keep(process: &mut Process, lives: &Lives) -> Result<ExitStatus> {
    let policy = policy()?;
    let client = process.client().with_deadline(policy.timeout);
    let (mut health, since) = (Health::default(), Instant::now());
    loop {
        tokio::select! {
            status = process.wait() => return status,
            () = tokio::time::sleep(policy.interval) => {}
        }
        if client.hello().await.is_ok() {
            health.answered(&policy, since.elapsed());
            continue;
        }
        match health.missed(&policy, since.elapsed()) {
            Verdict::Wait => {}
            Verdict::Restart | Verdict::GiveUp => {
                tracing::warn!(
                    misses = health.misses(),
                    restarts = health.restarts(),
                    "{ANEW}"
                );
                process
                    .restart()
                    .await
                    .context("start the process driver anew")?;
                lives.begin_anew();
                health.restarted(since.elapsed());
            }
        }
    }
}

fn policy() -> Result<HealthPolicy> {
    let policy = HealthPolicy::default();
    let Ok(text) = std::env::var(INTERVAL) else {
        return Ok(policy);
    };
    let millis: u64 = text
        .parse()
        .ok()
        .filter(|millis| *millis > 0)
        .with_context(|| format!("{INTERVAL} must be a number of milliseconds above 0"))?;
    let time = Duration::from_millis(millis);
    Ok(HealthPolicy {
        interval: time,
        timeout: time,
        ..policy
    })
}
