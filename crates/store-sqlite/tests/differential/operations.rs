//! Operations over a small world, so that they meet.

use std::collections::BTreeMap;

use proptest::prelude::*;
use woodfrog_store::conformance::fixture::{self, at, map, page};
use woodfrog_store::{IdempotencyEntry, IdempotencyOutcome, Store};
use woodfrog_types::sandbox::{EndReason, Order, Sandbox, SandboxFilter, SandboxState};
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::template::{Build, BuildState, Template};
use woodfrog_types::{BuildId, KeyId, SandboxId, SessionId, SnapshotId, TemplateId, WorkspaceId};

use super::sessions::{self, SessionOperation};
use super::snapshots::{self, SnapshotOperation};

pub(super) const THINGS: usize = 4;
pub(super) const NAMES: [&str; 3] = ["a", "B", "ü\0"];

/// The ids that operations speak of by number.
pub(crate) struct World {
    pub(super) workspaces: [WorkspaceId; 2],
    pub(super) sandboxes: [SandboxId; THINGS],
    pub(super) snapshots: [SnapshotId; THINGS],
    pub(super) templates: [TemplateId; THINGS],
    pub(super) builds: [BuildId; THINGS],
    pub(super) sessions: [SessionId; THINGS],
    keys: [KeyId; THINGS],
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            workspaces: std::array::from_fn(|_| WorkspaceId::generate()),
            sandboxes: std::array::from_fn(|_| SandboxId::generate()),
            snapshots: std::array::from_fn(|_| SnapshotId::generate()),
            templates: std::array::from_fn(|_| TemplateId::generate()),
            builds: std::array::from_fn(|_| BuildId::generate()),
            sessions: std::array::from_fn(|_| SessionId::generate()),
            keys: std::array::from_fn(|_| KeyId::generate()),
        }
    }
}

/// Where each list was left.
#[derive(Default)]
pub(crate) struct Cursors(pub(super) BTreeMap<String, Option<String>>);

#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// Only for stores that can.
    Reopen,
    SandboxInsert(SandboxSeed),
    SandboxUpdate(SandboxSeed),
    SandboxRemove(usize),
    SandboxFetch(usize),
    SandboxList {
        ws: usize,
        newest: bool,
        limit: usize,
        value: Option<u8>,
        since: Option<i64>,
        states: Vec<&'static str>,
    },
    Snapshot(SnapshotOperation),
    Session(SessionOperation),
    SandboxDue(i64, usize),
    SandboxCount(usize),
    EventAppend(usize, Vec<i64>),
    EventList(usize, u64, usize),
    EventTrim(i64, usize),
    TemplatePut {
        id: usize,
        owner: Option<usize>,
        name: usize,
        update: bool,
    },
    TemplateRemove(usize),
    TemplateByName(usize, usize),
    TemplateList(usize, usize),
    BuildPut {
        id: usize,
        template: usize,
        state: u8,
        at: i64,
        update: bool,
    },
    BuildFetch(usize),
    BuildList(usize, usize),
    BuildLog(usize, usize),
    LayerCache(usize, u8),
    KeyInsert(usize, usize, u8),
    KeyTouch(usize, i64),
    KeyRemove(usize),
    KeyByDigest(u8),
    Setting(usize, u8, bool),
    Claim(usize, usize, i64),
    Finish(usize, usize, u8),
    IdempotencyTrim(i64),
}

#[derive(Debug, Clone)]
pub(crate) struct SandboxSeed {
    id: usize,
    ws: usize,
    state: u8,
    generation: u64,
    started_at: i64,
    deadline: Option<i64>,
    sleep_due: Option<i64>,
    value: u8,
    events: usize,
}

pub(super) fn thing() -> std::ops::Range<usize> {
    0..THINGS
}

pub(super) fn millis() -> std::ops::Range<i64> {
    0..6
}

pub(super) fn seed() -> impl Strategy<Value = SandboxSeed> {
    let place = (thing(), 0..2_usize, 0..9_u8, 0..4_u64);
    let times = (
        millis(),
        prop::option::of(millis()),
        prop::option::of(millis()),
    );
    let rest = (times, 0..2_u8, 0..3_usize);
    (place, rest).prop_map(
        |((id, ws, state, generation), ((started_at, deadline, sleep_due), value, events))| {
            SandboxSeed {
                id,
                ws,
                state,
                generation,
                started_at,
                deadline,
                sleep_due,
                value,
                events,
            }
        },
    )
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => sandboxes(),
        3 => snapshots::operation().prop_map(Operation::Snapshot),
        6 => sessions::operation().prop_map(Operation::Session),
        2 => events(),
        3 => templates(),
        2 => small(),
    ]
}

fn sandboxes() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let list = (
        0..2_usize,
        any::<bool>(),
        0..4_usize,
        prop::option::of(0..2_u8),
        prop::option::of(millis()),
        prop::sample::subsequence(vec!["running", "paused", "archived", "deleting"], 0..3),
    );
    prop_oneof![
        4 => seed().prop_map(|seed| O::SandboxInsert(SandboxSeed {
            generation: 1.max(seed.generation / 3 * 2),
            ..seed
        })),
        4 => seed().prop_map(O::SandboxUpdate),
        1 => thing().prop_map(O::SandboxRemove),
        1 => thing().prop_map(O::SandboxFetch),
        4 => list.prop_map(|(ws, newest, limit, value, since, states)| O::SandboxList {
            ws, newest, limit, value, since, states,
        }),
        1 => (millis(), 0..4_usize).prop_map(|(now, limit)| O::SandboxDue(now, limit)),
        1 => (0..2_usize).prop_map(O::SandboxCount),
    ]
}

fn events() -> impl Strategy<Value = Operation> {
    use Operation as O;
    prop_oneof![
        4 => (thing(), prop::collection::vec(millis(), 0..3))
            .prop_map(|(id, times)| O::EventAppend(id, times)),
        3 => (thing(), 0..5_u64, 0..4_usize)
            .prop_map(|(id, after, limit)| O::EventList(id, after, limit)),
        1 => (millis(), 0..3_usize).prop_map(|(before, limit)| O::EventTrim(before, limit)),
    ]
}

fn templates() -> impl Strategy<Value = Operation> {
    use Operation as O;
    prop_oneof![
        4 => (thing(), prop::option::of(0..2_usize), 0..NAMES.len(), any::<bool>())
            .prop_map(|(id, owner, name, update)| O::TemplatePut { id, owner, name, update }),
        1 => thing().prop_map(O::TemplateRemove),
        2 => (0..2_usize, 0..NAMES.len()).prop_map(|(ws, name)| O::TemplateByName(ws, name)),
        2 => (0..2_usize, 0..3_usize).prop_map(|(ws, limit)| O::TemplateList(ws, limit)),
        5 => (thing(), thing(), 0..4_u8, millis(), any::<bool>()).prop_map(
            |(id, template, state, at, update)| O::BuildPut { id, template, state, at, update }
        ),
        1 => thing().prop_map(O::BuildFetch),
        2 => (thing(), 0..3_usize).prop_map(|(template, limit)| O::BuildList(template, limit)),
        2 => (thing(), 0..3_usize).prop_map(|(build, lines)| O::BuildLog(build, lines)),
        1 => (0..NAMES.len(), 0..3_u8).prop_map(|(key, layer)| O::LayerCache(key, layer)),
    ]
}

fn small() -> impl Strategy<Value = Operation> {
    use Operation as O;
    prop_oneof![
        1 => Just(O::Reopen),
        3 => (thing(), 0..2_usize, 0..3_u8)
            .prop_map(|(id, ws, digest)| O::KeyInsert(id, ws, digest)),
        1 => (thing(), millis()).prop_map(|(id, at)| O::KeyTouch(id, at)),
        1 => thing().prop_map(O::KeyRemove),
        1 => (0..3_u8).prop_map(O::KeyByDigest),
        2 => (0..NAMES.len(), any::<u8>(), any::<bool>())
            .prop_map(|(name, value, init)| O::Setting(name, value, init)),
        3 => (0..2_usize, 0..NAMES.len(), millis()).prop_map(|(ws, key, at)| O::Claim(ws, key, at)),
        2 => (0..2_usize, 0..NAMES.len(), 0..3_u8)
            .prop_map(|(ws, key, end)| O::Finish(ws, key, end)),
        1 => millis().prop_map(O::IdempotencyTrim),
    ]
}

impl Operation {
    /// Runs it and prints the answer, for comparison.
    pub(crate) async fn run(
        &self,
        store: &dyn Store,
        world: &World,
        cursors: &mut Cursors,
    ) -> String {
        match self {
            Self::Reopen => String::new(),
            Self::SandboxInsert(seed) => {
                let events = seed_events(seed);
                text(store.sandbox_insert(&seed.build(world), events).await)
            }
            Self::SandboxUpdate(seed) => {
                let events = seed_events(seed);
                text(store.sandbox_update(&seed.build(world), events).await)
            }
            Self::SandboxRemove(id) => {
                let events = vec![fixture::event(3, "removed")];
                text(store.sandbox_remove(&world.sandboxes[*id], events).await)
            }
            Self::SandboxFetch(id) => text(store.sandbox_fetch(&world.sandboxes[*id]).await),
            Self::SandboxList { .. } => self.list_sandboxes(store, world, cursors).await,
            Self::Snapshot(operation) => operation.run(store, world, cursors).await,
            Self::Session(operation) => operation.run(store, world, cursors).await,
            Self::SandboxDue(now, limit) => text((
                store.sandbox_due(at(*now), *limit).await,
                store.sandbox_next_deadline().await,
            )),
            Self::SandboxCount(ws) => {
                let workspace = &world.workspaces[*ws];
                let all = store.sandbox_count(workspace).await;
                text((all, store.sandbox_count_running(workspace).await))
            }
            Self::EventAppend(id, times) => {
                let events = times.iter().map(|at| fixture::event(*at, "x")).collect();
                text(store.event_append(&world.sandboxes[*id], events).await)
            }
            Self::EventList(id, after, limit) => {
                let id = &world.sandboxes[*id];
                text(store.event_list(id, *after, *limit).await)
            }
            Self::EventTrim(before, limit) => text(store.event_trim(at(*before), *limit).await),
            Self::KeyInsert(..)
            | Self::KeyTouch(..)
            | Self::KeyRemove(_)
            | Self::KeyByDigest(_)
            | Self::Setting(..)
            | Self::Claim(..)
            | Self::Finish(..)
            | Self::IdempotencyTrim(_) => self.run_small(store, world).await,
            _ => self.run_template(store, world, cursors).await,
        }
    }

    async fn list_sandboxes(
        &self,
        store: &dyn Store,
        world: &World,
        cursors: &mut Cursors,
    ) -> String {
        let Self::SandboxList {
            ws,
            newest,
            limit,
            value,
            since,
            states,
        } = self
        else {
            unreachable!("called for lists only");
        };
        let filter = SandboxFilter {
            metadata: value.map(metadata).unwrap_or_default(),
            template: None,
            started_after: since.map(at),
            states: states.clone(),
            order: match newest {
                true => Order::NewestFirst,
                false => Order::OldestFirst,
            },
        };
        let place = cursors
            .0
            .entry(format!("sandboxes {ws} {newest}"))
            .or_default();
        let request = page(*limit, place.take());
        let got = store
            .sandbox_list(&world.workspaces[*ws], &filter, &request)
            .await;
        *place = got.as_ref().ok().and_then(|page| page.next.clone());
        text(got)
    }

    async fn run_template(
        &self,
        store: &dyn Store,
        world: &World,
        cursors: &mut Cursors,
    ) -> String {
        match self {
            Self::TemplatePut {
                id,
                owner,
                name,
                update,
            } => {
                let template = Template {
                    id: world.templates[*id].clone(),
                    tags: BTreeMap::new(),
                    ..fixture::template(owner.map(|ws| &world.workspaces[ws]), NAMES[*name])
                };
                match update {
                    true => text(store.template_update(&template).await),
                    false => text(store.template_insert(&template).await),
                }
            }
            Self::TemplateRemove(id) => text(store.template_remove(&world.templates[*id]).await),
            Self::TemplateByName(ws, name) => {
                let ws = &world.workspaces[*ws];
                text(store.template_by_name(ws, NAMES[*name]).await)
            }
            Self::TemplateList(ws, limit) => {
                let place = cursors.0.entry(format!("templates {ws}")).or_default();
                let request = page(*limit, place.take());
                let got = store.template_list(&world.workspaces[*ws], &request).await;
                *place = got.as_ref().ok().and_then(|page| page.next.clone());
                text(got)
            }
            Self::BuildPut {
                id,
                template,
                state,
                at,
                update,
            } => {
                let build = Build {
                    id: world.builds[*id],
                    state: build_state(*state),
                    ..fixture::build(&world.templates[*template], *at)
                };
                match update {
                    true => text(store.build_update(&build).await),
                    false => text(store.build_insert(&build).await),
                }
            }
            Self::BuildFetch(id) => text(store.build_fetch(&world.builds[*id]).await),
            Self::BuildList(template, limit) => {
                let place = cursors.0.entry(format!("builds {template}")).or_default();
                let request = page(*limit, place.take());
                let got = store
                    .build_list(&world.templates[*template], &request)
                    .await;
                *place = got.as_ref().ok().and_then(|page| page.next.clone());
                text(got)
            }
            Self::BuildLog(id, count) => {
                let id = &world.builds[*id];
                let lines = vec![fixture::log_line("x"); *count];
                let appended = store.build_log_append(id, lines).await;
                text((appended, store.build_log_list(id, 1, 3).await))
            }
            Self::LayerCache(key, layer) => {
                let layer = format!("sha256:{layer}");
                let put = store.layer_cache_put(NAMES[*key], &layer, "{}").await;
                text((put, store.layer_cache_get(NAMES[0]).await))
            }
            other => unreachable!("{other:?}"),
        }
    }

    async fn run_small(&self, store: &dyn Store, world: &World) -> String {
        match self {
            Self::KeyInsert(id, ws, digest) => {
                let mut key = fixture::key(&world.workspaces[*ws], *digest);
                key.id = world.keys[*id].clone();
                text(store.key_insert(&key).await)
            }
            Self::KeyTouch(id, when) => text(store.key_touch(&world.keys[*id], at(*when)).await),
            Self::KeyRemove(id) => text(store.key_remove(&world.keys[*id]).await),
            Self::KeyByDigest(digest) => text(store.key_by_digest(&[*digest; 32]).await),
            Self::Setting(name, value, init) => match init {
                true => text(store.setting_init(NAMES[*name], &[*value]).await),
                false => text(store.setting_put(NAMES[*name], &[*value]).await),
            },
            Self::Claim(ws, key, when) => {
                let entry = IdempotencyEntry {
                    workspace: world.workspaces[*ws].clone(),
                    key: NAMES[*key].to_owned(),
                    fingerprint: when.to_string(),
                    claimed_at: at(*when),
                    outcome: IdempotencyOutcome::InProgress,
                };
                text(store.idempotency_claim(&entry).await)
            }
            Self::Finish(ws, key, end) => {
                let outcome = match end {
                    0 => IdempotencyOutcome::InProgress,
                    1 => IdempotencyOutcome::Freed,
                    _ => IdempotencyOutcome::Done {
                        result: "sb".to_owned(),
                    },
                };
                let ws = &world.workspaces[*ws];
                text(store.idempotency_finish(ws, NAMES[*key], outcome).await)
            }
            Self::IdempotencyTrim(before) => text(store.idempotency_trim(at(*before)).await),
            other => unreachable!("{other:?}"),
        }
    }
}

pub(super) fn text(value: impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

pub(super) fn metadata(value: u8) -> BTreeMap<String, String> {
    map(&[("value", if value == 0 { "zero" } else { "one" })])
}

pub(super) fn seed_events(seed: &SandboxSeed) -> Vec<woodfrog_store::NewEvent> {
    vec![fixture::event(seed.started_at, "seed"); seed.events]
}

fn build_state(state: u8) -> BuildState {
    match state {
        0 => BuildState::Waiting,
        1 => BuildState::Building,
        2 => BuildState::Failed {
            message: "no".to_owned(),
            step: None,
        },
        _ => BuildState::Ready(woodfrog_types::template::BuiltImage {
            layers: vec!["sha256:1".to_owned(), "sha256:9".to_owned()],
            env: BTreeMap::new(),
            user: "user".to_owned(),
            workdir: None,
            start_cmd: None,
            ready_cmd: None,
            security: Default::default(),
        }),
    }
}

/// A rung of the ladder, with the world's snapshot: both stores must be given the same.
fn sleeping(world: &World, rung: usize) -> SandboxState {
    let mut rungs = fixture::sleeping(SleepCause::Idle, SnapshotContent::Memory);
    let mut state = rungs.swap_remove(rung);
    match &mut state {
        SandboxState::Hibernating { snapshot, .. }
        | SandboxState::Hibernated { snapshot, .. }
        | SandboxState::Waking { snapshot, .. }
        | SandboxState::Archiving { snapshot, .. }
        | SandboxState::Archived { snapshot, .. } => *snapshot = world.snapshots[1].clone(),
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Deleting { .. } => {}
    }
    state
}

impl SandboxSeed {
    pub(super) fn build(&self, world: &World) -> Sandbox {
        Sandbox {
            id: world.sandboxes[self.id].clone(),
            template: world.templates[0].clone(),
            build: world.builds[0],
            state: match self.state {
                0 => SandboxState::Creating,
                1 => fixture::running(),
                2 => SandboxState::Deleting {
                    reason: EndReason::Expired,
                },
                rung => sleeping(world, usize::from(rung - 3)),
            },
            sleep_due: self.sleep_due.map(at),
            last_snapshot: Some(world.snapshots[0].clone()),
            generation: self.generation,
            deadline: self.deadline.map(at),
            metadata: metadata(self.value),
            ..fixture::sandbox(&world.workspaces[self.ws], self.started_at)
        }
    }
}
