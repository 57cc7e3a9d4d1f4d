//! The gate of a sandbox: who may use it now, who does, and when somebody last did.
//!
//! Using a sandbox and letting it fall asleep are decided under one lock: whoever holds a
//! [`Lease`] keeps the gate from closing for idleness, and whoever comes after it closed finds it
//! closed. So no sandbox falls asleep under a request.
//!
//! A gate lives as long as anybody holds it: streams that are parked while their sandbox sleeps on
//! disk find it again when that wakes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};
use woodfrog_types::{SandboxId, Timestamp};

use crate::life::Life;

#[derive(Debug)]
struct State {
    open: bool,
    leases: usize,
    /// Connections of streams that do not count as uses, but must be gone before a checkpoint.
    attached: usize,
    /// Rises with each use.
    activity: u64,
    last: Timestamp,
    /// The sandbox ends, or sleeps until it is resumed: streams end as those of an ended one.
    life: Arc<Life>,
}

impl State {
    const fn is_drained(&self) -> bool {
        self.leases == 0 && self.attached == 0
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// The last lease was given back.
    drained: Notify,
    /// As `State::open`, for those who wait for it.
    open: watch::Sender<bool>,
}

/// What was known of a sandbox's use at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) activity: u64,
    pub(crate) leases: usize,
    /// The last use; now, while there are leases.
    pub(crate) last: Timestamp,
}

impl Gate {
    /// Closed, until the sandbox is up.
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            open: false,
            leases: 0,
            attached: 0,
            activity: 0,
            last: Timestamp::now(),
            life: Arc::default(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            drained: Notify::new(),
            open: watch::Sender::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a use; `None` if the gate is closed.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Lease> {
        let mut state = self.lock();
        if !state.open {
            return None;
        }
        state.leases += 1;
        state.activity += 1;
        state.last = Timestamp::now();
        let life = Arc::clone(&state.life);
        drop(state);
        Some(Lease {
            gate: Arc::clone(self),
            life,
        })
    }

    /// Counts a connection to the guest that is no use, until what this gives is dropped; `None`
    /// if the gate is closed.
    pub(crate) fn attach(self: &Arc<Self>) -> Option<Attached> {
        let mut state = self.lock();
        if !state.open {
            return None;
        }
        state.attached += 1;
        drop(state);
        Some(Attached(Arc::clone(self)))
    }

    /// Counts a use that is over already.
    pub(crate) fn touch(&self) {
        let mut state = self.lock();
        state.activity += 1;
        state.last = Timestamp::now();
    }

    pub(crate) fn seen(&self) -> Seen {
        let state = self.lock();
        Seen {
            activity: state.activity,
            leases: state.leases,
            last: match state.leases {
                0 => state.last,
                _ => Timestamp::now(),
            },
        }
    }

    /// Closes it if nothing used the sandbox since `seen` and nothing does now. Says whether it
    /// did.
    pub(crate) fn close_if_quiet(&self, seen: Seen) -> bool {
        let mut state = self.lock();
        let quiet = state.open && state.leases == 0 && state.activity == seen.activity;
        if quiet {
            state.open = false;
            self.open.send_replace(false);
        }
        quiet
    }

    /// Closes it for whoever comes; leases that are out go on.
    pub(crate) fn close(&self) {
        self.lock().open = false;
        self.open.send_replace(false);
    }

    /// Tells those who are in, or parked, that it is over for them.
    pub(crate) fn end(&self) {
        self.lock().life.end();
    }

    /// As [`Self::end`], because its processes began anew: for this reason.
    pub(crate) fn end_anew(&self, why: &'static str) {
        self.lock().life.end_anew(why);
    }

    /// Opens it. Who was told that it is over stays told.
    pub(crate) fn open(&self) {
        let mut state = self.lock();
        if state.life.is_over() {
            state.life = Arc::default();
        }
        state.open = true;
        state.activity += 1;
        state.last = Timestamp::now();
        self.open.send_replace(true);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Resolves once it is open.
    pub(crate) async fn opened(&self) {
        // The sender lives as long as this.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Resolves once it is closed.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as this.
        let _ = self.open.subscribe().wait_for(|open| !*open).await;
    }

    /// Resolves once no lease is out and nothing is attached.
    pub(crate) async fn drained(&self) {
        loop {
            let notified = self.drained.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.lock().is_drained() {
                return;
            }
            notified.await;
        }
    }
}

/// One use of a sandbox. It counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) gate: Arc<Gate>,
    pub(crate) life: Arc<Life>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.leases -= 1;
        state.activity += 1;
        state.last = Timestamp::now();
        let last = state.is_drained();
        drop(state);
        if last {
            self.gate.drained.notify_waiters();
        }
    }
}

/// A connection of a stream that does not count as a use.
#[derive(Debug)]
pub(crate) struct Attached(Arc<Gate>);

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.attached -= 1;
        let last = state.is_drained();
        drop(state);
        if last {
            self.0.drained.notify_waiters();
        }
    }
}

/// The gates that somebody holds.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<SandboxId, Weak<Gate>>>);

/// Gates beyond which those that nobody holds are forgotten.
const GATES_KEPT: usize = 64;

impl Gates {
    /// The gate of a sandbox: the one that is held, else a new one.
    pub(crate) fn of(&self, id: &SandboxId) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(id).and_then(Weak::upgrade) {
            return gate;
        }
        if gates.len() >= GATES_KEPT && gates.len() == gates.capacity() {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let gate = Gate::new();
        gates.insert(id.clone(), Arc::downgrade(&gate));
        gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_close_under_a_lease_nor_after_a_use() {
        let gate = Gate::new();
        assert!(gate.enter().is_none(), "closed at first");
        gate.open();
        let seen = gate.seen();
        let lease = gate.enter();
        assert!(lease.is_some());
        assert!(!gate.close_if_quiet(gate.seen()), "a lease is out");
        drop(lease);
        assert!(!gate.close_if_quiet(seen), "it was used since");
        gate.touch();
        assert!(gate.close_if_quiet(gate.seen()));
        assert!(!gate.close_if_quiet(gate.seen()), "closed already");
        assert!(gate.enter().is_none());
    }

    #[tokio::test]
    async fn it_says_when_the_last_lease_is_back() {
        let gate = Gate::new();
        gate.open();
        let (one, two) = (gate.enter(), gate.enter());
        gate.close();
        let drained = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drained().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(two);
        drained.await.unwrap();
    }

    #[test]
    fn who_comes_after_an_end_is_not_told_of_it() {
        let gate = Gate::new();
        gate.open();
        let before = gate.enter().unwrap();
        gate.close();
        gate.open();
        assert!(!before.life.is_over(), "it only slept");
        gate.end();
        assert!(before.life.is_over());
        gate.open();
        assert!(!gate.enter().unwrap().life.is_over());
    }

    #[test]
    fn gates_that_nobody_holds_are_forgotten() {
        let gates = Gates::default();
        let held = SandboxId::generate();
        let gate = gates.of(&held);
        for _ in 0..10_000 {
            gates.of(&SandboxId::generate());
        }
        assert!(Arc::ptr_eq(&gate, &gates.of(&held)));
        assert!(gates.0.lock().unwrap().len() < 1_000);
    }

    #[tokio::test]
    async fn streams_are_told_to_let_go_and_are_waited_for() {
        let gate = Gate::new();
        assert!(gate.attach().is_none(), "closed at first");
        gate.open();
        let attached = gate.attach();
        assert!(gate.close_if_quiet(gate.seen()), "they are no use");
        gate.closed().await;
        let drained = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drained().await }
        });
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(attached);
        drained.await.unwrap();
    }
}
