//! A running sandbox, as the driver holds it in memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use woodfrog_sandbox::DriverError;
use woodfrog_types::SandboxId;

use crate::error::step;
use crate::note::Note;
use crate::socket::open_root;

/// A running (or just ended) sandbox.
pub(crate) struct Instance {
    pub(crate) note: Note,
    /// Its root directory, for reaching the guest's socket.
    pub(crate) root: Arc<OwnedFd>,
    /// Its init.
    pub(crate) pidfd: Arc<OwnedFd>,
    /// Turns `true` when its init has ended.
    ended: watch::Receiver<bool>,
}

impl Instance {
    /// Takes hold of the sandbox that a note speaks of; `None` if its init is gone.
    pub(crate) fn hold(note: Note) -> Result<Option<Self>, DriverError> {
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
        let ended = watch_end(watched).map_err(failed)?;
        Ok(Some(Self {
            note,
            root: Arc::new(root),
            pidfd: Arc::new(pidfd),
            ended,
        }))
    }

    /// For waiting until its init has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Its id, if the note's is one.
    pub(crate) fn id(&self) -> Option<SandboxId> {
        self.note.id.parse().ok()
    }
}

/// A pidfd becomes readable when its process has ended.
#[expect(
    deprecated,
    reason = "the replacement is unsafe; an owned descriptor keeps its promise"
)]
fn watch_end(pidfd: OwnedFd) -> std::io::Result<watch::Receiver<bool>> {
    let pidfd = AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        // Ends early when nobody is interested any more.
        tokio::select! {
            _ = pidfd.readable() => { sender.send_replace(true); }
            () = sender.closed() => {}
        }
    });
    Ok(receiver)
}
