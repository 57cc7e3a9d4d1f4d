//! Limits of a sandbox's processes, which its clients may change.

use std::sync::Mutex;

use axum::{Extension, Json};
use woodfrog_guest_client::proto::limits;
use woodfrog_wire::agent::process::ProcessConfig;

use super::locked;
use crate::agent::AgentHost;
use crate::agent::extract::Json as JsonBody;
use crate::agent::problem::{Failure, Result};

/// A day: longer than anybody waits for an answer.
const RUN_TIMEOUT_MS_MAX: u64 = 24 * 3600 * 1000;
/// Output is gathered in memory before it is answered.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
pub(super) const INPUT_BYTES_MAX: u64 = 16 << 20;

/// What holds for one sandbox until this server ends.
#[derive(Default)]
pub(in crate::agent) struct Settings {
    config: Mutex<ProcessConfig>,
    starting: tokio::sync::Mutex<()>,
}

impl Settings {
    pub(super) fn current(&self) -> ProcessConfig {
        *locked(&self.config)
    }

    /// A turn to start a process.
    pub(super) async fn starting(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.starting.lock().await
    }

    /// Whether somebody has changed something.
    pub(in crate::agent) fn changed(&self) -> bool {
        self.current() != ProcessConfig::default()
    }
}

pub(super) async fn fetch(Extension(host): Extension<AgentHost>) -> Json<ProcessConfig> {
    Json(host.state.processes.current())
}

pub(super) async fn change(
    Extension(host): Extension<AgentHost>,
    JsonBody(config): JsonBody<ProcessConfig>,
) -> Result<Json<ProcessConfig>> {
    check(&config)?;
    *locked(&host.state.processes.config) = config;
    Ok(Json(config))
}

fn check(config: &ProcessConfig) -> Result<()> {
    let rows = [
        (
            "maxConcurrentProcesses",
            config.max_concurrent_processes,
            limits::MAX_PROCESSES as u64,
        ),
        (
            "defaultRunTimeoutMs",
            config.default_run_timeout_ms,
            RUN_TIMEOUT_MS_MAX,
        ),
        (
            "maxRunTimeoutMs",
            config.max_run_timeout_ms,
            RUN_TIMEOUT_MS_MAX,
        ),
        ("maxOutputBytes", config.max_output_bytes, OUTPUT_BYTES_MAX),
        (
            "maxLogBytesPerProcess",
            config.max_log_bytes_per_process,
            limits::MAX_RETENTION as u64,
        ),
        (
            "maxInputBytesPerRequest",
            config.max_input_bytes_per_request,
            INPUT_BYTES_MAX,
        ),
    ];
    for (field, value, most) in rows {
        if value == 0 {
            return Err(Failure::invalid(format_args!(
                "{field} must be greater than 0"
            )));
        }
        if value > most {
            return Err(Failure::invalid(format_args!(
                "{field} must be at most {most}"
            )));
        }
    }
    if config.default_run_timeout_ms > config.max_run_timeout_ms {
        return Err(Failure::invalid(
            "defaultRunTimeoutMs must be less than or equal to maxRunTimeoutMs",
        ));
    }
    Ok(())
}
