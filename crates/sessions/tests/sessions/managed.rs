//! Clients that leave ACP to the server.

use serde_json::json;
use woodfrog_sessions::acp::Id;
use woodfrog_types::Code;
use woodfrog_types::session::{Stream, kind};

use crate::common::{World, code, kinds, read_until, said, text_prompt};

#[tokio::test]
async fn prompts_of_several_people_take_turns() {
    let world = World::new().await;
    let session = world.managed(json!({})).await;
    let sessions = &world.sessions;
    let (one, two) = tokio::join!(
        sessions.prompt(
            &session.id,
            text_prompt("ann", "mock: delay 20\nmock: say from ann")
        ),
        sessions.prompt(&session.id, text_prompt("bob", "from bob")),
    );
    assert_eq!(one.unwrap().stop_reason.as_deref(), Some("end_turn"));
    assert!(two.unwrap().usage.is_some());
    let log = world.log_of(&session).await;
    let authors: Vec<_> = log
        .iter()
        .filter(|it| it.event.kind == kind::USER)
        .map(|it| it.event.author.clone().unwrap())
        .collect();
    assert_eq!(authors, ["ann", "bob"]);
    let text = said(&log);
    assert!(text.find("from ann").unwrap() < text.find("from bob").unwrap());
    let turns = sessions.turns(&session.id, 0, 10).await.unwrap();
    assert_eq!(turns.len(), 2);
    assert!(
        turns
            .iter()
            .all(|it| it.outcome.as_deref() == Some("end_turn"))
    );
    assert!(turns[0].last.unwrap() < turns[1].last.unwrap());
}

#[tokio::test]
async fn a_permission_waits_and_the_first_answer_wins() {
    let mut world = World::new().await;
    let session = world.managed(json!({})).await;
    let prompted = {
        let sessions = world.sessions.clone();
        let id = session.id.clone();
        tokio::spawn(async move {
            sessions
                .prompt(&id, text_prompt("ann", "mock: ask May I?\nmock: say done"))
                .await
        })
    };
    let mut reader = world.sessions.follow(&session.id, Stream::Log, 0);
    read_until(&mut reader, |seen| {
        seen.iter()
            .any(|it| it.event.payload.contains("request_permission"))
    })
    .await;
    // Whoever prompted goes, and so does the server; the question stays.
    prompted.abort();
    let _ = prompted.await;
    world.restart();
    world.sessions.take_up(&[world.scope.clone()]).await;
    let view = world
        .sessions
        .show(&session.workspace, &session.id)
        .await
        .unwrap();
    assert_eq!(view.asked.len(), 1);
    assert!(view.busy);
    let asked = view.asked[0].clone();
    let option = asked.params["options"][0]["optionId"].clone();
    let result = json!({"outcome": {"outcome": "selected", "optionId": option}});
    let reply = |who: &str| {
        let who = Some(who.to_owned());
        world
            .sessions
            .reply(&session.id, &asked.id, result.clone(), who)
    };
    reply("bob").await.unwrap();
    assert_eq!(code(reply("eve").await), Code::Conflict);
    let mut reader = world.sessions.follow(&session.id, Stream::Log, 0);
    let log = read_until(&mut reader, |seen| {
        seen.iter().any(|it| it.event.kind == kind::TURN_ENDED)
    })
    .await;
    assert!(said(&log).contains("done"));
}

#[tokio::test]
async fn with_everything_allowed_nobody_is_asked() {
    let world = World::new().await;
    let session = world.managed(json!({"permissions": "bypass"})).await;
    let prompt = text_prompt("ann", "mock: ask May I?\nmock: say done");
    world.sessions.prompt(&session.id, prompt).await.unwrap();
    assert!(said(&world.log_of(&session).await).contains("done"));
}

#[tokio::test]
async fn a_turn_can_be_canceled() {
    let world = World::new().await;
    let session = world.managed(json!({})).await;
    let cancel = async {
        let mut reader = world.sessions.follow(&session.id, Stream::Log, 0);
        read_until(&mut reader, |seen| {
            seen.iter()
                .any(|it| it.event.payload.contains("session/prompt"))
        })
        .await;
        world
            .sessions
            .cancel(&session.id, Some("bob".to_owned()))
            .await
    };
    let prompt = world
        .sessions
        .prompt(&session.id, text_prompt("ann", "mock: hang"));
    let (outcome, canceled) = tokio::join!(prompt, cancel);
    canceled.unwrap();
    assert_eq!(outcome.unwrap().stop_reason.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn a_crash_of_the_agent_ends_its_turn_and_not_the_session() {
    let world = World::new().await;
    let session = world.managed(json!({})).await;
    let sessions = &world.sessions;
    sessions
        .prompt(&session.id, text_prompt("ann", "first"))
        .await
        .unwrap();
    let crashed = sessions.prompt(&session.id, text_prompt("ann", "mock: crash 3 out of luck"));
    let fault = crashed.await.unwrap_err();
    assert_eq!(fault.code, Code::AgentExited);
    assert!(fault.message.contains("out of luck"), "{}", fault.message);
    let prompt = text_prompt("ann", "what did I say before?");
    sessions.prompt(&session.id, prompt).await.unwrap();
    let log = world.log_of(&session).await;
    assert!(said(&log).contains("characters of history"));
    assert!(kinds(&log).contains(&kind::RESTORED));
}

#[tokio::test]
async fn an_ended_session_keeps_its_log() {
    let world = World::new().await;
    let session = world.managed(json!({})).await;
    world
        .sessions
        .prompt(&session.id, text_prompt("ann", "hi"))
        .await
        .unwrap();
    world.sessions.end(&session.id, "enough").await.unwrap();
    world.sessions.end(&session.id, "once more").await.unwrap();
    let refused = world
        .sessions
        .prompt(&session.id, text_prompt("ann", "hi"))
        .await;
    assert_eq!(code(refused), Code::Conflict);
    let log = world.log_of(&session).await;
    assert_eq!(log.last().unwrap().event.kind, kind::SESSION_ENDED);
    let nothing = Id::text("nobody asked");
    let reply = world
        .sessions
        .reply(&session.id, &nothing, json!({}), None)
        .await;
    assert_eq!(code(reply), Code::Conflict);
    world
        .sessions
        .remove(&session.workspace, &session.id)
        .await
        .unwrap();
    let shown = world.sessions.show(&session.workspace, &session.id).await;
    assert_eq!(code(shown.map(|_| ())), Code::SessionNotFound);
}
