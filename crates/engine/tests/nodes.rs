//! Servers that share a store: each has its own sandboxes, and no two have the same one.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{FakeImages, World, admin, eventually, owner, request};
use woodfrog_engine::lease::Departures;
use woodfrog_engine::{CreateSandbox, DeadlineChange, Engine, HibernateRequest, Options};
use woodfrog_sandbox::fake::Call;
use woodfrog_store::memory::MemoryStore;
use woodfrog_store::{Claim, EventStore as _, LeaseStore as _, SandboxStore as _, Taking};
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::secret::WantedMount;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::{SnapshotContent, SnapshotState};
use woodfrog_types::{Code, NodeId, SandboxId};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(3600);

/// The machine of one server of several.
struct Node(World);

impl Node {
    fn new(store: &MemoryStore, of: Option<&Self>, lease: Duration) -> Self {
        let fresh = World::new();
        let store = Arc::new(store.for_node(NodeId::generate(), lease));
        Self(match of {
            None => World { store, ..fresh },
            Some(first) => World {
                store,
                archive: Arc::clone(&first.0.archive),
                images: Arc::clone(&first.0.images),
                ..fresh
            },
        })
    }

    fn options(&self, name: &str) -> Options {
        Options {
            node_name: name.to_owned(),
            lease: Duration::from_millis(60),
            ..self.0.options()
        }
    }

    async fn start(&self, name: &str) -> Engine {
        self.0.ready_with(self.options(name)).await
    }

    async fn record(&self, id: &SandboxId) -> Sandbox {
        let stored = self.0.store.sandbox_fetch(id).await.unwrap();
        stored.unwrap()
    }
}

/// Two servers whose leases do not end by themselves.
fn two() -> (Node, Node) {
    let store = MemoryStore::new();
    let one = Node::new(&store, None, LONG);
    let two = Node::new(&store, Some(&one), LONG);
    (one, two)
}

async fn create(engine: &Engine) -> SandboxId {
    let view = engine.sandbox_create(&owner(), request()).await.unwrap();
    view.sandbox.id
}

async fn hello(engine: &Engine, id: &SandboxId) {
    let guest = engine.guest(id).await.unwrap();
    guest.hello().await.unwrap();
}

async fn hibernate(engine: &Engine, id: &SandboxId) {
    let request = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    let slept = engine.sandbox_hibernate(&owner(), id, request).await;
    slept.unwrap();
}

#[tokio::test]
async fn a_start_takes_up_only_its_own() {
    let (a, b) = two();
    let first = a.start("a").await;
    let (runs, sleeps) = (create(&first).await, create(&first).await);
    hibernate(&first, &sleeps).await;
    let log = async || a.0.store.event_list(&runs, 0, 100).await.unwrap().len();
    let before = (a.record(&runs).await, a.record(&sleeps).await, log().await);
    let second = b.start("b").await;
    let own = create(&second).await;
    assert_eq!(b.0.driver.calls(Call::Adopt), 0);
    assert_eq!(second.owners(), 1);
    second.snapshot_gc(&admin()).await.unwrap();
    let snapshots = woodfrog_store::SnapshotStore::snapshot_all(&*b.0.store).await;
    let snapshots = snapshots.unwrap();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0].state, SnapshotState::Ready);
    let after = (b.record(&runs).await, b.record(&sleeps).await, log().await);
    assert_eq!(before, after, "untouched");
    hello(&first, &runs).await;
    hello(&first, &sleeps).await;
    hello(&second, &own).await;
    // A server that comes again finds its own, and nothing else.
    second.shutdown().await;
    let again = b.start("b").await;
    assert_eq!(again.owners(), 1);
    hello(&again, &own).await;
    assert_eq!(b.0.driver.sandboxes(), [own]);
}

#[tokio::test]
async fn what_is_due_on_another_server_is_left_to_it() {
    let (a, b) = two();
    let first = a.start("a").await;
    let id = create(&first).await;
    let second = b.start("b").await;
    let soon = DeadlineChange::Set(Duration::from_secs(1));
    let set = first.sandbox_deadline(&owner(), &id, soon).await;
    set.unwrap();
    eventually("its own server ends it", async || {
        a.0.store.sandbox_fetch(&id).await.unwrap().is_none()
    })
    .await;
    assert_eq!(b.0.driver.calls(Call::Destroy), 0);
    assert_eq!(second.owners(), 0);
}

#[tokio::test]
async fn a_lost_lease_ends_the_copy_and_nothing_is_written() {
    let (a, b) = two();
    let first = a.start("a").await;
    let id = create(&first).await;
    // The other one's clock, as it were: the lease is let go and taken behind its back.
    a.0.store.lease_release(&id).await.unwrap();
    let taken = b.0.store.lease_take(&id, Claim::Released).await.unwrap();
    assert!(matches!(taken, Taking::Mine(_)), "{taken:?}");
    let before = b.record(&id).await;
    let me = owner();
    let refused = first.sandbox_deadline(&me, &id, DeadlineChange::Never);
    assert!(refused.await.is_err());
    eventually("its copy ends", async || a.0.driver.sandboxes().is_empty()).await;
    eventually("it is forgotten", async || first.owners() == 0).await;
    assert_eq!(b.record(&id).await, before);
    assert!(matches!(before.state, SandboxState::Running { .. }));
    let refused = first.guest(&id).await.err().unwrap();
    assert_eq!(refused.code, Code::Unavailable, "{refused}");
}

#[tokio::test]
async fn what_is_in_the_archive_is_whoever_s_wants_it() {
    let (a, b) = two();
    let first = a.start("a").await;
    let id = create(&first).await;
    first.sandbox_archive(&owner(), &id).await.unwrap();
    eventually("it is let go", async || {
        let lease = b.0.store.lease_fetch(&id).await.unwrap();
        lease.unwrap().node.is_none()
    })
    .await;
    let second = b.start("b").await;
    hello(&second, &id).await;
    assert_eq!(b.0.driver.sandboxes(), std::slice::from_ref(&id));
    let lease = a.0.store.lease_fetch(&id).await.unwrap().unwrap();
    assert_eq!(lease.node.as_ref(), b.0.store.node());
    // The first one cleared what it had, and does not look after it any more.
    eventually("its snapshot is gone", async || {
        a.0.driver.snapshots().is_empty()
    })
    .await;
    first.shutdown().await;
    let again = a.start("a").await;
    assert_eq!(again.owners(), 0);
    hello(&second, &id).await;
    second.sandbox_delete(&owner(), &id).await.unwrap();
    assert!(a.0.archive.labels().is_empty());
}

/// Servers that share their archive, too.
fn sharing(store: &MemoryStore, of: Option<&Node>, lease: Duration) -> Node {
    let Node(world) = Node::new(store, of, lease);
    let mut images = FakeImages::default();
    images.dir = Some(tempfile::tempdir().unwrap());
    Node(World {
        images: Arc::new(images),
        ..world
    })
}

async fn joined(node: &Node, name: &str) -> Engine {
    let options = Options {
        shared_archive: true,
        ..node.options(name)
    };
    node.0.ready_with(options).await
}

async fn kinds(node: &Node, id: &SandboxId) -> Vec<String> {
    let log = node.0.store.event_list(id, 0, 1000).await.unwrap();
    log.into_iter().map(|event| event.kind).collect()
}

#[derive(Default)]
struct Told(Mutex<Vec<(SandboxId, String)>>);

#[async_trait::async_trait]
impl Departures for Told {
    async fn leaving(&self, engine: &Engine, sandbox: &SandboxId) {
        let view = engine.sandbox_fetch(&owner(), sandbox).await.unwrap();
        let state = view.sandbox.state.as_str().to_owned();
        self.0.lock().unwrap().push((sandbox.clone(), state));
    }
}

#[tokio::test]
async fn a_sandbox_with_volumes_stays_where_their_files_are() {
    let store = MemoryStore::new();
    let a = sharing(&store, None, LONG);
    let b = sharing(&store, Some(&a), LONG);
    let first = joined(&a, "a").await;
    let me = owner();
    first.volume_create(&me, "data", None).await.unwrap();
    let wanted = CreateSandbox {
        volumes: vec![WantedMount {
            name: "data".to_owned(),
            path: "/data".to_owned(),
        }],
        ..request()
    };
    let made = first.sandbox_create(&me, wanted).await.unwrap();
    let id = made.sandbox.id;
    let second = joined(&b, "b").await;
    let refused = async || {
        let refused = second.guest(&id).await.err().unwrap();
        assert_eq!(refused.code, Code::Unavailable, "{refused}");
        assert!(refused.message.contains("volumes"), "{refused}");
    };
    refused().await;
    assert_eq!(a.0.driver.sandboxes(), std::slice::from_ref(&id));
    assert!(a.0.driver.snapshots().is_empty(), "it was not disturbed");
    hello(&first, &id).await;
    // Nor from the archive.
    first.sandbox_archive(&me, &id).await.unwrap();
    refused().await;
    assert!(b.0.driver.sandboxes().is_empty());
    hello(&first, &id).await;
    first.sandbox_delete(&me, &id).await.unwrap();
}

#[tokio::test]
async fn using_a_sandbox_of_another_server_brings_it_here() {
    let store = MemoryStore::new();
    let a = sharing(&store, None, LONG);
    let b = sharing(&store, Some(&a), LONG);
    let first = joined(&a, "a").await;
    let told = Arc::new(Told::default());
    first.on_departure(Arc::clone(&told) as Arc<dyn Departures>);
    let (awake, asleep) = (create(&first).await, create(&first).await);
    hibernate(&first, &asleep).await;
    let streams = first.guest(&awake).await.unwrap().quiet();
    let second = joined(&b, "b").await;
    for id in [&awake, &asleep] {
        assert!(second.is_elsewhere(id).await.unwrap());
        hello(&second, id).await;
        assert!(!second.is_elsewhere(id).await.unwrap());
        assert!(first.is_elsewhere(id).await.unwrap());
    }
    assert!(a.0.driver.sandboxes().is_empty() && a.0.driver.snapshots().is_empty());
    assert_eq!(b.0.driver.sandboxes().len(), 2);
    // What streamed from it has ended, and who wanted to know was told before it went.
    tokio::time::timeout(LONG, streams.ended()).await.unwrap();
    let told = told.0.lock().unwrap().clone();
    let archived = |id: &SandboxId| (id.clone(), "archived".to_owned());
    assert_eq!(told, [archived(&awake), archived(&asleep)]);
    // And back again.
    hello(&first, &awake).await;
    assert_eq!(a.0.driver.sandboxes(), std::slice::from_ref(&awake));
    let lease = a.0.store.lease_fetch(&awake).await.unwrap().unwrap();
    assert_eq!((lease.token, lease.wanted), (3, None));
    for id in [&awake, &asleep] {
        first.sandbox_delete(&owner(), id).await.unwrap();
    }
    let left = a.0.archive.labels();
    assert!(
        left.iter().all(|label| label.contains("/layer/")),
        "{left:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_saved_stays_and_says_why() {
    let store = MemoryStore::new();
    let a = sharing(&store, None, LONG);
    let b = sharing(&store, Some(&a), LONG);
    let (first, second) = (joined(&a, "a").await, joined(&b, "b").await);
    let id = create(&first).await;
    a.0.driver.set_broken(Call::Checkpoint, true);
    let refused = second.guest(&id).await.err().unwrap();
    assert_eq!(refused.code, Code::Unavailable, "{refused}");
    assert!(refused.message.contains("does not let it go"), "{refused}");
    hello(&first, &id).await;
    a.0.driver.set_broken(Call::Checkpoint, false);
    hello(&second, &id).await;
}

#[tokio::test]
async fn servers_with_archives_of_their_own_keep_what_they_have() {
    let store = MemoryStore::new();
    let a = sharing(&store, None, LONG);
    let b = sharing(&store, None, LONG);
    let (first, second) = (joined(&a, "a").await, joined(&b, "b").await);
    assert!(first.can_hand_over() && !second.can_hand_over());
    let id = create(&first).await;
    let refused = second.guest(&id).await.err().unwrap();
    assert!(refused.message.contains("on `a`; ask there"), "{refused}");
    let other = create(&second).await;
    let refused = first.guest(&other).await.err().unwrap();
    assert!(refused.message.contains("archive.url"), "{refused}");
    hello(&first, &id).await;
    hello(&second, &other).await;
}

/// A sandbox with a snapshot in the archive, of a server that was killed after that.
fn killed(a: &Node, more: bool) -> SandboxId {
    std::thread::scope(|scope| {
        let work = async || {
            let engine = joined(a, "a").await;
            let id = create(&engine).await;
            if more {
                engine.sandbox_archive(&owner(), &id).await.unwrap();
                hello(&engine, &id).await;
            }
            id
        };
        let run = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let id = runtime.block_on(work());
            runtime.shutdown_background();
            id
        };
        scope.spawn(run).join().unwrap()
    })
}

#[tokio::test]
async fn a_killed_server_is_taken_over_from_the_archive() {
    let store = MemoryStore::new();
    let a = sharing(&store, None, Duration::ZERO);
    let b = sharing(&store, Some(&a), LONG);
    let id = killed(&a, true);
    let second = joined(&b, "b").await;
    hello(&second, &id).await;
    assert!(
        kinds(&b, &id)
            .await
            .contains(&"sandbox.taken_over".to_owned())
    );
    assert_eq!(b.0.driver.sandboxes(), std::slice::from_ref(&id));
    // It comes back, late: what it has of it is swept, and nothing is written.
    assert_eq!(a.0.driver.sandboxes(), std::slice::from_ref(&id));
    let before = b.record(&id).await;
    let first = joined(&a, "a").await;
    assert!(a.0.driver.sandboxes().is_empty());
    assert_eq!((first.owners(), b.record(&id).await), (0, before));
    hello(&second, &id).await;
}

#[tokio::test]
async fn what_is_in_no_archive_is_left_to_its_server() {
    let store = MemoryStore::new();
    let a = sharing(&store, None, Duration::ZERO);
    let b = sharing(&store, Some(&a), LONG);
    let id = killed(&a, false);
    let before = b.record(&id).await;
    let second = joined(&b, "b").await;
    let refused = second.guest(&id).await.err().unwrap();
    assert!(
        refused.message.contains("nothing of it is in the archive"),
        "{refused}"
    );
    assert_eq!(b.record(&id).await, before);
    let first = joined(&a, "a").await;
    hello(&first, &id).await;
}

#[tokio::test]
async fn a_new_server_has_the_templates_of_the_others() {
    let store = MemoryStore::new();
    let a = sharing(&store, None, LONG);
    let b = sharing(&store, Some(&a), LONG);
    let first = joined(&a, "a").await;
    let build = a.record(&create(&first).await).await.build;
    let second = joined(&b, "b").await;
    let id = create(&second).await;
    assert_eq!(
        b.record(&id).await.build,
        build,
        "the same one, not made anew"
    );
    let again = create(&first).await;
    assert_eq!(a.record(&again).await.build, build);
}
