//! Samples of what running sandboxes use.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use woodfrog_types::Timestamp;
use woodfrog_types::metric::MetricSample;

use crate::inner::Inner;
use crate::sandbox::live::Live;

/// Sandboxes that are sampled at once.
const AT_ONCE: usize = 8;

/// What the next sample's CPU share is counted from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Baseline {
    /// `None` before the first sample, which counts from the start of the sandbox.
    at: Option<Instant>,
    started: Timestamp,
    cpu: Duration,
}

impl Baseline {
    pub(crate) fn since(started: Timestamp) -> Self {
        Self {
            at: None,
            started,
            cpu: Duration::ZERO,
        }
    }

    /// Percent of one CPU since the sample before; becomes the baseline of the next one.
    fn advance(&mut self, cpu: Duration) -> f64 {
        let elapsed = match self.at {
            Some(at) => at.elapsed(),
            None => Timestamp::now().since(self.started),
        };
        let used = cpu.saturating_sub(self.cpu);
        self.at = Some(Instant::now());
        self.cpu = cpu;
        if elapsed.is_zero() {
            return 0.0;
        }
        100.0 * used.as_secs_f64() / elapsed.as_secs_f64()
    }
}

/// Samples every running sandbox at each interval, until the server stops.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(inner.options.metric_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // New sandboxes are sampled by their owners.
    ticks.tick().await;
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let all = inner.registry.all();
        futures_util::stream::iter(all.iter().filter(|live| live.gate.is_open()))
            .for_each_concurrent(AT_ONCE, |live| sample(&inner, live))
            .await;
    }
}

/// Takes one sample. A sandbox that cannot be read is left out.
pub(crate) async fn sample(inner: &Inner, live: &Live) {
    let usage = match inner.driver.usage(&live.id).await {
        Ok(usage) => usage,
        Err(error) => {
            tracing::debug!(sandbox = %live.id, %error, "no metrics");
            return;
        }
    };
    let resources = live.record().resources;
    let cpu_used_pct = live
        .baseline
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .advance(usage.cpu);
    let sample = MetricSample {
        at: Timestamp::now(),
        cpu_count: resources.cpu_count,
        cpu_used_pct,
        mem_used: usage.memory_bytes,
        mem_total: resources.memory_bytes,
        mem_cache: usage.memory_cache_bytes,
        disk_used: usage.disk_bytes.unwrap_or(0),
        disk_total: resources.disk_bytes,
    };
    if cpu_used_pct > inner.options.active_cpu_pct && live.gate.is_open() {
        live.gate.touch();
    }
    live.push_sample(sample, inner.options.metric_samples);
}
