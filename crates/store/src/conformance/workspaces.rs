//! Promises about workspaces, members and limits.

use std::sync::Arc;

use woodfrog_types::workspace::{LimitsRecord, Member, Role, UserId, Workspace, WorkspaceLimits};
use woodfrog_types::{Timestamp, WorkspaceId};

use super::fixture::{at, key, page};
use super::{RACERS, assert_conflict, assert_constraint, assert_not_found};
use crate::{Store, StoreError};

type S = Arc<dyn Store>;

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a name")
}

fn workspace(name: &str, created_at: i64) -> Workspace {
    Workspace {
        id: WorkspaceId::generate(),
        name: name.to_owned(),
        owner: user("ann \u{fc} \"quoted\""),
        generation: 1,
        created_at: at(created_at),
        removing_since: None,
    }
}

async fn insert(store: &S, name: &str, created_at: i64) -> Workspace {
    let one = workspace(name, created_at);
    store.workspace_insert(&one).await.expect("inserted");
    one
}

fn member(workspace: &Workspace, name: &str, role: Role, joined_at: i64) -> Member {
    Member {
        workspace: workspace.id.clone(),
        user: user(name),
        role,
        joined_at: at(joined_at),
    }
}

fn limits(workspace: &WorkspaceId, generation: u64) -> LimitsRecord {
    LimitsRecord {
        workspace: workspace.clone(),
        limits: WorkspaceLimits {
            user_runs_per_minute: None,
            runs_per_minute: Some(1),
            run_burst: 2,
            runs_at_once: Some(3),
            run_queue: 4,
            user_requests_per_minute: Some(5),
            requests_per_minute: Some(6),
            request_burst: 7,
            sandboxes: Some(8),
            cpus: Some(9),
            memory_bytes: Some(u64::MAX),
            disk_bytes: Some(11),
            prompt_retention_days: Some(12),
            run_retention_days: Some(14),
            artifact_retention_days: Some(15),
            audit_retention_days: Some(13),
        },
        generation,
        updated_at: at(3),
    }
}

pub async fn workspace_comes_back_as_it_was(store: S) {
    let one = insert(&store, "my \"team\" \u{fc}", 1).await;
    let found = store.workspace_fetch(&one.id).await.expect("asked");
    assert_eq!(found.as_ref(), Some(&one));
    let absent = store.workspace_fetch(&WorkspaceId::generate()).await;
    assert_eq!(absent.expect("asked"), None);
    assert_constraint(store.workspace_insert(&one).await);
    let late = Workspace {
        generation: 2,
        ..workspace("late", 1)
    };
    assert_conflict(store.workspace_insert(&late).await);
}

pub async fn workspace_has_its_owner_as_a_member(store: S) {
    let one = insert(&store, "team", 7).await;
    let members = store.member_list(&one.id).await.expect("listed");
    assert_eq!(members, [member(&one, one.owner.as_str(), Role::Owner, 7)]);
    let of = store.workspace_of(&one.owner).await.expect("asked");
    assert_eq!(of, [(one, Role::Owner)]);
}

pub async fn workspace_update_needs_the_generation_before(store: S) {
    let one = insert(&store, "team", 1).await;
    let next = Workspace {
        name: "renamed".to_owned(),
        generation: 2,
        removing_since: Some(at(9)),
        ..one.clone()
    };
    store.workspace_update(&next).await.expect("updated");
    assert_conflict(store.workspace_update(&next).await);
    let found = store.workspace_fetch(&one.id).await.expect("asked");
    assert_eq!(found, Some(next));
    let gone = Workspace {
        generation: 2,
        ..workspace("gone", 1)
    };
    assert_not_found(store.workspace_update(&gone).await);
}

pub async fn workspace_list_pages_oldest_first(store: S) {
    let mut all = Vec::new();
    for created_at in [5, 1, 3, 3, 2] {
        all.push(insert(&store, "team", created_at).await);
    }
    all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let part = store
            .workspace_list(&page(2, cursor))
            .await
            .expect("listed");
        assert!(part.items.len() <= 2);
        found.extend(part.items);
        cursor = part.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, all);
}

pub async fn workspace_removing_lists_those_that_go(store: S) {
    insert(&store, "stays", 1).await;
    let mut going = Vec::new();
    for since in [8, 4] {
        let one = insert(&store, "goes", 1).await;
        let next = Workspace {
            generation: 2,
            removing_since: Some(at(since)),
            ..one
        };
        store.workspace_update(&next).await.expect("updated");
        going.insert(0, next);
    }
    let found = store.workspace_removing().await.expect("asked");
    assert_eq!(found, going);
}

pub async fn workspace_purge_takes_everything_along(store: S) {
    let (one, other) = (
        insert(&store, "one", 1).await,
        insert(&store, "two", 2).await,
    );
    for (place, workspace) in [&one, &other].into_iter().enumerate() {
        let digest = u8::try_from(place).expect("small") + 1;
        store
            .key_insert(&key(&workspace.id, digest))
            .await
            .expect("inserted");
        store
            .limits_put(&limits(&workspace.id, 1))
            .await
            .expect("put");
    }
    assert!(store.workspace_purge(&one.id).await.expect("purged"));
    assert!(!store.workspace_purge(&one.id).await.expect("purged"));
    for (workspace, left) in [(&one, 0), (&other, 1)] {
        let members = store.member_list(&workspace.id).await.expect("listed");
        assert_eq!(members.len(), left);
        let keys = store.key_list(Some(&workspace.id)).await.expect("listed");
        assert_eq!(keys.len(), left);
        let limits = store.limits_fetch(&workspace.id).await.expect("asked");
        assert_eq!(limits.iter().count(), left);
    }
    let of = store.workspace_of(&one.owner).await.expect("asked");
    assert_eq!(of, [(other, Role::Owner)]);
}

pub async fn members_are_kept_once_per_workspace(store: S) {
    let (one, other) = (
        insert(&store, "one", 1).await,
        insert(&store, "two", 2).await,
    );
    let bob = member(&one, "bob", Role::Member, 5);
    store.member_insert(&bob).await.expect("inserted");
    assert_constraint(store.member_insert(&bob).await);
    let there = member(&other, "bob", Role::Viewer, 6);
    store.member_insert(&there).await.expect("inserted");
    let nowhere = member(&workspace("gone", 1), "bob", Role::Member, 5);
    assert_not_found(store.member_insert(&nowhere).await);
    let of = store.workspace_of(&bob.user).await.expect("asked");
    let expected = [(one.clone(), Role::Member), (other.clone(), Role::Viewer)];
    assert_eq!(of, expected);
    let role = store.member_update(&one.id, &bob.user, Role::Admin).await;
    role.expect("updated");
    let found = store.member_fetch(&one.id, &bob.user).await.expect("asked");
    assert_eq!(found.map(|found| found.role), Some(Role::Admin));
    let stranger = user("stranger");
    assert_not_found(store.member_update(&one.id, &stranger, Role::Admin).await);
    assert!(
        store
            .member_remove(&one.id, &bob.user)
            .await
            .expect("removed")
    );
    assert!(
        !store
            .member_remove(&one.id, &bob.user)
            .await
            .expect("removed")
    );
    let found = store.member_fetch(&one.id, &bob.user).await.expect("asked");
    assert_eq!(found, None);
    let left = store
        .member_fetch(&other.id, &bob.user)
        .await
        .expect("asked");
    assert_eq!(left, Some(there));
}

pub async fn member_race_has_one_winner(store: S) {
    let one = insert(&store, "team", 1).await;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let (store, bob) = (Arc::clone(&store), member(&one, "bob", Role::Member, 5));
        racers.spawn(async move { store.member_insert(&bob).await });
    }
    let mut won = 0;
    while let Some(result) = racers.join_next().await {
        match result.expect("no panic") {
            Ok(()) => won += 1,
            Err(StoreError::Constraint { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
}

pub async fn limits_need_the_generation_before(store: S) {
    let one = insert(&store, "team", 1).await;
    assert_eq!(store.limits_fetch(&one.id).await.expect("asked"), None);
    assert_conflict(store.limits_put(&limits(&one.id, 2)).await);
    store.limits_put(&limits(&one.id, 1)).await.expect("put");
    assert_conflict(store.limits_put(&limits(&one.id, 1)).await);
    let found = store.limits_fetch(&one.id).await.expect("asked");
    assert_eq!(found, Some(limits(&one.id, 1)));
    let next = LimitsRecord {
        limits: WorkspaceLimits::default(),
        generation: 2,
        updated_at: Timestamp::from_millis(4),
        workspace: one.id.clone(),
    };
    store.limits_put(&next).await.expect("put");
    assert_conflict(store.limits_put(&limits(&one.id, 4)).await);
    let found = store.limits_fetch(&one.id).await.expect("asked");
    assert_eq!(found, Some(next));
}
