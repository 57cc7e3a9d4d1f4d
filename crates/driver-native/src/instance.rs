//! A running sandbox, as the driver holds it in memory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use woodfrog_driver_common::ended::Ended;
use woodfrog_sandbox::DriverError;
use woodfrog_types::SandboxId;

use crate::error::step;
use crate::note::{Note, StoredEgress};
use crate::paging::Arrival;
use crate::socket::open_root;

/// A running (or just ended) sandbox.
pub(crate) struct Instance {
    pub(crate) note: Note,
    /// The rules in force, which the note had when it was read.
    egress: Mutex<StoredEgress>,
    /// Its root directory, for reaching the guest's socket.
    pub(crate) root: Arc<OwnedFd>,
    /// Its init.
    pub(crate) pidfd: Arc<OwnedFd>,
    /// Tells when its init has ended.
    ended: Ended,
    /// Tells when its memory is in.
    pub(crate) arrival: Arrival,
}

impl Instance {
    /// Takes hold of the sandbox that a note speaks of; `None` if its init is gone.
    pub(crate) fn hold(note: Note, notes: &Path) -> Result<Option<Self>, DriverError> {
        if !note.is_alive() {
            return Ok(None);
        }
        let failed = |error: std::io::Error| step("take hold of the sandbox", error);
        let Some(pidfd) = note.init.open().map_err(failed)? else {
            return Ok(None);
        };
        let root = match open_root(&note.init) {
            Ok(root) => root,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let watched = pidfd.try_clone().map_err(failed)?;
        let ended = Ended::watch(watched).map_err(failed)?;
        let arrival = match &note.paging {
            None => Arrival::done(),
            Some(paging) => Arrival::watch(paging, notes).map_err(failed)?,
        };
        Ok(Some(Self {
            egress: Mutex::new(note.egress.clone()),
            note,
            root: Arc::new(root),
            pidfd: Arc::new(pidfd),
            ended,
            arrival,
        }))
    }

    /// The note with the rules in force, and what is still to come.
    pub(crate) fn note_now(&self) -> Note {
        let mut note = self.note.clone();
        let egress = self.egress.lock().unwrap_or_else(PoisonError::into_inner);
        note.egress.clone_from(&egress);
        if self.arrival.is_in() {
            note.paging = None;
        }
        note
    }

    /// Remembers the rules in force.
    pub(crate) fn set_egress(&self, egress: StoredEgress) {
        *self.egress.lock().unwrap_or_else(PoisonError::into_inner) = egress;
    }

    /// Returns once its init has ended.
    pub(crate) async fn wait_end(&self) {
        self.ended.wait().await;
    }

    /// Whether its init has ended.
    pub(crate) fn has_ended(&self) -> std::io::Result<bool> {
        woodfrog_linux::process::wait_ended(self.pidfd.as_fd(), std::time::Duration::ZERO)
    }

    /// Its id, if the note's is one.
    pub(crate) fn id(&self) -> Option<SandboxId> {
        self.note.id.parse().ok()
    }
}
