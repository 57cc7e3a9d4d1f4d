//! Spares: sandboxes made ahead, before anybody asks for them.
//!
//! Making a sandbox takes the kernel milliseconds; handing one over takes none. A spare is launched
//! like any sandbox, under an id of its own, with nothing in it but its guest, and belongs to nobody:
//! no record of it is stored, so a server that starts after a crash removes it with whatever else is
//! on the machine without a record. The create that takes it takes over its id, stores its intent, sets
//! the network rules it asks for, and configures the guest, as for a sandbox launched for it.
//!
//! Only what is asked for again and again is kept ready, and only for a while: a server that nobody
//! uses has none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use woodfrog_sandbox::{Egress, LaunchSpec, Launched};
use woodfrog_types::SandboxId;
use woodfrog_types::network::NetworkSpec;

use crate::inner::Inner;
use crate::sandbox::launch;
use crate::tasks;

/// How long spares are kept after the last create that was like them.
const KEPT: Duration = Duration::from_secs(120);
/// Between two looks for spares that nobody wanted.
const LOOK: Duration = Duration::from_secs(10);
/// Kinds of sandbox for which there are spares; the one that was asked for longest ago gives way.
const KINDS_MAX: usize = 2;

/// Kinds that are remembered.
const REMEMBERED_MAX: usize = 32;

/// Sandboxes made ahead.
#[derive(Default)]
pub(crate) struct Spares(Mutex<State>);

#[derive(Default)]
struct State {
    /// What was asked for last, the latest at the end.
    kinds: Vec<Kind>,
    filling: bool,
    closed: bool,
}

/// Spares that are alike.
struct Kind {
    /// What they were launched with, but for the id.
    like: LaunchSpec,
    ready: VecDeque<Spare>,
    /// Creates of this kind, until there are enough to keep some ready.
    asked: usize,
    asked_at: Instant,
}

/// A sandbox that runs and belongs to nobody.
pub(crate) struct Spare {
    pub(crate) id: SandboxId,
    launched: Launched,
    egress: Box<Egress>,
}

/// Whether a sandbox launched with `a` can pass for one launched with `b`. Network rules can be
/// exchanged later, and every host name is the sandbox's id.
fn alike(a: &LaunchSpec, b: &LaunchSpec) -> bool {
    let LaunchSpec {
        id: _,
        layers,
        hostname: _,
        resources,
        egress: _,
        security,
        volumes,
    } = a;
    *layers == b.layers
        && *resources == b.resources
        && *security == b.security
        && *volumes == b.volumes
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one that can become what `spec` describes, and remembers that it was asked for.
    pub(crate) fn take(&self, spec: &LaunchSpec) -> Option<Spare> {
        let mut state = self.lock();
        let at = state.kinds.iter().position(|kind| alike(&kind.like, spec));
        let mut kind = match at {
            Some(at) => state.kinds.remove(at),
            None => Kind {
                // Each is given its own rules; what is secret in these is not kept.
                like: LaunchSpec {
                    egress: Egress::default(),
                    ..spec.clone()
                },
                ready: VecDeque::new(),
                asked: 0,
                asked_at: Instant::now(),
            },
        };
        if kind.asked_at.elapsed() > KEPT {
            kind.asked = 0;
        }
        kind.asked += 1;
        kind.asked_at = Instant::now();
        let spare = kind.ready.pop_front();
        state.kinds.push(kind);
        // Kinds of which there are none are remembered for a moment only.
        if state.kinds.len() > REMEMBERED_MAX
            && let Some(at) = state.kinds.iter().position(|kind| kind.ready.is_empty())
        {
            state.kinds.remove(at);
        }
        spare
    }

    /// Takes out what is kept too long, or is of too many kinds, or everything.
    fn superfluous(&self, all: bool) -> Vec<Spare> {
        let mut state = self.lock();
        let over = state.kinds.len().saturating_sub(KINDS_MAX);
        let mut out = Vec::new();
        let mut number = 0;
        state.kinds.retain_mut(|kind| {
            number += 1;
            let goes = all || number <= over || kind.asked_at.elapsed() > KEPT;
            if goes {
                out.extend(kind.ready.drain(..));
            }
            !goes
        });
        out
    }

    /// Begins to fill up, unless that is under way or nothing is missing.
    fn begin(&self, most: usize) -> bool {
        let mut state = self.lock();
        let begins = !state.closed && !state.filling && state.missing(most).is_some();
        state.filling |= begins;
        begins
    }

    /// What to launch next; `None` ends the filling.
    fn next(&self, most: usize) -> Option<LaunchSpec> {
        let mut state = self.lock();
        let next = match state.closed {
            true => None,
            false => state.missing(most),
        };
        state.filling = next.is_some();
        next
    }

    /// Puts a new one to the others; gives back one that is not wanted any more.
    fn put(&self, like: &LaunchSpec, spare: Spare) -> Option<Spare> {
        let mut state = self.lock();
        let closed = state.closed;
        match state.kinds.iter_mut().find(|kind| alike(&kind.like, like)) {
            Some(kind) if !closed => {
                kind.ready.push_back(spare);
                None
            }
            Some(_) | None => Some(spare),
        }
    }

    /// How many are ready.
    pub(crate) fn count(&self) -> usize {
        self.lock().kinds.iter().map(|kind| kind.ready.len()).sum()
    }
}

impl State {
    /// The kind asked for last of which there are too few.
    fn missing(&self, most: usize) -> Option<LaunchSpec> {
        let kinds = self.kinds.iter().rev().take(KINDS_MAX);
        let mut short = kinds.filter(|kind| kind.asked > 1 && kind.ready.len() < most);
        short.next().map(|kind| kind.like.clone())
    }
}

/// Makes what is missing, in the background.
pub(crate) fn refill(inner: &Arc<Inner>) {
    if !inner.spares.begin(inner.options.spares) {
        return;
    }
    let shared = Arc::clone(inner);
    tasks::spawn(&inner.tasks, "spares", async move {
        while let Some(like) = shared.spares.next(shared.options.spares) {
            if !add(&shared, like).await {
                break;
            }
        }
        // After a failure the next create tries again.
        shared.spares.lock().filling = false;
    });
}

/// Launches one; `false` if that failed.
async fn add(inner: &Inner, like: LaunchSpec) -> bool {
    let id = SandboxId::generate();
    // Until the driver has them. Nobody may have needed them since the create that was like it.
    let _used = inner.layer_uses.begin(&*inner.images);
    let names = like.layers.iter().filter_map(|layer| layer.file_name());
    let names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    if inner.images.paths(&names).is_err() {
        return false;
    }
    let egress = launch::egress_of(NetworkSpec::default());
    let spec = LaunchSpec {
        id: id.clone(),
        hostname: id.to_string(),
        egress: egress.clone(),
        ..like.clone()
    };
    let launched = match inner.driver.launch(spec).await {
        Ok(launched) => launched,
        Err(error) => {
            tracing::info!(%error, "a spare sandbox could not be made");
            return false;
        }
    };
    let spare = Spare {
        id,
        launched,
        egress: Box::new(egress),
    };
    if let Some(unwanted) = inner.spares.put(&like, spare) {
        remove(inner, vec![unwanted]).await;
    }
    true
}

/// Makes a spare what `spec`, which has its id, describes; `None` if it does not run any more, and
/// nothing of it is left then.
pub(crate) async fn become_one(inner: &Inner, spare: Spare, spec: &LaunchSpec) -> Option<Launched> {
    let begun = Instant::now();
    let mut ready = inner
        .driver
        .adopt(&spare.id, &spare.launched.instance)
        .await;
    if ready.is_ok() && *spare.egress != spec.egress {
        let exchanged = inner
            .driver
            .set_egress(&spare.id, spec.egress.clone())
            .await;
        ready = match exchanged {
            // The record has the rules as they are now.
            Ok(()) => {
                inner
                    .driver
                    .adopt(&spare.id, &spare.launched.instance)
                    .await
            }
            Err(error) => Err(error),
        };
    }
    match ready {
        Ok(adopted) => Some(Launched {
            instance: adopted.instance,
            timings: vec![("spare", begun.elapsed())],
        }),
        Err(error) => {
            tracing::info!(sandbox = %spare.id, %error, "a spare sandbox cannot be used");
            remove(inner, vec![spare]).await;
            None
        }
    }
}

async fn remove(inner: &Inner, spares: Vec<Spare>) {
    for spare in spares {
        if let Err(fault) = launch::destroy(inner, &spare.id).await {
            // The next start removes it.
            tracing::warn!(sandbox = %spare.id, error = &fault as &dyn std::error::Error, "a spare sandbox could not be removed");
        }
    }
}

/// Removes spares that nobody wants, and all of them when the server stops.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        let stopping = tokio::select! {
            () = inner.stopping.cancelled() => true,
            _ = ticks.tick() => false,
        };
        inner.spares.lock().closed |= stopping;
        remove(&inner, inner.spares.superfluous(stopping)).await;
        if stopping {
            return;
        }
    }
}
