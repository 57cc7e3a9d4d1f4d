//! The life of sandboxes: create, look, change, expire, end.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use common::{MUTE, PATIENCE, World, eventually, owner, request, stranger};
use woodfrog_engine::{
    CreateSandbox, DeadlineChange, ForkRequest, HibernateRequest, ResumeRequest, SecretValue,
};
use woodfrog_sandbox::fake::Call;
use woodfrog_store::{EventStore as _, SandboxStore as _};
use woodfrog_types::network::Hidden;
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox::{SandboxFilter, SandboxState};
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, SandboxId, Timestamp};

#[tokio::test]
async fn a_sandbox_runs_until_it_is_deleted() {
    let world = World::new();
    let engine = world.ready().await;
    let mut wanted = request();
    wanted.env.insert("A".into(), "1".into());
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    let id = view.sandbox.id.clone();
    let stored = world.store.sandbox_fetch(&id).await.unwrap().unwrap();
    assert!(matches!(stored.state, SandboxState::Running { .. }));
    assert_eq!(stored, view.sandbox);

    let access = engine.access(&id).await.unwrap();
    assert_eq!(access.access_token, view.access_token);
    assert_eq!(access.default_user, "user");
    assert_eq!(
        engine
            .guest(&id)
            .await
            .unwrap()
            .hello()
            .await
            .unwrap()
            .version,
        "fake"
    );
    let found = engine
        .access_by_signature(|access| access.access_token == view.access_token)
        .await;
    assert_eq!(found.map(|access| access.id), Some(id.clone()));

    let lease = engine.guest(&id).await.unwrap();
    engine.sandbox_delete(&owner(), &id).await.unwrap();
    tokio::time::timeout(PATIENCE, lease.ended()).await.unwrap();
    for code in [
        engine.sandbox_fetch(&owner(), &id).await.unwrap_err().code,
        engine.sandbox_delete(&owner(), &id).await.unwrap_err().code,
        engine.access(&id).await.unwrap_err().code,
        engine.guest(&id).await.err().unwrap().code,
    ] {
        assert_eq!(code, Code::SandboxNotFound);
    }
    assert!(world.driver.sandboxes().is_empty());
    assert_eq!(world.store.sandbox_fetch(&id).await.unwrap(), None);
    let kinds: Vec<_> = world.store.event_list(&id, 0, 10).await.unwrap();
    let kinds: Vec<_> = kinds.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["sandbox.created", "sandbox.deleted"]);
}

#[tokio::test]
async fn the_guest_is_told_its_environment() {
    use woodfrog_guest_client::proto::Request;
    let world = World::new();
    let engine = world.ready().await;
    let mut wanted = request();
    wanted.env.insert("PATH".into(), "/mine".into());
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    let heard = world.driver.guest().heard();
    let Request::Configure(configure) = &heard[0].request else {
        panic!("not configured first: {heard:?}")
    };
    let env = configure.env.as_ref().unwrap();
    assert_eq!(env["PATH"], "/mine");
    assert_eq!(env["E2B_SANDBOX"], "true");
    assert_eq!(env["E2B_SANDBOX_ID"], view.sandbox.id.as_str());
    let files = &configure.files;
    assert_eq!(files["/run/e2b/.E2B_SANDBOX"], "true");
    assert_eq!(files["/run/e2b/.E2B_SANDBOX_ID"], view.sandbox.id.as_str());
    assert_eq!(
        files["/run/e2b/.E2B_TEMPLATE_ID"],
        view.sandbox.template.as_str()
    );
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let world = World::new();
    let mut options = world.options();
    options.guest_timeout = MUTE;
    let engine = world.ready_with(options).await;
    for call in [Call::Launch, Call::Connect] {
        world.driver.set_broken(call, true);
        let fault = engine
            .sandbox_create(&owner(), request())
            .await
            .unwrap_err();
        assert_eq!(fault.code, Code::CreateFailed, "{call:?}");
        world.driver.set_broken(call, false);
        assert!(world.driver.sandboxes().is_empty(), "{call:?}");
        assert!(
            world.store.sandbox_all().await.unwrap().is_empty(),
            "{call:?}"
        );
    }
    world.driver.guest().set_mute(true);
    let fault = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::CreateFailed);
    world.driver.guest().set_mute(false);
    assert!(world.driver.sandboxes().is_empty());
    assert!(world.store.sandbox_all().await.unwrap().is_empty());
    engine.sandbox_create(&owner(), request()).await.unwrap();
}

type Spoil = fn(&mut CreateSandbox);

#[tokio::test]
async fn bad_requests_are_refused_before_anything_happens() {
    let world = World::new();
    let engine = world.ready().await;
    let cases: Vec<(Spoil, Code)> = vec![
        (|r| r.timeout = Some(Duration::ZERO), Code::InvalidArgument),
        (|r| r.timeout = Some(Duration::MAX), Code::InvalidArgument),
        (|r| r.template = "../x".into(), Code::InvalidArgument),
        (|r| r.template = "nope".into(), Code::TemplateNotFound),
        (|r| r.template = "base:nope".into(), Code::TemplateNotReady),
        (
            |r| r.network.deny_out = vec!["x.de".into()],
            Code::InvalidArgument,
        ),
        (
            |r| {
                r.network.header_rules.insert("*".into(), BTreeMap::new());
            },
            Code::InvalidArgument,
        ),
        (
            |r| {
                r.env.insert("A=B".into(), String::new());
            },
            Code::InvalidArgument,
        ),
        (
            |r| r.idempotency_key = Some("ä".into()),
            Code::InvalidArgument,
        ),
        (
            |r| {
                r.secure = false;
                r.network.allow_public_traffic = false;
            },
            Code::InvalidArgument,
        ),
    ];
    for (index, (spoil, code)) in cases.into_iter().enumerate() {
        let mut bad = request();
        spoil(&mut bad);
        let result = engine.sandbox_create(&owner(), bad).await;
        assert_eq!(result.unwrap_err().code, code, "case {index}");
    }
    assert_eq!(world.driver.calls(Call::Launch), 0);
}

#[tokio::test]
async fn fifty_at_once_all_run_and_all_go() {
    let world = World::new();
    let engine = world.ready().await;
    world
        .driver
        .set_delay(Call::Launch, Duration::from_millis(5));
    let creates = (0..50).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.sandbox_create(&owner(), request()).await })
    });
    let mut ids = HashSet::new();
    for create in creates.collect::<Vec<_>>() {
        ids.insert(create.await.unwrap().unwrap().sandbox.id);
    }
    assert_eq!(ids.len(), 50);
    assert_eq!(engine.sandbox_count(&owner()).await.unwrap(), 50);
    let deletes: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.sandbox_delete(&owner(), &id).await })
        })
        .collect();
    for delete in deletes {
        delete.await.unwrap().unwrap();
    }
    assert!(world.driver.sandboxes().is_empty());
    assert_eq!(engine.sandbox_count(&owner()).await.unwrap(), 0);
}

#[tokio::test]
async fn of_many_deletes_one_wins() {
    let world = World::new();
    let engine = world.ready().await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    world
        .driver
        .set_delay(Call::Destroy, Duration::from_millis(20));
    let deletes: Vec<_> = (0..8)
        .map(|_| {
            let (engine, id) = (engine.clone(), id.clone());
            tokio::spawn(async move { engine.sandbox_delete(&owner(), &id).await })
        })
        .collect();
    let mut won = 0;
    for delete in deletes {
        match delete.await.unwrap() {
            Ok(()) => won += 1,
            Err(fault) => assert_eq!(fault.code, Code::SandboxNotFound),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn caps_hold_and_places_come_back() {
    let world = World::new();
    let mut options = world.options();
    options.caps.workspace = 2;
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let first = engine.sandbox_create(&owner(), request()).await.unwrap();
    engine.sandbox_create(&owner(), request()).await.unwrap();
    let fault = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::RateLimited);
    engine.sandbox_create(&stranger(), request()).await.unwrap();
    engine
        .sandbox_delete(&owner(), &first.sandbox.id)
        .await
        .unwrap();
    eventually("a place is free", async || {
        engine.sandbox_create(&owner(), request()).await.is_ok()
    })
    .await;
}

/// Whether it is at least that far away.
fn is_later(deadline: Option<Timestamp>, than: Duration) -> bool {
    deadline.is_some_and(|at| at > Timestamp::now().plus(than))
}

#[tokio::test]
async fn deadlines_end_sandboxes_and_can_be_moved() {
    let world = World::new();
    let engine = world.ready().await;
    let create = |millis| {
        let mut wanted = request();
        wanted.timeout = Some(Duration::from_millis(millis));
        let engine = engine.clone();
        async move {
            engine
                .sandbox_create(&owner(), wanted)
                .await
                .unwrap()
                .sandbox
                .id
        }
    };
    let extend = async |id: &SandboxId| {
        let much = DeadlineChange::Extend(Duration::from_secs(3600));
        engine.sandbox_deadline(&owner(), id, much).await
    };
    let short = create(60).await;
    // On a busy machine it may be over before it is saved: the next one has longer.
    let mut first = 150;
    let (saved, over) = loop {
        let began = Instant::now();
        let id = create(first).await;
        match extend(&id).await {
            Ok(view) => {
                assert!(is_later(view.sandbox.deadline, Duration::from_secs(1800)));
                break (id, Instant::now() + Duration::from_millis(first));
            }
            Err(fault) => assert!(began.elapsed().as_millis() > 100, "{fault:?}"),
        }
        first *= 2;
    };
    let (long, endless) = (create(60_000).await, create(60_000).await);
    let change = |id: &SandboxId, change| {
        let (engine, id) = (engine.clone(), id.clone());
        async move {
            engine
                .sandbox_deadline(&owner(), &id, change)
                .await
                .unwrap()
                .sandbox
                .deadline
        }
    };
    let before = change(&long, DeadlineChange::Extend(Duration::from_millis(1))).await;
    assert!(is_later(before, Duration::from_secs(30)));
    assert_eq!(change(&endless, DeadlineChange::Never).await, None);
    change(&long, DeadlineChange::Set(Duration::from_millis(30))).await;
    eventually("the short ones are gone", async || {
        Instant::now() > over && world.driver.sandboxes() == [saved.clone(), endless.clone()]
    })
    .await;
    let log = world.store.event_list(&short, 0, 10).await.unwrap();
    assert_eq!(log.last().unwrap().kind, "sandbox.expired");
    let now = engine
        .sandbox_deadline(&owner(), &endless, DeadlineChange::Set(Duration::ZERO))
        .await;
    assert!(now.is_ok());
    eventually("it ended at once", async || {
        world.driver.sandboxes() == [saved.clone()]
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_whose_init_ends_is_removed() {
    let world = World::new();
    let engine = world.ready().await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    world.driver.exit(&id, "killed by signal 9");
    eventually("it is gone", async || engine.access(&id).await.is_err()).await;
    eventually("its record is gone", async || {
        world.store.sandbox_fetch(&id).await.unwrap().is_none()
    })
    .await;
    let log = world.store.event_list(&id, 0, 10).await.unwrap();
    assert_eq!(log.last().unwrap().kind, "sandbox.exited");
}

#[tokio::test]
async fn strangers_see_nothing() {
    let world = World::new();
    let engine = world.ready().await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    let unknown = SandboxId::generate();
    let text = |id: &SandboxId, fault: woodfrog_types::Fault| {
        (fault.code, fault.message.replace(id.as_str(), "ID"))
    };
    for id in [&id, &unknown] {
        let me = stranger();
        let expected = (
            Code::SandboxNotFound,
            "Sandbox \"ID\" doesn't exist or you don't have access to it".to_owned(),
        );
        let never = DeadlineChange::Never;
        for fault in [
            engine.sandbox_fetch(&me, id).await.unwrap_err(),
            engine.sandbox_delete(&me, id).await.unwrap_err(),
            engine.sandbox_deadline(&me, id, never).await.unwrap_err(),
            engine
                .sandbox_network(&me, id, Default::default())
                .await
                .unwrap_err(),
            engine
                .sandbox_metrics(&me, id, None, None)
                .await
                .unwrap_err(),
            engine.sandbox_events(&me, id, 0, 10).await.unwrap_err(),
        ] {
            assert_eq!(text(id, fault), expected);
        }
        let latest = engine
            .sandbox_metrics_latest(&me, std::slice::from_ref(id))
            .await;
        assert!(latest.unwrap().is_empty());
    }
    let page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let listed = engine
        .sandbox_list(&stranger(), SandboxFilter::default(), page.clone())
        .await;
    assert!(listed.unwrap().items.is_empty());
    let listed = engine
        .sandbox_list(&owner(), SandboxFilter::default(), page)
        .await;
    assert_eq!(listed.unwrap().items.len(), 1);
}

#[tokio::test]
async fn network_rules_are_replaced_or_come_back() {
    let world = World::new();
    let engine = world.ready().await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    let mut rules = woodfrog_types::network::NetworkSpec {
        deny_out: vec!["10.0.0.0/8".into()],
        ..Default::default()
    };
    engine
        .sandbox_network(&owner(), &id, rules.clone())
        .await
        .unwrap();
    assert_eq!(world.driver.spec(&id).unwrap().egress.deny, rules.deny_out);
    assert_eq!(engine.access(&id).await.unwrap().network, rules);

    world.driver.set_broken(Call::SetEgress, true);
    let good = rules.clone();
    rules.internet = false;
    assert!(engine.sandbox_network(&owner(), &id, rules).await.is_err());
    assert_eq!(
        engine
            .sandbox_fetch(&owner(), &id)
            .await
            .unwrap()
            .sandbox
            .network,
        good
    );
}

#[tokio::test]
async fn metrics_appear_and_have_a_window() {
    let world = World::new();
    let engine = world.ready().await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    eventually("three samples", async || {
        engine
            .sandbox_metrics(&owner(), &id, None, None)
            .await
            .unwrap()
            .len()
            >= 3
    })
    .await;
    let all = engine
        .sandbox_metrics(&owner(), &id, None, None)
        .await
        .unwrap();
    assert!(all.iter().all(|sample| sample.mem_used == 3 << 20));
    assert!(all[1..].iter().all(|sample| sample.cpu_used_pct > 0.0));
    let early = woodfrog_types::Timestamp::from_millis(1);
    let none = engine
        .sandbox_metrics(&owner(), &id, None, Some(early))
        .await
        .unwrap();
    assert!(none.is_empty());
    let latest = engine
        .sandbox_metrics_latest(&owner(), &[id.clone(), SandboxId::generate()])
        .await
        .unwrap();
    assert_eq!(latest.len(), 1);
}

#[tokio::test]
async fn ports_are_reached_from_inside() {
    let world = World::new();
    let mut options = world.options();
    // Nobody else connects to the guest.
    options.health = None;
    let engine = world.ready_with(options).await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    let server = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = server.local_addr().unwrap().port();
    let before = world.driver.calls(Call::Connect);
    let stream = engine.port_connect(&id, port).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().port(), port);
    assert_eq!(world.driver.calls(Call::Connect), before + 1, "one try");
    drop((stream, server));
    let fault = engine.port_connect(&id, port).await.unwrap_err();
    assert_eq!(fault.code, Code::PortNotOpen);
    let gone = engine
        .port_connect(&SandboxId::generate(), port)
        .await
        .unwrap_err();
    assert_eq!(gone.code, Code::SandboxNotFound);
}

#[tokio::test]
async fn the_same_key_gives_the_same_sandbox() {
    let world = World::new();
    let engine = world.ready().await;
    let mut wanted = request();
    wanted.idempotency_key = Some("k-1".into());
    let first = engine
        .sandbox_create(&owner(), wanted.clone())
        .await
        .unwrap();
    let again = engine
        .sandbox_create(&owner(), wanted.clone())
        .await
        .unwrap();
    assert_eq!(first.sandbox.id, again.sandbox.id);
    let other = engine
        .sandbox_create(&stranger(), wanted.clone())
        .await
        .unwrap();
    assert_ne!(first.sandbox.id, other.sandbox.id);
    let mut different = wanted.clone();
    different.metadata.insert("a".into(), "b".into());
    let fault = engine
        .sandbox_create(&owner(), different)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::IdempotencyMismatch);
    engine
        .sandbox_delete(&owner(), &first.sandbox.id)
        .await
        .unwrap();
    let fault = engine
        .sandbox_create(&owner(), wanted.clone())
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::Conflict);

    // A failure frees the key.
    wanted.idempotency_key = Some("k-2".into());
    world
        .driver
        .fail_nth(Call::Launch, world.driver.calls(Call::Launch) + 1);
    assert!(
        engine
            .sandbox_create(&owner(), wanted.clone())
            .await
            .is_err()
    );
    engine.sandbox_create(&owner(), wanted).await.unwrap();
}

#[tokio::test]
async fn a_key_in_use_is_not_used_twice() {
    let world = World::new();
    let engine = world.ready().await;
    world
        .driver
        .set_delay(Call::Launch, Duration::from_millis(100));
    let mut wanted = request();
    wanted.idempotency_key = Some("k".into());
    let me = owner();
    let results = tokio::join!(
        engine.sandbox_create(&me, wanted.clone()),
        engine.sandbox_create(&me, wanted.clone()),
    );
    assert!(results.0.is_ok());
    assert_eq!(results.1.unwrap_err().code, Code::IdempotencyInProgress);
    assert_eq!(world.driver.calls(Call::Launch), 1);
}

#[tokio::test]
async fn a_broken_driver_does_not_lose_a_deletion() {
    let world = World::new();
    let engine = world.ready().await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    let calls = world.driver.calls(Call::Destroy);
    world.driver.fail_nth(Call::Destroy, calls + 1);
    world.driver.fail_nth(Call::Destroy, calls + 2);
    engine.sandbox_delete(&owner(), &id).await.unwrap();
    assert!(world.driver.sandboxes().is_empty());
}

#[tokio::test]
async fn a_shutdown_leaves_sandboxes_running() {
    let world = World::new();
    let engine = world.ready().await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    assert!(engine.ready());
    engine.shutdown().await;
    assert!(!engine.ready());
    assert_eq!(world.driver.sandboxes(), [id]);
    let fault = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
}

#[tokio::test]
async fn secrets_are_filled_into_headers() {
    let world = World::new();
    let engine = world.ready().await;
    let value = SecretValue::new("hunter2".to_owned());
    let me = owner();
    let made = engine.secret_create(&me, "key", &value, BTreeMap::new());
    made.await.unwrap();
    let with = |text: &str| {
        let text = Hidden::Plain(text.to_owned());
        let mut wanted = request();
        let headers = BTreeMap::from([("x-key".to_owned(), text)]);
        let rules = &mut wanted.network.header_rules;
        rules.insert("api.example.com".to_owned(), headers);
        wanted
    };
    let wanted = with("Bearer ${e2b.secrets.key}");
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    let id = view.sandbox.id;
    let spec = world.driver.spec(&id).unwrap();
    let Hidden::Plain(told) = &spec.egress.header_rules["api.example.com"]["x-key"] else {
        panic!("it is sealed")
    };
    assert_eq!(told, "Bearer hunter2");
    let stored = world.store.sandbox_fetch(&id).await.unwrap().unwrap();
    assert!(!format!("{stored:?}").contains("hunter2"));
    let wanted = with("Bearer ${e2b.secrets.other}");
    let fault = engine.sandbox_create(&owner(), wanted).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidArgument);
    let field = "network.header_rules.api.example.com.x-key";
    assert_eq!(fault.field.as_deref(), Some(field));
    let other = stranger();
    let theirs = engine.sandbox_create(&other, with("${e2b.secrets.key}"));
    assert_eq!(theirs.await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_changed_secret_reaches_rules_that_name_it() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let value = |text: &str| SecretValue::new(text.to_owned());
    for name in ["key", "unused"] {
        let one = value("one");
        let made = engine.secret_create(&me, name, &one, BTreeMap::new());
        made.await.unwrap();
    }
    let mut wanted = request();
    let text = Hidden::Plain("Bearer ${e2b.secrets.Key}".to_owned());
    let headers = BTreeMap::from([("x-key".to_owned(), text)]);
    let rules = &mut wanted.network.header_rules;
    rules.insert("api.example.com".to_owned(), headers);
    let made = engine.sandbox_create(&me, wanted).await.unwrap();
    let id = made.sandbox.id;
    let plain = engine.sandbox_create(&me, request()).await.unwrap();
    let told = |id: &SandboxId| {
        let spec = world.driver.spec(id).unwrap();
        match &spec.egress.header_rules["api.example.com"]["x-key"] {
            Hidden::Plain(text) => text.clone(),
            Hidden::Sealed(_) => panic!("it is sealed"),
        }
    };
    assert_eq!(told(&id), "Bearer one");
    let before = world.driver.calls(Call::SetEgress);
    let update = async |name: &str, text: &str| {
        let updated = engine.secret_update(&me, name, &value(text), None).await;
        updated.map(drop)
    };
    update("unused", "two").await.unwrap();
    assert_eq!(world.driver.calls(Call::SetEgress), before);
    update("key", "two").await.unwrap();
    assert_eq!(told(&id), "Bearer two");
    assert_eq!(
        world.driver.calls(Call::SetEgress),
        before + 1,
        "one has rules"
    );

    // A copy looks up what there is then, and so does one that slept.
    let fork = ForkRequest {
        count: 1,
        timeout: None,
    };
    let copy = engine.sandbox_fork(&me, &id, fork).await.unwrap().remove(0);
    let copy = copy.unwrap().sandbox.id;
    let sleep = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    engine.sandbox_hibernate(&me, &id, sleep).await.unwrap();
    update("key", "three").await.unwrap();
    assert_eq!(told(&copy), "Bearer three");
    let resume = ResumeRequest {
        content: SnapshotContent::Memory,
        deadline: None,
        on_timeout: None,
    };
    engine.sandbox_resume(&me, &id, resume).await.unwrap();
    assert_eq!(told(&id), "Bearer three");

    // What is no header's value is not sent, nor is what is gone; a new one of that name is.
    update("key", "a\nb").await.unwrap();
    assert_eq!(told(&id), "");
    update("key", "four").await.unwrap();
    assert_eq!(told(&copy), "Bearer four");
    engine.secret_delete(&me, "key").await.unwrap();
    assert_eq!((told(&id), told(&copy)), (String::new(), String::new()));
    let five = value("five");
    let made = engine.secret_create(&me, "key", &five, BTreeMap::new());
    made.await.unwrap();
    assert_eq!(told(&id), "Bearer five");

    // Who changes one is told where the old one is still in use; a restart looks up again.
    world.driver.set_broken(Call::SetEgress, true);
    let fault = update("key", "six").await.unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
    assert!(fault.message.contains(id.as_str()), "{fault:?}");
    assert!(
        !fault.message.contains(plain.sandbox.id.as_str()),
        "{fault:?}"
    );
    assert_eq!(told(&id), "Bearer five");
    engine.shutdown().await;
    world.driver.set_broken(Call::SetEgress, false);
    let engine = world.ready().await;
    eventually("the driver is told", async || told(&id) == "Bearer six").await;
    engine.shutdown().await;
}

#[tokio::test]
async fn ports_close_when_the_rules_say_so() {
    use woodfrog_types::network::NetworkSpec;
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let made = engine.sandbox_create(&me, request()).await.unwrap();
    let id = made.sandbox.id;
    assert_eq!(engine.access(&id).await.unwrap().traffic_token, None);
    let closed = NetworkSpec {
        allow_public_traffic: false,
        ..NetworkSpec::default()
    };
    let replaced = engine.sandbox_network(&me, &id, closed.clone()).await;
    replaced.unwrap();
    let token = engine.access(&id).await.unwrap().traffic_token.clone();
    let view = engine.sandbox_fetch(&owner(), &id).await.unwrap();
    assert!(token.is_some() && token == view.traffic_token);
    let replaced = engine.sandbox_network(&me, &id, NetworkSpec::default());
    replaced.await.unwrap();
    assert_eq!(engine.access(&id).await.unwrap().traffic_token, None);

    let mut open = request();
    open.secure = false;
    let open = engine.sandbox_create(&owner(), open).await.unwrap();
    let refused = engine.sandbox_network(&me, &open.sandbox.id, closed);
    assert_eq!(refused.await.unwrap_err().code, Code::InvalidArgument);
}
