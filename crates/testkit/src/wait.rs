//! The only way in which tests wait.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Calls `probe` until it gives a value; fails with `what` after `timeout`.
///
/// # Errors
/// The time is up.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if start.elapsed() > timeout {
            bail!("timed out after {timeout:?}: {what}");
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
