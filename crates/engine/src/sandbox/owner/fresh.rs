//! What is looked at in a sandbox that comes back, for the event that tells of it.

use std::time::{Duration, Instant};

use woodfrog_types::{SandboxId, Timestamp};

use crate::guest::call;
use crate::inner::Inner;

/// A guest that answers to nothing else answers to this, too; a wake does not wait longer for it.
const ANSWER_MAX: Duration = Duration::from_millis(100);

/// Asks the guest for its time: how far it is off, and how long that took. It is no reason for a
/// wake to fail: what it finds is told.
pub(super) async fn check(inner: &Inner, id: &SandboxId) -> Vec<(String, String)> {
    let begun = Instant::now();
    let guest = call::client(inner, id);
    let said = tokio::time::timeout(ANSWER_MAX, guest.metrics()).await;
    let (took, now) = (begun.elapsed(), Timestamp::now());
    let skew = match said {
        Ok(Ok(metrics)) => {
            let said = i64::try_from(metrics.ts_ms).unwrap_or(i64::MAX);
            said.saturating_sub(now.as_millis()).to_string()
        }
        Ok(Err(_)) | Err(_) => "unknown".to_owned(),
    };
    vec![
        ("clock_skew_ms".to_owned(), skew),
        ("clock_us".to_owned(), took.as_micros().to_string()),
    ]
}
