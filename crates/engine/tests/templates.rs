//! Templates and builds; and the keys that open the server.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::time::Duration;

use common::{World, eventually, owner, request, stranger};
use woodfrog_engine::{
    Engine, FileSlot, NewKey, NewTemplate, StartBuild, TemplateBase, TemplateStep,
};
use woodfrog_sandbox::fake::Outcome;
use woodfrog_store::{SnapshotStore as _, TemplateStore as _};
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::page::PageRequest;
use woodfrog_types::snapshot::{SnapshotFilter, SnapshotPurpose, SnapshotState};
use woodfrog_types::template::{Build, BuildState, SecurityOptions};
use woodfrog_types::{Code, WorkspaceId};

fn new(name: &str) -> NewTemplate {
    NewTemplate {
        name: name.to_owned(),
        tags: Vec::new(),
        resources: None,
    }
}

fn run(command: &str) -> TemplateStep {
    TemplateStep::Run {
        command: command.to_owned(),
        user: None,
        force: false,
    }
}

fn build_of(steps: Vec<TemplateStep>) -> StartBuild {
    StartBuild {
        base: TemplateBase::Image {
            reference: "debian:12".to_owned(),
            username: None,
            password: None,
        },
        steps,
        start_cmd: None,
        ready_cmd: None,
        force: false,
    }
}

/// Builds under a name; returns the build as it ended.
async fn build(engine: &Engine, name: &str, request: StartBuild) -> Build {
    build_as(engine, &owner(), name, request).await
}

async fn build_as(engine: &Engine, me: &Principal, name: &str, request: StartBuild) -> Build {
    let view = engine.template_request(me, new(name)).await.unwrap();
    let (template, id) = (view.template.id, view.build.id);
    engine
        .template_build(me, &template, &id, request)
        .await
        .unwrap();
    let fetch = async || engine.build_fetch(me, &template, &id).await.unwrap().build;
    eventually("the build ends", async || {
        matches!(
            fetch().await.state,
            BuildState::Ready(_) | BuildState::Failed { .. }
        )
    })
    .await;
    fetch().await
}

fn layers(build: &Build) -> &[String] {
    match &build.state {
        BuildState::Ready(image) => &image.layers,
        other => panic!("not ready: {other:?}"),
    }
}

#[tokio::test]
async fn steps_become_layers_once() {
    let world = World::new();
    let engine = world.start().await;
    world.driver.guest().on_command(
        "apt",
        [Outcome {
            stdout: "Get:1\nDone".into(),
            code: 0,
        }],
    );
    let steps = vec![
        TemplateStep::Env {
            pairs: vec![("A".into(), "1".into())],
        },
        TemplateStep::Workdir { path: "app".into() },
        run("apt install x"),
        TemplateStep::User {
            name: "root".into(),
        },
        run("make"),
    ];
    let first = build(&engine, "app", build_of(steps.clone())).await;
    assert_eq!(layers(&first).len(), 3, "two commands above the base");
    let BuildState::Ready(image) = &first.state else {
        unreachable!()
    };
    assert_eq!(image.workdir.as_deref(), Some("/home/user/app"));
    assert_eq!(image.user, "root");
    assert_eq!(image.env["A"], "1");
    assert!(world.driver.sandboxes().is_empty());
    let log = engine.build_log(&owner(), &first.id, 0, 100).await.unwrap();
    let lines: Vec<_> = log.iter().map(|line| line.message.as_str()).collect();
    assert!(lines.contains(&"Done"), "{lines:?}");
    assert!(log.iter().any(|line| line.step.as_deref() == Some("3")));

    let commands = world.driver.guest().commands().len();
    let again = build(&engine, "app", build_of(steps.clone())).await;
    assert_eq!(layers(&again), layers(&first));
    assert_eq!(
        world.driver.guest().commands().len(),
        commands,
        "all cached"
    );

    let mut forced = build_of(steps);
    forced.force = true;
    let third = build(&engine, "app", forced).await;
    assert_ne!(layers(&third), layers(&first));

    let mut wanted = request();
    wanted.template = "app".into();
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    assert_eq!(view.sandbox.build, third.id);
}

#[tokio::test]
async fn a_failed_step_says_which_and_leaves_nothing() {
    let world = World::new();
    let mut options = world.options();
    // One of its commands never succeeds.
    options.ready_timeout = Duration::from_millis(800);
    let engine = world.start_with(options).await;
    let code = |code| Outcome {
        stdout: "boom".into(),
        code,
    };
    world.driver.guest().on_command("false", [code(3)]);
    let failed = build(&engine, "app", build_of(vec![run("true"), run("false")])).await;
    let BuildState::Failed { message, step } = &failed.state else {
        panic!("{failed:?}")
    };
    assert_eq!(step.as_deref(), Some("2"));
    assert!(message.contains("exit status 3"), "{message}");
    eventually("its sandbox is gone", async || {
        world.driver.sandboxes().is_empty()
    })
    .await;
    let mut wanted = request();
    wanted.template = "app".into();
    let fault = engine.sandbox_create(&owner(), wanted).await.unwrap_err();
    assert_eq!(fault.code, Code::TemplateNotReady);

    let mut missing = build_of(Vec::new());
    missing.base = TemplateBase::Image {
        reference: "missing:1".into(),
        username: None,
        password: None,
    };
    let failed = build(&engine, "other", missing).await;
    assert!(matches!(failed.state, BuildState::Failed { step: Some(step), .. } if step == "base"));

    world.driver.guest().on_command("is-up", [code(1)]);
    let mut never = build_of(Vec::new());
    never.ready_cmd = Some("is-up".into());
    let failed = build(&engine, "third", never).await;
    assert!(
        matches!(failed.state, BuildState::Failed { step: Some(step), .. } if step == "finalize")
    );
}

#[tokio::test]
async fn start_commands_run_in_every_sandbox() {
    let world = World::new();
    let engine = world.start().await;
    let code = |code| Outcome {
        stdout: String::new(),
        code,
    };
    world.driver.guest().on_command("is-up", [code(1), code(0)]);
    let mut request_build = build_of(Vec::new());
    request_build.start_cmd = Some("serve".into());
    request_build.ready_cmd = Some("is-up".into());
    build(&engine, "web", request_build).await;
    let before = world.driver.guest().commands().len();
    let mut wanted = request();
    wanted.template = "web".into();
    engine.sandbox_create(&owner(), wanted).await.unwrap();
    assert_eq!(
        world.driver.guest().commands()[before..],
        ["serve", "is-up"]
    );
}

#[tokio::test]
async fn files_are_uploaded_once_and_copied() {
    let world = World::new();
    let engine = world.start().await;
    let me = owner();
    let view = engine.template_request(&me, new("app")).await.unwrap();
    let template = &view.template.id;
    let hash = "ab".repeat(32);
    let slot = engine.template_file(&me, template, &hash).await.unwrap();
    let FileSlot::Upload { token } = slot else {
        panic!("present before the upload")
    };
    let body = || futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"archive"))]);
    engine.template_file_upload(&token, body()).await.unwrap();
    let twice = engine.template_file_upload(&token, body()).await;
    assert_eq!(twice.unwrap_err().code, Code::NotFound);
    let slot = engine.template_file(&me, template, &hash).await.unwrap();
    assert_eq!(slot, FileSlot::Present);
    let bad = engine
        .template_file(&me, template, "../../etc/passwd")
        .await;
    assert_eq!(bad.unwrap_err().code, Code::InvalidArgument);
    let foreign = engine.template_file(&stranger(), template, &hash).await;
    assert_eq!(foreign.unwrap_err().code, Code::TemplateNotFound);

    let copy = TemplateStep::Copy {
        src: "src".into(),
        dst: "/app".into(),
        user: None,
        mode: None,
        files_hash: hash,
        force: false,
    };
    let built = build(&engine, "app", build_of(vec![copy])).await;
    assert_eq!(layers(&built).len(), 2);
    let copies = world.images.copies.lock().unwrap();
    assert_eq!(std::fs::read(&copies[0].archive).unwrap(), b"archive");
}

#[tokio::test]
async fn layers_are_cached_for_their_workspace_only() {
    let world = World::new();
    let engine = world.start().await;
    let hash = "cd".repeat(32);
    let copy = TemplateStep::Copy {
        src: "src".into(),
        dst: "/app".into(),
        user: None,
        mode: None,
        files_hash: hash.clone(),
        force: false,
    };
    let steps = vec![run("make"), copy];
    let mut made = Vec::new();
    // The second claims the same hash for something else.
    for (me, content) in [(owner(), &b"harmless"[..]), (stranger(), &b"not that"[..])] {
        let view = engine.template_request(&me, new("app")).await.unwrap();
        let slot = engine.template_file(&me, &view.template.id, &hash).await;
        let FileSlot::Upload { token } = slot.unwrap() else {
            panic!("another's upload is here")
        };
        let body = futures_util::stream::iter([Ok(bytes::Bytes::copy_from_slice(content))]);
        engine.template_file_upload(&token, body).await.unwrap();
        let copies = || world.images.copies.lock().unwrap().len();
        let (commands, before) = (world.driver.guest().commands().len(), copies());
        let built = build_as(&engine, &me, "app", build_of(steps.clone())).await;
        assert_eq!(copies(), before + 1, "its own files are copied");
        let archive = world.images.copies.lock().unwrap()[before].archive.clone();
        assert_eq!(std::fs::read(archive).unwrap(), content);
        let ran = world.driver.guest().commands().len();
        assert!(ran > commands, "its own command is run");
        let again = build_as(&engine, &me, "app", build_of(steps.clone())).await;
        assert_eq!(layers(&again), layers(&built), "its own layers are used");
        assert_eq!(
            (world.driver.guest().commands().len(), copies()),
            (ran, before + 1)
        );
        made.push(layers(&built)[1].clone());
    }
    assert_ne!(made[0], made[1], "a command's layer");
}

#[tokio::test]
async fn uploads_are_bounded() {
    let world = World::new();
    let mut options = world.options();
    options.upload_bytes_max = 10;
    let engine = world.start_with(options).await;
    let me = owner();
    let view = engine.template_request(&me, new("app")).await.unwrap();
    let hash = "ab".repeat(32);
    let slot = engine.template_file(&me, &view.template.id, &hash).await;
    let FileSlot::Upload { token } = slot.unwrap() else {
        panic!("present before the upload")
    };
    let body = futures_util::stream::iter((0..9).map(|_| Ok(bytes::Bytes::from_static(b"xx"))));
    let fault = engine.template_file_upload(&token, body).await.unwrap_err();
    assert_eq!(fault.code, Code::TooLarge);
    let slot = engine.template_file(&me, &view.template.id, &hash).await;
    assert!(matches!(slot.unwrap(), FileSlot::Upload { .. }));
}

#[tokio::test]
async fn tags_move_and_go() {
    let world = World::new();
    let engine = world.start().await;
    let me = owner();
    let built = build(&engine, "app:v1", build_of(Vec::new())).await;
    assert_eq!(built.tags, ["v1"]);
    let stable = ["stable".to_owned()];
    let view = engine.template_tag(&me, "app:v1", &stable).await.unwrap();
    assert_eq!(view.build.id, built.id);
    let mut wanted = request();
    wanted.template = "app:stable".into();
    engine.sandbox_create(&me, wanted.clone()).await.unwrap();
    engine.template_untag(&me, "app", &stable).await.unwrap();
    let fault = engine.sandbox_create(&me, wanted).await.unwrap_err();
    assert_eq!(fault.code, Code::TemplateNotReady);
    let foreign = engine.template_delete(&stranger(), "app").await;
    assert_eq!(foreign.unwrap_err().code, Code::TemplateNotFound);
    engine.template_delete(&me, "app").await.unwrap();
    let gone = engine.template_resolve(&me, "app").await;
    assert_eq!(gone.unwrap_err().code, Code::TemplateNotFound);
}

#[tokio::test]
async fn the_base_is_made_at_its_first_use() {
    let world = World::new();
    let engine = world.start().await;
    let fault = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::TemplateNotReady);
    eventually("a sandbox can be made", async || {
        engine.sandbox_create(&owner(), request()).await.is_ok()
    })
    .await;
    let fault = engine.template_delete(&owner(), "base").await.unwrap_err();
    assert_eq!(fault.code, Code::PermissionDenied);
}

#[tokio::test]
async fn a_restart_ends_unfinished_builds() {
    let world = World::new();
    let engine = world.start().await;
    let view = engine.template_request(&owner(), new("app")).await.unwrap();
    let mut building = view.build.clone();
    building.state = BuildState::Building;
    engine.shutdown().await;
    world.store.build_update(&building).await.unwrap();
    let engine = world.start().await;
    let view = engine
        .build_fetch(&owner(), &view.template.id, &building.id)
        .await
        .unwrap();
    assert!(
        matches!(view.build.state, BuildState::Failed { message, .. } if message.contains("restarted"))
    );
}

#[tokio::test]
async fn keys_open_and_close() {
    let world = World::new();
    let engine = world.start().await;
    let first = engine.bootstrap_admin_key().await.unwrap().unwrap();
    assert!(engine.bootstrap_admin_key().await.unwrap().is_none());
    let admin = format!("wf_{}", first.secret_hex);
    let admin = engine.authenticate(&admin).await.unwrap();
    assert_eq!(admin.scope, Scope::Admin);
    let request = NewKey::new("ci", WorkspaceId::generate());
    let made = engine.key_create(&admin, request.clone()).await.unwrap();
    let text = format!("e2b_{}", made.secret_hex);
    let ci = engine.authenticate(&text).await.unwrap();
    assert_eq!(ci.workspace, request.workspace);
    for refused in [
        engine.key_create(&ci, request).await.map(|_| ()),
        engine.key_list(&ci).await.map(|_| ()),
        engine.key_revoke(&ci, &made.key.id).await,
    ] {
        assert_eq!(refused.unwrap_err().code, Code::PermissionDenied);
    }
    eventually("its use is recorded", async || {
        let keys = engine.key_list(&admin).await.unwrap();
        keys.iter().all(|key| key.last_used_at.is_some())
    })
    .await;
    engine.key_revoke(&admin, &made.key.id).await.unwrap();
    for bad in [text.as_str(), "", "wf_", "e2b_zz"] {
        let fault = engine.authenticate(bad).await.unwrap_err();
        assert_eq!(fault.code, Code::Unauthenticated, "{bad}");
    }
    let again = engine.key_revoke(&admin, &made.key.id).await.unwrap_err();
    assert_eq!(again.code, Code::KeyNotFound);
}

#[tokio::test]
async fn development_takes_any_key() {
    let world = World::new();
    let mut options = world.options();
    options.keys = woodfrog_engine::KeyPolicy::AcceptAny;
    let engine = world.start_with(options).await;
    let anybody: Principal = engine.authenticate("whatever").await.unwrap();
    assert_eq!(anybody.scope, Scope::Admin);
    assert_eq!(anybody.workspace, WorkspaceId::default_workspace());
}

#[tokio::test]
async fn security_is_the_build_s_and_reaches_new_sandboxes_only() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    build(&engine, "nest", build_of(vec![run("true")])).await;
    let create = async || {
        let mut request = request();
        request.template = "nest".to_owned();
        let view = engine.sandbox_create(&me, request).await.unwrap();
        view.sandbox.id
    };
    let before = create().await;
    let on = SecurityOptions {
        nested_namespaces: true,
        ..SecurityOptions::default()
    };
    let set = engine.template_security(&me, "nest", on).await.unwrap();
    let BuildState::Ready(image) = &set.build.state else {
        panic!("not ready: {:?}", set.build.state)
    };
    assert_eq!(image.security, on);
    let after = create().await;
    let security = |id| world.driver.spec(id).unwrap().security;
    assert_eq!(security(&before), SecurityOptions::default());
    assert_eq!(security(&after), on);

    // What is built from it starts with all off.
    let from = StartBuild {
        base: TemplateBase::Template("nest".to_owned()),
        ..build_of(vec![run("true")])
    };
    let BuildState::Ready(image) = build(&engine, "child", from).await.state else {
        panic!("not ready")
    };
    assert_eq!(image.security, SecurityOptions::default());

    let refused = async |who: &Principal, name: &str| {
        let refused = engine.template_security(who, name, on).await;
        refused.unwrap_err().code
    };
    assert_eq!(refused(&stranger(), "nest").await, Code::TemplateNotFound);
    let by_id = set.template.id.as_str();
    assert_eq!(refused(&stranger(), by_id).await, Code::TemplateNotFound);
    assert_eq!(refused(&me, "base").await, Code::PermissionDenied);
    assert_eq!(refused(&me, "nest:v2").await, Code::TemplateNotReady);
    let admin = Principal {
        scope: Scope::Admin,
        ..owner()
    };
    engine.template_security(&admin, "base", on).await.unwrap();
}

#[tokio::test]
async fn a_template_is_started_once_and_its_sandboxes_begin_there() {
    let world = World::new();
    let mut options = world.options();
    options.warm = true;
    let engine = world.start_with(options.clone()).await;
    let mut request_build = build_of(Vec::new());
    request_build.start_cmd = Some("serve".into());
    build(&engine, "web", request_build).await;
    let mut wanted = request();
    wanted.template = "web".into();
    // The first one boots, and has the template started beside it.
    let first = engine.sandbox_create(&owner(), wanted.clone()).await;
    eventually("it was started", async || {
        let all = world.store.snapshot_all().await.unwrap();
        all.iter().any(|snapshot| {
            matches!(snapshot.purpose, SnapshotPurpose::Warm { .. })
                && snapshot.state == SnapshotState::Ready
        }) && world.driver.sandboxes().len() == 1
            && world.driver.kept_disks().is_empty()
    })
    .await;
    assert_eq!(world.driver.sandboxes(), [first.unwrap().sandbox.id]);
    let started = || {
        let commands = world.driver.guest().commands();
        commands.iter().filter(|line| *line == "serve").count()
    };
    let before = started();
    wanted.env.insert("MINE".into(), "1".into());
    eventually("it is used", async || {
        engine
            .sandbox_create(&owner(), wanted.clone())
            .await
            .unwrap();
        world.driver.restores() > 0
    })
    .await;
    let heard = world.driver.guest().heard();
    let told = heard.iter().rev().find_map(|heard| match &heard.request {
        woodfrog_guest_client::proto::Request::Configure(configure) => configure.env.clone(),
        _ => None,
    });
    assert_eq!(told.unwrap()["MINE"], "1");
    // It is nobody's: lists do not show it.
    let page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let filter = SnapshotFilter::default();
    let listed = engine.snapshot_list(&owner(), filter, page).await;
    assert!(listed.unwrap().items.is_empty());
    let so_far = started();
    assert!(so_far <= before + 1);
    // The next server knows it, and where it is lost sandboxes boot.
    engine.shutdown().await;
    let engine = world.start_with(options).await;
    engine
        .sandbox_create(&owner(), wanted.clone())
        .await
        .unwrap();
    assert_eq!(started(), so_far);
    for snapshot in world.driver.snapshots() {
        world.driver.lose_snapshot(&snapshot);
    }
    engine.sandbox_create(&owner(), wanted).await.unwrap();
    assert_eq!(started(), so_far + 1);
    engine.template_delete(&owner(), "web").await.unwrap();
    assert!(world.store.snapshot_all().await.unwrap().is_empty());
}
