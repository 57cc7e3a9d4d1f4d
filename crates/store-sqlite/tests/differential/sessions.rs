//! Operations on sessions, their logs, and what clients persist.

use proptest::prelude::*;
use woodfrog_store::conformance::fixture::{self, at, page};
use woodfrog_store::{PersistedEvent, PersistedSession, SessionAppend, Store};
use woodfrog_types::session::{
    NewSessionEvent, Position, Session, SessionFace, SessionFilter, SessionState, Stream,
};

use super::operations::{Cursors, NAMES, World, millis, text, thing};

#[derive(Debug, Clone)]
pub(crate) enum SessionOperation {
    Insert(SessionSeed),
    Update(SessionSeed),
    Fetch(usize),
    ByName(usize, usize),
    List {
        ws: usize,
        limit: usize,
        sandbox: Option<usize>,
        active: Option<bool>,
    },
    Claim(usize),
    Append(AppendSeed),
    Read(usize, bool, u64, usize, usize),
    ReadBack(usize, bool, u64, usize),
    Trim(usize, bool, u64),
    Turns(usize, u64, usize),
    Remove(usize),
    Ended(i64, usize),
    PersistPut(usize, usize, i64),
    PersistList(usize, usize),
    PersistEvent(usize, usize, usize, u64),
    PersistEvents(usize, usize, Option<u64>, usize),
}

#[derive(Debug, Clone)]
pub(crate) struct SessionSeed {
    id: usize,
    ws: usize,
    sandbox: usize,
    name: usize,
    holds_name: bool,
    ended: Option<i64>,
    generation: u64,
    created_at: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct AppendSeed {
    id: usize,
    epoch: u64,
    /// Which stream, and how long the payload is.
    events: Vec<(bool, usize)>,
    position: Option<u64>,
    record: Option<SessionSeed>,
    turns: Vec<u64>,
}

fn session() -> impl Strategy<Value = SessionSeed> {
    let place = (thing(), 0..2_usize, 0..2_usize, 0..NAMES.len());
    let rest = (
        any::<bool>(),
        prop::option::of(millis()),
        0..4_u64,
        millis(),
    );
    (place, rest).prop_map(
        |((id, ws, sandbox, name), (holds_name, ended, generation, created_at))| SessionSeed {
            id,
            ws,
            sandbox,
            name,
            holds_name,
            ended,
            generation,
            created_at,
        },
    )
}

fn append() -> impl Strategy<Value = AppendSeed> {
    (
        (thing(), 0..3_u64),
        prop::collection::vec((any::<bool>(), 0..40_usize), 0..4),
        prop::option::weighted(0.3, 0..9_u64),
        prop::option::weighted(0.2, session()),
        prop::collection::vec(0..4_u64, 0..2),
    )
        .prop_map(
            |((id, epoch), events, position, record, turns)| AppendSeed {
                id,
                epoch,
                events,
                position,
                record,
                turns,
            },
        )
}

pub(crate) fn operation() -> impl Strategy<Value = SessionOperation> {
    use SessionOperation as O;
    let list = (
        0..2_usize,
        0..3_usize,
        prop::option::weighted(0.3, 0..2_usize),
        prop::option::weighted(0.3, any::<bool>()),
    );
    prop_oneof![
        4 => session().prop_map(|seed| O::Insert(SessionSeed {
            generation: 1.max(seed.generation / 3 * 2),
            ..seed
        })),
        3 => session().prop_map(O::Update),
        1 => thing().prop_map(O::Fetch),
        2 => (0..2_usize, 0..NAMES.len()).prop_map(|(sandbox, name)| O::ByName(sandbox, name)),
        3 => list.prop_map(|(ws, limit, sandbox, active)| O::List { ws, limit, sandbox, active }),
        3 => thing().prop_map(O::Claim),
        12 => append().prop_map(O::Append),
        5 => (thing(), any::<bool>(), 0..6_u64, 0..5_usize, 0..90_usize)
            .prop_map(|(id, log, after, limit, bytes)| O::Read(id, log, after, limit, bytes)),
        3 => (thing(), any::<bool>(), 0..9_u64, 0..5_usize)
            .prop_map(|(id, log, upto, limit)| O::ReadBack(id, log, upto, limit)),
        2 => (thing(), any::<bool>(), 0..9_u64).prop_map(|(id, log, before)| O::Trim(id, log, before)),
        2 => (thing(), 0..4_u64, 0..3_usize).prop_map(|(id, after, limit)| O::Turns(id, after, limit)),
        1 => thing().prop_map(O::Remove),
        1 => (millis(), 0..3_usize).prop_map(|(before, limit)| O::Ended(before, limit)),
        2 => (0..2_usize, 0..NAMES.len(), millis()).prop_map(|(ws, id, at)| O::PersistPut(ws, id, at)),
        2 => (0..2_usize, 0..3_usize).prop_map(|(ws, limit)| O::PersistList(ws, limit)),
        3 => (0..2_usize, 0..NAMES.len(), 0..2_usize, 0..3_u64)
            .prop_map(|(ws, id, session, index)| O::PersistEvent(ws, id, session, index)),
        2 => (0..2_usize, 0..2_usize, prop::option::of(0..3_u64), 0..4_usize)
            .prop_map(|(ws, session, after, limit)| O::PersistEvents(ws, session, after, limit)),
    ]
}

fn stream(log: bool) -> Stream {
    match log {
        true => Stream::Log,
        false => Stream::Universal,
    }
}

impl SessionOperation {
    pub(super) async fn run(
        &self,
        store: &dyn Store,
        world: &World,
        cursors: &mut Cursors,
    ) -> String {
        let session = |id: &usize| &world.sessions[*id];
        match self {
            Self::Insert(seed) => text(store.session_insert(&seed.build(world)).await),
            Self::Update(seed) => text(store.session_update(&seed.build(world)).await),
            Self::Fetch(id) => text(store.session_fetch(session(id)).await),
            Self::ByName(sandbox, name) => {
                let sandbox = &world.sandboxes[*sandbox];
                let face = SessionFace::Universal;
                text(store.session_by_name(sandbox, face, NAMES[*name]).await)
            }
            Self::Claim(id) => text(store.session_claim(session(id)).await),
            Self::Append(seed) => text(store.session_append(seed.build(world)).await),
            Self::Read(id, log, after, limit, bytes) => {
                let read = store.session_read(session(id), stream(*log), *after, *limit, *bytes);
                text(read.await)
            }
            Self::ReadBack(id, log, upto, limit) => {
                let read = store.session_read_back(session(id), stream(*log), *upto, *limit);
                text(read.await)
            }
            Self::Trim(id, log, before) => {
                text(store.session_trim(session(id), stream(*log), *before).await)
            }
            Self::Turns(id, after, limit) => {
                text(store.session_turns(session(id), *after, *limit).await)
            }
            Self::Remove(id) => text(store.session_remove(session(id)).await),
            Self::Ended(before, limit) => text(store.session_ended(at(*before), *limit).await),
            Self::List { .. } => self.list(store, world, cursors).await,
            _ => self.run_persist(store, world, cursors).await,
        }
    }

    async fn list(&self, store: &dyn Store, world: &World, cursors: &mut Cursors) -> String {
        let Self::List {
            ws,
            limit,
            sandbox,
            active,
        } = self
        else {
            unreachable!("{self:?}")
        };
        let filter = SessionFilter {
            sandbox: sandbox.map(|id| world.sandboxes[id].clone()),
            active: *active,
            ..SessionFilter::default()
        };
        let place = cursors.0.entry(format!("sessions {ws}")).or_default();
        let request = page(*limit, place.take());
        let ws = &world.workspaces[*ws];
        let got = store.session_list(ws, &filter, &request).await;
        *place = got.as_ref().ok().and_then(|page| page.next.clone());
        text(got)
    }

    async fn run_persist(&self, store: &dyn Store, world: &World, cursors: &mut Cursors) -> String {
        match self {
            Self::PersistPut(ws, id, created_at) => {
                let session = PersistedSession {
                    id: NAMES[*id].to_owned(),
                    created_at: *created_at,
                    record: created_at.to_string(),
                };
                let ws = &world.workspaces[*ws];
                let put = store.persist_session_put(ws, &session).await;
                text((put, store.persist_session_fetch(ws, &session.id).await))
            }
            Self::PersistList(ws, limit) => {
                let place = cursors.0.entry(format!("persisted {ws}")).or_default();
                let request = page(*limit, place.take());
                let ws = &world.workspaces[*ws];
                let got = store.persist_session_list(ws, &request).await;
                *place = got.as_ref().ok().and_then(|page| page.next.clone());
                text(got)
            }
            Self::PersistEvent(ws, id, session, index) => {
                let event = PersistedEvent {
                    id: NAMES[*id].to_owned(),
                    session: NAMES[*session].to_owned(),
                    index: *index,
                    record: "{}".to_owned(),
                };
                let ws = &world.workspaces[*ws];
                text(store.persist_event_insert(ws, &event).await)
            }
            Self::PersistEvents(ws, session, after, limit) => {
                let (ws, session) = (&world.workspaces[*ws], NAMES[*session]);
                let list = store.persist_event_list(ws, session, *after, *limit);
                text((list.await, store.persist_event_count(ws, session).await))
            }
            other => unreachable!("{other:?}"),
        }
    }
}

impl SessionSeed {
    fn build(&self, world: &World) -> Session {
        Session {
            id: world.sessions[self.id].clone(),
            sandbox: world.sandboxes[self.sandbox].clone(),
            name: NAMES[self.name].to_owned(),
            holds_name: self.holds_name,
            state: match self.ended {
                None => SessionState::Active,
                Some(millis) => SessionState::Ended {
                    at: at(millis),
                    reason: "over".to_owned(),
                },
            },
            generation: self.generation,
            ..fixture::session(&world.workspaces[self.ws], self.created_at)
        }
    }
}

impl AppendSeed {
    fn build(&self, world: &World) -> SessionAppend {
        let events = self.events.iter();
        let events = events.map(|(log, length)| NewSessionEvent {
            wire: (*length % 3 == 0).then(|| "w".repeat(*length)),
            ..fixture::session_event(stream(*log), &"x".repeat(*length))
        });
        SessionAppend {
            session: world.sessions[self.id].clone(),
            epoch: self.epoch,
            events: events.collect(),
            position: self.position.map(|bytes| Position {
                input: bytes,
                output: bytes + 1,
            }),
            record: self.record.as_ref().map(|seed| seed.build(world)),
            turns: self
                .turns
                .iter()
                .map(|number| fixture::turn(*number))
                .collect(),
        }
    }
}
