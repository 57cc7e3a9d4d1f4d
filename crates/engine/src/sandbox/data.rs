//! The data plane: without a principal, the caller checks tokens. What sleeps and may be woken by
//! any use is woken by it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use woodfrog_core::sleep::{self, Waker};
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::{Code, Fault, SandboxId};

use crate::access::{GuestLease, Reach, SandboxAccess};
use crate::engine::Engine;
use crate::fault;
use crate::guest;
use crate::sandbox::gate::Lease;
use crate::sandbox::live::{Command, Live, WakeOrder};
use crate::sandbox::{launch, owner};

/// Tries to reach a port inside before it counts as closed, and the pause that grows with each.
const PORT_TRIES: u32 = 5;
const PORT_PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// What the gateway must know of a sandbox that runs; one that sleeps and is woken by any use
    /// is woken first. `SandboxNotFound` if it is gone, `Asleep` if using it does not wake it.
    pub async fn access(&self, id: &SandboxId) -> Result<SandboxAccess, Fault> {
        let (live, _lease) = self.enter(id).await?;
        let access = live.access();
        access
            .map(|access| SandboxAccess::clone(&access))
            .ok_or_else(|| Fault::sandbox_not_found(id.as_str()))
    }

    /// As [`Engine::access`], but never wakes a sandbox: [`SandboxAccess::reach`] says what it
    /// takes. For health checks, and for checks that come before a wake.
    pub async fn peek(&self, id: &SandboxId) -> Result<SandboxAccess, Fault> {
        let access = self.look(id).await?;
        match self.inner.removals.is_marked(&access.workspace) {
            true => Err(Fault::sandbox_not_found(id.as_str())),
            false => Ok(access),
        }
    }

    async fn look(&self, id: &SandboxId) -> Result<SandboxAccess, Fault> {
        let gone = || Fault::sandbox_not_found(id.as_str());
        if let Some(live) = self.inner.registry.get(id)
            && let Some(access) = live.access()
        {
            let mut access = SandboxAccess::clone(&access);
            access.reach = reach(&live.record());
            return Ok(access);
        }
        let record = self.record_of(id).await?.ok_or_else(gone)?;
        if matches!(record.state, SandboxState::Creating) {
            return Err(gone());
        }
        let image = launch::image(&self.inner, &record).await;
        let image = image.unwrap_or_else(crate::template::plain_image);
        let reach = reach(&record);
        Ok(owner::access_of(&self.inner, &record, &image, reach))
    }

    /// The sandbox in memory that `check` accepts: for signed URLs that do not name theirs.
    pub async fn access_by_signature(
        &self,
        check: impl Fn(&SandboxAccess) -> bool,
    ) -> Option<SandboxAccess> {
        let all = self.inner.registry.all();
        all.iter()
            .filter_map(|live| live.access())
            .find(|access| check(access))
            .map(|access| SandboxAccess::clone(&access))
    }

    /// A sandbox's guest, for one operation. It is woken if it sleeps, and counts as active until
    /// the lease and its clones are dropped.
    pub async fn guest(&self, id: &SandboxId) -> Result<GuestLease, Fault> {
        let (_, lease) = self.enter(id).await?;
        Ok(GuestLease::counted(guest::client(&self.inner, id), lease))
    }

    /// Opens the directory with what a sandbox wrote, without waking it. What is in it is not to be
    /// trusted: no link may be followed. `Unsupported` where it cannot be seen from outside.
    pub async fn written(&self, id: &SandboxId) -> Result<OwnedFd, Fault> {
        self.peek(id).await?;
        let opened = self.inner.driver.open_upper(id).await;
        opened.map_err(fault::driver)
    }

    /// A connection to a port inside, made from inside to its loopback. A port that is just being
    /// opened is tried again for a second; then `PortNotOpen`. The sandbox counts as active while
    /// this runs; whoever uses the connection holds a lease besides.
    pub async fn port_connect(&self, id: &SandboxId, port: u16) -> Result<TcpStream, Fault> {
        let (_live, lease) = self.enter(id).await?;
        let life = Arc::clone(&lease.life);
        let client = guest::client(&self.inner, id);
        let mut tries = 1;
        loop {
            let refused = match client.connect(port).await.map_err(guest::guest_fault) {
                Ok(stream) => return Ok(stream),
                Err(fault) if fault.code == Code::PortNotOpen => fault,
                Err(_) if life.is_over() => {
                    return Err(Fault::sandbox_not_found(id.as_str()));
                }
                Err(fault) => return Err(fault),
            };
            if tries == PORT_TRIES {
                return Err(Fault::new(
                    Code::PortNotOpen,
                    "The sandbox is running but port is not open",
                )
                .because(refused));
            }
            tokio::select! {
                () = life.over() => return Err(Fault::sandbox_not_found(id.as_str())),
                () = tokio::time::sleep(PORT_PAUSE * tries) => tries += 1,
            }
        }
    }

    /// Begins a use: through the open gate at once, else when its owner has woken it.
    async fn enter(&self, id: &SandboxId) -> Result<(Arc<Live>, Lease), Fault> {
        let order = WakeOrder::access();
        let mut patience = self.inner.options.wake_timeout;
        if let SandboxState::Archiving { .. } | SandboxState::Archived { .. } =
            self.live(id).await?.record().state
        {
            patience += self.inner.options.archive_timeout;
        }
        let entered = tokio::time::timeout(patience, async {
            loop {
                self.inner.accepting()?;
                let live = self.live(id).await?;
                if let Some(lease) = live.gate.enter() {
                    return Ok((live, lease));
                }
                if matches!(live.record().state, SandboxState::Creating) {
                    return Err(Fault::sandbox_not_found(id.as_str()));
                }
                if let Some(Err(fault)) = live.ask(|reply| Command::Wake { order, reply }).await {
                    return Err(fault);
                }
            }
        });
        entered.await.unwrap_or_else(|_| {
            Err(Fault::new(
                Code::WakeFailed,
                "the sandbox did not wake in time; try again",
            ))
        })
    }
}

/// What it takes to reach it.
fn reach(record: &Sandbox) -> Reach {
    let Some((slept, content)) = owner::asleep(record) else {
        return Reach::Awake;
    };
    let wakes = sleep::may_wake(slept, content, record.auto_resume, Waker::Access);
    match (sleep::keeps_face(slept.cause), wakes) {
        (true, _) => Reach::Dozing,
        (false, true) => Reach::Resumable,
        (false, false) => Reach::Held,
    }
}
