//! Workspaces: made, used, removed; and the log of it.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use common::{PATIENCE, World, admin, eventually, owner, request};
use woodfrog_engine::Engine;
use woodfrog_store::{
    AuditStore as _, KeyStore as _, SandboxStore as _, SecretStore as _, WorkspaceStore as _,
};
use woodfrog_types::audit::{AuditOutcome, NewAuditEntry};
use woodfrog_types::key::Principal;
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox::SandboxFilter;
use woodfrog_types::workspace::{UserId, Workspace};
use woodfrog_types::{Code, Timestamp, WorkspaceId};

fn page() -> PageRequest {
    PageRequest {
        limit: 100,
        cursor: None,
    }
}

async fn team(engine: &Engine) -> (Workspace, Principal) {
    let ann = UserId::parse("ann");
    let made = engine
        .workspace_create(&admin(), "team", ann)
        .await
        .unwrap();
    let me = Principal {
        workspace: made.id.clone(),
        user: made.owner.clone(),
        ..owner()
    };
    (made, me)
}

async fn fill(world: &World, engine: &Engine, me: &Principal) {
    for _ in 0..3 {
        engine.sandbox_create(me, request()).await.unwrap();
    }
    let workspace = me.workspace.clone();
    let key = woodfrog_engine::NewKey::new("ci", workspace);
    engine.key_create(&admin(), key).await.unwrap();
    let value = woodfrog_engine::SecretValue::new("s3cret".to_owned());
    let made = engine.secret_create(me, "token", &value, Default::default());
    made.await.unwrap();
    engine.volume_create(me, "data", None).await.unwrap();
    let page = page();
    let listed = world.store.secret_list(&me.workspace, &page).await.unwrap();
    assert_eq!(listed.items.len(), 1);
}

async fn nothing_is_left(world: &World, id: &WorkspaceId) {
    let store = &world.store;
    eventually("the workspace is gone", async || {
        store.workspace_fetch(id).await.unwrap().is_none()
    })
    .await;
    let all = SandboxFilter::default();
    let sandboxes = store.sandbox_list(id, &all, &page()).await.unwrap();
    assert!(sandboxes.items.is_empty());
    assert!(store.key_list(Some(id)).await.unwrap().is_empty());
    assert!(store.member_list(id).await.unwrap().is_empty());
    let secrets = store.secret_list(id, &page()).await.unwrap();
    assert!(secrets.items.is_empty());
}

#[tokio::test]
async fn a_workspace_goes_with_all_it_has() {
    let world = World::new();
    let engine = world.ready().await;
    let (team, me) = team(&engine).await;
    fill(&world, &engine, &me).await;
    engine.workspace_remove(&me).await.unwrap();
    let refused = engine.sandbox_create(&me, request()).await.unwrap_err();
    assert_eq!(refused.code, Code::WorkspaceNotFound);
    nothing_is_left(&world, &team.id).await;
    // Its log stays, and ends with the removal.
    let log = world.store.audit_read(&team.id, 0, 100).await.unwrap();
    assert_eq!(log.last().unwrap().entry.action, "workspace.removed");
    // The machine has none of its sandboxes.
    assert_eq!(engine.owners(), 0);
}

#[tokio::test]
async fn a_removal_goes_on_where_the_server_before_died() {
    let world = World::new();
    let engine = world.ready().await;
    let (team, me) = team(&engine).await;
    fill(&world, &engine, &me).await;
    engine.shutdown().await;
    drop(engine);
    // The mark is all that the server before wrote.
    let marked = Workspace {
        generation: team.generation + 1,
        removing_since: Some(Timestamp::now()),
        ..team.clone()
    };
    world.store.workspace_update(&marked).await.unwrap();
    let engine = world.start().await;
    nothing_is_left(&world, &team.id).await;
    assert!(
        engine
            .workspace_removals(&admin())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_default_workspace_is_always_there() {
    let world = World::new();
    let engine = world.start().await;
    let found = engine.workspace_fetch(&owner()).await.unwrap();
    assert_eq!(found.name, Workspace::DEFAULT_NAME);
    let refused = engine.workspace_remove(&owner()).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
}

fn entry(number: usize) -> NewAuditEntry {
    NewAuditEntry {
        workspace: WorkspaceId::default_workspace(),
        at: Timestamp::now(),
        actor: UserId::operator(),
        key: None,
        action: "sandbox.create".to_owned(),
        target: number.to_string(),
        outcome: AuditOutcome::Done,
        detail: "201".to_owned(),
        face: "native".to_owned(),
        request_id: String::new(),
    }
}

#[tokio::test]
async fn two_servers_write_one_log() {
    let world = World::new();
    let (one, two) = (world.start().await, world.start().await);
    let mut writers = tokio::task::JoinSet::new();
    for (place, engine) in [one.clone(), two].into_iter().enumerate() {
        writers.spawn(async move {
            for number in 0..50 {
                engine.audit_later(entry(place * 50 + number)).await;
                if number % 10 == 0 {
                    engine.audit_durable(entry(1000)).await.unwrap();
                }
            }
            engine.shutdown().await;
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let engine = world.start().await;
    let check = engine.audit_verify(&admin()).await.unwrap();
    assert_eq!((check.entries, check.flaw), (110, None));
    // Each server's entries are in its order.
    let log = world
        .store
        .audit_read(&WorkspaceId::default_workspace(), 0, 1000)
        .await
        .unwrap();
    let targets = log
        .iter()
        .filter_map(|one| one.entry.target.parse::<usize>().ok());
    let targets: Vec<usize> = targets.filter(|target| *target < 1000).collect();
    let (first, second): (Vec<_>, Vec<_>) = targets.into_iter().partition(|one| *one < 50);
    assert!(first.is_sorted() && second.is_sorted());
    assert_eq!((first.len(), second.len()), (50, 50));
    drop(one);
}

#[tokio::test]
async fn a_quota_holds_when_many_ask_at_once() {
    let world = World::new();
    let engine = world.ready().await;
    let (_, me) = team(&engine).await;
    let mut limits = engine.limits_fetch(&me).await.unwrap().limits;
    limits.sandboxes = Some(3);
    engine.limits_set(&me, limits, Some(0)).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (engine, me) = (engine.clone(), me.clone());
        asked.spawn(async move { engine.sandbox_create(&me, request()).await.is_ok() });
    }
    let mut made = 0;
    while let Some(one) = asked.join_next().await {
        made += usize::from(one.unwrap());
    }
    assert_eq!(made, 3);
}

#[tokio::test]
async fn a_member_who_goes_takes_the_power_of_their_keys_along() {
    let world = World::new();
    let engine = world.start().await;
    let (team, me) = team(&engine).await;
    let bob = UserId::parse("bob").unwrap();
    let role = woodfrog_types::workspace::Role::Admin;
    engine.member_add(&me, &bob, role).await.unwrap();
    let request = woodfrog_engine::NewKey {
        user: Some(bob.clone()),
        role,
        ..woodfrog_engine::NewKey::new("bob", team.id.clone())
    };
    let made = engine.key_create(&admin(), request).await.unwrap();
    let secret = format!("wf_{}", made.secret_hex);
    let was = engine.authenticate(&secret).await.unwrap();
    assert_eq!((was.role, &was.user), (role, &bob));
    let watching = {
        let (engine, secret) = (engine.clone(), secret.clone());
        tokio::spawn(async move { engine.revoked(&secret, None, &was).await })
    };
    let member = woodfrog_types::workspace::Role::Member;
    engine.member_role(&me, &bob, member).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, watching).await;
    ended.expect("who is less is asked again").unwrap();
    assert_eq!(engine.authenticate(&secret).await.unwrap().role, member);
    engine.member_remove(&me, &bob).await.unwrap();
    let refused = engine.authenticate(&secret).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
}
