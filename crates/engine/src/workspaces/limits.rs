//! What workspaces may use.

use woodfrog_core::access::{self, Action};
use woodfrog_types::key::Principal;
use woodfrog_types::workspace::{LimitsRecord, WorkspaceLimits};
use woodfrog_types::{Code, Fault, Timestamp, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::grants::Tenancy;
use crate::inner::Inner;
use crate::keys::not_found;

impl Engine {
    /// What a workspace may use; the server's defaults while nobody set anything else.
    pub async fn workspace_limits(
        &self,
        workspace: &WorkspaceId,
    ) -> Result<WorkspaceLimits, Fault> {
        Ok(self.inner.tenancy(workspace).await?.limits)
    }

    /// The limits of the caller's workspace with their generation; 0 while nobody set any.
    pub async fn limits_fetch(&self, principal: &Principal) -> Result<LimitsRecord, Fault> {
        access::check(principal.role, Action::LimitsRead)?;
        let stored = self.inner.store.limits_fetch(&principal.workspace).await;
        Ok(stored.map_err(fault::store)?.unwrap_or(LimitsRecord {
            workspace: principal.workspace.clone(),
            limits: self.inner.options.limits.clone(),
            generation: 0,
            updated_at: self.inner.started_at,
        }))
    }

    /// Sets the limits of the caller's workspace. `Conflict` if `generation` is given and is not
    /// the stored one.
    pub async fn limits_set(
        &self,
        principal: &Principal,
        limits: WorkspaceLimits,
        generation: Option<u64>,
    ) -> Result<LimitsRecord, Fault> {
        access::check(principal.role, Action::LimitsWrite)?;
        validate(&limits)?;
        if self.workspace_record(&principal.workspace).await?.is_none() {
            return Err(not_found());
        }
        let before = self.limits_fetch(principal).await?;
        if generation.is_some_and(|seen| seen != before.generation) {
            let text = format!(
                "the limits are at generation {}: read them again",
                before.generation
            );
            return Err(Fault::new(Code::Conflict, text));
        }
        let next = LimitsRecord {
            workspace: principal.workspace.clone(),
            limits,
            generation: before.generation + 1,
            updated_at: Timestamp::now(),
        };
        let stored = self.inner.store.limits_put(&next).await;
        stored.map_err(fault::store)?;
        self.inner.grants.forget();
        Ok(next)
    }
}

impl Inner {
    /// What a workspace may use, what it says about sleep, and whether it is being removed; known
    /// for seconds.
    pub(crate) async fn tenancy(&self, workspace: &WorkspaceId) -> Result<Tenancy, Fault> {
        if let Some(known) = self.grants.tenancy(workspace) {
            return Ok(known);
        }
        let limits = self.store.limits_fetch(workspace).await;
        let limits = limits.map_err(fault::store)?;
        let sleep = self.store.sleep_defaults_fetch(workspace).await;
        let sleep = sleep.map_err(fault::store)?;
        let record = self.store.workspace_fetch(workspace).await;
        let record = record.map_err(fault::store)?;
        let tenancy = Tenancy {
            limits: limits.map_or_else(|| self.options.limits.clone(), |one| one.limits),
            sleep: sleep.map_or_else(Default::default, |one| one.sleep),
            removing: record.is_some_and(|one| one.removing_since.is_some()),
        };
        self.grants.put_tenancy(workspace.clone(), tenancy.clone());
        Ok(tenancy)
    }
}

fn validate(limits: &WorkspaceLimits) -> Result<(), Fault> {
    let most = WorkspaceLimits::COUNT_MAX;
    for (field, value) in [
        ("user_runs_per_minute", limits.user_runs_per_minute),
        ("runs_per_minute", limits.runs_per_minute),
        ("run_burst", Some(limits.run_burst)),
        ("runs_at_once", limits.runs_at_once),
        ("run_queue", Some(limits.run_queue)),
        ("user_requests_per_minute", limits.user_requests_per_minute),
        ("requests_per_minute", limits.requests_per_minute),
        ("request_burst", Some(limits.request_burst)),
        ("sandboxes", limits.sandboxes),
        ("cpus", limits.cpus),
    ] {
        if value.is_some_and(|value| value > most) {
            return Err(Fault::invalid(field, format!("{field} is at most {most}")));
        }
    }
    // Who could not ask any more could not set it back either.
    for (field, value) in [
        ("user_requests_per_minute", limits.user_requests_per_minute),
        ("requests_per_minute", limits.requests_per_minute),
    ] {
        if value.is_some_and(|value| value < LEAST_REQUESTS) {
            let text = format!("{field} is at least {LEAST_REQUESTS}");
            return Err(Fault::invalid(field, text));
        }
    }
    let most = WorkspaceLimits::DAYS_MAX;
    for (field, value) in [
        ("prompt_retention_days", limits.prompt_retention_days),
        ("run_retention_days", limits.run_retention_days),
        ("artifact_retention_days", limits.artifact_retention_days),
        ("audit_retention_days", limits.audit_retention_days),
    ] {
        if value.is_some_and(|days| days > most) {
            let text = format!("{field} is at most {most}");
            return Err(Fault::invalid(field, text));
        }
    }
    Ok(())
}

/// Requests in a minute that nobody can be limited below.
const LEAST_REQUESTS: u32 = 10;
