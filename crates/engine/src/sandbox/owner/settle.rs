//! A change that an owner did not finish: it panicked, or the store was out of reach.

use std::time::Duration;

use super::{After, Owner};
use crate::lease;
use crate::sandbox::settle;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(2);

impl Owner {
    /// Goes on as a start of the server would.
    pub(super) async fn settle(&self) -> After {
        if lease::is_anothers(&self.inner, &self.live.id).await {
            return self.lost().await;
        }
        // What could not be recorded may be recorded after all.
        let record = match self.inner.store.sandbox_fetch(&self.live.id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return After::Gone,
            Err(_) => (*self.live.record()).clone(),
        };
        self.live.set_record(record.clone());
        match settle::settle_now(&self.inner, record.clone()).await {
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
