//! One client of one sandbox: its frames in their order, and what comes of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use woodfrog_core::access::Action;
use woodfrog_engine::GuestLease;
use woodfrog_types::SandboxId;
use woodfrog_types::key::Principal;
use woodfrog_wire::ws::{ServerFrame, Status};

use super::audit::{Cause, Notes};
use super::courier::{Courier, Mode, Next};
use super::deeds::Deeds;
use super::execution::Execution;
use super::idle::{self, Clock};
use super::link::{Link, Received};
use super::machine::{Close, Effect, Failed, Machine};
use super::outbox::{Cursor, Seek};
use super::room::Occupied;
use super::vigil::{Asker, Vigil};
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
    pub(super) vigil: Vigil,
    /// Held without keeping the sandbox awake.
    pub(super) guest: GuestLease,
}

/// What is under way for a client.
struct Desk {
    /// Output goes to the client.
    delivery: Option<Delivery>,
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
    Knock(Asker),
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
                        self.vigil.heard();
                        self.clock.touch();
                        if let Some(delivery) = &mut desk.delivery {
                            delivery.courier.hurry();
                            delivery.wait = None;
                        }
                        self.machine.frame(&text)
                    }
                    Received::Binary => self.machine.binary(),
                    Received::Pong(number) => {
                        self.vigil.heard();
                        return self.pong(number, desk).await;
                    }
                    Received::Alive(number) => {
                        self.vigil.alive(number);
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
            Event::Knock(asker) => return self.vigil.knocked(&mut self.link, asker).await,
            Event::Gone => self.gone().await,
            Event::Moved => {
                let mut effects = self.complaints();
                effects.extend(self.machine.moved(self.unread()));
                effects
            }
            Event::Stop => {
                let mut effects = self.complaints();
                effects.extend(self.machine.shutdown(self.unread()));
                effects
            }
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
        self.complaints()
    }

    /// What went wrong with the execution besides.
    fn complaints(&self) -> Vec<Effect> {
        let execution = self.seat.room.execution();
        let complaints = execution.map(|it| it.complaints()).unwrap_or_default();
        let told = complaints.iter();
        told.flat_map(|complaint| self.machine.complain(None, complaint))
            .collect()
    }

    /// Bytes of input that were taken, and that the process will not get any more.
    fn unread(&self) -> usize {
        let execution = self.seat.room.execution();
        execution.map_or(0, |it| it.refuse_input())
    }

    /// The sandbox is not here any more. What is known of it goes, too: should it come back, what
    /// runs in it is looked for again.
    async fn gone(&mut self) -> Vec<Effect> {
        let elsewhere = self.app.engine.is_elsewhere(&self.id).await;
        self.seat.room.forget();
        match elsewhere {
            Ok(true) => self.machine.lost(),
            Ok(false) | Err(_) => self.machine.gone(),
        }
    }

    fn deeds(&self) -> Deeds {
        Deeds {
            engine: self.app.engine.clone(),
            principal: self.principal.clone(),
            id: self.id.clone(),
        }
    }

    /// Does work that the client waits for. Who asks whether it lives is answered meanwhile.
    async fn attended<T>(&mut self, work: impl Future<Output = T> + Send) -> T {
        let Self {
            vigil, link, seat, ..
        } = self;
        vigil.during(link, &mut seat.knocks, work).await
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
                    let (engine, id) = (self.app.engine.clone(), self.id.clone());
                    let starting = Execution::start(&engine, &id, *program);
                    let started = self.attended(starting).await;
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
                        Some(execution) => {
                            let (engine, id) = (self.app.engine.clone(), self.id.clone());
                            self.attended(execution.kill(&engine, &id)).await
                        }
                        None => Ok(()),
                    };
                    let done = killed.as_ref().copied();
                    self.note(Action::ProcessControl, desk, done).await;
                    self.machine.killed(killed)
                }
                Effect::Checkpoint => {
                    let deeds = self.deeds();
                    let saved = self.attended(deeds.checkpoint()).await;
                    let done = saved.as_ref().copied();
                    self.note(Action::SandboxSleep, desk, done).await;
                    self.machine.checkpointed(saved)
                }
                Effect::Snapshot(name) => {
                    let deeds = self.deeds();
                    let saved = self.attended(deeds.snapshot(name)).await;
                    let done = saved.as_ref().copied();
                    self.note(Action::SandboxCheckpoint, desk, done).await;
                    self.clock.touch();
                    self.machine.snapshotted(saved)
                }
                Effect::Delete => {
                    let deeds = self.deeds();
                    let deleted = self.attended(deeds.delete()).await;
                    if deleted.is_ok() {
                        self.seat.room.forget();
                        desk.delivery = None;
                    }
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
            if let Some(number) = self.vigil.take_pong()
                && !self.pong(number, desk).await
            {
                return false;
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
            Err(failed) if desk.delivery.is_some() => {
                // It goes on where it was.
                return self.machine.complain(Some(Status::ExecutionError), &failed);
            }
            Err(failed) => return self.machine.misplaced(self.seat.room.found(), &failed),
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

    /// A sandbox without an end whose client never showed that it read its name is removed: nobody
    /// is known to have what opens it, and it would stay for ever.
    async fn orphan(&self, close: Option<Close>) {
        if close.is_some() || !self.vigil.is_unread() || !self.clock.is_endless() {
            return;
        }
        let deleted = self.deeds().delete().await;
        let done = deleted.as_ref().copied();
        let action = Action::SandboxDelete;
        let notes = &self.notes;
        notes
            .note(action, Some(&self.id), Cause::Client, done)
            .await;
    }

    /// The client leaves, or is gone. What runs goes on.
    async fn part(self, close: Option<Close>) {
        self.orphan(close).await;
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
        // Before the seat is free: then the other server begins, or the next client.
        match close {
            Some(Close::Moved) => room.note(&app.engine, &id).await,
            // What ended unheard sleeps with the sandbox, and is found again by the note.
            Some(Close::Normal) => {
                room.note(&app.engine, &id).await;
                room.forget();
            }
            None | Some(Close::Restart | Close::Refused | Close::Fatal) => {}
        }
        if stays && room.execution().is_none() {
            clock.leave().await;
        }
        drop(seat);
        match (close, room.execution()) {
            // Who moves it forgets what runs, and a stop leaves it to the next server.
            (Some(Close::Moved | Close::Normal), _) | (_, None) => drop(room),
            (Some(Close::Restart), Some(_)) => {
                room.note(&app.engine, &id).await;
                drop(room);
            }
            (None | Some(Close::Refused | Close::Fatal), Some(_)) => {
                let sockets = app.sockets.clone();
                app.sockets.spawn(idle::keep(clock, room, sockets));
            }
        }
        app.sockets.tidy(&id);
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
