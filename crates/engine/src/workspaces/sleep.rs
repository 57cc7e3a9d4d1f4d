//! When a workspace's sandboxes go to sleep whose request does not say.

use woodfrog_core::access::{self, Action};
use woodfrog_core::sleep;
use woodfrog_types::key::Principal;
use woodfrog_types::sleep::{SleepChanges, SleepDefaults};
use woodfrog_types::{Code, Fault, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::keys::not_found;
use crate::view::SleepDefaultsView;

impl Engine {
    /// What the caller's workspace says about sleep, and what holds with it; generation 0 while
    /// nobody said anything.
    pub async fn sleep_defaults_fetch(
        &self,
        principal: &Principal,
    ) -> Result<SleepDefaultsView, Fault> {
        access::check(principal.role, Action::SleepDefaultsRead)?;
        let stored = self.inner.store.sleep_defaults_fetch(&principal.workspace);
        let stored = stored.await.map_err(fault::store)?;
        Ok(self.sleep_view(stored.unwrap_or(SleepDefaults {
            workspace: principal.workspace.clone(),
            sleep: SleepChanges::default(),
            generation: 0,
            updated_at: self.inner.started_at,
        })))
    }

    /// Sets what the caller's workspace says about sleep, for sandboxes that are made from now on.
    /// `Conflict` if `generation` is given and is not the stored one.
    pub async fn sleep_defaults_set(
        &self,
        principal: &Principal,
        said: SleepChanges,
        generation: Option<u64>,
    ) -> Result<SleepDefaultsView, Fault> {
        access::check(principal.role, Action::SleepDefaultsWrite)?;
        sleep::validate_changes(said, self.inner.attic.is_there())?;
        if self.workspace_record(&principal.workspace).await?.is_none() {
            return Err(not_found());
        }
        let before = self.sleep_defaults_fetch(principal).await?.defaults;
        if generation.is_some_and(|seen| seen != before.generation) {
            let text = format!(
                "the sleep defaults are at generation {}: read them again",
                before.generation
            );
            return Err(Fault::new(Code::Conflict, text));
        }
        let next = SleepDefaults {
            workspace: principal.workspace.clone(),
            sleep: said,
            generation: before.generation + 1,
            updated_at: Timestamp::now(),
        };
        let stored = self.inner.store.sleep_defaults_put(&next).await;
        stored.map_err(fault::store)?;
        self.inner.grants.forget();
        Ok(self.sleep_view(next))
    }

    fn sleep_view(&self, defaults: SleepDefaults) -> SleepDefaultsView {
        let server = self.inner.options.sleep;
        let archive = self.inner.attic.is_there();
        SleepDefaultsView {
            server,
            effective: sleep::workspace_policy(server, defaults.sleep, archive),
            defaults,
        }
    }
}
