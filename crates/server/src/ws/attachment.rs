//! One client of one sandbox: its frames in their order, and what comes of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use woodfrog_core::access::Action;
use woodfrog_engine::{CheckpointRequest, GuestLease, HibernateRequest};
use woodfrog_types::key::Principal;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, SandboxId};
use woodfrog_wire::ws::{ServerFrame, Status};

use super::audit::{Cause, Notes};
use super::courier::{Courier, Mode, Next};
use super::execution::Execution;
use super::failed;
use super::idle::{self, Clock};
use super::link::{Link, Received};
use super::machine::{Close, Effect, Failed, Machine};
use super::outbox::{Cursor, Seek};
use super::room::Occupied;
use crate::state::App;

/// A client that says nothing is asked for a sign of life this often, and is gone after so many
/// times without one.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const SILENT_MAX: u32 = 3;

/// See the module.
pub(super) struct Attachment {
    pub(super) app: App,
    pub(super) principal: Principal,
    pub(super) id: SandboxId,
    pub(super) notes: Notes,
    pub(super) link: Link,
    pub(super) seat: Occupied,
    pub(super) machine: Machine,
    pub(super) clock: Clock,
    pub(super) mode: Mode,
    /// Held without keeping the sandbox awake.
    pub(super) guest: GuestLease,
}

/// What is under way for a client.
struct Desk {
    /// Output goes to the client.
    delivery: Option<Delivery>,
    /// Somebody waits to hear whether the client lives, which the pong to this ping shows. Nothing
    /// else does: it may have been sent before the connection broke, and be read only now.
    knock: Option<(u64, oneshot::Sender<()>)>,
    /// Pings without an answer.
    silent: u32,
    heard: Instant,
    pings: u64,
    /// The execution whose end was told, until the client has shown that it knows.
    told: Option<u64>,
    /// Why something is done now.
    cause: Cause,
}

struct Delivery {
    execution: Arc<Execution>,
    courier: Courier,
    /// Not before this.
    wait: Option<Instant>,
}

/// What the loop found to do.
enum Event {
    Received(Received),
    Output,
    News,
    Due,
    Silence,
    Knock(oneshot::Sender<()>),
    Gone,
    Moved,
    Stop,
    Leave,
}

impl Attachment {
    /// Serves the client until its connection or its sandbox is over.
    pub(super) async fn serve(mut self) {
        let mut desk = Desk {
            delivery: None,
            knock: None,
            silent: 0,
            heard: Instant::now(),
            pings: 0,
            told: None,
            cause: Cause::Client,
        };
        // The deadline is moved before the client can rely on it.
        self.clock.look(true).await;
        let mut alive = self.link.say(&ServerFrame::status(Status::Running)).await;
        let mut close = None;
        while alive && close.is_none() {
            let event = self.event(&mut desk).await;
            alive = self.handle(event, &mut desk, &mut close).await;
        }
        self.part(close).await;
    }

    async fn event(&mut self, desk: &mut Desk) -> Event {
        let execution = self.seat.room.execution();
        let news = async {
            match &execution {
                Some(execution) => execution.news.notified().await,
                None => std::future::pending().await,
            }
        };
        let ready = desk.delivery.as_ref().is_some_and(Delivery::is_ready);
        let paced = desk.delivery.as_ref().and_then(|delivery| delivery.wait);
        let silence = desk.heard + KEEP_ALIVE;
        let open = self.link.ready();
        tokio::select! {
            biased;
            () = self.seat.leave.cancelled() => Event::Leave,
            () = self.seat.moved.cancelled() => Event::Moved,
            () = self.guest.ended() => Event::Gone,
            () = self.app.sockets.stopping().cancelled() => Event::Stop,
            received = self.link.next() => Event::Received(received),
            Some(knock) = self.seat.knocks.recv() => Event::Knock(knock),
            () = sleep_until(self.clock.due()) => Event::Due,
            () = sleep_until(silence) => Event::Silence,
            () = news => Event::News,
            () = sleep_until(paced.unwrap_or(silence)), if paced.is_some() => Event::News,
            open = open, if ready => match open {
                true => Event::Output,
                false => Event::Received(Received::Closed),
            },
        }
    }

    /// Says whether the client is still there.
    async fn handle(&mut self, event: Event, desk: &mut Desk, close: &mut Option<Close>) -> bool {
        desk.cause = match matches!(event, Event::Due) {
            true => Cause::Idleness,
            false => Cause::Client,
        };
        let effects = match event {
            Event::Received(Received::Closed) | Event::Leave => return false,
            Event::Received(received) => {
                desk.silent = 0;
                desk.heard = Instant::now();
                match received {
                    Received::Text(text) => {
                        self.clock.touch();
                        if let Some(delivery) = &mut desk.delivery {
                            delivery.courier.hurry();
                            delivery.wait = None;
                        }
                        self.machine.frame(&text)
                    }
                    Received::Binary => self.machine.binary(),
                    Received::Pong(number) => return self.pong(number, desk).await,
                    Received::Alive(number) => {
                        if let Some((_, knock)) = desk.knock.take_if(|(asked, _)| *asked == number)
                        {
                            let _ = knock.send(());
                        }
                        Vec::new()
                    }
                    Received::Other | Received::Closed => Vec::new(),
                }
            }
            Event::Output => return self.deliver(desk, close).await,
            Event::News => {
                self.clock.touch();
                if let Some(delivery) = &mut desk.delivery {
                    delivery.wait = None;
                }
                self.news(desk)
            }
            Event::Due => match self.clock.look(self.machine.is_running()).await {
                true => {
                    // Whatever comes of it: not again at once.
                    self.clock.touch();
                    self.machine.idle()
                }
                false => Vec::new(),
            },
            Event::Silence => {
                desk.heard = Instant::now();
                desk.silent += 1;
                return desk.silent <= SILENT_MAX && self.link.ping().await.is_some();
            }
            Event::Knock(knock) => {
                let asked = self.link.ping().await;
                desk.knock = asked.map(|asked| (asked, knock));
                return asked.is_some();
            }
            Event::Gone => match self.app.engine.is_elsewhere(&self.id).await {
                Ok(true) => self.machine.lost(),
                Ok(false) | Err(_) => self.machine.gone(),
            },
            Event::Moved => self.machine.moved(),
            Event::Stop => self.machine.shutdown(),
        };
        self.act(effects, desk, close).await
    }

    /// The execution has something to say besides output.
    fn news(&mut self, desk: &Desk) -> Vec<Effect> {
        let Some(execution) = self.seat.room.execution() else {
            return Vec::new();
        };
        if desk.delivery.is_none() && execution.is_over() {
            self.machine.over();
        }
        let complaints = execution.complaints();
        let mut effects = Vec::new();
        for complaint in complaints {
            effects.extend(self.machine.complain(None, &complaint));
        }
        effects
    }

    /// Does what the machine decided, and what it decides then.
    async fn act(
        &mut self,
        effects: Vec<Effect>,
        desk: &mut Desk,
        close: &mut Option<Close>,
    ) -> bool {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            let more = match effect {
                Effect::Send(frame) => {
                    if !self.say(&frame, desk).await {
                        return false;
                    }
                    Vec::new()
                }
                Effect::Start(program) => {
                    desk.delivery = None;
                    let started = Execution::start(&self.app.engine, &self.id, *program).await;
                    let done = started.as_ref().map(|_| ());
                    self.note(Action::ProcessStart, desk, done).await;
                    let result = started.map(|execution| {
                        let cursor = Cursor::start(execution.process).to_string();
                        self.seat.room.set_execution(Some(execution));
                        cursor
                    });
                    self.machine.started(result)
                }
                Effect::Deliver { cursor } => self.begin(cursor, desk).await,
                Effect::Stdin { data, end } => match self.seat.room.execution() {
                    Some(execution) => match execution.write(data, end) {
                        Ok(()) => Vec::new(),
                        Err(failed) => self.machine.complain(Some(Status::StdinError), &failed),
                    },
                    // Nobody is there to read it.
                    None => Vec::new(),
                },
                Effect::Resize(size) => match self.seat.room.execution() {
                    Some(execution) => {
                        let resized = execution.resize(&self.app.engine, &self.id, size).await;
                        match resized {
                            Ok(()) => Vec::new(),
                            Err(failed) => self.machine.complain(None, &failed),
                        }
                    }
                    None => Vec::new(),
                },
                Effect::KillProcess => {
                    let killed = match self.seat.room.execution() {
                        Some(execution) => execution.kill(&self.app.engine, &self.id).await,
                        None => Ok(()),
                    };
                    let done = killed.as_ref().copied();
                    self.note(Action::ProcessControl, desk, done).await;
                    self.machine.killed(killed)
                }
                Effect::Checkpoint => {
                    let saved = self.checkpoint().await;
                    let done = saved.as_ref().copied();
                    self.note(Action::SandboxSleep, desk, done).await;
                    self.machine.checkpointed(saved)
                }
                Effect::Snapshot(name) => {
                    let saved = self.snapshot(name).await;
                    let done = saved.as_ref().copied();
                    self.note(Action::SandboxCheckpoint, desk, done).await;
                    self.clock.touch();
                    self.machine.snapshotted(saved)
                }
                Effect::Delete => {
                    self.seat.room.set_execution(None);
                    desk.delivery = None;
                    let deleted = self.delete().await;
                    let done = deleted.as_ref().copied();
                    self.note(Action::SandboxDelete, desk, done).await;
                    self.machine.deleted(deleted)
                }
                Effect::Close(why) => {
                    *close = Some(why);
                    return true;
                }
            };
            for effect in more.into_iter().rev() {
                queue.push_front(effect);
            }
        }
        true
    }

    async fn note(&self, action: Action, desk: &Desk, done: Result<(), &Failed>) {
        self.notes
            .note(action, Some(&self.id), desk.cause, done)
            .await;
    }

    /// Says something that is no output; a message that is held open is ended first.
    async fn say(&self, frame: &ServerFrame, desk: &mut Desk) -> bool {
        if let Some(Delivery {
            execution, courier, ..
        }) = &mut desk.delivery
        {
            let parts = execution.outbox(|outbox, _| courier.close(outbox));
            if !parts.is_empty() && !self.link.output(parts).await {
                return false;
            }
        }
        self.link.say(frame).await
    }

    /// Output goes to the client from here on, or from where it says that it is.
    async fn begin(&mut self, cursor: Option<String>, desk: &mut Desk) -> Vec<Effect> {
        match (&cursor, &mut desk.delivery) {
            (Some(_), Some(delivery)) => {
                let Delivery {
                    execution, courier, ..
                } = delivery;
                let parts = execution.outbox(|outbox, _| courier.close(outbox));
                self.link.output(parts).await;
            }
            // It comes already.
            (None, Some(_)) => return Vec::new(),
            (Some(_) | None, None) => {}
        }
        if cursor.is_some() {
            self.mode = Mode::Cursors;
        }
        let execution = match self.find(cursor).await {
            Ok(Some(execution)) => execution,
            Ok(None) => return self.machine.drained(None),
            Err(failed) => {
                let mut effects = self.machine.complain(Some(Status::ExecutionError), &failed);
                effects.extend(self.machine.drained(None));
                return effects;
            }
        };
        if let Some(before) = desk.delivery.take() {
            desk.pings = before.courier.pings();
        }
        desk.delivery = Some(Delivery {
            courier: Courier::new(self.mode, desk.pings),
            execution,
            wait: None,
        });
        Vec::new()
    }

    /// The execution whose output the client wants, at the right place.
    async fn find(&self, cursor: Option<String>) -> Result<Option<Arc<Execution>>, Failed> {
        let present = self.seat.room.execution();
        let Some(cursor) = cursor else {
            if let Some(execution) = &present {
                execution.outbox(|outbox, _| outbox.rewind());
            }
            return Ok(present);
        };
        let cursor: Cursor = cursor
            .parse()
            .map_err(|_| Failed::new("Invalid cursor: it is none of this sandbox's."))?;
        if let Some(execution) = present {
            let seek = execution.outbox(|outbox, _| outbox.seek(&cursor));
            match seek {
                Seek::Here => return Ok(Some(execution)),
                Seek::Earlier => {}
                Seek::Nowhere if cursor.process == execution.process => {
                    return Err(Failed::new("Invalid cursor: there is no such output."));
                }
                Seek::Nowhere if !execution.is_over() => {
                    return Err(Failed::new("Invalid cursor: something else runs now."));
                }
                Seek::Nowhere => {}
            }
        }
        // The guest keeps output that was read already.
        let again = Execution::take_up(&self.app.engine, &self.id, cursor).await?;
        self.seat.room.set_execution(Some(Arc::clone(&again)));
        Ok(Some(again))
    }

    /// Sends what can be sent, and says that it was all when it was.
    async fn deliver(&mut self, desk: &mut Desk, close: &mut Option<Close>) -> bool {
        let Some(delivery) = &mut desk.delivery else {
            return true;
        };
        let Delivery {
            execution,
            courier,
            wait,
        } = delivery;
        let now = Instant::now();
        let (next, done) = execution.outbox(|outbox, over| {
            let next = courier.next(outbox, over, now);
            (next, over && courier.is_done(outbox))
        });
        match next {
            Next::Send(parts) => {
                if !self.link.output(parts).await {
                    return false;
                }
            }
            Next::Wait(until) => *wait = Some(until),
            Next::Nothing => {}
        }
        if !done {
            return true;
        }
        let end = execution.end().flatten();
        let (number, pings) = (execution.process, courier.pings());
        let mut effects = Vec::new();
        for complaint in execution.complaints() {
            effects.extend(self.machine.complain(None, &complaint));
        }
        effects.extend(self.machine.drained(end));
        desk.delivery = None;
        desk.pings = pings + 1;
        desk.told = Some(number);
        let told = self.act(effects, desk, close).await;
        let ping = super::courier::Part::Ping(desk.pings);
        told && self.link.output(vec![ping]).await
    }

    async fn pong(&mut self, number: u64, desk: &mut Desk) -> bool {
        if let Some(told) = desk.told
            && number >= desk.pings
        {
            desk.told = None;
            let present = self.seat.room.execution();
            if present.is_some_and(|it| it.process == told && it.is_over()) {
                self.seat.room.set_execution(None);
            }
        }
        let Some(Delivery {
            execution,
            courier,
            wait,
        }) = &mut desk.delivery
        else {
            return true;
        };
        *wait = None;
        let parts = execution.outbox(|outbox, _| courier.pong(number, outbox));
        parts.is_empty() || self.link.output(parts).await
    }

    async fn checkpoint(&self) -> Result<(), Failed> {
        let request = HibernateRequest {
            content: SnapshotContent::Memory,
            cause: SleepCause::Requested,
        };
        let engine = &self.app.engine;
        let slept = engine.sandbox_hibernate(&self.principal, &self.id, request);
        slept.await.map(drop).map_err(failed)
    }

    async fn snapshot(&self, name: String) -> Result<(), Failed> {
        let request = CheckpointRequest {
            name: Some(name.clone()),
            content: SnapshotContent::Filesystem,
            labels: BTreeMap::new(),
        };
        let engine = &self.app.engine;
        let saved = engine.sandbox_checkpoint(&self.principal, &self.id, request);
        saved.await.map(drop).map_err(|fault| match fault.code {
            Code::AlreadyExists => Failed {
                message: format!(
                    "A snapshot '{name}' exists already; it is not overwritten. Delete it first."
                ),
                code: Some(fault.code.as_str().to_owned()),
            },
            _ => failed(fault),
        })
    }

    async fn delete(&self) -> Result<(), Failed> {
        let engine = &self.app.engine;
        match engine.sandbox_delete(&self.principal, &self.id).await {
            Ok(()) => Ok(()),
            Err(fault) if fault.code == Code::SandboxNotFound => Ok(()),
            Err(fault) => Err(failed(fault)),
        }
    }

    /// The client leaves, or is gone. What runs goes on.
    async fn part(self, close: Option<Close>) {
        let Self {
            app,
            link,
            seat,
            clock,
            machine,
            id,
            ..
        } = self;
        let room = Arc::clone(&seat.room);
        let stays = !machine.is_closed() || close == Some(Close::Restart);
        if close == Some(Close::Moved) {
            // Before the seat is free: then the other server begins.
            room.note(&app.engine, &id).await;
        }
        if stays && room.execution().is_none() {
            clock.leave().await;
        }
        drop(seat);
        match (close, room.execution()) {
            (None, Some(_)) if stays => {
                let sockets = app.sockets.clone();
                app.sockets.spawn(idle::keep(clock, room, sockets));
            }
            (Some(Close::Restart), Some(_)) => room.note(&app.engine, &id).await,
            (Some(_) | None, _) => drop(room),
        }
        if let Some(why) = close {
            link.close(why).await;
        }
    }
}

impl Delivery {
    /// Whether looking for something to send makes sense.
    fn is_ready(&self) -> bool {
        self.wait.is_none()
            && self.execution.outbox(|outbox, over| {
                self.courier.could_send(outbox) || (over && self.courier.is_done(outbox))
            })
    }
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}
