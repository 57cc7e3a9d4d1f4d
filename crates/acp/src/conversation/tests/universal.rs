//! Conversations as clients of the universal schema see them.

use super::*;

/// A universal session whose agent asks for a permission in its first turn.
fn asking() -> World {
    let mut world = World::universal();
    let step = world.it.begin(1, NOW);
    world.take(step);
    let step = world.it.begin(2, NOW);
    world.take(step);
    world.acts.clear();
    let prompt = Prompt {
        blocks: vec![json!({"type": "text", "text": "go"})],
        author: None,
    };
    let step = world.it.post(prompt, 3, NOW);
    world.take(step);
    let accepted = Outcome::Response(json!({"turn": 1}).to_string());
    assert!(world.acts.contains(&Act::Answer {
        waiter: 3,
        outcome: accepted
    }));
    world.acts.retain(|act| *act == Act::Start);
    world.started();
    for result in [json!({"protocolVersion": 1}), json!({"sessionId": "s-1"})] {
        let sent = world
            .log
            .iter()
            .rev()
            .find(|it| it.event.kind == kind::HANDSHAKE);
        let sent: Value = serde_json::from_str(&sent.unwrap().event.payload).unwrap();
        world.agent(&json!({"jsonrpc": "2.0", "id": sent["id"], "result": result}));
    }
    world.agent(
        &json!({"jsonrpc": "2.0", "method": "session/update", "params": {
            "sessionId": "s-1", "update": {
                "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "hm"},
            },
        }}),
    );
    world.agent(&json!({
        "jsonrpc": "2.0", "id": 7, "method": "session/request_permission", "params": {
            "sessionId": "s-1", "toolCall": {"toolCallId": "t", "title": "make"},
            "options": [
                {"optionId": "y", "kind": "allow_once", "name": "Yes"},
                {"optionId": "n", "kind": "reject_once", "name": "No"},
            ],
        },
    }));
    world
}

fn told(world: &World) -> Vec<&str> {
    world.told.iter().map(|event| event.kind.as_str()).collect()
}

#[test]
fn clients_of_the_universal_schema_are_told_in_their_own_order() {
    let mut world = asking();
    assert_eq!(
        told(&world),
        [
            "session.started",
            "item.started",
            "item.completed",
            "turn.started",
            "item.started",
            "item.delta",
            "permission.requested",
        ]
    );
    let delta: Value = serde_json::from_str(&world.told[5].payload).unwrap();
    assert_eq!(delta["native_session_id"], "s-1");
    assert_eq!(delta["data"]["delta"], "hm");
    assert_eq!(delta["raw"]["method"], "session/update");
    // What was sent to the agent stands with the entry of the log, and with it alone.
    let sent = |event: &NewSessionEvent| event.payload.contains("session/prompt");
    let prompt = world.log.iter().find(|it| sent(&it.event)).unwrap();
    assert!(prompt.event.wire.as_ref().unwrap().contains("s-1"));
    assert!(world.told.iter().all(|event| event.wire.is_none()));
    let step = world.it.finish("terminated", false, NOW);
    world.take(step);
    assert_eq!(
        told(&world)[7..],
        [
            "item.completed",
            "turn.ended",
            "permission.resolved",
            "session.ended"
        ]
    );
}

#[test]
fn what_is_open_for_clients_of_the_universal_schema_is_recalled() {
    let mut world = asking();
    let mut again = World::universal();
    let turns = world.turns.values().cloned().collect();
    again.it = Conversation::new(
        world.it.record.clone(),
        world.it.end,
        turns,
        1,
        Options::default(),
    );
    again.it.recall(&world.log);
    again.log = world.log.clone();
    again.told = world.told.clone();
    let end = |world: &mut World| {
        let step = world.it.resumed(NOW);
        world.take(step);
        let id = Id::of(&json!(7)).unwrap();
        let yes = json!({"outcome": {"outcome": "selected", "optionId": "y"}});
        let step = world.it.reply(&id, yes, None, 9, NOW);
        world.take(step);
        world.died();
        world.told[7..].to_vec()
    };
    let wanted = end(&mut world);
    let kinds: Vec<&str> = wanted.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "permission.resolved",
            "item.completed",
            "error",
            "turn.ended"
        ]
    );
    assert_eq!(end(&mut again), wanted);
}
