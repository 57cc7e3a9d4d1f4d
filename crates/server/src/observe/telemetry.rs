//! The server's metrics, with a registry of their own.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use woodfrog_engine::SandboxView;
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

/// Counters and histograms of one server. Routes are templates (`/sandboxes/{id}`), so the
/// number of series has a bound.
pub struct Telemetry {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    latency: Family<FaceLabels, Histogram, fn() -> Histogram>,
    creates: Family<CreateLabels, Counter>,
    create_seconds: Histogram,
    running: Gauge,
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
        let running = Gauge::default();
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
            "sandboxes_running",
            "Sandboxes that run now",
            running.clone(),
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
            running,
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
