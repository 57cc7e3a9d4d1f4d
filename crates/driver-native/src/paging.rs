//! Memory that comes after its sandbox.
//!
//! A big sandbox goes on before its memory is in; a daemon of CRIU's brings it, page by page. That
//! daemon outlives the server, as sandboxes do. How it ended is in a file beside the sandbox's note:
//! a sandbox whose memory did not come whole is frozen rather than let go on with zeros in it. To
//! whoever uses it, it is then one that does not answer.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use woodfrog_driver_common::ended::Ended;
use woodfrog_linux::criu::{self, PageDaemon, pages_are_in};
use woodfrog_linux::process::Identity;
use woodfrog_types::SandboxId;

use crate::disk;
use crate::driver::Shared;
use crate::instance::Instance;
use crate::note::Note;

/// Less memory than this is in sooner than the daemon is up (measured: `docs/design/checkpoint.md`).
const LAZY_BYTES_MIN: u64 = 32 << 20;
/// More tenths of the limit than this are brought at once.
const LAZY_TENTHS_MAX: u64 = 8;
/// The ending of files that say how daemons ended.
const OUTCOME: &str = "paged";

/// Whether big sandboxes go on before their memory is in.
///
/// It takes `vm.unprivileged_userfaultfd=1`, with which every process of the machine but sandboxes
/// can stop the kernel inside a copy from its memory, and win races that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LazyPages {
    #[default]
    Never,
    /// Where the machine's owner has allowed it.
    IfAllowed,
    /// The driver allows it at its start, until the machine's next boot.
    Allow,
}

impl LazyPages {
    /// Makes it so, as far as can be.
    pub(crate) fn set_up(self) {
        if self == Self::Allow
            && let Err(error) = criu::allow_lazy_pages()
        {
            tracing::warn!(%error, "memory cannot come later: userfaultfd cannot be allowed");
        }
    }

    /// Whether a sandbox with so much memory is woken without waiting for it. Looked at each time:
    /// the machine's owner may change the setting. Memory that processes share since a fork comes
    /// once for each of them, so it must fit into the limit that often.
    pub(crate) fn applies(self, memory: u64, limit: u64) -> bool {
        self != Self::Never
            && memory >= LAZY_BYTES_MIN
            && memory <= limit / 10 * LAZY_TENTHS_MAX
            && criu::lazy_pages() == criu::LazyPages::Ready
    }
}

/// What a note says about memory under way. Stored; fields are only ever added, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paging {
    /// `None`: it had ended when it was to be noted.
    pub(crate) daemon: Option<Identity>,
    /// Name of the file, in the folder of notes.
    pub(crate) outcome: String,
}

impl Paging {
    /// A name that no other daemon has.
    pub(crate) fn file(id: &SandboxId) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (server, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.unwrap_or_default().as_nanos();
        format!("{id}.{server}-{number}-{nanos}.{OUTCOME}")
    }

    pub(crate) fn new(daemon: &mut PageDaemon, outcome: String) -> Self {
        let identity = daemon.identity().ok().flatten();
        if identity.is_none() {
            // Reaped here, since nobody will watch it; what it says is in the file.
            let _ = daemon.wait(Duration::from_secs(1));
        }
        Self {
            daemon: identity,
            outcome,
        }
    }
}

/// Where the memory of a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    Coming,
    In,
    /// Some never came.
    Lost,
}

/// Tells when a sandbox has its memory.
#[derive(Debug, Clone)]
pub(crate) struct Arrival(watch::Receiver<Pages>);

impl Arrival {
    /// Of a sandbox that has it.
    pub(crate) fn done() -> Self {
        Self(watch::channel(Pages::In).1)
    }

    /// Watches the daemon.
    pub(crate) fn watch(paging: &Paging, notes: &Path) -> io::Result<Self> {
        let daemon = match paging.daemon {
            Some(daemon) => daemon.open()?,
            None => None,
        };
        let ended = daemon.map(Ended::watch).transpose()?;
        let outcome = notes.join(&paging.outcome);
        let (sender, receiver) = watch::channel(Pages::Coming);
        tokio::spawn(async move {
            if let Some(ended) = ended {
                ended.wait().await;
            }
            sender.send_replace(match pages_are_in(&outcome) {
                true => Pages::In,
                false => Pages::Lost,
            });
        });
        Ok(Self(receiver))
    }

    /// Whether all of it is there, now.
    pub(crate) fn is_in(&self) -> bool {
        *self.0.borrow() == Pages::In
    }

    /// Returns once it is known whether all of it is there.
    pub(crate) async fn wait(&self) -> bool {
        let mut pages = self.0.clone();
        match pages.wait_for(|pages| *pages != Pages::Coming).await {
            Ok(pages) => *pages == Pages::In,
            // Nobody watches any more: what was said last counts.
            Err(_) => self.is_in(),
        }
    }
}

/// Once its memory is in, there is nothing special about the sandbox any more; if it does not come,
/// the sandbox stands still.
pub(crate) fn tidy_later(shared: &Arc<Shared>, id: &SandboxId, instance: &Arc<Instance>) {
    let Some(paging) = instance.note.paging.clone() else {
        return;
    };
    let (shared, id, instance) = (Arc::clone(shared), id.clone(), Arc::clone(instance));
    tokio::spawn(async move {
        let whole = instance.arrival.wait().await;
        let _held = shared.locks.lock(&id).await;
        let current = shared.instance(&id);
        if !current.is_ok_and(|current| Arc::ptr_eq(&current, &instance)) {
            return;
        }
        let tidied = tokio::task::spawn_blocking(move || match whole {
            true => tidy(&shared, &id, &instance, &paging),
            false => stop(&shared, &id, &instance),
        });
        if let Ok(Err(error)) = tidied.await {
            tracing::warn!(%error, "after the memory of a sandbox came");
        }
    });
}

/// Each step may be repeated. The note is written before the file goes: a note that waits for a file
/// that is gone would stop the sandbox.
fn tidy(shared: &Shared, id: &SandboxId, instance: &Instance, paging: &Paging) -> io::Result<()> {
    disk::remove_images(&shared.paths.sandbox(id))?;
    if let Some(made) = &instance.note.made {
        disk::limit(shared, id, made.disk_bytes)?;
    }
    instance.note_now().write(&shared.paths.notes)?;
    forget(&shared.paths.notes, paging);
    Ok(())
}

/// A sandbox that was ended takes its daemon with it, which is no loss.
fn stop(shared: &Shared, id: &SandboxId, instance: &Instance) -> io::Result<()> {
    if instance.has_ended()? {
        return Ok(());
    }
    tracing::error!(%id, "the memory of a sandbox did not come: it stands still");
    shared.cgroup(id).freeze()
}

/// Removes what a daemon said. It may be gone, or be written after this: the next start looks again.
pub(crate) fn forget(notes: &Path, paging: &Paging) {
    let _ = fs::remove_file(notes.join(&paging.outcome));
}

/// Removes what daemons said of sandboxes that are gone.
pub(crate) fn clear(dir: &Path, live: &[Note]) -> io::Result<()> {
    let wanted: HashSet<&str> = live
        .iter()
        .filter_map(|note| Some(note.paging.as_ref()?.outcome.as_str()))
        .collect();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let outcome = path.extension().is_some_and(|ending| ending == OUTCOME);
        if outcome && name.is_some_and(|name| !wanted.contains(name)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
