//! The server's metrics, with a registry of their own.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use woodfrog_engine::SandboxView;
use woodfrog_engine::transition::{Ended, Observer, Transition};
use woodfrog_otlp::Counts;
use woodfrog_runs::Queued;
use woodfrog_types::Fault;

/// The content type of [`Telemetry::render`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    face: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaceLabels {
    face: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CreateLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabels {
    transition: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

/// Counters and histograms of one server. Routes are templates (`/sandboxes/{id}`), so the
/// number of series has a bound.
pub struct Telemetry {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    latency: Family<FaceLabels, Histogram, fn() -> Histogram>,
    creates: Family<CreateLabels, Counter>,
    create_seconds: Histogram,
    transitions: Family<TransitionLabels, Histogram, fn() -> Histogram>,
    running: Gauge,
    spares: Gauge,
    runs: Family<StateLabels, Gauge>,
    waiting: Gauge,
    working: Gauge,
    spans: Family<SpanLabels, Counter>,
    resident: Gauge<u64, AtomicU64>,
}

fn latency_histogram() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0,
    ])
}

fn create_histogram() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
    ])
}

fn transition_histogram() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
    ])
}

impl Observer for Telemetry {
    fn transition(&self, which: Transition, took: Duration, ended: Ended) {
        let labels = TransitionLabels {
            transition: which.as_str(),
            outcome: ended.as_str(),
        };
        let histogram = self.transitions.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("woodfrog");
        let requests = Family::default();
        let latency = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        let creates = Family::default();
        let create_seconds = create_histogram();
        let transitions = Family::new_with_constructor(transition_histogram as fn() -> Histogram);
        let running = Gauge::default();
        let spares = Gauge::default();
        let runs = Family::default();
        let (waiting, working) = (Gauge::default(), Gauge::default());
        let spans = Family::default();
        let resident = Gauge::default();
        registry.register(
            "http_requests",
            "Requests by face, route and status",
            Family::clone(&requests),
        );
        registry.register(
            "http_request_seconds",
            "Time to the response head",
            Family::clone(&latency),
        );
        registry.register(
            "sandbox_creates",
            "Sandboxes asked for, by outcome",
            Family::clone(&creates),
        );
        registry.register(
            "sandbox_create_seconds",
            "Time to a ready sandbox",
            create_seconds.clone(),
        );
        registry.register(
            "sandbox_transition_seconds",
            "Time that changes of rung took (pause, thaw, hibernate, restore, archive, unarchive) and snapshots of sandboxes that go on (checkpoint), by outcome",
            Family::clone(&transitions),
        );
        registry.register(
            "sandboxes_running",
            "Sandboxes that run now",
            running.clone(),
        );
        registry.register(
            "sandboxes_spare",
            "Sandboxes made ahead that nobody has asked for yet",
            spares.clone(),
        );
        registry.register(
            "runs",
            "Recorded runs of all workspaces, by state",
            Family::clone(&runs),
        );
        registry.register(
            "runs_waiting",
            "Runs that wait for their turn on this server",
            waiting.clone(),
        );
        registry.register(
            "runs_working",
            "Runs that go on on this server",
            working.clone(),
        );
        registry.register(
            "trace_spans",
            "Spans of runs: sent to the collector, dropped because the queue was full (overflowed) or because the collector did not take them (failed)",
            Family::clone(&spans),
        );
        registry.register(
            "process_resident_bytes",
            "Memory of the server process",
            resident.clone(),
        );
        Self {
            registry: Mutex::new(registry),
            requests,
            latency,
            creates,
            create_seconds,
            transitions,
            running,
            spares,
            runs,
            waiting,
            working,
            spans,
            resident,
        }
    }

    /// Counts a request of a face.
    pub fn request(&self, face: &'static str, route: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        let labels = RequestLabels {
            face,
            route: route.clone(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        self.latency
            .get_or_create(&FaceLabels { face, route })
            .observe(took.as_secs_f64());
    }

    /// Counts a sandbox that was asked for, and times it if it was made.
    pub fn created(&self, took: Duration, result: &Result<SandboxView, Fault>) {
        let outcome = match result {
            Ok(_) => {
                self.create_seconds.observe(took.as_secs_f64());
                "ok"
            }
            Err(fault) => fault.code.as_str(),
        };
        self.creates.get_or_create(&CreateLabels { outcome }).inc();
    }

    /// Sets how many sandboxes run.
    pub fn set_running(&self, count: usize) {
        self.running.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets how many sandboxes were made ahead.
    pub fn set_spares(&self, count: usize) {
        self.spares.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets how many runs are in each state.
    pub fn set_runs(&self, states: &[(String, u64)]) {
        self.runs.clear();
        for (state, count) in states {
            let state = state.clone();
            let gauge = self.runs.get_or_create(&StateLabels { state });
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// Sets how many runs wait and go on.
    pub fn set_queued(&self, queued: Queued) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting.set(count(queued.waiting));
        self.working.set(count(queued.working));
    }

    /// Sets what became of spans so far; numbers that only rise.
    pub fn set_spans(&self, counts: Counts) {
        for (outcome, count) in [
            ("sent", counts.sent),
            ("overflowed", counts.overflowed),
            ("failed", counts.failed),
        ] {
            let counter = self.spans.get_or_create(&SpanLabels { outcome });
            counter.inner().store(count, Ordering::Relaxed);
        }
    }

    /// The metrics as OpenMetrics text.
    pub fn render(&self) -> Result<String, fmt::Error> {
        self.resident.set(resident_bytes().unwrap_or(0));
        let registry = self
            .registry
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

/// `None` where `/proc` is not there.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_show_up_by_outcome() {
        let telemetry = Telemetry::new();
        let took = Duration::from_millis(40);
        telemetry.transition(Transition::Hibernate, took, Ended::Done);
        let text = telemetry.render().expect("rendered");
        let count =
            r#"woodfrog_sandbox_transition_seconds_count{transition="hibernate",outcome="done"} 1"#;
        assert!(text.contains(count), "{text}");
    }

    #[test]
    fn runs_show_up_by_state_and_go_when_there_are_none() {
        let telemetry = Telemetry::new();
        telemetry.set_runs(&[("running".to_owned(), 3), ("failed".to_owned(), 1)]);
        telemetry.set_queued(Queued {
            waiting: 2,
            working: 5,
        });
        let text = telemetry.render().expect("rendered");
        for line in [
            r#"woodfrog_runs{state="running"} 3"#,
            r#"woodfrog_runs{state="failed"} 1"#,
            "woodfrog_runs_waiting 2",
            "woodfrog_runs_working 5",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        telemetry.set_runs(&[("failed".to_owned(), 1)]);
        let text = telemetry.render().expect("rendered");
        assert!(!text.contains(r#"state="running""#), "{text}");
    }

    #[test]
    fn spans_show_up_by_what_became_of_them() {
        let telemetry = Telemetry::new();
        for overflowed in [1, 4] {
            telemetry.set_spans(Counts {
                sent: 7,
                overflowed,
                failed: 0,
            });
        }
        let text = telemetry.render().expect("rendered");
        for line in [
            r#"woodfrog_trace_spans_total{outcome="sent"} 7"#,
            r#"woodfrog_trace_spans_total{outcome="overflowed"} 4"#,
            r#"woodfrog_trace_spans_total{outcome="failed"} 0"#,
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn requests_show_up_by_route() {
        let telemetry = Telemetry::new();
        telemetry.request("e2b", "/sandboxes/{id}", 404, Duration::from_millis(2));
        let text = telemetry.render().expect("rendered");
        assert!(
            text.contains(
                r#"woodfrog_http_requests_total{face="e2b",route="/sandboxes/{id}",status="404"} 1"#
            ),
            "{text}"
        );
        assert!(text.contains("woodfrog_process_resident_bytes "));
    }
}
