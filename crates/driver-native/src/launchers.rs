//! The launcher processes: started by executing this binary again, replaced when one dies.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use woodfrog_linux::launcher::start;
use woodfrog_sandbox::DriverError;

use crate::error::{StartError, step};
use crate::launcher::Launcher;

/// The hidden subcommand that makes this binary a launcher.
const SUBCOMMAND: &str = "__launcher";

/// A fixed number of launchers, used in turn.
pub(crate) struct Launchers {
    program: CString,
    slots: Vec<Mutex<Arc<Launcher>>>,
    next: AtomicUsize,
    closed: AtomicBool,
}

impl Launchers {
    /// Starts `count` of them.
    pub(crate) fn start(count: usize) -> Result<Self, StartError> {
        let program = CString::new("/proc/self/exe").map_err(|e| StartError::Launcher(e.into()))?;
        let slots = (0..count.max(1))
            .map(|_| spawn(&program).map(|launcher| Mutex::new(Arc::new(launcher))))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            program,
            slots,
            next: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// One that is alive, in turn.
    pub(crate) fn pick(&self) -> Result<Arc<Launcher>, DriverError> {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let mut slot = self.slots[index]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(step("launcher", "the driver is shutting down"));
        }
        if !slot.is_alive() {
            tracing::warn!("a launcher process died; starting another");
            *slot = Arc::new(spawn(&self.program).map_err(|e| step("launcher", e))?);
        }
        Ok(Arc::clone(&slot))
    }

    /// Makes them all end. Sandboxes go on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for slot in &self.slots {
            slot.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .close();
        }
    }
}

fn spawn(program: &CString) -> Result<Launcher, StartError> {
    let name = CString::new("woodfrog").map_err(|e| StartError::Launcher(e.into()))?;
    let subcommand = CString::new(SUBCOMMAND).map_err(|e| StartError::Launcher(e.into()))?;
    let (socket, child) = start(program.clone(), vec![name, subcommand])
        .map_err(|e| StartError::Launcher(e.into()))?;
    Launcher::new(socket, child.pid).map_err(|e| StartError::Launcher(e.into()))
}
