//! Promises about pages of lists under concurrent writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::sandbox::{EndReason, Order, Sandbox, SandboxFilter, SandboxState};
use woodfrog_types::{SandboxId, TemplateId, WorkspaceId};

use super::assert_invalid_cursor;
use super::fixture::{at, build, map, page, sandbox, template};
use crate::Store;

type S = Arc<dyn Store>;

const ORDERS: [Order; 2] = [Order::OldestFirst, Order::NewestFirst];

fn ordered(order: Order) -> SandboxFilter {
    SandboxFilter {
        order,
        ..SandboxFilter::default()
    }
}

async fn insert(store: &S, sandbox: &Sandbox) {
    store
        .sandbox_insert(sandbox, vec![])
        .await
        .expect("inserted");
}

/// Walks all pages; `between` runs after each.
async fn walk(
    store: &S,
    ws: &WorkspaceId,
    filter: &SandboxFilter,
    limit: usize,
    mut between: impl AsyncFnMut(usize),
) -> Vec<SandboxId> {
    let mut cursor = None;
    let mut ids = Vec::new();
    for number in 0..10_000 {
        let request = page(limit, cursor);
        let got = store.sandbox_list(ws, filter, &request).await;
        let got = got.expect("listed");
        assert!(got.items.len() <= limit, "page of {}", got.items.len());
        ids.extend(got.items.into_iter().map(|sandbox| sandbox.id));
        cursor = got.next;
        if cursor.is_none() {
            return ids;
        }
        between(number).await;
    }
    panic!("the pages never end");
}

/// Seven sandboxes, three of them started in the same millisecond; ids oldest first.
async fn seven(store: &S, ws: &WorkspaceId) -> Vec<SandboxId> {
    let mut all = Vec::new();
    for started_at in [50, 10, 30, 30, 30, 70, -20] {
        let one = sandbox(ws, started_at);
        insert(store, &one).await;
        all.push((one.started_at, one.id));
    }
    all.sort();
    all.into_iter().map(|(_, id)| id).collect()
}

pub async fn sandbox_list_pages_in_both_orders(store: S) {
    let ws = WorkspaceId::generate();
    let mut expected = seven(&store, &ws).await;
    for order in ORDERS {
        for limit in [1, 2, 3, 7, 8] {
            let got = walk(&store, &ws, &ordered(order), limit, async |_| {}).await;
            assert_eq!(got, expected, "{order:?}, pages of {limit}");
        }
        expected.reverse();
    }
}

pub async fn sandbox_list_is_stable_under_inserts(store: S) {
    for order in ORDERS {
        let ws = WorkspaceId::generate();
        let mut expected = seven(&store, &ws).await;
        if order == Order::NewestFirst {
            expected.reverse();
        }
        let walked = walk(&store, &ws, &ordered(order), 1, async |number| {
            // Before, among and after what was seen.
            for started_at in [-1000, 30, 1000] {
                if number < 7 {
                    insert(&store, &sandbox(&ws, started_at)).await;
                }
            }
        })
        .await;
        let unique: BTreeSet<_> = walked.iter().collect();
        assert_eq!(unique.len(), walked.len(), "{order:?}: shown twice");
        let old: Vec<_> = walked
            .into_iter()
            .filter(|id| expected.contains(id))
            .collect();
        assert_eq!(old, expected, "{order:?}: skipped or moved");
    }
}

pub async fn sandbox_list_survives_removal_of_the_cursor(store: S) {
    let ws = WorkspaceId::generate();
    let expected = seven(&store, &ws).await;
    let walked = walk(
        &store,
        &ws,
        &ordered(Order::OldestFirst),
        1,
        async |number| {
            let seen = &expected[number];
            store.sandbox_remove(seen, vec![]).await.expect("removed");
        },
    )
    .await;
    assert_eq!(walked, expected);
}

pub async fn sandbox_list_filters(store: S) {
    let ws = WorkspaceId::generate();
    let (old, young) = (sandbox(&ws, 10), sandbox(&ws, 20));
    let mut deleting = sandbox(&ws, 30);
    deleting.state = SandboxState::Deleting {
        reason: EndReason::Requested,
    };
    for one in [&old, &young, &deleting] {
        insert(&store, one).await;
    }
    let list = async |filter| walk(&store, &ws, &filter, 10, async |_| {}).await;
    let any = SandboxFilter::default();
    let both = [young.id.clone(), old.id.clone()];
    assert_eq!(list(any.clone()).await, both);
    let of_template = SandboxFilter {
        template: Some(old.template.clone()),
        ..any.clone()
    };
    assert_eq!(list(of_template).await, both[1..]);
    let of_none = SandboxFilter {
        template: Some(TemplateId::generate()),
        ..any.clone()
    };
    assert_eq!(list(of_none).await, []);
    for (after, expected) in [(9, &both[..]), (10, &both[..1]), (20, &[])] {
        let since = SandboxFilter {
            started_after: Some(at(after)),
            ..any.clone()
        };
        assert_eq!(list(since).await, expected, "started after {after}");
    }
}

pub async fn sandbox_list_metadata_needs_every_pair(store: S) {
    let ws = WorkspaceId::generate();
    let odd = "%_'\"\\$.[0]\0ü";
    let mut expected = Vec::new();
    for metadata in [
        map(&[("app", "x"), ("user", "ann")]),
        map(&[("app", "x"), ("user", "bob"), (odd, odd)]),
        map(&[("app", "x")]),
        map(&[]),
    ] {
        let mut one = sandbox(&ws, 10);
        one.metadata = metadata;
        insert(&store, &one).await;
        expected.push(one.id);
    }
    for (wanted, count) in [
        (map(&[]), 4),
        (map(&[("app", "x")]), 3),
        (map(&[("app", "x"), ("user", "ann")]), 1),
        (map(&[("app", "X")]), 0),
        (map(&[("app", "")]), 0),
        (map(&[(odd, odd)]), 1),
        (map(&[("%", "%")]), 0),
    ] {
        let filter = SandboxFilter {
            metadata: wanted.clone(),
            ..SandboxFilter::default()
        };
        for limit in [1, 10] {
            let got = walk(&store, &ws, &filter, limit, async |_| {}).await;
            assert_eq!(got.len(), count, "{wanted:?}, pages of {limit}");
        }
    }
}

pub async fn sandbox_list_clamps_the_limit(store: S) {
    let ws = WorkspaceId::generate();
    for number in 0..=PAGE_ITEMS_MAX {
        insert(&store, &sandbox(&ws, i64::try_from(number).unwrap_or(0))).await;
    }
    for (limit, expected) in [(0, 1), (1, 1), (usize::MAX, PAGE_ITEMS_MAX)] {
        let request = page(limit, None);
        let got = store
            .sandbox_list(&ws, &SandboxFilter::default(), &request)
            .await
            .expect("listed");
        assert_eq!(got.items.len(), expected);
        assert!(got.next.is_some());
    }
}

/// The same promise with real concurrency: writers insert while pages are read.
pub async fn sandbox_list_pages_while_others_insert(store: S) {
    let ws = WorkspaceId::generate();
    let expected = seven(&store, &ws).await;
    let (first_in, begin) = tokio::sync::oneshot::channel();
    let writer = tokio::spawn({
        let (store, ws) = (Arc::clone(&store), ws.clone());
        async move {
            let mut first_in = Some(first_in);
            for number in 0..60 {
                insert(&store, &sandbox(&ws, -30 + number * 2)).await;
                if let Some(first_in) = first_in.take() {
                    first_in.send(()).expect("somebody waits");
                }
            }
        }
    });
    begin.await.expect("the writer began");
    let walked = walk(&store, &ws, &ordered(Order::OldestFirst), 1, async |_| {}).await;
    writer.await.expect("no panic");
    let unique: BTreeSet<_> = walked.iter().collect();
    assert_eq!(unique.len(), walked.len(), "shown twice");
    let old: Vec<_> = walked
        .into_iter()
        .filter(|id| expected.contains(id))
        .collect();
    assert_eq!(old, expected, "skipped or moved");
}

pub async fn template_list_pages_by_name(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    for (owner, name) in [
        (Some(&ws), "b"),
        (None, "base"),
        (Some(&ws), "base"),
        (Some(&ws), "B"),
        (Some(&other), "bad"),
        (Some(&ws), "ü"),
        (None, ""),
    ] {
        let one = template(owner, name);
        store.template_insert(&one).await.expect("inserted");
    }
    for limit in [1, 2, 10] {
        let mut cursor = None;
        let mut names = Vec::new();
        loop {
            let request = page(limit, cursor);
            let got = store.template_list(&ws, &request).await.expect("listed");
            names.extend(got.items.into_iter().map(|template| template.name));
            cursor = got.next;
            if cursor.is_none() {
                break;
            }
            assert!(names.len() < 20, "the pages never end");
        }
        assert_eq!(names, ["", "B", "b", "base", "base", "ü"], "{limit}");
    }
}

pub async fn build_list_pages_newest_first(store: S) {
    let owner = template(None, "base");
    store.template_insert(&owner).await.expect("inserted");
    let mut expected = Vec::new();
    for created_at in [10, 30, 20, 20] {
        let one = build(&owner.id, created_at);
        store.build_insert(&one).await.expect("inserted");
        expected.push((one.created_at, one.id));
    }
    expected.sort();
    expected.reverse();
    for limit in [1, 3, 4] {
        let mut cursor = None;
        let mut got = Vec::new();
        loop {
            let request = page(limit, cursor);
            let part = store.build_list(&owner.id, &request).await.expect("listed");
            got.extend(part.items.iter().map(|build| (build.created_at, build.id)));
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
            assert!(got.len() < 20, "the pages never end");
        }
        assert_eq!(got, expected, "pages of {limit}");
    }
}

pub async fn foreign_cursors_are_refused(store: S) {
    let ws = WorkspaceId::generate();
    let any = SandboxFilter::default();
    seven(&store, &ws).await;
    let owner = template(Some(&ws), "a");
    store.template_insert(&owner).await.expect("inserted");
    let first = store.sandbox_list(&ws, &any, &page(1, None)).await;
    let foreign = first.expect("listed").next.expect("there is more");
    for bad in ["", "x", "00", "\u{0}", "'; --", foreign.as_str()] {
        let request = page(1, Some(bad.to_owned()));
        if bad != foreign {
            assert_invalid_cursor(store.sandbox_list(&ws, &any, &request).await);
        }
        assert_invalid_cursor(store.template_list(&ws, &request).await);
        assert_invalid_cursor(store.build_list(&owner.id, &request).await);
    }
    let cut = page(1, Some(foreign[..foreign.len() / 4].to_owned()));
    assert_invalid_cursor(store.sandbox_list(&ws, &any, &cut).await);
    let long = page(1, Some("00".repeat(100_000)));
    assert_invalid_cursor(store.sandbox_list(&ws, &any, &long).await);
}
