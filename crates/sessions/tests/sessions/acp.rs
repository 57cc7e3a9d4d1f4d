//! Clients that speak ACP themselves.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use woodfrog_sessions::acp::Envelope;
use woodfrog_sessions::{Options, Posted, Sessions};
use woodfrog_types::Code;
use woodfrog_types::session::{Source, kind};

use crate::common::{World, code, kinds, prompt_params, read_until};

#[tokio::test]
async fn a_prompt_is_answered_and_everything_is_in_the_log() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    let result = world.prompt("s", &session, "hello").await;
    assert_eq!(result["stopReason"], "end_turn");
    assert_eq!(world.said("s").await, "mock: hello");
    let log = world.log("s").await;
    let kinds = kinds(&log);
    assert_eq!(kinds[0], kind::AGENT_STARTED);
    assert_eq!(kinds.last(), Some(&kind::TURN_ENDED));
}

#[tokio::test]
async fn the_first_message_says_which_agent_and_the_others_the_same() {
    let mut world = World::new().await;
    let init = || Envelope::from_value(json!({"id": 1, "method": "initialize"})).unwrap();
    let post = world
        .sessions
        .acp_post(&world.scope, "s", None, init(), None);
    assert_eq!(code(post.await), Code::InvalidArgument);
    world.conversation("s").await;
    let post = world
        .sessions
        .acp_post(&world.scope, "s", Some("broken"), init(), None);
    assert_eq!(code(post.await), Code::Conflict);
    let post = world
        .sessions
        .acp_post(&world.scope, "t", Some("nobody"), init(), None);
    assert_eq!(code(post.await), Code::InvalidArgument);
    let servers = world.sessions.acp_list(&world.scope).await.unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(
        (servers[0].name.as_str(), servers[0].agent.as_str()),
        ("s", "mock")
    );
}

#[tokio::test]
async fn an_agent_that_dies_at_once_says_why() {
    let world = World::new().await;
    let init = Envelope::from_value(json!({"id": 1, "method": "initialize"})).unwrap();
    let post = world
        .sessions
        .acp_post(&world.scope, "s", Some("broken"), init, None);
    let Posted::Response(line) = post.await.unwrap() else {
        panic!("no answer");
    };
    assert!(
        line.contains("no luck") && line.contains("exit status 4"),
        "{line}"
    );
}

#[tokio::test]
async fn an_agent_that_leaves_requests_unanswered_is_started_again() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    world.signal_agents(Signal::STOP).await;
    // A server that waits briefly comes only now: until here there were answers to wait for.
    let options = Options {
        request_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    world.sessions = Sessions::new(world.store(), world.machine.clone(), options);
    for asked in 0..3 {
        let seen = world.log("s").await;
        assert!(!kinds(&seen).contains(&kind::AGENT_EXITED), "after {asked}");
        let params = json!({"cwd": "/", "mcpServers": []});
        let message =
            json!({"id": format!("in vain {asked}"), "method": "session/new", "params": params});
        assert_eq!(code(world.post("s", message).await), Code::DeadlineExceeded);
    }
    let mut lines = world
        .sessions
        .acp_follow(&world.scope, "s", 0)
        .await
        .unwrap();
    let seen = read_until(&mut lines.reader, |seen| {
        kinds(seen).contains(&kind::AGENT_EXITED)
    })
    .await;
    let why = &seen.last().unwrap().event.payload;
    assert!(why.contains("does not answer"), "{why}");
    world.prompt("s", &session, "hello").await;
    assert_eq!(world.said("s").await, "mock: hello");
}

#[tokio::test]
async fn what_was_chosen_is_chosen_again() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    for (method, params) in [
        (
            "session/set_mode",
            json!({"sessionId": session, "modeId": "normal"}),
        ),
        (
            "session/set_mode",
            json!({"sessionId": session, "modeId": "plan"}),
        ),
        (
            "session/set_model",
            json!({"sessionId": session, "modelId": "mock-fast"}),
        ),
    ] {
        world.call("s", method, params).await;
    }
    world.kill_agent_of("s").await;
    let before = world.said("s").await.len();
    world.prompt("s", &session, "mock: settings").await;
    let said = world.said("s").await[before..].to_owned();
    assert!(
        said.contains("plan") && said.contains("mock-fast"),
        "{said}"
    );
}

#[tokio::test]
async fn a_killed_agent_comes_back_and_is_told_what_was_said() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    world.prompt("s", &session, "remember the frog").await;
    world.kill_agent_of("s").await;
    world.prompt("s", &session, "what did I say before?").await;
    let said = world.said("s").await;
    assert!(said.contains("no prompt"), "{said}");
    assert!(said.contains("characters of history"), "{said}");
    // Once: the log has no replay in it, and the next prompt carries none.
    world.prompt("s", &session, "what did I say before?").await;
    let log = world.log("s").await;
    assert!(
        !log.iter()
            .any(|it| it.event.payload.contains("replayed below"))
    );
    let sent = log.iter().filter_map(|it| it.event.wire.as_deref());
    let replays = sent.filter(|wire| wire.contains("replayed below")).count();
    assert_eq!(replays, 1);
}

#[tokio::test]
async fn an_agent_that_can_load_is_not_told() {
    let mut world = World::new().await;
    world.keep();
    let session = world.conversation("s").await;
    world.prompt("s", &session, "remember the frog").await;
    world.kill_agent_of("s").await;
    world.prompt("s", &session, "hello again").await;
    let log = world.log("s").await;
    let restored = log
        .iter()
        .find(|it| it.event.kind == kind::RESTORED)
        .unwrap();
    assert!(restored.event.payload.contains("load"), "{restored:?}");
}

#[tokio::test]
async fn a_pending_request_fails_when_its_agent_dies() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    let hanging = prompt_params(&session, "mock: hang");
    let message = json!({"id": 99, "method": "session/prompt", "params": hanging});
    let kill = async {
        let mut reader = world
            .sessions
            .acp_follow(&world.scope, "s", 0)
            .await
            .unwrap()
            .reader;
        crate::common::read_until(&mut reader, |seen| {
            seen.iter().any(|it| it.event.kind == kind::TURN_STARTED)
        })
        .await;
        world.kill_agents().await;
    };
    let (posted, ()) = tokio::join!(world.post("s", message), kill);
    let Posted::Response(line) = posted.unwrap() else {
        panic!("no answer");
    };
    assert!(
        line.contains("agent process exited (signal: killed)"),
        "{line}"
    );
}

#[tokio::test]
async fn the_agent_lives_through_the_end_of_the_server() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    world.prompt("s", &session, "remember the frog").await;
    world.restart();
    world.prompt("s", &session, "what did I say before?").await;
    let said = world.said("s").await;
    assert!(
        said.contains("remember the frog") && said.contains("1 prompt"),
        "{said}"
    );
    assert!(!said.contains("characters of history"), "{said}");
}

#[tokio::test]
async fn a_turn_that_outlives_its_server_is_finished_by_the_next() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    let params = prompt_params(&session, "mock: ask May I?\nmock: say done");
    let message = json!({"id": 50, "method": "session/prompt", "params": params});
    let asked = async {
        let mut reader = world
            .sessions
            .acp_follow(&world.scope, "s", 0)
            .await
            .unwrap()
            .reader;
        crate::common::read_until(&mut reader, |seen| {
            seen.iter()
                .any(|it| it.event.payload.contains("request_permission"))
        })
        .await
    };
    // The client of the prompt goes when the permission is asked for.
    let asked = tokio::select! {
        seen = asked => seen,
        posted = world.post("s", message) => panic!("{posted:?}"),
    };
    let ask = asked
        .iter()
        .find(|it| it.event.payload.contains("request_permission"))
        .unwrap();
    let ask: serde_json::Value = serde_json::from_str(&ask.event.payload).unwrap();
    world.restart();
    let option = ask["params"]["options"][0]["optionId"].clone();
    let outcome = json!({"outcome": {"outcome": "selected", "optionId": option}});
    let answer = json!({"jsonrpc": "2.0", "id": ask["id"], "result": outcome});
    assert_eq!(world.post("s", answer).await.unwrap(), Posted::Accepted);
    let mut reader = world
        .sessions
        .acp_follow(&world.scope, "s", 0)
        .await
        .unwrap()
        .reader;
    let log = crate::common::read_until(&mut reader, |seen| {
        seen.iter().any(|it| it.event.kind == kind::TURN_ENDED)
    })
    .await;
    assert!(crate::common::said(&log).contains("done"));
}

#[tokio::test]
async fn a_closed_server_is_gone_and_its_name_is_free() {
    let mut world = World::new().await;
    world.conversation("s").await;
    world.sessions.acp_close(&world.scope, "s").await.unwrap();
    world.sessions.acp_close(&world.scope, "s").await.unwrap();
    assert!(
        world
            .sessions
            .acp_list(&world.scope)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        code(
            world
                .sessions
                .acp_follow(&world.scope, "s", 0)
                .await
                .map(|_| ())
        ),
        Code::SessionNotFound
    );
    let session = world.conversation("s").await;
    world.prompt("s", &session, "again").await;
    assert_eq!(world.log("s").await[0].event.kind, kind::AGENT_STARTED);
}

#[tokio::test]
async fn rubbish_of_the_agent_is_recorded_and_harms_nothing() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    let script = "mock: garbage Listening on 80\nmock: stray 77\nmock: twice\nmock: say fine";
    world.prompt("s", &session, script).await;
    world.prompt("s", &session, "still there").await;
    let log = world.log("s").await;
    let kinds = kinds(&log);
    assert!(kinds.contains(&kind::UNREADABLE));
    assert_eq!(kinds.iter().filter(|it| **it == kind::UNMATCHED).count(), 2);
    assert!(world.said("s").await.contains("still there"));
}

#[tokio::test]
async fn two_servers_do_not_write_one_session() {
    let mut world = World::new().await;
    let session = world.conversation("s").await;
    let other = world.another_server();
    let prompt = |id: u64| {
        let params = prompt_params(&session, "hi");
        let message = json!({"id": id, "method": "session/prompt", "params": params});
        Envelope::from_value(message).unwrap()
    };
    other
        .acp_post(&world.scope, "s", None, prompt(70), None)
        .await
        .unwrap();
    // The first one finds that it was taken over, now or with its next request, and takes it back.
    let next = world
        .sessions
        .acp_post(&world.scope, "s", None, prompt(71), None)
        .await;
    if let Err(fault) = &next {
        assert_eq!(fault.code, Code::Unavailable);
        world
            .sessions
            .acp_post(&world.scope, "s", None, prompt(72), None)
            .await
            .unwrap();
    }
    let log = world.log("s").await;
    for id in [70, 71, 72] {
        let answer = format!("\"id\":{id}");
        let answers = log
            .iter()
            .filter(|it| it.event.kind == kind::MESSAGE && it.event.source == Source::Agent)
            .filter(|it| it.event.payload.contains(&answer));
        assert!(answers.count() <= 1, "{id} was answered twice");
    }
}
