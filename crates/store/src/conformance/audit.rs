//! Promises about audit logs.

use std::sync::Arc;

use woodfrog_types::audit::{AuditEnds, AuditEntry, AuditFilter, AuditOutcome, NewAuditEntry};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{KeyId, WorkspaceId};

use super::fixture::{at, page};
use super::{RACERS, assert_conflict};
use crate::{Store, StoreError};

type S = Arc<dyn Store>;

fn entry(workspace: &WorkspaceId, sequence: u64) -> AuditEntry {
    let odd = sequence % 2 == 1;
    AuditEntry {
        sequence,
        entry: NewAuditEntry {
            workspace: workspace.clone(),
            at: at(i64::try_from(sequence).expect("small")),
            actor: UserId::parse(if odd { "ann \u{fc}" } else { "bob" }).expect("a name"),
            key: odd.then(KeyId::generate),
            action: if odd { "sandbox.create" } else { "member.add" }.to_owned(),
            target: format!("\"target\" {sequence}"),
            outcome: AuditOutcome::ALL[usize::try_from(sequence % 3).expect("small")],
            detail: "201".to_owned(),
            face: "native".to_owned(),
            request_id: "r".to_owned(),
        },
        hash: [u8::try_from(sequence).expect("small"); 32],
    }
}

async fn log(store: &S, workspace: &WorkspaceId, entries: u64) -> Vec<AuditEntry> {
    let log: Vec<AuditEntry> = (1..=entries).map(|n| entry(workspace, n)).collect();
    store.audit_append(&log).await.expect("appended");
    log
}

pub async fn audit_log_comes_back_as_it_was(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let ends = store.audit_ends(&ws).await.expect("asked");
    assert_eq!(ends, AuditEnds::EMPTY);
    let mut expected = log(&store, &ws, 3).await;
    log(&store, &other, 1).await;
    let more = [entry(&ws, 4), entry(&ws, 5)];
    store.audit_append(&more).await.expect("appended");
    expected.extend(more);
    let all = store.audit_read(&ws, 0, 100).await.expect("read");
    assert_eq!(all, expected);
    let some = store.audit_read(&ws, 2, 2).await.expect("read");
    assert_eq!(some, expected[2..4]);
    let ends = store.audit_ends(&ws).await.expect("asked");
    assert_eq!((ends.last, ends.last_hash), (5, expected[4].hash));
    assert_eq!((ends.trimmed, ends.trimmed_hash), (0, [0; 32]));
    let mut logs = store.audit_workspaces().await.expect("asked");
    logs.sort();
    let mut both = [ws, other];
    both.sort();
    assert_eq!(logs, both);
}

pub async fn audit_append_has_to_follow_on(store: S) {
    let ws = WorkspaceId::generate();
    assert_conflict(store.audit_append(&[entry(&ws, 2)]).await);
    log(&store, &ws, 2).await;
    assert_conflict(store.audit_append(&[entry(&ws, 2)]).await);
    assert_conflict(store.audit_append(&[entry(&ws, 4)]).await);
    // All of them or none.
    assert_conflict(store.audit_append(&[entry(&ws, 3), entry(&ws, 5)]).await);
    let all = store.audit_read(&ws, 0, 100).await.expect("read");
    assert_eq!(all.len(), 2);
    store.audit_append(&[]).await.expect("nothing is nothing");
}

pub async fn audit_race_has_one_winner(store: S) {
    let ws = WorkspaceId::generate();
    log(&store, &ws, 1).await;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, next) = (Arc::clone(&store), entry(&ws, 2));
        racers.spawn(async move { store.audit_append(&[next]).await });
    }
    let mut won = 0;
    while let Some(result) = racers.join_next().await {
        match result.expect("no panic") {
            Ok(()) => won += 1,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
}

pub async fn audit_list_filters_and_pages_newest_first(store: S) {
    let ws = WorkspaceId::generate();
    let log = log(&store, &ws, 20).await;
    let filters = [
        AuditFilter::default(),
        AuditFilter {
            actor: UserId::parse("bob"),
            ..AuditFilter::default()
        },
        AuditFilter {
            action: Some("sandbox.".to_owned()),
            outcome: Some(AuditOutcome::Done),
            ..AuditFilter::default()
        },
        AuditFilter {
            from: Some(at(5)),
            until: Some(at(9)),
            ..AuditFilter::default()
        },
        AuditFilter {
            target: Some("\"target\" 7".to_owned()),
            ..AuditFilter::default()
        },
        AuditFilter {
            action: Some("nothing".to_owned()),
            ..AuditFilter::default()
        },
    ];
    for filter in filters {
        let matching = log.iter().rev().filter(|one| filter.matches(&one.entry));
        let expected: Vec<AuditEntry> = matching.cloned().collect();
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let part = store.audit_list(&ws, &filter, &page(3, cursor)).await;
            let part = part.expect("listed");
            assert!(part.items.len() <= 3);
            found.extend(part.items);
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{filter:?}");
    }
    let foreign = page(3, Some("00".to_owned()));
    let refused = store
        .audit_list(&ws, &AuditFilter::default(), &foreign)
        .await;
    super::assert_invalid_cursor(refused);
}

pub async fn audit_trim_keeps_the_chains_beginning(store: S) {
    let ws = WorkspaceId::generate();
    let log = log(&store, &ws, 10).await;
    let trim = |before, limit| store.audit_trim(&ws, at(before), limit);
    assert_eq!(trim(0, 100).await.expect("trimmed"), 0);
    assert_eq!(trim(8, 3).await.expect("trimmed"), 3);
    assert_eq!(trim(8, 100).await.expect("trimmed"), 4);
    assert_eq!(trim(8, 100).await.expect("trimmed"), 0);
    let ends = store.audit_ends(&ws).await.expect("asked");
    let expected = AuditEnds {
        trimmed: 7,
        trimmed_hash: log[6].hash,
        last: 10,
        last_hash: log[9].hash,
    };
    assert_eq!(ends, expected);
    let left = store.audit_read(&ws, 0, 100).await.expect("read");
    assert_eq!(left, log[7..]);
    assert_eq!(trim(1000, 100).await.expect("trimmed"), 3);
    store
        .audit_append(&[entry(&ws, 11)])
        .await
        .expect("goes on");
}
