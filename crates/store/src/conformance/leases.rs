//! Leases: one owner at a time, and a late one writes nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use woodfrog_types::node::Lease;
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::{ArchiveId, SnapshotPlace};
use woodfrog_types::{NodeId, WorkspaceId};

use super::RACERS;
use super::fixture::{self, at, event, moved, running, snapshot};
use crate::{Claim, Result, Store, StoreError, Taking};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(3600);
/// A lease that is over as soon as it begins.
const OVER: Duration = Duration::ZERO;

type Opening = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>;
/// See [`Shared`].
pub type Open = dyn Fn(Option<(NodeId, Duration)>) -> Opening + Send + Sync;

/// Opens one store any number of times: as a process of a node whose leases last this long, or as
/// one that nobody shares.
pub struct Shared(pub Box<Open>);

impl Shared {
    async fn begun(&self, node: &NodeId, lease: Duration) -> Arc<dyn Store> {
        let store = (self.0)(Some((node.clone(), lease))).await;
        store.lease_begin("here").await.expect("it begins");
        store
    }

    /// Two nodes.
    async fn two(&self, lease: Duration) -> (Arc<dyn Store>, Arc<dyn Store>) {
        let (one, two) = (NodeId::generate(), NodeId::generate());
        (self.begun(&one, lease).await, self.begun(&two, lease).await)
    }
}

async fn made(store: &Arc<dyn Store>) -> Sandbox {
    let sandbox = fixture::sandbox(&WorkspaceId::generate(), 0);
    let log = vec![event(0, "sandbox.created")];
    store.sandbox_insert(&sandbox, log).await.expect("inserted");
    sandbox
}

async fn lease(store: &Arc<dyn Store>, sandbox: &Sandbox) -> Lease {
    let found = store.lease_fetch(&sandbox.id).await.expect("fetched");
    found.expect("a lease")
}

async fn take(store: &Arc<dyn Store>, sandbox: &Sandbox, claim: Claim) -> Taking {
    let taken = store.lease_take(&sandbox.id, claim).await;
    taken.expect("answered")
}

#[track_caller]
fn assert_mine(taking: &Taking) -> &Lease {
    match taking {
        Taking::Mine(lease) => lease,
        other => panic!("wanted Mine, got {other:?}"),
    }
}

#[track_caller]
fn assert_held(taking: &Taking) {
    assert!(matches!(taking, Taking::Held(_)), "{taking:?}");
}

#[track_caller]
fn assert_fenced<T: std::fmt::Debug>(result: Result<T>) {
    assert!(
        matches!(result, Err(StoreError::Fenced { .. })),
        "wanted Fenced, got {result:?}"
    );
}

pub async fn a_new_sandbox_is_its_maker_s(shared: Shared) {
    let (one, two) = shared.two(LONG).await;
    let sandbox = made(&one).await;
    let found = lease(&two, &sandbox).await;
    assert_eq!(found.node.as_ref(), one.node());
    assert_eq!((found.token, found.over), (1, false));
    let node = found.node.expect("a node");
    let known = two.node_fetch(&node).await.expect("fetched");
    assert_eq!(known.expect("a node").name, "here");
    let other = fixture::sandbox(&sandbox.workspace, 0);
    assert_eq!(take(&one, &other, Claim::Expired).await, Taking::Nothing);
}

pub async fn a_lease_that_was_let_go_is_free(shared: Shared) {
    let (one, two) = shared.two(LONG).await;
    let sandbox = made(&one).await;
    two.lease_release(&sandbox.id).await.expect("not its own");
    assert_held(&take(&two, &sandbox, Claim::Expired).await);
    one.lease_release(&sandbox.id).await.expect("let go");
    assert_eq!(lease(&two, &sandbox).await.node, None);
    assert_fenced(
        one.sandbox_update(&moved(&sandbox, running()), Vec::new())
            .await,
    );
    let taken = take(&two, &sandbox, Claim::Released).await;
    assert_eq!(assert_mine(&taken).token, 2);
    let again = take(&two, &sandbox, Claim::Released).await;
    assert_eq!(assert_mine(&again).token, 2, "it has it already");
    let moved = moved(&sandbox, running());
    two.sandbox_update(&moved, Vec::new())
        .await
        .expect("its own");
}

pub async fn a_lease_is_renewed_by_its_own_process(shared: Shared) {
    let (node, other) = (NodeId::generate(), NodeId::generate());
    let short = shared.begun(&node, OVER).await;
    let two = shared.begun(&other, LONG).await;
    let sandbox = made(&short).await;
    assert!(lease(&two, &sandbox).await.over);
    // Another process of the same node, with more patience.
    let long = shared.begun(&node, LONG).await;
    assert!(!lease(&two, &sandbox).await.over, "taken over");
    assert!(two.lease_renew().await.expect("renewed").is_empty());
    assert_eq!(
        long.lease_renew().await.expect("renewed"),
        std::slice::from_ref(&sandbox.id)
    );
    assert!(short.lease_renew().await.expect("answered").is_empty());
    long.sandbox_remove(&sandbox.id, Vec::new())
        .await
        .expect("removed");
    assert!(long.lease_renew().await.expect("renewed").is_empty());
}

pub async fn a_lease_in_time_is_not_taken(shared: Shared) {
    let (one, two) = shared.two(LONG).await;
    let sandbox = made(&one).await;
    assert_held(&take(&two, &sandbox, Claim::Released).await);
    assert_held(&take(&two, &sandbox, Claim::Expired).await);
    assert_fenced(
        two.sandbox_update(&moved(&sandbox, running()), Vec::new())
            .await,
    );
    let (one, two) = shared.two(OVER).await;
    let sandbox = made(&one).await;
    assert_held(&take(&two, &sandbox, Claim::Released).await);
    let taken = take(&two, &sandbox, Claim::Expired).await;
    assert_eq!(assert_mine(&taken).token, 2);
}

pub async fn a_late_owner_writes_nothing(shared: Shared) {
    let (late, new) = shared.two(OVER).await;
    let sandbox = made(&late).await;
    assert_mine(&take(&new, &sandbox, Claim::Expired).await);
    let next = moved(&sandbox, running());
    let log = || vec![event(0, "sandbox.late")];
    assert_fenced(late.sandbox_update(&next, log()).await);
    let shot = snapshot(&sandbox.workspace, 0);
    let with = late.sandbox_update_with_snapshot(&next, log(), &shot);
    assert_fenced(with.await);
    assert_fenced(late.sandbox_remove(&sandbox.id, log()).await);
    assert_fenced(late.event_append(&sandbox.id, log()).await);
    late.lease_release(&sandbox.id).await.expect("not its own");
    // Reading the record anew does not help.
    let stored = late.sandbox_fetch(&sandbox.id).await.expect("fetched");
    let stored = stored.expect("it is there");
    assert_eq!(stored.generation, 1);
    assert_fenced(late.sandbox_update(&moved(&stored, running()), log()).await);
    let written = new.event_list(&sandbox.id, 0, 10).await.expect("listed");
    assert_eq!(written.len(), 1, "nothing was written");
    let kept = new.snapshot_fetch(&shot.id).await.expect("fetched");
    assert!(kept.is_none(), "nor a snapshot");
    new.sandbox_update(&next, log()).await.expect("its own");
}

pub async fn a_late_owner_writes_nothing_about_what_is_gone(shared: Shared) {
    let (late, new) = shared.two(OVER).await;
    let sandbox = made(&late).await;
    assert_mine(&take(&new, &sandbox, Claim::Expired).await);
    new.sandbox_remove(&sandbox.id, vec![event(0, "sandbox.deleted")])
        .await
        .expect("removed");
    let log = vec![event(0, "sandbox.late")];
    assert_fenced(late.event_append(&sandbox.id, log).await);
    let written = new.event_list(&sandbox.id, 0, 10).await.expect("listed");
    assert_eq!(written.len(), 2);
    assert_eq!(take(&late, &sandbox, Claim::Expired).await, Taking::Nothing);
}

pub async fn a_restart_fences_the_process_before(shared: Shared) {
    let node = NodeId::generate();
    let before = shared.begun(&node, LONG).await;
    let sandbox = made(&before).await;
    let after = shared.begun(&node, LONG).await;
    assert_eq!(lease(&after, &sandbox).await.token, 2);
    let next = moved(&sandbox, running());
    assert_fenced(before.sandbox_update(&next, Vec::new()).await);
    after
        .sandbox_update(&next, Vec::new())
        .await
        .expect("its own");
}

pub async fn a_race_for_a_lease_has_one_winner(shared: Shared) {
    let (one, two) = shared.two(LONG).await;
    let sandbox = made(&one).await;
    one.lease_release(&sandbox.id).await.expect("let go");
    let racers = (0..RACERS).map(|number| {
        let store = Arc::clone(if number % 2 == 0 { &one } else { &two });
        let sandbox = sandbox.clone();
        tokio::spawn(async move {
            let taken = take(&store, &sandbox, Claim::Expired).await;
            matches!(taken, Taking::Mine(_)).then_some(number % 2)
        })
    });
    let mut winners = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        winners.extend(racer.await.expect("it ends"));
    }
    winners.dedup();
    let same = winners.iter().all(|winner| Some(winner) == winners.first());
    assert!(same && !winners.is_empty(), "{winners:?}");
    assert_eq!(lease(&one, &sandbox).await.token, 2);
}

pub async fn a_write_and_a_taking_have_an_order(shared: Shared) {
    let (one, two) = shared.two(OVER).await;
    for _ in 0..RACERS {
        let sandbox = made(&one).await;
        let next = moved(&sandbox, running());
        let (written, taken) = tokio::join!(
            one.sandbox_update(&next, Vec::new()),
            two.lease_take(&sandbox.id, Claim::Expired)
        );
        assert_mine(&taken.expect("answered"));
        // Whoever has it now sees all that was written before, and nothing comes after.
        let seen = two.sandbox_fetch(&sandbox.id).await.expect("fetched");
        let seen = seen.expect("it is there");
        match written {
            Ok(()) => assert_eq!(seen.generation, 2),
            Err(StoreError::Fenced { .. }) => assert_eq!(seen.generation, 1),
            Err(other) => panic!("{other:?}"),
        }
        let mine = moved(&seen, running());
        two.sandbox_update(&mine, Vec::new())
            .await
            .expect("its own");
    }
}

pub async fn a_wish_is_heard_and_refused_or_granted(shared: Shared) {
    let (one, two) = shared.two(LONG).await;
    let sandbox = made(&one).await;
    assert!(one.lease_wanted().await.expect("listed").is_empty());
    two.lease_want(&sandbox.id).await.expect("asked");
    assert_eq!(
        one.lease_wanted().await.expect("listed"),
        std::slice::from_ref(&sandbox.id)
    );
    assert!(two.lease_wanted().await.expect("listed").is_empty());
    assert_eq!(lease(&one, &sandbox).await.wanted.as_ref(), two.node());
    one.lease_refuse(&sandbox.id, "it is busy")
        .await
        .expect("said");
    assert!(one.lease_wanted().await.expect("listed").is_empty());
    let refused = lease(&two, &sandbox).await.refused;
    assert_eq!(refused.as_deref(), Some("it is busy"));
    two.lease_want(&sandbox.id).await.expect("asked again");
    assert_eq!(lease(&two, &sandbox).await.refused, None);
    one.lease_release(&sandbox.id).await.expect("let go");
    let taken = take(&two, &sandbox, Claim::Released).await;
    assert_eq!(assert_mine(&taken).wanted, None);
}

pub async fn a_start_finds_its_own(shared: Shared) {
    let (one, two) = shared.two(LONG).await;
    let (mine, theirs) = (made(&one).await, made(&two).await);
    let found = one.sandbox_recover().await.expect("recovered");
    let ids: Vec<_> = found.sandboxes.iter().map(|it| it.id.clone()).collect();
    assert_eq!(ids, std::slice::from_ref(&mine.id));
    assert_eq!(one.sandbox_all().await.expect("listed").len(), 2);
    let here = snapshot(&mine.workspace, 0);
    let there = snapshot(&theirs.workspace, 1);
    one.snapshot_insert(&here).await.expect("inserted");
    two.snapshot_insert(&there).await.expect("inserted");
    let shown = one.snapshots_here().await.expect("listed");
    assert_eq!(shown, Some(vec![here.id.clone()]));
    // In the archive alone it is nobody's; whoever brings it back has it.
    let away = woodfrog_types::snapshot::Snapshot {
        place: SnapshotPlace::Archive {
            archive: ArchiveId("a".to_owned()),
        },
        generation: 2,
        ..here.clone()
    };
    one.snapshot_update(&away).await.expect("updated");
    assert_eq!(
        one.snapshots_here().await.expect("listed"),
        Some(Vec::new())
    );
    let back = woodfrog_types::snapshot::Snapshot {
        place: SnapshotPlace::Both {
            archive: ArchiveId("a".to_owned()),
        },
        generation: 3,
        ..here
    };
    two.snapshot_update(&back).await.expect("updated");
    let mut both = vec![back.id, there.id];
    both.sort();
    assert_eq!(two.snapshots_here().await.expect("listed"), Some(both));
    assert_eq!(one.runs_here().await.expect("listed"), Some(Vec::new()));
    let template = fixture::template(None, "t");
    one.template_insert(&template).await.expect("inserted");
    let build = fixture::build(&template.id, 0);
    one.build_insert(&build).await.expect("inserted");
    assert_eq!(one.build_unfinished().await.expect("listed").len(), 1);
    assert!(two.build_unfinished().await.expect("listed").is_empty());
}

pub async fn what_is_due_elsewhere_is_not_shown(shared: Shared) {
    let (one, two) = shared.two(LONG).await;
    let sandbox = made(&one).await;
    let runs = moved(&sandbox, running());
    one.sandbox_update(&runs, Vec::new())
        .await
        .expect("updated");
    let due = runs.due().expect("a deadline");
    let shown = async |store: &Arc<dyn Store>| {
        let ids = store.sandbox_due(at(1 << 40), 10).await.expect("listed");
        (ids, store.sandbox_next_deadline().await.expect("found"))
    };
    let mine = (vec![sandbox.id.clone()], Some(due));
    assert_eq!(shown(&one).await, mine);
    assert_eq!(shown(&two).await, (Vec::new(), None));
    one.lease_release(&sandbox.id).await.expect("let go");
    assert_eq!(shown(&two).await, mine, "somebody has to see to it");
}

pub async fn what_nobody_had_is_the_first_node_s(shared: Shared) {
    let lone = (shared.0)(None).await;
    let sandbox = made(&lone).await;
    assert_eq!(lone.lease_fetch(&sandbox.id).await.expect("fetched"), None);
    let shot = snapshot(&sandbox.workspace, 0);
    lone.snapshot_insert(&shot).await.expect("inserted");
    let one = shared.begun(&NodeId::generate(), LONG).await;
    assert_eq!(lease(&one, &sandbox).await.node.as_ref(), one.node());
    let here = one.snapshots_here().await.expect("listed");
    assert_eq!(here, Some(vec![shot.id]));
    let two = shared.begun(&NodeId::generate(), LONG).await;
    assert_eq!(lease(&two, &sandbox).await.node.as_ref(), one.node());
    let next = moved(&sandbox, running());
    one.sandbox_update(&next, Vec::new())
        .await
        .expect("its own");
}

pub async fn a_store_of_one_server_has_no_leases(shared: Shared) {
    let lone = (shared.0)(None).await;
    assert!(lone.node().is_none());
    lone.lease_begin("here").await.expect("nothing to do");
    let sandbox = made(&lone).await;
    assert_eq!(take(&lone, &sandbox, Claim::Expired).await, Taking::Nothing);
    assert!(lone.lease_renew().await.expect("answered").is_empty());
    assert_eq!(lone.snapshots_here().await.expect("answered"), None);
    assert_eq!(lone.runs_here().await.expect("answered"), None);
    let next = moved(&sandbox, running());
    lone.sandbox_update(&next, Vec::new())
        .await
        .expect("its own");
}
