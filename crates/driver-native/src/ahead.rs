//! Network namespaces made ahead, since making one takes longer than anything else in the way of
//! a create that does not depend on the sandbox.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use woodfrog_linux::netns;

/// How many wait. Each costs some 100 KiB of the kernel's memory.
const READY: usize = 4;

/// A few empty network namespaces. Nothing but their descriptors holds them: they vanish with
/// the server.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<OwnedFd>,
    filling: bool,
}

impl Ahead {
    /// One that is ready, or a new one.
    pub(crate) async fn take(&self) -> io::Result<OwnedFd> {
        let ready = self.lock().ready.pop();
        match ready {
            Some(namespace) => Ok(namespace),
            None => tokio::task::spawn_blocking(netns::create)
                .await
                .map_err(io::Error::other)?,
        }
    }

    /// Makes what is missing, on a blocking thread.
    pub(crate) fn refill(this: &Arc<Self>) {
        {
            let mut state = this.lock();
            if state.filling || state.ready.len() >= READY {
                return;
            }
            state.filling = true;
        }
        let this = Arc::clone(this);
        tokio::task::spawn_blocking(move || this.fill());
    }

    fn fill(&self) {
        loop {
            let made = netns::create();
            let mut state = self.lock();
            let failed = made.is_err();
            // Whoever needs one meets the error again.
            state.ready.extend(made.ok());
            if state.ready.len() >= READY || failed {
                state.filling = false;
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
