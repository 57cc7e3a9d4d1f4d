//! A running sandbox, as the driver holds it in memory.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use woodfrog_driver_common::egress::StoredEgress;
use woodfrog_driver_common::ended::Ended;
use woodfrog_guest_proto::limits::MAX_CONNECTIONS;
use woodfrog_sandbox::DriverError;
use woodfrog_types::SandboxId;

use crate::error::step;
use crate::note::Note;

/// A running (or just ended) sandbox.
pub(crate) struct Instance {
    pub(crate) note: Note,
    /// The rules in force, which the note had when it was read.
    egress: Mutex<StoredEgress>,
    pub(crate) pidfd: OwnedFd,
    ended: Ended,
    paused: AtomicBool,
    /// Connections to the guest that are being relayed.
    pub(crate) room: Arc<Semaphore>,
}

impl Instance {
    /// Takes hold of the sandbox that a note speaks of; `None` if it is gone.
    pub(crate) fn hold(note: Note, paused: bool) -> Result<Option<Self>, DriverError> {
        if !note.is_alive() {
            return Ok(None);
        }
        let failed = |error: std::io::Error| step("take hold of the sandbox", error);
        let Some(pidfd) = note.sentry.open().map_err(failed)? else {
            return Ok(None);
        };
        let ended = Ended::watch(pidfd.try_clone().map_err(failed)?).map_err(failed)?;
        Ok(Some(Self {
            egress: Mutex::new(note.egress.clone()),
            note,
            pidfd,
            ended,
            paused: AtomicBool::new(paused),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }))
    }

    /// The note with the rules in force.
    pub(crate) fn note_now(&self) -> Note {
        let mut note = self.note.clone();
        let egress = self.egress.lock().unwrap_or_else(PoisonError::into_inner);
        note.egress.clone_from(&egress);
        note
    }

    /// Remembers the rules in force.
    pub(crate) fn set_egress(&self, egress: StoredEgress) {
        *self.egress.lock().unwrap_or_else(PoisonError::into_inner) = egress;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// Returns once it has ended.
    pub(crate) async fn wait_end(&self) {
        self.ended.wait().await;
    }

    pub(crate) fn has_ended(&self) -> std::io::Result<bool> {
        woodfrog_linux::process::wait_ended(self.pidfd.as_fd(), std::time::Duration::ZERO)
    }

    pub(crate) fn id(&self) -> Option<SandboxId> {
        self.note.id.parse().ok()
    }
}
