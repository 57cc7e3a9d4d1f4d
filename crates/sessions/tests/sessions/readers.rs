//! Reading along.

use serde_json::json;
use woodfrog_sessions::{Batch, Ephemeral};
use woodfrog_types::session::{Stream, kind};
use woodfrog_types::{Code, Timestamp};

use crate::common::{World, code, read_until, text_prompt};

#[tokio::test]
async fn everybody_reads_the_same_from_wherever_they_begin() {
    let world = World::new().await;
    let session = world.managed(json!({})).await;
    let mut early: Vec<_> = (0..20)
        .map(|_| world.sessions.follow(&session.id, Stream::Log, 0))
        .collect();
    let prompt = text_prompt("ann", "mock: chunks 600 64");
    world.sessions.prompt(&session.id, prompt).await.unwrap();
    let whole = world.log_of(&session).await;
    let over = |seen: &[woodfrog_types::session::SessionEvent]| {
        seen.last()
            .is_some_and(|it| it.event.kind == kind::TURN_ENDED)
    };
    for reader in &mut early {
        assert_eq!(read_until(reader, over).await, whole);
    }
    for after in [1, 7, 300, whole.len() as u64 - 1] {
        let mut late = world.sessions.follow(&session.id, Stream::Log, after);
        let start = usize::try_from(after).unwrap();
        assert_eq!(read_until(&mut late, over).await, whole[start..]);
    }
}

#[tokio::test]
async fn what_is_no_longer_held_is_told() {
    let world = World::new().await;
    let session = world.managed(json!({})).await;
    world
        .sessions
        .prompt(&session.id, text_prompt("ann", "hi"))
        .await
        .unwrap();
    world.trim(&session, 4).await;
    let read = world
        .sessions
        .read(&session.id, Stream::Log, 1, 10, 1 << 20)
        .await;
    assert_eq!(code(read), Code::Trimmed);
    let mut reader = world.another_server().follow(&session.id, Stream::Log, 1);
    assert!(matches!(
        reader.next().await.unwrap(),
        Batch::Gap { from: 2, to: 3 }
    ));
    let Batch::Events(events) = reader.next().await.unwrap() else {
        panic!("no events");
    };
    assert_eq!(events[0].sequence, 4);
}

#[tokio::test]
async fn passing_things_reach_those_who_look() {
    let world = World::new().await;
    let session = world.managed(json!({})).await;
    let mut reader = world
        .sessions
        .follow(&session.id, Stream::Log, 0)
        .with_ephemeral();
    let typing = Ephemeral {
        at: Timestamp::now(),
        kind: "typing".to_owned(),
        author: Some("ann".to_owned()),
        payload: "{}".to_owned(),
    };
    world.sessions.say(&session.id, typing.clone());
    let Batch::Ephemeral(heard) = reader.next().await.unwrap() else {
        panic!("nothing heard");
    };
    assert_eq!(heard, typing);
    assert!(world.log_of(&session).await.is_empty());
}
