//! Holds: names that keep a sandbox awake until they are released or over.
//!
//! They are in the store, so they outlive the server and the sandbox's time in memory. The owner
//! decides by a copy in memory. Each write is followed by reading the copy anew, one reader at a
//! time: whatever the order of writes, the last reading has them all.

use std::time::Duration;

use woodfrog_store::StoreError;
use woodfrog_types::key::Principal;
use woodfrog_types::sleep::Hold;
use woodfrog_types::{Code, Fault, SandboxId, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::sandbox::live::{Command, Live, WakeOrder};

/// Holds of one sandbox.
const HOLDS_MAX: usize = 64;
/// Bytes of a hold's name.
const HOLD_BYTES_MAX: usize = 128;

impl Engine {
    /// Keeps a sandbox awake under a name until that is released or `ttl` is over, and wakes it.
    /// The same name again moves its end.
    pub async fn sandbox_hold(
        &self,
        principal: &Principal,
        id: &SandboxId,
        name: &str,
        ttl: Option<Duration>,
    ) -> Result<Vec<Hold>, Fault> {
        if name.is_empty() || name.len() > HOLD_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Fault::invalid(
                "name",
                format!("must have 1 to {HOLD_BYTES_MAX} bytes and no control characters"),
            ));
        }
        self.wake(principal, id, WakeOrder::access()).await?;
        let live = self.live(id).await?;
        let now = Timestamp::now();
        let hold = Hold {
            name: name.to_owned(),
            expires_at: ttl.map(|ttl| now.plus(ttl)),
        };
        let turn = live.hold_turn().await;
        let held = live.holds(now);
        if held.len() >= HOLDS_MAX && held.iter().all(|other| other.name != name) {
            return Err(Fault::new(
                Code::RateLimited,
                format!("a sandbox has at most {HOLDS_MAX} holds; release one first"),
            ));
        }
        match self.inner.store.hold_put(id, &hold, now).await {
            Ok(()) => {}
            Err(StoreError::NotFound { .. }) => {
                return Err(Fault::sandbox_not_found(id.as_str()));
            }
            Err(error) => return Err(fault::store(error)),
        }
        read(&self.inner, &live).await?;
        drop(turn);
        live.tell(Command::Rethink);
        Ok(live.holds(now))
    }

    /// Releases a hold; one that is not there is no error.
    pub async fn sandbox_unhold(
        &self,
        principal: &Principal,
        id: &SandboxId,
        name: &str,
    ) -> Result<Vec<Hold>, Fault> {
        self.record(principal, id).await?;
        let removed = self.inner.store.hold_remove(id, name).await;
        removed.map_err(fault::store)?;
        let now = Timestamp::now();
        let Some(live) = self.inner.registry.get(id) else {
            let left = self.inner.store.hold_list(id, now).await;
            return left.map_err(fault::store);
        };
        let turn = live.hold_turn().await;
        // It is gone, whether or not what is left can be read.
        let mut left = live.holds(now);
        left.retain(|hold| hold.name != name);
        live.set_holds(left);
        read(&self.inner, &live).await?;
        drop(turn);
        live.gate.touch();
        live.tell(Command::Rethink);
        Ok(live.holds(now))
    }
}

/// Brings the copy in memory up to what the store has.
pub(super) async fn reload(inner: &Inner, live: &Live) -> Result<(), Fault> {
    let _turn = live.hold_turn().await;
    read(inner, live).await
}

/// As [`reload`], for who has the turn.
async fn read(inner: &Inner, live: &Live) -> Result<(), Fault> {
    let kept = inner.store.hold_list(&live.id, Timestamp::now()).await;
    live.set_holds(kept.map_err(fault::store)?);
    Ok(())
}
