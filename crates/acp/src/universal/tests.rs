//! Events of entries, and conversations as clients of the universal schema see them.

use woodfrog_types::Timestamp;
use woodfrog_types::session::Stream;

use super::*;

/// A log that is told as it is written.
#[derive(Default)]
struct World {
    fold: Fold,
    log: Vec<NewSessionEvent>,
}

impl World {
    fn entry(&mut self, source: Source, kind: &str, payload: &Value) -> Vec<Told> {
        self.log.push(NewSessionEvent {
            stream: Stream::Log,
            at: Timestamp::from_millis(1),
            source,
            kind: kind.to_owned(),
            author: None,
            connection: None,
            payload: payload.to_string(),
            wire: None,
        });
        let place = self.log.len() as u64;
        self.fold.take(place, &self.log[self.log.len() - 1])
    }

    fn mark(&mut self, kind: &str, payload: Value) -> Vec<Told> {
        self.entry(Source::Server, kind, &payload)
    }

    fn agent(&mut self, message: Value) -> Vec<Told> {
        self.entry(Source::Agent, kind::MESSAGE, &message)
    }

    fn update(&mut self, update: Value) -> Vec<Told> {
        self.agent(json!({
            "jsonrpc": "2.0", "method": "session/update",
            "params": {"sessionId": "main", "update": update},
        }))
    }

    fn chunk(&mut self, kind: &str, text: &str) -> Vec<Told> {
        self.update(json!({
            "sessionUpdate": kind, "content": {"type": "text", "text": text},
        }))
    }

    /// A prompt that is with the agent.
    fn turn(&mut self, number: u64) -> Vec<Told> {
        let prompt = json!([{"type": "text", "text": "do it"}]);
        let mut told = self.mark(kind::USER, json!({"turn": number, "prompt": prompt}));
        told.extend(self.mark(kind::TURN_STARTED, json!({"turn": number})));
        let request = json!({
            "jsonrpc": "2.0", "id": format!("p{number}"), "method": "session/prompt",
            "params": {"sessionId": "main", "prompt": prompt},
        });
        told.extend(self.entry(Source::Client, kind::MESSAGE, &request));
        told
    }

    fn turn_ended(&mut self, number: u64, outcome: &str) -> Vec<Told> {
        self.mark(
            kind::TURN_ENDED,
            json!({"turn": number, "outcome": outcome}),
        )
    }

    fn asks(&mut self, options: Value, call: Value) -> Vec<Told> {
        self.agent(json!({
            "jsonrpc": "2.0", "id": 9, "method": "session/request_permission",
            "params": {"sessionId": "main", "toolCall": call, "options": options},
        }))
    }

    fn answers(&mut self, result: Value) -> Vec<Told> {
        let answer = json!({"jsonrpc": "2.0", "id": 9, "result": result});
        self.entry(Source::Client, kind::MESSAGE, &answer)
    }
}

fn kinds(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| told.kind).collect()
}

fn permission() -> Value {
    json!(
        ["allow_once", "allow_always", "reject_once"]
            .map(|id| { json!({"optionId": format!("o-{id}"), "kind": id, "name": id}) })
    )
}

#[test]
fn a_session_starts_and_ends_by_the_server() {
    let mut world = World::default();
    let told = world.mark(kind::SESSION_STARTED, json!({"agent": "mock"}));
    assert_eq!(kinds(&told), ["session.started"]);
    assert_eq!(told[0].data, json!({"metadata": {"agent": "mock"}}));
    assert_eq!((told[0].source, told[0].synthetic), (Source::Server, true));
    let told = world.mark(kind::SESSION_ENDED, json!({"reason": "terminated"}));
    assert_eq!(kinds(&told), ["session.ended"]);
    assert_eq!(
        told[0].data,
        json!({"reason": "terminated", "terminated_by": "daemon"})
    );
    let told = world.mark(kind::SESSION_ENDED, json!({"reason": "removed"}));
    assert_eq!(told[0].data["message"], "removed");
}

#[test]
fn a_turn_has_its_prompt_its_start_and_its_end() {
    let mut world = World::default();
    let told = world.turn(3);
    assert_eq!(
        kinds(&told),
        ["item.started", "item.completed", "turn.started"]
    );
    let item = &told[1].data["item"];
    assert_eq!(item["role"], "user");
    assert_eq!(item["content"], json!([{"type": "text", "text": "do it"}]));
    assert_eq!(
        told[2].data,
        json!({"phase": "started", "turn_id": "turn_3"})
    );
    let told = world.turn_ended(3, "end_turn");
    assert_eq!(
        told[0].data,
        json!({"phase": "ended", "turn_id": "turn_3", "metadata": {"outcome": "end_turn"}})
    );
}

#[test]
fn chunks_become_one_message() {
    let mut world = World::default();
    world.turn(1);
    let mut told = world.chunk("agent_message_chunk", "Hello ");
    assert_eq!(kinds(&told), ["item.started", "item.delta"]);
    assert!(told[0].synthetic && !told[1].synthetic);
    assert_eq!(told[0].raw, None);
    assert_eq!(told[1].raw.as_ref().unwrap()["method"], "session/update");
    assert_eq!(told[1].source, Source::Agent);
    told.extend(world.chunk("agent_message_chunk", "world"));
    told.extend(world.turn_ended(1, "end_turn"));
    assert_eq!(
        kinds(&told),
        [
            "item.started",
            "item.delta",
            "item.delta",
            "item.completed",
            "turn.ended"
        ]
    );
    let item = &told[3].data["item"];
    assert_eq!(
        item["content"],
        json!([{"type": "text", "text": "Hello world"}])
    );
    assert_eq!(item["status"], "completed");
    for told in &told[1..3] {
        assert_eq!(told.data["item_id"], item["item_id"]);
    }
    // The next turn has a message of its own.
    world.turn(2);
    let next = world.chunk("agent_message_chunk", "x");
    assert_ne!(next[0].data["item"]["item_id"], item["item_id"]);
}

#[test]
fn thoughts_are_reasoning_and_apart() {
    let mut world = World::default();
    world.turn(1);
    world.chunk("agent_thought_chunk", "hm");
    let told = world.chunk("agent_message_chunk", "so");
    assert_eq!(
        kinds(&told),
        ["item.completed", "item.started", "item.delta"]
    );
    assert_eq!(
        told[0].data["item"]["content"],
        json!([{"type": "reasoning", "text": "hm", "visibility": "public"}])
    );
}

#[test]
fn a_long_message_goes_on_as_another_and_keeps_what_is_no_text() {
    let mut world = World::default();
    world.turn(1);
    world.chunk("agent_message_chunk", &"x".repeat(1 << 20));
    let told = world.chunk("agent_message_chunk", "y");
    assert_eq!(
        kinds(&told),
        ["item.completed", "item.started", "item.delta"]
    );
    let image = json!({"type": "image", "mimeType": "image/png", "uri": "file:///a.png"});
    let told = world.update(json!({"sessionUpdate": "agent_message_chunk", "content": image}));
    assert_eq!(told, []);
    world.chunk("agent_message_chunk", "z");
    let told = world.turn_ended(1, "end_turn");
    assert_eq!(
        told[0].data["item"]["content"],
        json!([
            {"type": "text", "text": "y"},
            {"type": "image", "path": "file:///a.png", "mime": "image/png"},
            {"type": "text", "text": "z"},
        ])
    );
}

#[test]
fn a_tool_call_has_a_result_and_files() {
    let mut world = World::default();
    world.turn(1);
    world.chunk("agent_message_chunk", "now");
    let told = world.update(json!({
        "sessionUpdate": "tool_call", "toolCallId": "t1", "title": "Write f", "kind": "edit",
        "status": "pending", "rawInput": {"path": "f"},
    }));
    assert_eq!(kinds(&told), ["item.completed", "item.started"]);
    let diff = json!({"type": "diff", "path": "f", "oldText": "a\n", "newText": "b\n"});
    let text = json!({"type": "content", "content": {"type": "text", "text": "done"}});
    let update = |status: Value, content: Value| {
        json!({
            "sessionUpdate": "tool_call_update", "toolCallId": "t1", "status": status,
            "content": content,
        })
    };
    assert_eq!(world.update(update(json!("in_progress"), Value::Null)), []);
    let told = world.update(update(json!("completed"), json!([text, diff])));
    assert_eq!(
        kinds(&told),
        ["item.completed", "item.started", "item.completed"]
    );
    let call = &told[0].data["item"];
    assert_eq!(call["kind"], "tool_call");
    assert_eq!(
        call["content"][0],
        json!({
            "type": "tool_call", "name": "Write f", "arguments": r#"{"path":"f"}"#,
            "call_id": "t1",
        })
    );
    let result = &told[2].data["item"];
    assert_eq!(result["parent_id"], call["item_id"]);
    assert_eq!(
        result["content"][0],
        json!({"type": "tool_result", "call_id": "t1", "output": "done"})
    );
    assert_eq!(result["content"][1]["type"], "file_ref");
    assert_eq!(result["content"][1]["action"], "patch");
    assert_eq!(told[1].data["item"]["item_id"], result["item_id"]);
    // What comes late says nothing; a new call of that name is a new call.
    assert_eq!(world.update(update(json!("completed"), json!([]))), []);
    let again = world.update(json!({"sessionUpdate": "tool_call", "toolCallId": "t1"}));
    assert_eq!(kinds(&again), ["item.started"]);
    assert_ne!(again[0].data["item"]["item_id"], call["item_id"]);
    let told = world.turn_ended(1, "cancelled");
    assert_eq!(kinds(&told), ["item.completed", "turn.ended"]);
}

#[test]
fn a_tool_that_reads_names_its_files_and_one_that_fails_has_failed() {
    let mut world = World::default();
    world.turn(1);
    let told = world.update(json!({
        "sessionUpdate": "tool_call", "toolCallId": "t1", "title": "Read", "kind": "read",
        "status": "failed", "locations": [{"path": "/a"}], "rawOutput": {"why": 1},
    }));
    assert_eq!(
        kinds(&told),
        [
            "item.started",
            "item.completed",
            "item.started",
            "item.completed"
        ]
    );
    let result = &told[3].data["item"];
    assert_eq!(result["status"], "failed");
    assert_eq!(
        result["content"],
        json!([
            {"type": "tool_result", "call_id": "t1", "output": r#"{"why":1}"#},
            {"type": "file_ref", "path": "/a", "action": "read"},
        ])
    );
}

#[test]
fn plans_and_modes_are_status_items() {
    let mut world = World::default();
    world.turn(1);
    for (update, label, detail) in [
        (
            json!({"sessionUpdate": "plan", "entries": [
                {"content": "a", "status": "completed"}, {"content": "b", "status": "pending"},
            ]}),
            "plan",
            "[x] a\n[ ] b",
        ),
        (
            json!({"sessionUpdate": "current_mode_update", "currentModeId": "plan"}),
            "mode",
            "plan",
        ),
        (
            json!({"sessionUpdate": "usage_update", "used": 1, "size": 2}),
            "usage",
            "1/2",
        ),
    ] {
        let told = world.update(update);
        assert_eq!(kinds(&told), ["item.started", "item.completed"]);
        let item = &told[1].data["item"];
        assert_eq!(item["kind"], "status");
        assert_eq!(
            item["content"][0],
            json!({"type": "status", "label": label, "detail": detail})
        );
    }
    let told = world.update(json!({"sessionUpdate": "news"}));
    assert_eq!(told[1].data["item"]["kind"], "unknown");
    let told = world.mark(kind::RESTORED, json!({"how": "load"}));
    assert_eq!(
        told[1].data["item"]["content"][0]["label"],
        "session.restored"
    );
    assert_eq!(told[1].source, Source::Server);
}

#[test]
fn permissions_are_asked_and_resolved() {
    for (answer, status) in [
        (Answer::Once, "accept"),
        (Answer::Always, "accept_for_session"),
        (Answer::Reject, "reject"),
    ] {
        let mut world = World::default();
        world.turn(1);
        let call = json!({"toolCallId": "a", "title": "make"});
        let told = world.asks(permission(), call.clone());
        assert_eq!(kinds(&told), ["permission.requested"]);
        assert_eq!(told[0].data["action"], "make");
        assert_eq!(told[0].data["status"], "requested");
        let params = json!({"toolCall": call, "options": permission()});
        let asking = Asking::of(world.log.len() as u64, &params);
        assert_eq!(told[0].data["permission_id"], asking.id.as_str());
        let told = world.answers(asking.result(&answer).expect("an option"));
        assert_eq!(kinds(&told), ["permission.resolved"]);
        assert_eq!(told[0].data["status"], status);
        assert_eq!(told[0].data["permission_id"], asking.id.as_str());
        assert_eq!(world.answers(json!({})), [], "once");
    }
}

#[test]
fn questions_are_asked_answered_and_rejected() {
    let options = json!(["red", "blue"].map(|name| {
        json!({"optionId": format!("o-{name}"), "kind": "allow_once", "name": name})
    }));
    let call = json!({"toolCallId": "a", "title": "Which?"});
    let asking = Asking::of(4, &json!({"toolCall": call, "options": options}));
    assert!(asking.question);
    let blue = Answer::Option("blue".to_owned());
    let green = Answer::Option("green".to_owned());
    assert_eq!(asking.result(&green), None);
    assert_eq!(asking.result(&Answer::Always), None);
    for (answer, status, response) in [
        (blue, "answered", json!("blue")),
        (Answer::Reject, "rejected", Value::Null),
    ] {
        let mut world = World::default();
        world.turn(1);
        let told = world.asks(options.clone(), call.clone());
        assert_eq!(kinds(&told), ["question.requested"]);
        assert_eq!(told[0].data["prompt"], "Which?");
        assert_eq!(told[0].data["options"], json!(["red", "blue"]));
        let told = world.answers(asking.result(&answer).expect("an option"));
        assert_eq!(kinds(&told), ["question.resolved"]);
        assert_eq!(told[0].data["status"], status);
        assert_eq!(told[0].data["response"], response);
    }
    let plan = json!({"toolCallId": "a", "title": "Ready?", "kind": "switch_mode"});
    let asking = Asking::of(4, &json!({"toolCall": plan, "options": permission()}));
    assert!(asking.question, "leaving a mode");
}

#[test]
fn an_agent_that_fails_is_an_error() {
    let mut world = World::default();
    world.turn(1);
    world.chunk("agent_message_chunk", "x");
    let told = world.agent(json!({
        "jsonrpc": "2.0", "id": "p1",
        "error": {"code": -32050, "message": "out of cheese", "data": {"a": 1}},
    }));
    assert_eq!(kinds(&told), ["item.completed", "error"]);
    assert_eq!(told[0].data["item"]["status"], "failed");
    assert_eq!(
        told[1].data,
        json!({"message": "out of cheese", "code": "-32050", "details": {"a": 1}})
    );
    assert_eq!(kinds(&world.turn_ended(1, "error")), ["turn.ended"]);
    // Of other requests the asker is told.
    let told = world.agent(json!({"jsonrpc": "2.0", "id": "x", "error": {"message": "no"}}));
    assert_eq!(told, []);
}

#[test]
fn an_agent_that_dies_is_an_error_only_to_those_who_wait() {
    let exit = json!({"status": "exit status 3", "code": 3, "stderr": ["boom"]});
    let mut world = World::default();
    assert_eq!(world.mark(kind::AGENT_EXITED, exit.clone()), []);
    world.turn(1);
    world.chunk("agent_message_chunk", "x");
    world.asks(permission(), json!({"title": "make"}));
    let told = world.mark(kind::AGENT_EXITED, exit);
    assert_eq!(
        kinds(&told),
        ["item.completed", "permission.resolved", "error"]
    );
    assert_eq!(told[1].data["status"], "reject");
    assert_eq!(told[2].data["details"]["stderr"], json!(["boom"]));
    assert_eq!(told[2].data["details"]["exit_code"], 3);
}

#[test]
fn what_cannot_be_read_or_is_lost_is_told() {
    let mut world = World::default();
    let payload = json!({"error": "not JSON", "raw": "@", "bytes": 1});
    let told = world.entry(Source::Agent, kind::UNREADABLE, &payload);
    assert_eq!(kinds(&told), ["agent.unparsed"]);
    assert_eq!(
        told[0].data,
        json!({"error": "not JSON", "location": "stdout"})
    );
    assert_eq!(told[0].raw, Some(payload));
    let told = world.mark(kind::GAP, json!({"from": 1, "to": 2}));
    assert_eq!(told[0].data["code"], "output_lost");
}

#[test]
fn between_turns_nothing_stays_open() {
    let mut world = World::default();
    let told = world.chunk("agent_message_chunk", "by the way");
    assert_eq!(
        kinds(&told),
        ["item.started", "item.delta", "item.completed"]
    );
}

#[test]
fn what_a_turn_left_open_is_found_in_the_log() {
    let mut world = World::default();
    world.turn(1);
    world.turn_ended(1, "end_turn");
    let first = world.log.len();
    world.turn(2);
    world.chunk("agent_message_chunk", "one ");
    world.update(json!({"sessionUpdate": "tool_call", "toolCallId": "t"}));
    world.chunk("agent_message_chunk", "two ");
    world.asks(permission(), json!({"title": "make"}));
    let mut again = World {
        log: world.log.clone(),
        ..World::default()
    };
    for (place, event) in world.log.iter().enumerate().skip(first) {
        again.fold.take(place as u64 + 1, event);
    }
    for world in [&mut world, &mut again] {
        world.chunk("agent_message_chunk", "three");
    }
    let end = |world: &mut World| {
        let mut told = world.answers(json!({"outcome": {"outcome": "cancelled"}}));
        told.extend(world.turn_ended(2, "end_turn"));
        told
    };
    let told = end(&mut world);
    assert_eq!(
        kinds(&told),
        [
            "permission.resolved",
            "item.completed",
            "item.completed",
            "turn.ended"
        ]
    );
    assert_eq!(end(&mut again), told);
}
