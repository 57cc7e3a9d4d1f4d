//! Network namespaces made ahead, since making one takes longer than anything else in the way of
//! a create that does not depend on the sandbox.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use woodfrog_linux::netns::{self, OwnedPair};

/// How many wait. Each costs some 100 KiB of the kernel's memory.
const READY: usize = 4;

/// A few empty network namespaces. Nothing but their descriptors holds them: they vanish with
/// the server.
#[derive(Debug, Default)]
pub struct Ahead {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<OwnedPair>,
    filling: bool,
}

impl Ahead {
    /// One that is ready, or a new one.
    pub async fn take(&self) -> io::Result<OwnedPair> {
        let ready = self.lock().ready.pop();
        match ready {
            Some(namespace) => Ok(namespace),
            None => tokio::task::spawn_blocking(netns::create_owned)
                .await
                .map_err(io::Error::other)?,
        }
    }

    /// Makes what is missing, on a blocking thread.
    pub fn refill(this: &Arc<Self>) {
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
            let made = netns::create_owned();
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
