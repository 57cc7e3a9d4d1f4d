//! Promises about prices, budgets and webhooks.

use std::collections::BTreeMap;
use std::sync::Arc;

use woodfrog_types::page::PageRequest;
use woodfrog_types::run::{Boot, Held, Outcome, Run, RunState};
use woodfrog_types::secret::Sealed;
use woodfrog_types::usage::{
    Budget, BudgetAlert, ComputePrice, Cost, Meter, ModelPrice, Month, OverBudget, PriceTable,
    Quantity, Reservation, Rung, Spending, UsageEntry,
};
use woodfrog_types::webhook::{
    Attempt, Delivery, DeliveryState, Webhook, WebhookEvent, WebhookState,
};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{RunId, WebhookId, WorkspaceId};

use super::fixture::{self, at};
use super::runs::run;
use super::{RACERS, assert_conflict, assert_constraint, assert_not_found};
use crate::{Replay, RunWrite, Store};

type S = Arc<dyn Store>;

const MONTH: Month = Month::from_index(24_322);

fn prices(version: u64) -> PriceTable {
    let price = ModelPrice {
        input: 1,
        output: 1 << 40,
        cache_read: 0,
        cache_write: Some(7),
    };
    let unknown = ModelPrice {
        cache_write: None,
        ..price
    };
    let compute = |cpu| ComputePrice {
        cpu,
        memory: 5,
        disk: 6,
    };
    PriceTable {
        version,
        created_at: at(i64::try_from(version).expect("small")),
        created_by: UserId::parse("ann \"ü\""),
        models: BTreeMap::from([("one".to_owned(), price), ("two/ü".to_owned(), unknown)]),
        compute: [compute(1), compute(2), compute(3), compute(4)],
    }
}

pub async fn price_tables_have_no_gaps(store: S) {
    assert_eq!(store.price_fetch(None).await.expect("asked"), None);
    assert_conflict(store.price_insert(&prices(2)).await);
    for version in 1..=3 {
        store.price_insert(&prices(version)).await.expect("stored");
        assert_conflict(store.price_insert(&prices(version)).await);
    }
    assert_conflict(store.price_insert(&prices(5)).await);
    let fetch = async |version| store.price_fetch(version).await.expect("asked");
    assert_eq!(fetch(None).await, Some(prices(3)));
    assert_eq!(fetch(Some(1)).await, Some(prices(1)));
    assert_eq!(fetch(Some(9)).await, None);
    let list = async |before, limit| store.price_list(before, limit).await.expect("listed");
    assert_eq!(list(None, 2).await, [prices(3), prices(2)]);
    assert_eq!(list(Some(2), 5).await, [prices(1)]);
}

pub async fn price_race_has_one_winner(store: S) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.price_insert(&prices(1)).await.is_ok() });
    }
    let won = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(won, 1);
}

fn budget(workspace: &WorkspaceId, generation: u64) -> Budget {
    Budget {
        workspace: workspace.clone(),
        amount: 1_000,
        thresholds: vec![50, 100],
        hard: true,
        policy: OverBudget::End,
        reserve: 10,
        generation,
        updated_at: at(5),
    }
}

pub async fn budget_comes_back_as_it_was(store: S) {
    let (one, two) = (WorkspaceId::generate(), WorkspaceId::generate());
    let fetch = async |ws| store.budget_fetch(ws).await.expect("asked");
    assert_conflict(store.budget_put(&budget(&one, 2)).await);
    store.budget_put(&budget(&one, 1)).await.expect("stored");
    assert_conflict(store.budget_put(&budget(&one, 1)).await);
    assert_conflict(store.budget_put(&budget(&one, 3)).await);
    let next = Budget {
        amount: 0,
        thresholds: Vec::new(),
        hard: false,
        policy: OverBudget::Freeze,
        ..budget(&one, 2)
    };
    store.budget_put(&next).await.expect("stored");
    assert_eq!(fetch(&one).await, Some(next.clone()));
    store.budget_put(&budget(&two, 1)).await.expect("stored");
    let all = store.budget_list().await.expect("listed");
    assert_eq!(all, [next, budget(&two, 1)]);
    assert!(store.budget_remove(&one).await.expect("removed"));
    assert!(!store.budget_remove(&one).await.expect("removed"));
    assert_eq!(fetch(&one).await, None);
}

fn reservation(workspace: &WorkspaceId, amount: u64) -> Reservation {
    Reservation {
        workspace: workspace.clone(),
        run: RunId::generate(),
        amount,
        at: at(3),
    }
}

pub async fn budget_race_lets_in_what_fits(store: S) {
    let workspace = WorkspaceId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, one) = (Arc::clone(&store), reservation(&workspace, 150));
        tasks.spawn(async move {
            let reserved = store.budget_reserve(&one, MONTH, Some(1_000)).await;
            reserved.expect("asked").is_none()
        });
    }
    let won = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(won, 6);
    let now = store
        .budget_spending(&workspace, MONTH)
        .await
        .expect("asked");
    let (spent, reserved) = (0, 900);
    assert_eq!(now, Spending { spent, reserved });
    let more = reservation(&workspace, 101);
    let refused = store.budget_reserve(&more, MONTH, Some(1_000)).await;
    assert_eq!(refused.expect("asked"), Some(now));
}

pub async fn budget_reservation_is_made_once_and_given_back(store: S) {
    let workspace = WorkspaceId::generate();
    let one = reservation(&workspace, 1_000);
    for _ in 0..2 {
        let reserved = store.budget_reserve(&one, MONTH, Some(1_000)).await;
        assert_eq!(reserved.expect("asked"), None);
    }
    let reserved = store.budget_reserved(at(4), 10).await.expect("listed");
    assert_eq!(reserved, std::slice::from_ref(&one.run));
    assert!(
        store
            .budget_reserved(at(3), 10)
            .await
            .expect("listed")
            .is_empty()
    );
    // No limit lets everybody in, and another workspace is not touched.
    let more = reservation(&workspace, u64::from(u32::MAX));
    let reserved = store.budget_reserve(&more, MONTH, None).await;
    assert_eq!(reserved.expect("asked"), None);
    let other = WorkspaceId::generate();
    let now = store.budget_spending(&other, MONTH).await.expect("asked");
    assert_eq!(now, Spending::default());
    for run in [&one.run, &one.run, &more.run] {
        store.budget_release(run).await.expect("released");
    }
    let now = store
        .budget_spending(&workspace, MONTH)
        .await
        .expect("asked");
    assert_eq!(now, Spending::default());
}

fn webhook(workspace: &WorkspaceId, events: &[&str]) -> Webhook {
    Webhook {
        id: WebhookId::generate(),
        workspace: workspace.clone(),
        url: "https://example.com/ü".to_owned(),
        description: "a \"hook\"".to_owned(),
        events: events.iter().map(|kind| (*kind).to_owned()).collect(),
        secret: Sealed(vec![0, 1, 255]),
        state: WebhookState::Enabled {
            failing_since: None,
        },
        generation: 1,
        created_at: at(1),
    }
}

fn event(workspace: &WorkspaceId, id: &str, kind: &str, time: i64) -> WebhookEvent {
    WebhookEvent {
        id: id.to_owned(),
        workspace: workspace.clone(),
        kind: kind.to_owned(),
        at: at(time),
        data: r#"{"a":"\u0000"}"#.to_owned(),
    }
}

pub async fn budget_alert_is_told_once(store: S) {
    let workspace = WorkspaceId::generate();
    let hook = webhook(&workspace, &[]);
    store.webhook_insert(&hook).await.expect("stored");
    let alert = |threshold, amount| BudgetAlert {
        workspace: workspace.clone(),
        month: MONTH,
        threshold,
        amount,
        spent: 600,
        at: at(7),
    };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, alert) = (Arc::clone(&store), alert(50, 1_000));
        let event = event(&alert.workspace, "b1", "budget.threshold_reached", 7);
        tasks.spawn(async move { store.budget_alert(&alert, event).await.expect("recorded") });
    }
    let new = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|new| *new)
        .count();
    assert_eq!(new, 1);
    let again = event(&workspace, "b2", "budget.threshold_reached", 8);
    assert!(
        store
            .budget_alert(&alert(50, 2_000), again)
            .await
            .expect("recorded")
    );
    let alerts = store
        .budget_alerts(&workspace, MONTH)
        .await
        .expect("listed");
    assert_eq!(alerts, [alert(50, 1_000), alert(50, 2_000)]);
    let due = store.delivery_due(at(9), 10).await.expect("listed");
    let ids: Vec<_> = due.iter().map(|one| one.event.id.as_str()).collect();
    assert_eq!(ids, ["b1", "b2"]);
}

pub async fn webhook_comes_back_as_it_was(store: S) {
    let workspace = WorkspaceId::generate();
    let hook = webhook(&workspace, &["run.*"]);
    let stale = Webhook {
        generation: 2,
        ..hook.clone()
    };
    assert_conflict(store.webhook_insert(&stale).await);
    assert_not_found(store.webhook_update(&stale).await);
    store.webhook_insert(&hook).await.expect("stored");
    assert_constraint(store.webhook_insert(&hook).await);
    let next = Webhook {
        events: Vec::new(),
        state: WebhookState::Disabled { since: at(4) },
        generation: 2,
        ..hook.clone()
    };
    store.webhook_update(&next).await.expect("stored");
    assert_conflict(store.webhook_update(&next).await);
    let fetched = store.webhook_fetch(&hook.id).await.expect("asked");
    assert_eq!(fetched, Some(next.clone()));
    assert_eq!(
        store.webhook_list(&workspace).await.expect("listed"),
        [next]
    );
    let other = WorkspaceId::generate();
    assert!(store.webhook_list(&other).await.expect("listed").is_empty());
    assert!(store.webhook_remove(&hook.id).await.expect("removed"));
    assert!(!store.webhook_remove(&hook.id).await.expect("removed"));
}

pub async fn webhook_events_go_to_those_that_want_them_once(store: S) {
    let (workspace, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let all = webhook(&workspace, &[]);
    let runs = webhook(&workspace, &["run.*"]);
    let off = Webhook {
        state: WebhookState::Disabled { since: at(0) },
        ..webhook(&workspace, &[])
    };
    let foreign = webhook(&other, &[]);
    for hook in [&all, &runs, &off, &foreign] {
        store.webhook_insert(hook).await.expect("stored");
    }
    let events = vec![
        event(&workspace, "e1", "run.failed", 1),
        event(&workspace, "e2", "sandbox.created", 2),
    ];
    for new in [3, 0] {
        let published = store.webhook_publish(events.clone()).await;
        assert_eq!(published.expect("published"), new);
    }
    assert_eq!(store.delivery_next().await.expect("asked"), Some(at(1)));
    let due = store.delivery_due(at(1), 10).await.expect("listed");
    assert_eq!(due.len(), 2);
    let due = store.delivery_due(at(2), 10).await.expect("listed");
    assert!(due.is_sorted_by_key(|one| one.number));
    let first = due
        .iter()
        .find(|one| one.webhook == runs.id)
        .expect("it is told");
    let wanted = Delivery {
        number: first.number,
        webhook: runs.id.clone(),
        event: events[0].clone(),
        state: DeliveryState::Pending { due: at(1) },
        attempts: 0,
        last: None,
    };
    assert_eq!(*first, wanted);
    assert_eq!(store.delivery_due(at(2), 1).await.expect("listed").len(), 1);
}

fn tried(delivery: &Delivery, state: DeliveryState) -> Delivery {
    Delivery {
        state,
        attempts: delivery.attempts + 1,
        last: Some(Attempt {
            at: at(20),
            status: Some(503),
            error: Some("no\0".to_owned()),
        }),
        ..delivery.clone()
    }
}

pub async fn webhook_delivery_follows_its_tries(store: S) {
    let workspace = WorkspaceId::generate();
    let hook = webhook(&workspace, &[]);
    store.webhook_insert(&hook).await.expect("stored");
    let events = (1..=3).map(|n| event(&workspace, &format!("e{n}"), "run.failed", n));
    store
        .webhook_publish(events.collect())
        .await
        .expect("published");
    let due = store.delivery_due(at(9), 10).await.expect("listed");
    let later = tried(&due[0], DeliveryState::Pending { due: at(30) });
    let failing = WebhookState::Enabled {
        failing_since: Some(at(20)),
    };
    store.delivery_tried(&later, failing).await.expect("stored");
    let done = tried(&due[1], DeliveryState::Delivered { at: at(21) });
    let fine = WebhookState::Enabled {
        failing_since: None,
    };
    store.delivery_tried(&done, fine).await.expect("stored");
    let list = async |state, limit, cursor| {
        let page = PageRequest { limit, cursor };
        store
            .delivery_list(&hook.id, state, &page)
            .await
            .expect("listed")
    };
    let page = list(None, 2, None).await;
    assert_eq!(page.items, [due[2].clone(), done.clone()]);
    let page = list(None, 2, page.next).await;
    assert_eq!((page.items, page.next), (vec![later.clone()], None));
    assert_eq!(
        list(Some("delivered"), 9, None).await.items,
        std::slice::from_ref(&done)
    );
    // Disabled, nothing is on its way any more.
    let last = tried(&due[2], DeliveryState::Failed { at: at(40) });
    let off = WebhookState::Disabled { since: at(40) };
    store.delivery_tried(&last, off).await.expect("stored");
    let fetched = store.webhook_fetch(&hook.id).await.expect("asked");
    assert_eq!(fetched.expect("it is there").state, off);
    assert_eq!(list(Some("failed"), 9, None).await.items.len(), 2);
    assert_eq!(store.delivery_next().await.expect("asked"), None);
    let missing = Delivery {
        number: u64::from(u32::MAX),
        ..last
    };
    assert_not_found(store.delivery_tried(&missing, fine).await);
}

pub async fn webhook_deliveries_are_replayed_and_trimmed(store: S) {
    let workspace = WorkspaceId::generate();
    let hook = webhook(&workspace, &[]);
    store.webhook_insert(&hook).await.expect("stored");
    let events = (1..=4).map(|n| event(&workspace, &format!("e{n}"), "run.failed", n));
    store
        .webhook_publish(events.collect())
        .await
        .expect("published");
    let due = store.delivery_due(at(9), 10).await.expect("listed");
    let fine = WebhookState::Enabled {
        failing_since: None,
    };
    for (one, time) in due.iter().zip(50..) {
        let failed = tried(one, DeliveryState::Failed { at: at(time) });
        store.delivery_tried(&failed, fine).await.expect("stored");
    }
    let replay = async |which| {
        let replayed = store.delivery_replay(&hook.id, which, at(60)).await;
        replayed.expect("replayed")
    };
    assert_eq!(replay(Replay::One(due[0].number)).await, 1);
    assert_eq!(replay(Replay::One(u64::from(u32::MAX))).await, 0);
    assert_eq!(replay(Replay::FailedSince(at(4))).await, 1);
    let again = store.delivery_due(at(60), 10).await.expect("listed");
    let numbers: Vec<_> = again.iter().map(|one| (one.number, one.attempts)).collect();
    assert_eq!(numbers, [(due[0].number, 0), (due[3].number, 0)]);
    // The two that ended, the older first.
    assert_eq!(store.delivery_trim(at(60), 1).await.expect("trimmed"), 1);
    let page = PageRequest {
        limit: 9,
        cursor: None,
    };
    let left = store
        .delivery_list(&hook.id, None, &page)
        .await
        .expect("listed");
    let left: Vec<_> = left.items.iter().map(|one| one.number).collect();
    assert_eq!(left, [due[3].number, due[2].number, due[0].number]);
    assert!(store.webhook_remove(&hook.id).await.expect("removed"));
    assert_eq!(store.delivery_next().await.expect("asked"), None);
}

pub async fn happenings_are_noted_where_somebody_is_told(store: S) {
    let (told, quiet) = (WorkspaceId::generate(), WorkspaceId::generate());
    store
        .webhook_insert(&webhook(&told, &[]))
        .await
        .expect("stored");
    let mut wanted = Vec::new();
    for workspace in [&told, &quiet] {
        let sandbox = fixture::sandbox(workspace, 10);
        let note = |kind: &str| {
            let mut note = fixture::event(5, kind);
            note.kind = kind.to_owned();
            note
        };
        let notes = vec![note("sandbox.created"), note("sandbox.network_updated")];
        store.sandbox_insert(&sandbox, notes).await.expect("stored");
        let run = Run {
            state: RunState::Booting(Boot::Queued),
            ..run(workspace, 1)
        };
        store
            .run_insert(&run, Vec::new(), vec![])
            .await
            .expect("stored");
        let (since, id) = (at(11), run.id.to_string());
        let mut next = run.clone();
        let states = [
            RunState::Running { since, held: None },
            RunState::Running {
                since,
                held: Some(Held {
                    since: at(12),
                    reason: "budget".to_owned(),
                }),
            },
            RunState::Ended {
                since: Some(since),
                at: at(13),
                outcome: Outcome::Succeeded,
            },
        ];
        for state in states {
            let mut write = RunWrite::of(&next);
            next.state = state;
            next.generation += 1;
            write.record = Some(next.clone());
            store.run_write(write).await.expect("written");
        }
        let session = fixture::session(workspace, 14);
        store.session_insert(&session).await.expect("stored");
        let session_id = session.id.to_string();
        if workspace == &told {
            wanted = vec![
                ("sandbox.created", sandbox.id.to_string(), 1),
                ("run.queued", id.clone(), 1),
                ("run.started", id.clone(), 2),
                ("run.held", id.clone(), 3),
                ("run.succeeded", id, 4),
                ("session.created", session_id, 1),
            ];
        }
    }
    let noted = store.happening_list(10).await.expect("listed");
    let got: Vec<_> = noted
        .iter()
        .map(|one| (one.kind.as_str(), one.subject.clone(), one.place))
        .collect();
    assert_eq!(got, wanted);
    assert!(noted.iter().all(|one| one.workspace == told));
    assert_eq!(noted[4].at, at(13));
    let told_of = event(&told, "e", "run.queued", 1);
    let numbers = noted[..2].iter().map(|one| one.number).collect();
    let published = store.happening_publish(numbers, vec![told_of]).await;
    assert_eq!(published.expect("published"), 1);
    assert_eq!(store.happening_list(10).await.expect("listed"), noted[2..]);
    let lanes = store.delivery_lanes(at(5), 10).await.expect("listed");
    assert_eq!(lanes.len(), 1);
}

fn entry(workspace: &WorkspaceId, run: Option<&RunId>, key: &str, cost: u64) -> UsageEntry {
    UsageEntry {
        key: key.to_owned(),
        workspace: workspace.clone(),
        user: UserId::operator(),
        run: run.cloned(),
        thread: None,
        agent: None,
        sandbox: None,
        at: woodfrog_types::Timestamp::from_millis(1_790_000_000_000),
        quantity: Quantity::Compute {
            rung: Rung::Running,
            cpu_millis_ms: 5,
            memory_mib_ms: 6,
            disk_mib_ms: 7,
        },
        cost: Cost {
            compute: cost,
            ..Cost::default()
        },
        price_version: 1,
    }
}

pub async fn meter_books_once_and_for_its_run(store: S) {
    let workspace = WorkspaceId::generate();
    let sandbox = fixture::sandbox(&workspace, 10);
    let notes = vec![fixture::event(1, "one"), fixture::event(2, "two")];
    store.sandbox_insert(&sandbox, notes).await.expect("stored");
    let run = run(&workspace, 1);
    store
        .run_insert(&run, Vec::new(), vec![])
        .await
        .expect("stored");
    let behind = async || store.meter_behind(10).await.expect("listed");
    assert_eq!(behind().await, std::slice::from_ref(&sandbox.id));
    assert_eq!(store.meter_fetch(&sandbox.id).await.expect("asked"), None);
    let mut meter = Meter {
        sandbox: sandbox.id.clone(),
        workspace: workspace.clone(),
        seq: 1,
        on: Some((Rung::Running, at(5))),
        cpu_millis: 2_000,
        memory_mib: 512,
        disk_mib: 1 << 40,
        saved: 9,
    };
    let entries = vec![
        entry(&workspace, Some(&run.id), "k1", 30),
        entry(&workspace, None, "k2", 4),
    ];
    store
        .meter_put(&meter, entries.clone())
        .await
        .expect("stored");
    assert_eq!(behind().await, std::slice::from_ref(&sandbox.id));
    assert_eq!(
        store.meter_on(None, 10).await.expect("listed"),
        [meter.clone()]
    );
    let after = Some(&sandbox.id);
    assert!(store.meter_on(after, 10).await.expect("listed").is_empty());
    // What a crash repeats is booked once.
    meter.seq = 2;
    meter.on = None;
    store.meter_put(&meter, entries).await.expect("stored");
    assert!(behind().await.is_empty());
    assert!(store.meter_on(None, 10).await.expect("listed").is_empty());
    let fetched = store.meter_fetch(&sandbox.id).await.expect("asked");
    assert_eq!(fetched, Some(meter));
    let record = store.run_fetch(&run.id).await.expect("asked");
    assert_eq!(record.expect("it is there").cost.compute, 30);
    let month = Month::of(woodfrog_types::Timestamp::from_millis(1_790_000_000_000));
    let totals = store.usage_totals(&workspace, month).await.expect("asked");
    assert_eq!((totals.cost.compute, totals.entries), (34, 2));
    store
        .event_append(&sandbox.id, vec![fixture::event(3, "three")])
        .await
        .expect("appended");
    assert_eq!(behind().await, std::slice::from_ref(&sandbox.id));
}

pub async fn budget_counts_what_is_booked(store: S) {
    let workspace = WorkspaceId::generate();
    let run = run(&workspace, 1);
    store
        .run_insert(&run, Vec::new(), vec![])
        .await
        .expect("stored");
    let first = entry(&workspace, Some(&run.id), "k1", 30);
    let month = Month::of(first.at);
    let one = Reservation {
        workspace: workspace.clone(),
        run: run.id.clone(),
        amount: 100,
        at: at(1),
    };
    let reserved = store.budget_reserve(&one, month, Some(100)).await;
    assert_eq!(reserved.expect("asked"), None);
    let spending = async || {
        store
            .budget_spending(&workspace, month)
            .await
            .expect("asked")
    };
    for (key, cost, spent, reserved) in [("k1", 30, 30, 70), ("k2", 80, 110, 0)] {
        let mut write = RunWrite::of(&run);
        write.usage = vec![entry(&workspace, Some(&run.id), key, cost)];
        store.run_write(write).await.expect("written");
        // What the run has used is spent, and is not set aside as well.
        assert_eq!(spending().await, Spending { spent, reserved });
    }
    // Another month has nothing spent.
    let next = Month::from_index(month.index() + 1);
    let later = store
        .budget_spending(&workspace, next)
        .await
        .expect("asked");
    assert_eq!(later.spent, 0);
}
