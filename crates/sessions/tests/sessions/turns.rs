//! Going back to the end of a turn.

use serde_json::json;
use woodfrog_types::Code;
use woodfrog_types::session::{Session, SessionEvent, Turn, kind};

use crate::common::{World, code, said, text_prompt};

async fn prompt(world: &World, session: &Session, text: &str) {
    let prompt = world.sessions.prompt(&session.id, text_prompt("Ann", text));
    assert_eq!(
        prompt.await.unwrap().stop_reason.as_deref(),
        Some("end_turn")
    );
}

/// Turns, once all of them have their snapshots.
async fn turns(world: &World, session: &Session) -> Vec<Turn> {
    let wait = async {
        loop {
            let turns = world.sessions.turns(&session.id, 0, 100).await.unwrap();
            if turns.iter().all(|turn| turn.snapshot.is_some()) {
                return turns;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::common::PATIENCE, wait)
        .await
        .expect("snapshots")
}

/// A session with three turns.
async fn three(world: &World) -> Session {
    let session = world.managed(json!({"snapshots": "turn"})).await;
    for text in ["remember one", "remember two", "remember three"] {
        prompt(world, &session, text).await;
    }
    assert_eq!(turns(world, &session).await.len(), 3);
    session
}

/// What the agent was told with the last prompt.
fn told(log: &[SessionEvent]) -> String {
    let mut sent = log.iter().rev().filter_map(|it| it.event.wire.clone());
    sent.find(|wire| wire.contains("session/prompt")).unwrap()
}

#[tokio::test]
async fn a_rewound_session_goes_on_without_what_came_after() {
    let world = World::new().await;
    let session = three(&world).await;
    let workspace = &world.scope.workspace;
    let before = world.log_of(&session).await;
    let rewound = world.sessions.rewind(workspace, &session.id, 1).await;
    let rewound = rewound.unwrap();
    assert_eq!(rewound.id, session.id);
    assert_ne!(rewound.sandbox, session.sandbox);
    prompt(&world, &session, "what did I say before?").await;
    let log = world.log_of(&session).await;
    assert_eq!(log[..before.len()], before, "the past has changed");
    let mark = &log[before.len()];
    assert_eq!(mark.event.kind, kind::REWOUND);
    let turns = turns(&world, &session).await;
    let place = turns[0].last.unwrap();
    let payload: serde_json::Value = serde_json::from_str(&mark.event.payload).unwrap();
    assert_eq!(
        (&payload["turn"], &payload["place"]),
        (&json!(1), &json!(place))
    );
    let told = told(&log);
    assert!(told.contains("remember one"), "{told}");
    assert!(
        !told.contains("remember two") && !told.contains("remember three"),
        "{told}"
    );
    assert!(
        said(&log[before.len()..]).contains("no prompt"),
        "another process"
    );
    // From there to what was left: that turn's own past counts.
    world
        .sessions
        .rewind(workspace, &session.id, 2)
        .await
        .unwrap();
    prompt(&world, &session, "again").await;
    let told = self::told(&world.log_of(&session).await);
    assert!(told.contains("remember two"), "{told}");
    assert!(
        !told.contains("remember three") && !told.contains("did I say"),
        "{told}"
    );
}

#[tokio::test]
async fn a_fork_is_a_copy_and_the_original_goes_on() {
    let world = World::new().await;
    let session = three(&world).await;
    let workspace = &world.scope.workspace;
    let name = Some("other".to_owned());
    let fork = world.sessions.fork(workspace, &session.id, 2, name.clone());
    let fork = fork.await.unwrap();
    assert_ne!((&fork.id, &fork.sandbox), (&session.id, &session.sandbox));
    assert_eq!(fork.name, "other");
    let (original, copy) = (world.log_of(&session).await, world.log_of(&fork).await);
    let same = |one: &SessionEvent, other: &SessionEvent| one.event == other.event;
    let upto = turns(&world, &session).await[1].last.unwrap() as usize;
    assert_eq!(copy.len(), upto + 1);
    assert!(
        original
            .iter()
            .zip(&copy[..upto])
            .all(|(one, other)| same(one, other))
    );
    assert_eq!(copy[upto].event.kind, kind::FORKED);
    assert_eq!(turns(&world, &fork).await.len(), 2);
    prompt(&world, &fork, "what did I say before?").await;
    let told = told(&world.log_of(&fork).await);
    assert!(
        told.contains("remember two") && !told.contains("remember three"),
        "{told}"
    );
    // The original's agent was not disturbed.
    prompt(&world, &session, "what did I say before?").await;
    let log = world.log_of(&session).await;
    assert!(
        said(&log).contains("3 prompts; the last was: remember three"),
        "{}",
        said(&log)
    );
}

#[tokio::test]
async fn what_cannot_be_gone_back_to_is_refused() {
    let world = World::new().await;
    let workspace = &world.scope.workspace;
    let session = three(&world).await;
    let rewind = async |id, turn| world.sessions.rewind(workspace, id, turn).await;
    assert_eq!(code(rewind(&session.id, 0).await), Code::NotFound);
    assert_eq!(code(rewind(&session.id, 4).await), Code::NotFound);
    let plain = world.managed(json!({})).await;
    prompt(&world, &plain, "hello").await;
    assert_eq!(code(rewind(&plain.id, 1).await), Code::Conflict);
    // Not while a turn goes on.
    let hang = text_prompt("Ann", "mock: hang");
    world.sessions.post(&session.id, hang).await.unwrap();
    assert_eq!(code(rewind(&session.id, 1).await), Code::Conflict);
    world.sessions.end(&session.id, "ended").await.unwrap();
    assert_eq!(code(rewind(&session.id, 1).await), Code::Conflict);
    let stranger = woodfrog_types::WorkspaceId::generate();
    let foreign = world.sessions.rewind(&stranger, &session.id, 1).await;
    assert_eq!(code(foreign), Code::SessionNotFound);
}
