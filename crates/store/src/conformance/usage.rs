//! Promises about the books and about files of runs.

use std::sync::Arc;

use woodfrog_types::artifact::{Artifact, ArtifactFilter, ArtifactKind, Review, ReviewState};
use woodfrog_types::run::Run;
use woodfrog_types::usage::{
    Budget, Cost, Meter, Month, OverBudget, Quantity, Reservation, Rung, Tokens, UsageEntry,
    UsageTotals,
};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{ArtifactId, RunId, SandboxId, WorkspaceId};

use super::fixture::{self, at, page};
use super::runs::{insert, run};
use super::{RACERS, assert_not_found};
use crate::{ArtifactPut, RunWrite, Store};

type S = Arc<dyn Store>;

const TOKENS: Tokens = Tokens {
    input: 1,
    output: 2,
    cache_read: 3,
    cache_write: 4,
};

fn tokens(run: &Run, key: &str, at_millis: i64) -> UsageEntry {
    UsageEntry {
        key: key.to_owned(),
        workspace: run.workspace.clone(),
        user: run.created_by.clone(),
        run: Some(run.id.clone()),
        thread: Some(run.thread.clone()),
        agent: run.work.agent().map(str::to_owned),
        sandbox: run.sandbox.clone(),
        at: at(at_millis),
        quantity: Quantity::Tokens {
            model: "m\0".to_owned(),
            tokens: TOKENS,
        },
        cost: Cost {
            model: 10,
            compute: 0,
            unpriced: false,
        },
        price_version: 5,
    }
}

fn compute(ws: &WorkspaceId, key: &str, at_millis: i64) -> UsageEntry {
    UsageEntry {
        key: key.to_owned(),
        workspace: ws.clone(),
        user: UserId::operator(),
        run: None,
        thread: None,
        agent: None,
        sandbox: Some(SandboxId::generate()),
        at: at(at_millis),
        quantity: Quantity::Compute {
            rung: Rung::Hibernated,
            cpu_millis_ms: 100,
            memory_mib_ms: 200,
            disk_mib_ms: 300,
        },
        cost: Cost {
            model: 0,
            compute: 7,
            unpriced: true,
        },
        price_version: 6,
    }
}

fn write(run: &Run, usage: Vec<UsageEntry>) -> RunWrite {
    RunWrite {
        usage,
        ..RunWrite::of(run)
    }
}

async fn entries(store: &S, ws: &WorkspaceId) -> Vec<UsageEntry> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let part = store
            .usage_list(ws, at(-1000), at(1000), &page(2, cursor))
            .await
            .expect("listed");
        found.extend(part.items);
        cursor = part.next;
        if cursor.is_none() {
            return found;
        }
    }
}

pub async fn usage_is_booked_once(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let (first, second) = (tokens(&one, "a", 3), tokens(&one, "b", 2));
    let usage = vec![first.clone(), second.clone(), first.clone()];
    let written = store.run_write(write(&one, usage)).await.expect("booked");
    let twice = TOKENS.plus(TOKENS);
    let cost = first.cost.plus(second.cost);
    assert_eq!((written.tokens, written.cost), (twice, cost));
    let mut totals = UsageTotals::default();
    totals.add(&first);
    totals.add(&second);
    let month = Month::of(at(0));
    assert_eq!(written.totals, vec![(month, totals)]);
    // Reported again, in another write and with other numbers.
    let mut again = tokens(&one, "a", 4);
    again.cost.model = 99;
    let written = store.run_write(write(&one, vec![again])).await;
    let written = written.expect("passed over");
    assert_eq!((written.tokens, written.cost), (twice, cost));
    assert_eq!(written.totals, vec![]);
    let found = store.run_fetch(&one.id).await.expect("fetched");
    let found = found.expect("is there");
    assert_eq!((found.tokens, found.cost), (twice, cost));
    assert_eq!(entries(&store, &one.workspace).await, vec![second, first]);
    let of_month = store.usage_totals(&one.workspace, month).await;
    assert_eq!(of_month.expect("asked"), totals);
}

pub async fn usage_of_a_refused_write_is_not_booked(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let mut stale = write(&one, vec![tokens(&one, "a", 0)]);
    stale.generation = 9;
    store.run_write(stale).await.expect_err("refused");
    assert_eq!(entries(&store, &one.workspace).await, vec![]);
    let totals = store.usage_totals(&one.workspace, Month::of(at(0))).await;
    assert_eq!(totals.expect("asked"), UsageTotals::default());
}

/// Runs and sandboxes that report at the same time: the months are the sums of the entries.
pub async fn usage_totals_are_exact_under_concurrency(store: S) {
    let ws = WorkspaceId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..RACERS {
        let (store, ws) = (Arc::clone(&store), ws.clone());
        tasks.spawn(async move {
            let one = run(&ws, 0);
            insert(&store, &one).await;
            let usage = vec![
                tokens(&one, &format!("t{number}"), 0),
                tokens(&one, "same for all", 0),
            ];
            store.run_write(write(&one, usage)).await.expect("booked");
            let entry = compute(&ws, &format!("c{number}"), 1);
            let booked = store.usage_book(vec![entry]).await.expect("booked");
            assert_eq!(booked.len(), 1);
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no panic");
    }
    let all = entries(&store, &ws).await;
    assert_eq!(all.len(), 2 * RACERS + 1);
    let mut sum = UsageTotals::default();
    all.iter().for_each(|entry| sum.add(entry));
    let totals = store.usage_totals(&ws, Month::of(at(0))).await;
    assert_eq!(totals.expect("asked"), sum);
    // And the runs have what is booked to them, each entry once.
    let filter = Default::default();
    let runs = store.run_list(&ws, &filter, &page(100, None)).await;
    let runs = runs.expect("listed").items;
    let of_runs = runs
        .iter()
        .fold(Tokens::default(), |sum, run| sum.plus(run.tokens));
    assert_eq!(of_runs, sum.tokens);
}

pub async fn usage_stays_within_workspace_and_month(store: S) {
    let (one, two) = (WorkspaceId::generate(), WorkspaceId::generate());
    // Two months ahead.
    let later = 62 * 86_400_000;
    let usage = vec![
        compute(&one, "k", 0),
        compute(&two, "k", 0),
        compute(&one, "l", later),
    ];
    let booked = store.usage_book(usage.clone()).await.expect("booked");
    assert_eq!(booked.len(), 3);
    let again = store.usage_book(usage.clone()).await.expect("asked");
    assert_eq!(again, vec![]);
    for (entry, ws) in usage.iter().zip([&one, &two, &one]) {
        let totals = store.usage_totals(ws, Month::of(entry.at)).await;
        assert_eq!(totals.expect("asked").entries, 1);
    }
    assert_eq!(entries(&store, &one).await, vec![usage[0].clone()]);
    let bounds = store
        .usage_list(&one, at(0), at(later), &page(9, None))
        .await;
    assert_eq!(
        bounds.expect("listed").items.len(),
        1,
        "the end is exclusive"
    );
}

fn artifact(run: &Run, path: &str, created_at: i64) -> Artifact {
    Artifact {
        id: ArtifactId::generate(),
        workspace: run.workspace.clone(),
        run: run.id.clone(),
        thread: run.thread.clone(),
        kind: ArtifactKind::Code,
        title: "title \"ü\"\0".to_owned(),
        path: path.to_owned(),
        content_type: "text/plain".to_owned(),
        size: 1 << 40,
        digest: "ab".repeat(32),
        review: None,
        created_at: at(created_at),
    }
}

async fn put(store: &S, artifact: &Artifact, max: u64) -> ArtifactPut {
    store.artifact_put(artifact, max).await.expect("put")
}

pub async fn artifact_comes_back_and_is_reviewed(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    let file = artifact(&one, "/a\0", 1);
    assert_not_found(store.artifact_put(&file, 9).await);
    insert(&store, &one).await;
    for kind in ArtifactKind::ALL {
        let mut file = artifact(&one, kind.as_str(), 1);
        file.kind = kind;
        assert_eq!(put(&store, &file, 9).await, ArtifactPut::New);
        let found = store.artifact_fetch(&file.id).await;
        assert_eq!(found.expect("fetched"), Some(file.clone()));
        for state in [ReviewState::Approved, ReviewState::Rejected] {
            let review = Review {
                state,
                by: UserId::operator(),
                at: at(9),
            };
            let reviewed = store.artifact_review(&file.id, &review).await;
            file.review = Some(review);
            assert_eq!(reviewed.expect("reviewed"), file);
        }
        let found = store.artifact_fetch(&file.id).await;
        assert_eq!(found.expect("fetched"), Some(file));
    }
    let review = Review {
        state: ReviewState::Approved,
        by: UserId::operator(),
        at: at(9),
    };
    let gone = ArtifactId::generate();
    assert_not_found(store.artifact_review(&gone, &review).await);
    assert!(!store.artifact_remove(&gone).await.expect("asked"));
}

pub async fn artifact_of_a_path_is_replaced(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let first = artifact(&one, "/a", 1);
    put(&store, &first, 1).await;
    let mut second = artifact(&one, "/a", 2);
    second.digest = "cd".repeat(32);
    // Also when the run has as many as it may.
    let replaced = put(&store, &second, 1).await;
    assert_eq!(replaced, ArtifactPut::Replaced(Box::new(first.clone())));
    second.id = first.id;
    let found = store.artifact_fetch(&second.id).await;
    assert_eq!(found.expect("fetched"), Some(second));
    let third = artifact(&one, "/b", 3);
    assert_eq!(put(&store, &third, 1).await, ArtifactPut::Full);
}

pub async fn artifact_limit_is_exact_under_concurrency(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..RACERS {
        let (store, file) = (Arc::clone(&store), artifact(&one, &format!("/{number}"), 1));
        tasks.spawn(async move { put(&store, &file, 5).await });
    }
    let mut new = 0;
    while let Some(task) = tasks.join_next().await {
        new += usize::from(task.expect("no panic") == ArtifactPut::New);
    }
    assert_eq!(new, 5);
}

pub async fn artifact_list_filters_and_pages(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    let mut two = run(&one.workspace, 0);
    two.thread = "other".to_owned();
    let foreign = run(&WorkspaceId::generate(), 0);
    let mut files = Vec::new();
    for (run, path, created_at) in [
        (&one, "/a", 1),
        (&one, "/b", 2),
        (&two, "/a", 3),
        (&foreign, "/a", 4),
    ] {
        if store.run_fetch(&run.id).await.expect("fetched").is_none() {
            insert(&store, run).await;
        }
        let file = artifact(run, path, created_at);
        put(&store, &file, 9).await;
        files.push(file);
    }
    let review = Review {
        state: ReviewState::Approved,
        by: UserId::operator(),
        at: at(9),
    };
    let reviewed = store.artifact_review(&files[1].id, &review).await;
    files[1] = reviewed.expect("reviewed");
    let any = ArtifactFilter::default;
    let of_run = ArtifactFilter {
        run: Some(one.id.clone()),
        ..any()
    };
    let of_thread = ArtifactFilter {
        thread: Some("other".into()),
        ..any()
    };
    let pending = ArtifactFilter {
        state: Some(ReviewState::Pending),
        ..any()
    };
    for (filter, expected) in [
        (any(), vec![2, 1, 0]),
        (of_run, vec![1, 0]),
        (of_thread, vec![2]),
        (pending, vec![2, 0]),
    ] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let part = store
                .artifact_list(&one.workspace, &filter, &page(1, cursor))
                .await;
            let part = part.expect("listed");
            found.extend(part.items);
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<Artifact> = expected
            .into_iter()
            .map(|n| files[n as usize].clone())
            .collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    assert!(store.run_remove(&one.id).await.expect("removed"));
    let left = store
        .artifact_list(&one.workspace, &any(), &page(9, None))
        .await;
    assert_eq!(left.expect("listed").items, vec![files[2].clone()]);
}

pub async fn artifact_aged_lists_the_oldest_first(store: S) {
    let one = run(&WorkspaceId::generate(), 0);
    let foreign = run(&WorkspaceId::generate(), 0);
    insert(&store, &one).await;
    insert(&store, &foreign).await;
    let mut files = Vec::new();
    for created_at in [5, 1, 3, 9] {
        let file = artifact(&one, &format!("/{created_at}"), created_at);
        put(&store, &file, 9).await;
        files.push(file);
    }
    put(&store, &artifact(&foreign, "/a", 2), 9).await;
    let list = async |before, limit| {
        let listed = store.artifact_aged(&one.workspace, at(before), limit).await;
        listed.expect("listed")
    };
    let expected = [&files[1], &files[2], &files[0]].map(Artifact::clone);
    assert_eq!(list(9, 10).await, expected);
    assert_eq!(list(9, 1).await, expected[..1]);
    assert_eq!(list(1, 10).await, []);
}

pub async fn books_go_with_their_workspace(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let month = Month::of(at(5));
    for workspace in [&ws, &other] {
        let sandbox = fixture::sandbox(workspace, 1);
        let note = vec![fixture::event(1, "one")];
        store.sandbox_insert(&sandbox, note).await.expect("stored");
        let meter = Meter {
            sandbox: sandbox.id.clone(),
            workspace: workspace.clone(),
            seq: 0,
            on: Some((Rung::Running, at(5))),
            cpu_millis: 1,
            memory_mib: 1,
            disk_mib: 1,
            saved: 0,
        };
        let entries = (0..5).map(|number| compute(workspace, &format!("k{number}"), 5));
        let put = store.meter_put(&meter, entries.collect()).await;
        put.expect("stored");
        let budget = Budget {
            workspace: workspace.clone(),
            amount: 9,
            thresholds: vec![50],
            hard: true,
            policy: OverBudget::Freeze,
            reserve: 1,
            generation: 1,
            updated_at: at(1),
        };
        store.budget_put(&budget).await.expect("stored");
        let reservation = Reservation {
            run: RunId::generate(),
            workspace: workspace.clone(),
            amount: 1,
            at: at(1),
        };
        let reserved = store.budget_reserve(&reservation, month, None).await;
        assert_eq!(reserved.expect("reserved"), None);
    }
    for gone in [2, 2, 1, 1, 0, 0] {
        let purged = store.books_purge(&ws, 2).await;
        assert_eq!(purged.expect("purged"), gone);
    }
    let totals = store.usage_totals(&ws, month).await.expect("asked");
    assert_eq!(totals, UsageTotals::default());
    let spending = store.budget_spending(&ws, month).await.expect("asked");
    assert_eq!((spending.spent, spending.reserved), (0, 0));
    assert_eq!(store.budget_fetch(&ws).await.expect("asked"), None);
    // The other has all of it.
    let totals = store.usage_totals(&other, month).await.expect("asked");
    assert_eq!(totals.entries, 5);
    assert!(store.budget_fetch(&other).await.expect("asked").is_some());
    let on = store.meter_on(None, 9).await.expect("listed");
    assert!(on.iter().all(|meter| meter.workspace == other));
    assert_eq!(on.len(), 1);
    let behind = store.meter_behind(9).await.expect("listed");
    assert_eq!(behind, [on[0].sandbox.clone()]);
}
