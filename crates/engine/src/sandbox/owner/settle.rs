//! A change that an owner did not finish: it panicked, or the store was out of reach.

use std::time::Duration;

use super::{After, Owner};
use crate::sandbox::settle;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(2);

impl Owner {
    /// Goes on as a start of the server would.
    pub(super) async fn settle(&self) -> After {
        let record = self.live.record();
        match settle::settle_now(&self.inner, (*record).clone()).await {
            Ok(next) => {
                self.live.set_record(next);
                return self.resume().await;
            }
            Err(fault) => {
                tracing::error!(sandbox = %record.id, error = &fault as &dyn std::error::Error, "a change that was begun cannot be settled; again soon");
            }
        }
        tokio::select! {
            () = self.inner.stopping.cancelled() => After::Stopped,
            () = tokio::time::sleep(AGAIN) => After::Exists,
        }
    }
}
