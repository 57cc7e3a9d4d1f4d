//! Promises about templates and builds.

use std::sync::Arc;

use woodfrog_types::template::{Build, BuildState, BuiltImage, Runtime, SecurityOptions, Template};
use woodfrog_types::{BuildId, TemplateId, WorkspaceId};

use super::fixture::{at, build, log_line, map, page, template};
use super::{RACERS, assert_constraint, assert_not_found};
use crate::{Store, StoreError};

type S = Arc<dyn Store>;

async fn insert(store: &S, owner: Option<&WorkspaceId>, name: &str) -> Template {
    let one = template(owner, name);
    store.template_insert(&one).await.expect("inserted");
    one
}

fn image() -> BuiltImage {
    BuiltImage {
        layers: vec!["sha256:a".to_owned(), "sha256:b".to_owned()],
        env: map(&[("A", "b")]),
        user: "user".to_owned(),
        workdir: Some("/home/user".to_owned()),
        start_cmd: Some("serve".to_owned()),
        ready_cmd: None,
        security: SecurityOptions {
            nested_namespaces: true,
            io_uring: false,
            userfaultfd: true,
            landlock: false,
            message_queues: true,
            runtime: Runtime::Gvisor,
        },
    }
}

pub async fn template_comes_back_as_it_was(store: S) {
    let ws = WorkspaceId::generate();
    for owner in [Some(&ws), None] {
        let one = insert(&store, owner, "my \"app\" ü").await;
        let found = store.template_fetch(&one.id).await.expect("fetched");
        assert_eq!(found, Some(one));
    }
    let absent = store.template_fetch(&TemplateId::generate()).await;
    assert_eq!(absent.expect("fetched"), None);
}

pub async fn template_names_are_unique_per_workspace(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let one = insert(&store, Some(&ws), "app").await;
    let again = template(Some(&ws), "app");
    assert_constraint(store.template_insert(&again).await);
    let same_id = Template {
        name: "else".to_owned(),
        ..one
    };
    assert_constraint(store.template_insert(&same_id).await);
    insert(&store, Some(&other), "app").await;
    insert(&store, Some(&ws), "App").await;
}

pub async fn template_names_of_the_server_are_unique(store: S) {
    let ws = WorkspaceId::generate();
    insert(&store, None, "base").await;
    assert_constraint(store.template_insert(&template(None, "base")).await);
    // A workspace may have its own.
    insert(&store, Some(&ws), "base").await;
}

pub async fn template_insert_race_has_one_winner(store: S) {
    let ws = WorkspaceId::generate();
    for owner in [Some(&ws), None] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..RACERS {
            let (store, one) = (Arc::clone(&store), template(owner, "app"));
            tasks.spawn(async move { store.template_insert(&one).await });
        }
        let mut winners = 0;
        while let Some(result) = tasks.join_next().await {
            match result.expect("no panic") {
                Ok(()) => winners += 1,
                Err(StoreError::Constraint { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(winners, 1);
    }
}

pub async fn template_by_name_prefers_the_workspaces_own(store: S) {
    let (ws, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let find = async |ws| store.template_by_name(ws, "base").await.expect("asked");
    insert(&store, Some(&other), "base").await;
    assert_eq!(find(&ws).await, None);
    let servers = insert(&store, None, "base").await;
    assert_eq!(find(&ws).await, Some(servers));
    let own = insert(&store, Some(&ws), "base").await;
    assert_eq!(find(&ws).await, Some(own));
    let none = store.template_by_name(&ws, "Base").await;
    assert_eq!(none.expect("asked"), None);
}

pub async fn template_update_keeps_the_rules(store: S) {
    let ws = WorkspaceId::generate();
    let mut one = insert(&store, Some(&ws), "one").await;
    insert(&store, Some(&ws), "two").await;
    one.tags.insert("v2".to_owned(), BuildId::generate());
    one.name = "renamed".to_owned();
    one.updated_at = at(99);
    store.template_update(&one).await.expect("updated");
    let found = store.template_fetch(&one.id).await.expect("fetched");
    assert_eq!(found, Some(one.clone()));
    one.name = "two".to_owned();
    assert_constraint(store.template_update(&one).await);
    assert_not_found(store.template_update(&template(Some(&ws), "new")).await);
}

pub async fn template_removal_takes_builds_along(store: S) {
    let (gone, kept) = (
        insert(&store, None, "gone").await,
        insert(&store, None, "kept").await,
    );
    let mut builds = Vec::new();
    for owner in [&gone, &kept] {
        let one = build(&owner.id, 0);
        store.build_insert(&one).await.expect("inserted");
        let lines = vec![log_line("x")];
        store
            .build_log_append(&one.id, lines)
            .await
            .expect("appended");
        builds.push(one);
    }
    for _ in 0..2 {
        store.template_remove(&gone.id).await.expect("removed");
    }
    let fetched = store.template_fetch(&gone.id).await.expect("fetched");
    assert_eq!(fetched, None);
    for (index, left) in [(0, 0), (1, 1)] {
        let id = &builds[index].id;
        let found = store.build_fetch(id).await.expect("fetched");
        assert_eq!(found.is_some(), left == 1);
        let log = store.build_log_list(id, 0, 10).await.expect("listed");
        assert_eq!(log.len(), left);
    }
    let list = store.build_list(&gone.id, &page(10, None)).await;
    assert_eq!(list.expect("listed").items, []);
    // Its name is free again.
    insert(&store, None, "gone").await;
}

pub async fn build_states_come_back_as_they_were(store: S) {
    let owner = insert(&store, None, "base").await;
    let mut one = build(&owner.id, 0);
    store.build_insert(&one).await.expect("inserted");
    for state in [
        BuildState::Waiting,
        BuildState::Building,
        BuildState::Ready(image()),
        BuildState::Failed {
            message: "no".to_owned(),
            step: Some("1".to_owned()),
        },
        BuildState::Failed {
            message: String::new(),
            step: None,
        },
    ] {
        one.state = state;
        one.finished_at = Some(at(9));
        store.build_update(&one).await.expect("updated");
        let found = store.build_fetch(&one.id).await.expect("fetched");
        assert_eq!(found, Some(one.clone()));
    }
}

pub async fn build_needs_its_template(store: S) {
    let orphan = build(&TemplateId::generate(), 0);
    assert_not_found(store.build_insert(&orphan).await);
    assert_not_found(store.build_update(&orphan).await);
    let lines = vec![log_line("x")];
    assert_not_found(store.build_log_append(&orphan.id, lines).await);
    let owner = insert(&store, None, "base").await;
    let mut one = build(&owner.id, 0);
    store.build_insert(&one).await.expect("inserted");
    assert_constraint(store.build_insert(&one).await);
    // A build does not change hands.
    one.template = insert(&store, None, "other").await.id;
    assert_not_found(store.build_update(&one).await);
}

pub async fn build_unfinished_lists_what_runs(store: S) {
    let owner = insert(&store, None, "base").await;
    let failed = BuildState::Failed {
        message: String::new(),
        step: None,
    };
    let states = [
        BuildState::Building,
        BuildState::Ready(image()),
        failed,
        BuildState::Waiting,
    ];
    let mut all: Vec<Build> = Vec::new();
    for (state, created_at) in states.into_iter().zip([4, 3, 2, 1]) {
        let mut one = build(&owner.id, created_at);
        one.state = state;
        store.build_insert(&one).await.expect("inserted");
        all.push(one);
    }
    let unfinished = store.build_unfinished().await.expect("listed");
    assert_eq!(unfinished, [all[3].clone(), all[0].clone()]);
}

pub async fn build_log_keeps_order_under_concurrency(store: S) {
    let owner = insert(&store, None, "base").await;
    let one = build(&owner.id, 0);
    store.build_insert(&one).await.expect("inserted");
    let mut tasks = tokio::task::JoinSet::new();
    for racer in 0..RACERS {
        let (store, id) = (Arc::clone(&store), one.id);
        tasks.spawn(async move {
            let message = racer.to_string();
            let lines = vec![log_line(&message), log_line(&message)];
            store.build_log_append(&id, lines).await.expect("appended");
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no panic");
    }
    let list = async |offset, limit| {
        let lines = store.build_log_list(&one.id, offset, limit).await;
        lines.expect("listed")
    };
    let all = list(0, 1000).await;
    assert_eq!(all.len(), RACERS * 2);
    for pair in all.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    assert_eq!(list(3, 2).await, all[3..5]);
    assert_eq!(list(RACERS as u64 * 2, 2).await, []);
    assert_eq!(list(u64::MAX, 2).await, []);
}

pub async fn layers_in_use_are_those_of_builds(store: S) {
    let owner = insert(&store, None, "base").await;
    for _ in 0..2 {
        let mut one = build(&owner.id, 0);
        one.state = BuildState::Ready(image());
        store.build_insert(&one).await.expect("inserted");
    }
    let put = async |key, layer| {
        store
            .layer_cache_put(key, layer, "{}")
            .await
            .expect("cached");
    };
    put("k1", "sha256:old").await;
    put("k1", "sha256:c").await;
    put("k2", "sha256:a").await;
    let in_use = async || store.layers_in_use().await.expect("listed");
    assert_eq!(in_use().await, ["sha256:a", "sha256:b"]);
    store.template_remove(&owner.id).await.expect("removed");
    assert!(in_use().await.is_empty());
    let cached = async || store.layers_cached().await.expect("listed");
    put("k3", "sha256:a").await;
    assert_eq!(cached().await, ["sha256:a", "sha256:c"]);
    for _ in 0..2 {
        let forgotten = store.layer_cache_forget("sha256:a").await;
        forgotten.expect("forgotten");
    }
    assert_eq!(cached().await, ["sha256:c"]);
    let cached = store.layer_cache_get("k1").await.expect("asked");
    assert_eq!(cached, Some(("sha256:c".to_owned(), "{}".to_owned())));
    let absent = store.layer_cache_get("k3").await.expect("asked");
    assert_eq!(absent, None);
}
