//! Conversations as their owners hold them, with a log in memory.

use serde_json::json;
use woodfrog_types::{SandboxId, SessionId, WorkspaceId};

use super::*;

mod universal;

const NOW: Timestamp = Timestamp::from_millis(1);

/// A conversation, its log, and what was done.
struct World {
    it: Conversation,
    log: Vec<SessionEvent>,
    /// The places of what clients of ACP see.
    lines: Vec<u64>,
    /// What clients of the universal schema see.
    told: Vec<NewSessionEvent>,
    acts: Vec<Act>,
    waiter: Waiter,
    output: u64,
    turns: BTreeMap<u64, Turn>,
}

fn record(face: SessionFace) -> Session {
    Session {
        id: SessionId::generate(),
        workspace: WorkspaceId::generate(),
        sandbox: SandboxId::generate(),
        face,
        name: "n".to_owned(),
        holds_name: true,
        agent: "mock".to_owned(),
        state: SessionState::Active,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
        settings: "{}".to_owned(),
        handshake: None,
        process: None,
        bindings: Vec::new(),
    }
}

impl World {
    fn raw() -> Self {
        Self::of(record(SessionFace::Acp))
    }

    fn managed() -> Self {
        let mut session = record(SessionFace::Native);
        Conversation::prepare(&mut session, &json!({"cwd": "/", "mcpServers": []}));
        Self::of(session)
    }

    fn universal() -> Self {
        let mut session = record(SessionFace::Universal);
        Conversation::prepare(&mut session, &json!({"cwd": "/", "mcpServers": []}));
        Self::of(session)
    }

    fn of(session: Session) -> Self {
        let end = LogEnd {
            epoch: 1,
            log_first: 1,
            universal_first: 1,
            ..LogEnd::default()
        };
        Self {
            it: Conversation::new(session, end, Vec::new(), 0, Options::default()),
            log: Vec::new(),
            lines: Vec::new(),
            told: Vec::new(),
            acts: Vec::new(),
            waiter: 0,
            output: 0,
            turns: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        for event in step.events {
            if event.stream == Stream::Universal && self.it.record.face == SessionFace::Universal {
                self.told.push(event);
                continue;
            }
            if event.stream == Stream::Universal {
                self.lines.push(event.payload.parse().unwrap());
                continue;
            }
            self.log.push(SessionEvent {
                session: self.it.record.id.clone(),
                sequence: self.log.len() as u64 + 1,
                event,
            });
        }
        assert_eq!(self.it.end.log, self.log.len() as u64, "places");
        let seen = self.lines.len() + self.told.len();
        assert_eq!(self.it.end.universal, seen as u64, "lines");
        for turn in step.turns {
            self.turns.insert(turn.number, turn);
        }
        if let Some(record) = step.record {
            assert_eq!(record, self.it.record);
        }
        self.acts.extend(step.acts);
    }

    fn client(&mut self, message: Value) -> Waiter {
        self.waiter += 1;
        let message = ClientMessage {
            envelope: Envelope::from_value(message).unwrap(),
            author: None,
            connection: None,
        };
        let step = self.it.client(message, self.waiter, NOW);
        self.take(step);
        self.waiter
    }

    fn prompt(&mut self, text: &str) -> Waiter {
        self.waiter += 1;
        let prompt = Prompt {
            blocks: vec![json!({"type": "text", "text": text})],
            author: Some("ann".to_owned()),
        };
        let step = self.it.prompt(prompt, self.waiter, NOW);
        self.take(step);
        self.waiter
    }

    fn agent(&mut self, message: &Value) {
        let line = message.to_string();
        self.output += line.len() as u64 + 1;
        let step = self.it.line(line.as_bytes(), self.output, &[], NOW);
        self.take(step);
    }

    fn started(&mut self) {
        assert_eq!(self.acts.pop(), Some(Act::Start));
        self.output = 0;
        let sandbox = self.it.record.sandbox.clone();
        let step = self.it.started(&sandbox, 7, NOW);
        self.take(step);
    }

    fn died(&mut self) {
        let end = AgentEnd {
            code: Some(3),
            status: "exit status 3".to_owned(),
            stderr: vec!["oh".to_owned()],
        };
        let step = self.it.exited(&end, NOW);
        self.take(step);
    }

    /// What the agent got since the last look.
    fn sent(&mut self) -> Vec<Value> {
        let mut sent = Vec::new();
        self.acts.retain(|act| match act {
            Act::Send { line, .. } => {
                sent.push(serde_json::from_str(line).unwrap());
                false
            }
            _ => true,
        });
        sent
    }

    fn answer(&mut self, waiter: Waiter) -> Option<Outcome> {
        let at = self
            .acts
            .iter()
            .position(|act| matches!(act, Act::Answer { waiter: it, .. } if *it == waiter))?;
        match self.acts.remove(at) {
            Act::Answer { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    fn kinds(&self) -> Vec<&str> {
        self.log.iter().map(|it| it.event.kind.as_str()).collect()
    }

    /// A client that has initialized and has a conversation.
    fn with_conversation(loads: bool) -> Self {
        let mut world = Self::raw();
        world.client(json!({"id": 0, "method": "initialize", "params": {"protocolVersion": 1}}));
        world.started();
        let capabilities =
            json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": loads}});
        world.agent(&json!({"id": 0, "result": capabilities}));
        world.client(json!({"id": 1, "method": "session/new", "params": {"cwd": "/w"}}));
        world.agent(&json!({"id": 1, "result": {"sessionId": "a1"}}));
        world.sent();
        world.acts.clear();
        world
    }

    fn prompted(&mut self, id: u64, session: &str) -> Waiter {
        let params = json!({"sessionId": session, "prompt": [{"type": "text", "text": "hi"}]});
        self.client(json!({"id": id, "method": "session/prompt", "params": params}))
    }
}

#[test]
fn a_request_is_logged_sent_and_answered() {
    let mut world = World::with_conversation(false);
    let waiter = world.prompted(2, "a1");
    assert_eq!(world.sent()[0]["method"], "session/prompt");
    assert_eq!(world.answer(waiter), None);
    world.agent(&json!({"method": "session/update", "params": {"sessionId": "a1"}}));
    world.agent(&json!({"id": 2, "result": {"stopReason": "end_turn"}}));
    let Some(Outcome::Response(line)) = world.answer(waiter) else {
        panic!("no answer");
    };
    assert!(line.contains("end_turn"));
    let kinds = world.kinds();
    let tail = &kinds[kinds.len() - 5..];
    let wanted = [
        kind::TURN_STARTED,
        kind::MESSAGE,
        kind::MESSAGE,
        kind::MESSAGE,
        kind::TURN_ENDED,
    ];
    assert_eq!(tail, wanted);
    assert_eq!(world.turns[&1].outcome.as_deref(), Some("end_turn"));
}

#[test]
fn the_end_of_the_agent_answers_at_once_and_the_next_message_starts_another() {
    let mut world = World::with_conversation(false);
    let waiter = world.prompted(2, "a1");
    world.sent();
    world.died();
    assert!(matches!(
        world.answer(waiter),
        Some(Outcome::Response(line)) if line.contains("exit status 3") && line.contains("oh")
    ));
    assert_eq!(world.turns[&1].outcome.as_deref(), Some("agent_exited"));
    world.acts.clear();
    let waiter = world.prompted(3, "a1");
    world.started();
    assert_eq!(world.sent()[0]["method"], "initialize");
    let own = world.log.last().unwrap().event.payload.clone();
    let own: Value = serde_json::from_str(&own).unwrap();
    world.agent(&json!({"id": own["id"], "result": {"agentCapabilities": {}}}));
    let new = world.sent().remove(0);
    assert_eq!(new["method"], "session/new");
    assert_eq!(new["params"]["cwd"], "/w");
    world.agent(&json!({"id": new["id"], "result": {"sessionId": "b1"}}));
    // The prompt waits for the past that it must carry.
    assert!(world.sent().is_empty());
    let Some(Act::Remember { conversation, .. }) = world.acts.pop() else {
        panic!("nothing is remembered");
    };
    let step = world
        .it
        .remembered(&conversation, Some("the past".to_owned()), NOW);
    world.take(step);
    let prompt = world.sent().remove(0);
    assert_eq!(prompt["params"]["sessionId"], "b1");
    assert_eq!(prompt["params"]["prompt"][0]["text"], "the past");
    // The log has what the client said, under the id that it knows.
    let logged: Value = serde_json::from_str(&world.log.last().unwrap().event.payload).unwrap();
    assert_eq!(logged["params"]["sessionId"], "a1");
    assert_eq!(logged["params"]["prompt"].as_array().unwrap().len(), 1);
    // What the agent says comes under that id too, and the past is told once.
    world.agent(&json!({"method": "session/update", "params": {"sessionId": "b1"}}));
    assert!(world.log.last().unwrap().event.payload.contains("a1"));
    world.agent(&json!({"id": 3, "result": {"stopReason": "end_turn"}}));
    assert!(world.answer(waiter).is_some());
    world.prompted(4, "a1");
    let prompt = world.sent().remove(0);
    assert_eq!(prompt["params"]["prompt"].as_array().unwrap().len(), 1);
}

#[test]
fn an_agent_that_can_load_is_told_to() {
    let mut world = World::with_conversation(true);
    world.died();
    world.acts.clear();
    world.prompted(2, "a1");
    world.started();
    let own = world.sent().remove(0);
    world.agent(&json!({"id": own["id"], "result": {"agentCapabilities": {"loadSession": true}}}));
    let load = world.sent().remove(0);
    assert_eq!(load["method"], "session/load");
    assert_eq!(load["params"]["sessionId"], "a1");
    world.agent(&json!({"method": "session/update", "params": {"sessionId": "a1"}}));
    assert_eq!(world.log.last().unwrap().event.kind, kind::REPEATED);
    world.agent(&json!({"id": load["id"], "result": null}));
    assert_eq!(world.sent()[0]["method"], "session/prompt");
}

#[test]
fn the_first_answer_to_the_agent_wins() {
    let mut world = World::with_conversation(false);
    world.prompted(2, "a1");
    let params = json!({"sessionId": "a1", "options": []});
    world.agent(&json!({"id": 0, "method": "session/request_permission", "params": params}));
    assert_eq!(world.it.asked().count(), 1);
    world.sent();
    world.client(json!({"id": 0, "result": {"outcome": "one"}}));
    world.client(json!({"id": 0, "result": {"outcome": "two"}}));
    let sent = world.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["result"]["outcome"], "one");
    assert_eq!(world.log.last().unwrap().event.kind, kind::UNMATCHED);
}

#[test]
fn requests_with_the_same_id_are_kept_apart() {
    let mut world = World::with_conversation(false);
    let one = world.client(json!({"id": 5, "method": "x/one"}));
    let two = world.client(json!({"id": 5, "method": "x/two"}));
    let sent = world.sent();
    assert_ne!(sent[0]["id"], sent[1]["id"]);
    world.agent(&json!({"id": sent[1]["id"], "result": "second"}));
    assert_eq!(
        world.answer(two),
        Some(Outcome::Response(
            json!({"id": 5, "result": "second"}).to_string()
        ))
    );
    assert_eq!(world.answer(one), None);
}

#[test]
fn two_conversations_of_the_same_name_get_different_ones() {
    let mut world = World::with_conversation(false);
    world.died();
    world.acts.clear();
    let waiter = world.client(json!({"id": 9, "method": "session/new", "params": {"cwd": "/"}}));
    world.started();
    let own = world.sent().remove(0);
    world.agent(&json!({"id": own["id"], "result": {}}));
    world.agent(&json!({"id": 9, "result": {"sessionId": "a1"}}));
    let Some(Outcome::Response(line)) = world.answer(waiter) else {
        panic!("no answer");
    };
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_ne!(answer["result"]["sessionId"], "a1");
    assert_eq!(world.it.record.bindings.len(), 2);
}

#[test]
fn answers_that_nobody_asked_for_stay_in_the_log() {
    let mut world = World::with_conversation(false);
    world.agent(&json!({"id": 77, "result": {}}));
    assert_eq!(world.log.last().unwrap().event.kind, kind::UNMATCHED);
    let step = world.it.line(b"Listening on port 80", 1000, &[], NOW);
    world.take(step);
    assert_eq!(world.log.last().unwrap().event.kind, kind::UNREADABLE);
}

#[test]
fn prompts_take_turns_in_their_order() {
    let mut world = World::managed();
    let one = world.prompt("one");
    let two = world.prompt("two");
    world.started();
    for _ in 0..2 {
        let request = world.sent().remove(0);
        let result = match request["method"].as_str().unwrap() {
            "initialize" => json!({"agentCapabilities": {}}),
            _ => json!({"sessionId": "a1"}),
        };
        world.agent(&json!({"id": request["id"], "result": result}));
    }
    let first = world.sent();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["params"]["prompt"][0]["text"], "one");
    assert_eq!(first[0]["params"]["sessionId"], "a1");
    world.agent(&json!({"id": first[0]["id"], "result": {"stopReason": "end_turn"}}));
    assert!(world.answer(one).is_some());
    let second = world.sent();
    assert_eq!(second[0]["params"]["prompt"][0]["text"], "two");
    assert_eq!(world.answer(two), None);
    let users = world.kinds().iter().filter(|it| **it == kind::USER).count();
    assert_eq!(users, 2);
    assert_eq!(world.log[0].event.author.as_deref(), Some("ann"));
}

#[test]
fn what_a_dead_server_left_is_found_in_the_log() {
    let mut world = World::managed();
    world.prompt("one");
    world.prompt("two");
    world.started();
    let own = world.sent().remove(0);
    world.agent(&json!({"id": own["id"], "result": {}}));
    let new = world.sent().remove(0);
    world.agent(&json!({"id": new["id"], "result": {"sessionId": "a1"}}));
    let prompt = world.sent().remove(0);
    let params = json!({"sessionId": "a1", "options": []});
    world.agent(&json!({"id": 0, "method": "session/request_permission", "params": params}));

    let open: Vec<Turn> = world.turns.values().cloned().collect();
    let mut end = *world.it.end();
    end.epoch += 1;
    let record = world.it.record().clone();
    let mut again = Conversation::new(record, end, open, 2, Options::default());
    again.recall(&world.log);
    world.it = again;
    world.acts.clear();
    let step = world.it.resumed(NOW);
    world.take(step);
    assert_eq!(world.it.asked().count(), 1);
    assert!(world.sent().is_empty(), "the agent has the prompt already");
    world.agent(&json!({"id": prompt["id"], "result": {"stopReason": "end_turn"}}));
    assert_eq!(world.turns[&1].outcome.as_deref(), Some("end_turn"));
    let next = world.sent().remove(0);
    assert_eq!(next["params"]["prompt"][0]["text"], "two");
}

#[test]
fn what_the_agent_asks_beyond_permissions_is_refused_for_everybody() {
    let mut world = World::managed();
    world.prompt("one");
    world.started();
    world.sent();
    world.agent(&json!({"id": 4, "method": "fs/read_text_file", "params": {}}));
    let answer = world.sent().remove(0);
    assert_eq!(answer["error"]["code"], -32601);
    assert_eq!(world.it.asked().count(), 0);
}

#[test]
fn a_session_that_is_over_takes_nothing() {
    let mut world = World::with_conversation(false);
    let waiter = world.prompted(2, "a1");
    let step = world.it.finish("closed", true, NOW);
    world.take(step);
    assert!(matches!(
        world.answer(waiter),
        Some(Outcome::Response(line)) if line.contains("closed")
    ));
    assert!(world.acts.contains(&Act::Stop));
    assert!(!world.it.record().holds_name);
    let waiter = world.prompted(3, "a1");
    assert!(matches!(
        world.answer(waiter),
        Some(Outcome::Failed(Failure::Ended { .. }))
    ));
}

#[test]
fn input_lies_without_holes() {
    let mut world = World::with_conversation(false);
    let start = world.it.end().position.input;
    world.prompted(2, "a1");
    world.client(json!({"method": "session/cancel", "params": {"sessionId": "a1"}}));
    let mut at = start;
    for act in &world.acts {
        if let Act::Send { at: place, line } = act {
            assert_eq!(*place, at);
            at += line.len() as u64;
        }
    }
    assert_eq!(world.it.end().position.input, at);
}

#[test]
fn what_clients_see_is_numbered_apart() {
    let mut world = World::with_conversation(false);
    world.prompted(2, "a1");
    world.agent(&json!({"method": "session/update", "params": {"sessionId": "a1"}}));
    world.died();
    let seen: Vec<&SessionEvent> = world.log.iter().filter(|it| it.event.is_line()).collect();
    let places: Vec<u64> = seen.iter().map(|it| it.sequence).collect();
    assert_eq!(places, world.lines);
    let kinds: Vec<&str> = seen.iter().map(|it| it.event.kind.as_str()).collect();
    let tail = &kinds[kinds.len() - 3..];
    assert_eq!(tail, [kind::MESSAGE, kind::FAILED, kind::AGENT_EXITED]);
}
