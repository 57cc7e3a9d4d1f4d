//! How often users and workspaces may ask.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use woodfrog_core::limiter::{Rate, Verdict, Window};
use woodfrog_types::key::Principal;
use woodfrog_types::workspace::{UserId, WorkspaceLimits};
use woodfrog_types::{Fault, Timestamp, WorkspaceId};

use crate::engine::Engine;

/// Users and workspaces that are counted; those that rest are forgotten first.
const COUNTED_MAX: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    User(UserId),
    Workspace(WorkspaceId),
}

/// What was asked lately.
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<Who, Window>>);

/// What a rate says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateVerdict {
    pub verdict: Verdict,
    pub rate: Rate,
}

impl RateVerdict {
    /// Whole seconds until something comes back, at least one.
    pub fn reset_secs(&self) -> u64 {
        let reset = self.verdict.reset;
        reset.as_secs() + u64::from(reset.subsec_nanos() > 0 || reset == Duration::ZERO)
    }
}

impl Engine {
    /// Counts a request against the rates of its user and of its workspace. `None`: neither has
    /// one. The verdict is that of the rate that has least left.
    pub async fn count_request(&self, principal: &Principal) -> Result<Option<RateVerdict>, Fault> {
        let limits = self.workspace_limits(&principal.workspace).await?;
        Ok(self.inner.rates.count(principal, &limits, Timestamp::now()))
    }
}

impl Rates {
    fn count(
        &self,
        principal: &Principal,
        limits: &WorkspaceLimits,
        now: Timestamp,
    ) -> Option<RateVerdict> {
        let rate = |limit: Option<u32>| Some(Rate::per_minute(limit?, limits.request_burst));
        let user = rate(limits.user_requests_per_minute);
        let user = user.map(|rate| (Who::User(principal.user.clone()), rate));
        let workspace = rate(limits.requests_per_minute);
        let workspace = workspace.map(|rate| (Who::Workspace(principal.workspace.clone()), rate));
        let asked: Vec<(Who, Rate)> = user.into_iter().chain(workspace).collect();
        let widest = asked.first()?.1;
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= COUNTED_MAX {
            windows.retain(|_, window| !window.is_idle(widest, now));
            if windows.len() >= COUNTED_MAX {
                windows.clear();
            }
        }
        // What one of them refuses costs the other nothing.
        let refused = asked.iter().find(|(who, rate)| {
            let window = windows.entry(who.clone()).or_default();
            !window.admits(*rate, now)
        });
        let counted = match refused {
            Some(one) => std::slice::from_ref(one),
            None => asked.as_slice(),
        };
        counted
            .iter()
            .map(|(who, rate)| RateVerdict {
                verdict: windows.entry(who.clone()).or_default().take(*rate, now),
                rate: *rate,
            })
            .min_by_key(|one| one.verdict.remaining)
    }
}
