//! Operations on snapshots, alone and together with their sandboxes.

use proptest::prelude::*;
use woodfrog_store::Store;
use woodfrog_store::conformance::fixture::{self, page};
use woodfrog_types::snapshot::{Snapshot, SnapshotFilter, SnapshotPurpose, SnapshotState};

use super::operations::{
    Cursors, NAMES, SandboxSeed, World, metadata, millis, seed, seed_events, text, thing,
};

#[derive(Debug, Clone)]
pub(crate) enum SnapshotOperation {
    Insert(SnapshotSeed),
    Update(SnapshotSeed),
    Together(SandboxSeed, SnapshotSeed),
    Remove(usize),
    Fetch(usize),
    ByName(usize, usize),
    List {
        ws: usize,
        limit: usize,
        internal: bool,
        source: Option<usize>,
        name: Option<usize>,
        value: Option<u8>,
    },
    Usage(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct SnapshotSeed {
    id: usize,
    ws: usize,
    state: u8,
    generation: u64,
    created_at: i64,
    name: Option<usize>,
    purpose: u8,
    value: u8,
}

fn snapshot() -> impl Strategy<Value = SnapshotSeed> {
    let place = (thing(), 0..2_usize, 0..4_u8, 0..4_u64);
    let rest = (millis(), prop::option::of(0..NAMES.len()), 0..4_u8, 0..2_u8);
    (place, rest).prop_map(
        |((id, ws, state, generation), (created_at, name, purpose, value))| SnapshotSeed {
            id,
            ws,
            state,
            generation,
            created_at,
            name,
            purpose,
            value,
        },
    )
}

pub(crate) fn operation() -> impl Strategy<Value = SnapshotOperation> {
    use SnapshotOperation as O;
    let list = (
        0..2_usize,
        0..3_usize,
        any::<bool>(),
        prop::option::weighted(0.3, thing()),
        prop::option::weighted(0.2, 0..NAMES.len()),
        prop::option::weighted(0.3, 0..2_u8),
    );
    prop_oneof![
        4 => snapshot().prop_map(|seed| O::Insert(SnapshotSeed {
            generation: 1.max(seed.generation / 3 * 2),
            ..seed
        })),
        4 => snapshot().prop_map(O::Update),
        4 => (seed(), snapshot()).prop_map(|(sandbox, seed)| O::Together(sandbox, seed)),
        1 => thing().prop_map(O::Remove),
        1 => thing().prop_map(O::Fetch),
        2 => (0..2_usize, 0..NAMES.len()).prop_map(|(ws, name)| O::ByName(ws, name)),
        4 => list.prop_map(|(ws, limit, internal, source, name, value)| O::List {
            ws, limit, internal, source, name, value,
        }),
        1 => (0..2_usize).prop_map(O::Usage),
    ]
}

impl SnapshotOperation {
    /// Runs it and prints the answer, for comparison.
    pub(crate) async fn run(
        &self,
        store: &dyn Store,
        world: &World,
        cursors: &mut Cursors,
    ) -> String {
        match self {
            Self::Insert(seed) => text(store.snapshot_insert(&seed.build(world)).await),
            Self::Update(seed) => text(store.snapshot_update(&seed.build(world)).await),
            Self::Together(sandbox, snapshot) => {
                let events = seed_events(sandbox);
                let (sandbox, snapshot) = (sandbox.build(world), snapshot.build(world));
                let together = store.sandbox_update_with_snapshot(&sandbox, events, &snapshot);
                text(together.await)
            }
            Self::Remove(id) => text(store.snapshot_remove(&world.snapshots[*id]).await),
            Self::Fetch(id) => text(store.snapshot_fetch(&world.snapshots[*id]).await),
            Self::ByName(ws, name) => {
                let ws = &world.workspaces[*ws];
                text(store.snapshot_by_name(ws, NAMES[*name]).await)
            }
            Self::List {
                ws,
                limit,
                internal,
                source,
                name,
                value,
            } => {
                let filter = SnapshotFilter {
                    source: source.map(|id| world.sandboxes[id].clone()),
                    name: name.map(|name| NAMES[name].to_owned()),
                    labels: value.map(metadata).unwrap_or_default(),
                    internal: *internal,
                };
                let place = cursors.0.entry(format!("snapshots {ws}")).or_default();
                let request = page(*limit, place.take());
                let ws = &world.workspaces[*ws];
                let got = store.snapshot_list(ws, &filter, &request).await;
                *place = got.as_ref().ok().and_then(|page| page.next.clone());
                text(got)
            }
            Self::Usage(ws) => text(store.snapshot_usage(&world.workspaces[*ws]).await),
        }
    }
}

impl SnapshotSeed {
    fn build(&self, world: &World) -> Snapshot {
        Snapshot {
            id: world.snapshots[self.id].clone(),
            source: world.sandboxes[self.id].clone(),
            parent: Some(world.snapshots[0].clone()),
            purpose: match self.purpose {
                0 => SnapshotPurpose::Fork,
                1 => SnapshotPurpose::Sleep {
                    sandbox: world.sandboxes[self.id].clone(),
                },
                _ => SnapshotPurpose::Checkpoint,
            },
            state: match self.state {
                0 => SnapshotState::Writing,
                1 => SnapshotState::Ready,
                2 => SnapshotState::Damaged {
                    detail: "bits".to_owned(),
                },
                _ => SnapshotState::Deleting,
            },
            generation: self.generation,
            name: self.name.map(|name| NAMES[name].to_owned()),
            labels: metadata(self.value),
            template: world.templates[0].clone(),
            build: world.builds[0],
            ..fixture::snapshot(&world.workspaces[self.ws], self.created_at)
        }
    }
}
