//! Sandbox sessions follow their sandboxes. The names begin with the defect that is absent.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{World, eventually, owner, request};
use woodfrog_engine::{
    CreateSandbox, Engine, HibernateRequest, NewSandboxSession, ResumeRequest, SandboxSessionView,
    SessionCaller,
};
use woodfrog_sandbox::fake::Call;
use woodfrog_store::SandboxSessionStore;
use woodfrog_types::event::Level;
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox_session::{Framework, SandboxSessionFilter, SessionState};
use woodfrog_types::sleep::{SleepCause, SleepPolicy};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, SandboxId, Timestamp};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// An engine for which what the fake driver computes is no use of a sandbox.
async fn start(world: &World) -> Engine {
    let mut options = world.options();
    options.active_cpu_pct = 1e9;
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    engine
}

fn me() -> SessionCaller {
    SessionCaller {
        principal: owner(),
        user: None,
    }
}

async fn sandbox(engine: &Engine) -> SandboxId {
    let request = CreateSandbox {
        sleep: SleepPolicy::NEVER.into(),
        ..request()
    };
    let view = engine.sandbox_create(&owner(), request).await.unwrap();
    view.sandbox.id
}

async fn session_of(engine: &Engine, sandbox: &SandboxId, idle: Duration) -> String {
    let wanted = NewSandboxSession {
        sandbox: sandbox.to_string(),
        project: "p".to_owned(),
        user: "u".to_owned(),
        framework: Framework::Svelte,
        auto_pause: Some(idle),
    };
    let made = engine.sandbox_session_create(&me(), wanted).await.unwrap();
    assert_eq!(made.auto_pause, Some(idle));
    made.session.id.to_string()
}

async fn look(engine: &Engine, id: &str) -> SandboxSessionView {
    engine.sandbox_session_fetch(&me(), id).await.unwrap()
}

async fn set(engine: &Engine, id: &str, state: SessionState) -> SandboxSessionView {
    let moved = engine.sandbox_session_state(&me(), id, state).await;
    let moved = moved.unwrap();
    assert_eq!(moved.state, state);
    moved
}

async fn paused_by_itself(engine: &Engine, id: &str) {
    let paused = async || look(engine, id).await.state == SessionState::Paused;
    eventually("it is paused when idle", paused).await;
}

/// Freezing takes a while. Activity that is announced meanwhile is never lost: whoever was told
/// that it was noted finds the sandbox running.
#[tokio::test]
async fn z1_activity_during_pause_wins() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    world
        .driver
        .set_delay(Call::Pause, Duration::from_millis(30));
    let idle = Duration::from_millis(40);
    let id = session_of(&engine, &sandbox, idle).await;
    let mut frozen = 0;
    while frozen < 5 {
        // The driver is freezing it right now.
        let before = world.driver.calls(Call::Pause);
        eventually("it begins to be paused", async || {
            world.driver.calls(Call::Pause) > before
        })
        .await;
        frozen += 1;
        let asked = Timestamp::now();
        let active = engine.sandbox_session_activity(&me(), &id).await.unwrap();
        assert_eq!(active.state, SessionState::Running);
        assert_eq!(active.paused_at, None);
        assert!(active.last_activity >= asked);
        assert!(!world.driver.is_paused(&sandbox), "really");
    }
    // An update that is over has not put it to sleep behind our back either.
    paused_by_itself(&engine, &id).await;
}

#[tokio::test]
async fn z2_activity_really_wakes_and_killed_is_final() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    let id = session_of(&engine, &sandbox, LONG).await;
    set(&engine, &id, SessionState::Paused).await;
    assert!(world.driver.is_paused(&sandbox));
    let by_sandbox = engine
        .sandbox_session_activity_of(&me(), sandbox.as_str())
        .await;
    assert_eq!(by_sandbox.unwrap().state, SessionState::Running);
    assert!(!world.driver.is_paused(&sandbox));

    set(&engine, &id, SessionState::Killed).await;
    assert_eq!(world.driver.sandboxes(), []);
    let revived = engine.sandbox_session_activity(&me(), &id).await;
    assert_eq!(revived.unwrap_err().code, Code::Conflict);
    for state in [SessionState::Running, SessionState::Paused] {
        let revived = engine.sandbox_session_state(&me(), &id, state).await;
        assert_eq!(revived.unwrap_err().code, Code::Conflict);
    }
    assert_eq!(look(&engine, &id).await.state, SessionState::Killed);
    set(&engine, &id, SessionState::Killed).await;
}

/// Whatever else puts the sandbox to sleep, wakes or ends it, the session says so.
#[tokio::test]
async fn z3_what_happens_elsewhere_is_seen() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    let id = session_of(&engine, &sandbox, LONG).await;
    let me = owner();
    let state = async || look(&engine, &id).await.state;
    engine.sandbox_pause(&me, &sandbox).await.unwrap();
    assert_eq!(state().await, SessionState::Paused);
    let awake = ResumeRequest {
        content: SnapshotContent::Memory,
        deadline: None,
        on_timeout: None,
    };
    engine.sandbox_resume(&me, &sandbox, awake).await.unwrap();
    assert_eq!(state().await, SessionState::Running);
    let asleep = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    engine
        .sandbox_hibernate(&me, &sandbox, asleep)
        .await
        .unwrap();
    assert_eq!(state().await, SessionState::Paused);
    // Any access wakes it: the session need not be told.
    drop(engine.guest(&sandbox).await.unwrap());
    assert_eq!(state().await, SessionState::Running);
    // After its wake it still falls asleep when it is idle.
    let policy = SleepPolicy {
        pause_after: Some(Duration::from_millis(30)),
        ..SleepPolicy::NEVER
    };
    let set = engine.sandbox_sleep_policy(&me, &sandbox, policy).await;
    set.unwrap();
    paused_by_itself(&engine, &id).await;
    engine.sandbox_delete(&me, &sandbox).await.unwrap();
    assert_eq!(state().await, SessionState::Killed);
}

/// Use of the sandbox is activity, and what goes on in it keeps it awake.
#[tokio::test]
async fn z4_use_is_activity() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    let idle = Duration::from_millis(60);
    let id = session_of(&engine, &sandbox, idle).await;
    let begun = Timestamp::now();
    let lease = engine.guest(&sandbox).await.unwrap();
    // It may have been idle for long enough before.
    let pauses = world.driver.calls(Call::Pause);
    let used = look(&engine, &id).await.last_activity;
    assert!(used >= begun, "{used} is before {begun}");
    // Several times longer than it may be idle.
    eventually("time passes", async || {
        assert_eq!(look(&engine, &id).await.state, SessionState::Running);
        Timestamp::now().since(begun) > idle * 5
    })
    .await;
    assert_eq!(world.driver.calls(Call::Pause), pauses);
    drop(lease);
    paused_by_itself(&engine, &id).await;
}

/// No answer is from a memory of ours: the very next one knows.
#[tokio::test]
async fn z5_nothing_is_cached() {
    let world = World::new();
    let engine = start(&world).await;
    for _ in 0..20 {
        let sandbox = sandbox(&engine).await;
        let id = session_of(&engine, &sandbox, LONG).await;
        assert_eq!(look(&engine, &id).await.state, SessionState::Running);
        engine.sandbox_pause(&owner(), &sandbox).await.unwrap();
        assert_eq!(look(&engine, &id).await.state, SessionState::Paused);
        engine.sandbox_delete(&owner(), &sandbox).await.unwrap();
        assert_eq!(look(&engine, &id).await.state, SessionState::Killed);
    }
}

/// Pausing what sleeps already wakes nothing, and many are paused at once.
#[tokio::test]
async fn z6_pausing_wakes_nothing_and_is_not_one_by_one() {
    let world = World::new();
    let engine = start(&world).await;
    let asleep = sandbox(&engine).await;
    let id = session_of(&engine, &asleep, LONG).await;
    let request = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    let slept = engine.sandbox_hibernate(&owner(), &asleep, request).await;
    slept.unwrap();
    for _ in 0..3 {
        set(&engine, &id, SessionState::Paused).await;
        look(&engine, &id).await;
    }
    let woken = world.driver.calls(Call::Restore) + world.driver.calls(Call::Resume);
    assert_eq!(woken, 0);

    let mut ids = Vec::new();
    for _ in 0..10 {
        let sandbox = sandbox(&engine).await;
        ids.push(session_of(&engine, &sandbox, LONG).await);
    }
    let each = Duration::from_secs(1);
    world.driver.set_delay(Call::Pause, each);
    let began = std::time::Instant::now();
    let pauses = ids.iter().map(|id| {
        let (engine, id) = (engine.clone(), id.clone());
        tokio::spawn(async move { set(&engine, &id, SessionState::Paused).await })
    });
    for pause in pauses.collect::<Vec<_>>() {
        pause.await.unwrap();
    }
    assert!(began.elapsed() < each * 9, "{:?}", began.elapsed());
}

/// A pause that fails is no pause, and is told.
#[tokio::test]
async fn z7_paused_is_only_what_was_paused() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    let id = session_of(&engine, &sandbox, LONG).await;
    world.driver.set_broken(Call::Pause, true);
    let refused = engine
        .sandbox_session_state(&me(), &id, SessionState::Paused)
        .await;
    refused.unwrap_err();
    let now = look(&engine, &id).await;
    assert_eq!(now.state, SessionState::Running);
    assert_eq!(now.paused_at, None);
    assert!(!world.driver.is_paused(&sandbox));
    world.driver.set_broken(Call::Pause, false);
    set(&engine, &id, SessionState::Paused).await;
}

/// What fails by itself is tried again with a pause in between, is in the sandbox's log, and does
/// not make the session anything that its sandbox is not.
#[tokio::test]
async fn z8_failures_are_told_and_not_repeated_without_end() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    world.driver.set_broken(Call::Pause, true);
    let idle = Duration::from_millis(100);
    let began = Timestamp::now();
    let id = session_of(&engine, &sandbox, idle).await;
    eventually("it is tried again", async || {
        world.driver.calls(Call::Pause) >= 3
    })
    .await;
    let took = Timestamp::now().since(began);
    assert!(took >= idle * 3, "three tries in {took:?}");
    assert_eq!(look(&engine, &id).await.state, SessionState::Running);
    let events = engine.sandbox_session_events(&me(), &id, 0, 100).await;
    let events = events.unwrap();
    let told = events
        .iter()
        .find(|event| event.kind == "sandbox.pause_failed");
    let told = told.unwrap_or_else(|| panic!("{events:?}"));
    assert_eq!(told.level, Level::Warn);
    assert!(!told.message.is_empty());
    // Once it can be paused, it is.
    world.driver.set_broken(Call::Pause, false);
    paused_by_itself(&engine, &id).await;
}

/// How long it was asleep counts, not when it was made; what is left is the session.
#[tokio::test]
async fn z12_expiry_counts_from_sleep_and_leaves_the_session() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    let id = session_of(&engine, &sandbox, LONG).await;
    // Long enough that it is seen asleep before.
    let most = Duration::from_secs(3);
    let policy = SleepPolicy {
        delete_after: Some(most),
        ..SleepPolicy::NEVER
    };
    let set = engine
        .sandbox_sleep_policy(&owner(), &sandbox, policy)
        .await;
    set.unwrap();
    let made = Timestamp::now();
    eventually("it is older than it may sleep", async || {
        Timestamp::now().since(made) > most + Duration::from_millis(100)
    })
    .await;
    assert_eq!(look(&engine, &id).await.state, SessionState::Running);
    let request = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    let slept = engine.sandbox_hibernate(&owner(), &sandbox, request).await;
    slept.unwrap();
    assert_eq!(look(&engine, &id).await.state, SessionState::Paused);
    eventually("it expires", async || {
        look(&engine, &id).await.state == SessionState::Killed
    })
    .await;
    eventually("nothing of it is left", async || {
        let any = engine.snapshot_gc(&common::admin()).await;
        any.unwrap().removed.is_empty() && world.driver.sandboxes().is_empty()
    })
    .await;
    let killed = SandboxSessionFilter {
        state: Some(SessionState::Killed),
        ..SandboxSessionFilter::default()
    };
    let page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let listed = engine.sandbox_session_list(&me(), killed, page).await;
    assert_eq!(listed.unwrap().items.len(), 1);
    eventually("its end is recorded", async || {
        look(&engine, &id).await.session.ended_at.is_some()
    })
    .await;
    // Only what ended long ago is forgotten.
    let ended = look(&engine, &id).await.session.ended_at.unwrap();
    let store = &world.store;
    assert_eq!(store.sandbox_session_trim(ended, 10).await.unwrap(), 0);
    let later = ended.plus(Duration::from_millis(1));
    assert_eq!(store.sandbox_session_trim(later, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn z13_a_pause_leaves_no_mark_but_in_the_log() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    let id = session_of(&engine, &sandbox, LONG).await;
    for _ in 0..2 {
        let before = Timestamp::now();
        let paused = set(&engine, &id, SessionState::Paused).await;
        assert!(paused.paused_at.unwrap() >= before);
        assert!(paused.updated_at >= before);
        let running = set(&engine, &id, SessionState::Running).await;
        assert_eq!(running.paused_at, None);
    }
    let events = engine.sandbox_session_events(&me(), &id, 0, 100).await;
    let kinds: Vec<_> = events
        .unwrap()
        .into_iter()
        .map(|event| event.kind)
        .collect();
    let count = |word: &str| kinds.iter().filter(|kind| kind.contains(word)).count();
    assert_eq!(count("paused"), 2, "{kinds:?}");
    assert_eq!(count("woken"), 2, "{kinds:?}");
    set(&engine, &id, SessionState::Killed).await;
    let after = engine.sandbox_session_events(&me(), &id, 0, 100).await;
    assert!(after.unwrap().len() > kinds.len(), "also when it is gone");
}

#[tokio::test]
async fn z14_a_second_session_is_refused_and_changes_nothing() {
    let world = World::new();
    let engine = start(&world).await;
    let sandbox = sandbox(&engine).await;
    let id = session_of(&engine, &sandbox, LONG).await;
    let second = NewSandboxSession {
        sandbox: sandbox.to_string(),
        project: "q".to_owned(),
        user: "v".to_owned(),
        framework: Framework::React,
        auto_pause: Some(Duration::from_millis(1)),
    };
    let refused = engine.sandbox_session_create(&me(), second).await;
    assert_eq!(refused.unwrap_err().code, Code::AlreadyExists);
    let kept = look(&engine, &id).await;
    assert_eq!(kept.session.project, "p");
    assert_eq!(kept.auto_pause, Some(LONG));
}

/// Sessions outlive the server, and so does what they say.
#[tokio::test]
async fn sessions_survive_a_restart() {
    let world = World::new();
    let engine = start(&world).await;
    let (sleeps, ends) = (sandbox(&engine).await, sandbox(&engine).await);
    let slept = session_of(&engine, &sleeps, LONG).await;
    let ended = session_of(&engine, &ends, LONG).await;
    set(&engine, &slept, SessionState::Paused).await;
    engine.shutdown().await;
    world.driver.lose(&ends);
    let engine = start(&world).await;
    assert_eq!(look(&engine, &slept).await.state, SessionState::Paused);
    assert_eq!(look(&engine, &ended).await.state, SessionState::Killed);
    set(&engine, &slept, SessionState::Running).await;
}
