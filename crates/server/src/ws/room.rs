//! Who is attached to which sandbox, and what runs there for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use woodfrog_engine::Engine;
use woodfrog_engine::lease::Departures;
use woodfrog_types::SandboxId;

use super::execution::Execution;
use super::machine::Found;
use super::vigil::Asker;

/// How long a client that is attached may take to show that it lives when another one comes.
const PROBE: Duration = Duration::from_secs(5);
/// As long as the one that comes shows that it is the same client: its connection broke.
const PROBE_SAME: Duration = Duration::from_millis(250);
/// How long an attachment whose client is gone may take to leave.
const LEAVE: Duration = Duration::from_secs(5);
/// How long attachments may take to say good-bye when the server stops.
const STOP: Duration = Duration::from_secs(5);

/// The WebSocket sandboxes of a server. A cheap clone.
#[derive(Clone, Default)]
pub struct Sockets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rooms: Mutex<HashMap<SandboxId, Arc<Room>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Sockets {
    /// Tells clients that the server stops, and waits until they know. Sandboxes and what runs in
    /// them go on.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(STOP, self.0.tasks.wait())
            .await
            .is_err()
        {
            tracing::info!(left = self.0.tasks.len(), "WebSocket clients are cut");
        }
    }

    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(task);
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Room>>> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The room of a sandbox, made if there is none.
    pub(super) fn room(&self, id: &SandboxId) -> Arc<Room> {
        Arc::clone(self.rooms().entry(id.clone()).or_default())
    }

    /// Forgets the room of a sandbox if it is empty.
    pub(super) fn tidy(&self, id: &SandboxId) {
        let mut rooms = self.rooms();
        let Some(room) = rooms.get(id) else { return };
        let state = room.state();
        let empty = state.seat.is_none() && state.execution.is_none();
        drop(state);
        // Nobody else holds it, and nobody can while the lock is held.
        if empty && Arc::strong_count(room) == 1 {
            rooms.remove(id);
        }
    }

    /// How many sandboxes have a client, or something running for one.
    pub fn len(&self) -> usize {
        self.rooms().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is known of one sandbox.
#[derive(Default)]
pub(super) struct Room {
    /// Who wants to attach waits for the one before.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seats: u64,
    seat: Option<Seat>,
    execution: Option<Arc<Execution>>,
    /// It was looked for what an earlier server left.
    searched: bool,
}

/// The place of the attachment that there is.
struct Seat {
    number: u64,
    client: String,
    knock: mpsc::Sender<Asker>,
    leave: CancellationToken,
    moved: CancellationToken,
    gone: CancellationToken,
}

/// The right to be the one that is attached, until this is dropped.
pub(super) struct Occupied {
    sockets: Sockets,
    id: SandboxId,
    pub(super) room: Arc<Room>,
    number: u64,
    /// Somebody asks whether the client lives: answered when it has shown that.
    pub(super) knocks: mpsc::Receiver<Asker>,
    /// The client was found to be gone.
    pub(super) leave: CancellationToken,
    /// The sandbox goes to another server.
    pub(super) moved: CancellationToken,
    gone: CancellationToken,
}

impl Room {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn execution(&self) -> Option<Arc<Execution>> {
        self.state().execution.clone()
    }

    /// What runs now; what ran before is forgotten.
    pub(super) fn set_execution(&self, execution: Option<Arc<Execution>>) {
        let before = std::mem::replace(&mut self.state().execution, execution);
        if let Some(before) = before {
            before.abandon();
        }
    }

    /// Writes down for the next server how far the client's output is.
    pub(super) async fn note(&self, engine: &Engine, id: &SandboxId) {
        let Some(cursor) = self.execution().map(|it| it.progress()) else {
            return;
        };
        if let Err(fault) = engine.socket_note(id, &cursor.to_string()).await {
            crate::input::log(&fault);
        }
    }

    /// What somebody who comes now finds.
    pub(super) fn found(&self) -> Found {
        match self.execution() {
            None => Found::Nothing,
            Some(execution) if execution.is_over() => Found::Ended,
            Some(_) => Found::Running,
        }
    }

    /// The sandbox is not here any more. Should it come back, what runs in it is looked for again.
    pub(super) fn forget(&self) {
        self.set_execution(None);
        self.state().searched = false;
    }

    /// Whether this is the first time that is asked.
    pub(super) fn search(&self) -> bool {
        !std::mem::replace(&mut self.state().searched, true)
    }

    pub(super) fn has_client(&self) -> bool {
        self.state().seat.is_some()
    }
}

impl Sockets {
    /// Attaches a client; `None` if another one is attached that lives.
    pub(super) async fn occupy(&self, id: &SandboxId, client: &str) -> Option<Occupied> {
        let seated = self.seat(id, client).await;
        if seated.is_none() {
            // Who was there may have left while the room was held here.
            self.tidy(id);
        }
        seated
    }

    async fn seat(&self, id: &SandboxId, client: &str) -> Option<Occupied> {
        let room = self.room(id);
        let turn = room.turn.lock().await;
        let present = room.state().seat.as_ref().map(|seat| {
            let same = crate::envd::auth::same(seat.client.as_bytes(), client.as_bytes());
            let patience = if same { PROBE_SAME } else { PROBE };
            let tokens = (seat.leave.clone(), seat.gone.clone());
            (seat.knock.clone(), patience, tokens)
        });
        if let Some((knock, patience, (leave, gone))) = present {
            if lives(&knock, patience).await {
                return None;
            }
            leave.cancel();
            if tokio::time::timeout(LEAVE, gone.cancelled()).await.is_err() {
                return None;
            }
        }
        let (knock, knocks) = mpsc::channel(1);
        let (leave, gone) = (CancellationToken::new(), CancellationToken::new());
        let moved = CancellationToken::new();
        let mut state = room.state();
        state.seats += 1;
        let number = state.seats;
        state.seat = Some(Seat {
            number,
            client: client.to_owned(),
            knock,
            leave: leave.clone(),
            moved: moved.clone(),
            gone: gone.clone(),
        });
        drop(state);
        drop(turn);
        Some(Occupied {
            sockets: self.clone(),
            id: id.clone(),
            room,
            number,
            knocks,
            leave,
            moved,
            gone,
        })
    }
}

#[async_trait]
impl Departures for Sockets {
    /// The client is told and let go; how far it is with what runs is written down, and goes on
    /// there on the other server.
    async fn leaving(&self, engine: &Engine, id: &SandboxId) {
        let Some(room) = self.rooms().get(id).map(Arc::clone) else {
            return;
        };
        let tokens = |seat: &Seat| (seat.moved.clone(), seat.gone.clone());
        let seat = room.state().seat.as_ref().map(tokens);
        match seat {
            Some((moved, gone)) => {
                moved.cancel();
                let told = tokio::time::timeout(LEAVE, gone.cancelled()).await;
                if told.is_err() {
                    tracing::info!(sandbox = %id, "its client was not told in time that it moves");
                }
            }
            None => room.note(engine, id).await,
        }
        room.forget();
        drop(room);
        self.tidy(id);
    }
}

async fn lives(knock: &mpsc::Sender<Asker>, patience: Duration) -> bool {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        match knock.send(reply).await {
            Ok(()) => answer.await.is_ok(),
            Err(_) => false,
        }
    };
    tokio::time::timeout(patience, asked).await.unwrap_or(false)
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let mut state = self.room.state();
        if state
            .seat
            .as_ref()
            .is_some_and(|it| it.number == self.number)
        {
            state.seat = None;
        }
        drop(state);
        self.gone.cancel();
        self.room = Arc::default();
        self.sockets.tidy(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SandboxId {
        SandboxId::generate()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_client_that_lives_is_refused() {
        let (sockets, id) = (Sockets::default(), id());
        let mut first = sockets.occupy(&id, "a").await.expect("the first");
        let answers = tokio::spawn(async move {
            while let Some(reply) = first.knocks.recv().await {
                reply.send(()).expect("it waits");
            }
        });
        assert!(sockets.occupy(&id, "b").await.is_none());
        assert!(sockets.occupy(&id, "a").await.is_none(), "another tab");
        answers.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_client_gives_its_place_away() {
        let (sockets, id) = (Sockets::default(), id());
        let first = sockets.occupy(&id, "a").await.expect("the first");
        let began = tokio::time::Instant::now();
        tokio::spawn(async move {
            first.leave.cancelled().await;
            drop(first);
        });
        let second = sockets.occupy(&id, "a").await.expect("its place");
        assert_eq!(began.elapsed(), PROBE_SAME);
        drop(second);
        assert!(sockets.is_empty(), "nothing is left");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_by_who_was_refused() {
        let (sockets, id) = (Sockets::default(), id());
        let mut first = sockets.occupy(&id, "a").await.expect("the first");
        tokio::spawn(async move {
            let reply = first.knocks.recv().await.expect("somebody knocks");
            // While the room is held by the one that knocks.
            drop(first);
            reply.send(()).expect("it waits");
        });
        assert!(sockets.occupy(&id, "b").await.is_none());
        assert!(sockets.is_empty(), "nothing is left");
    }

    #[test]
    fn what_is_not_here_any_more_is_looked_for_again() {
        let room = Room::default();
        assert!(room.search());
        assert!(!room.search());
        room.forget();
        assert!(room.search());
    }

    #[tokio::test]
    async fn a_place_that_was_left_is_free() {
        let (sockets, id) = (Sockets::default(), id());
        drop(sockets.occupy(&id, "a").await.expect("the first"));
        assert!(sockets.occupy(&id, "b").await.is_some());
    }
}
