//! The protocol, on the agent without its streams.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::{Value, json};
use woodfrog_mock_agent::{Action, Job, Mock, Options};

fn mock() -> Mock {
    Mock::new(Options {
        prefix: "mock-".to_owned(),
        store: false,
    })
}

/// The messages among the actions.
fn sent(actions: &[Action]) -> Vec<Value> {
    let lines = actions.iter().filter_map(|action| match action {
        Action::Send(line) => Some(line),
        _ => None,
    });
    lines
        .map(|line| {
            assert!(!line.contains('\n'), "a message is one line");
            serde_json::from_str(line).unwrap()
        })
        .collect()
}

fn ask(mock: &mut Mock, id: u64, method: &str, params: &Value) -> Vec<Action> {
    mock.line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string())
}

/// A mock with one session.
fn ready() -> Mock {
    let mut mock = mock();
    let params = json!({"cwd": "/work", "mcpServers": []});
    let answer = sent(&ask(&mut mock, 1, "session/new", &params));
    assert_eq!(answer[0]["result"]["sessionId"], "mock-1");
    mock
}

fn prompt(mock: &mut Mock, id: u64, text: &str) -> Vec<Action> {
    let params = json!({"sessionId": "mock-1", "prompt": [{"type": "text", "text": text}]});
    ask(mock, id, "session/prompt", &params)
}

fn said(messages: &[Value]) -> String {
    messages
        .iter()
        .filter(|m| m["params"]["update"]["sessionUpdate"] == "agent_message_chunk")
        .filter_map(|m| m["params"]["update"]["content"]["text"].as_str())
        .collect()
}

fn answer_to(messages: &[Value], id: u64) -> &Value {
    let mut answers = messages
        .iter()
        .filter(|m| m["id"] == id && m.get("method").is_none());
    let answer = answers.next().unwrap();
    assert!(answers.next().is_none(), "one answer");
    answer
}

#[test]
fn the_handshake_is_what_the_contract_says() {
    let mut mock = mock();
    let params = json!({"protocolVersion": 1, "clientCapabilities": {}});
    let answer = sent(&ask(&mut mock, 0, "initialize", &params));
    let result = &answer[0]["result"];
    assert_eq!(result["protocolVersion"], 1);
    assert_eq!(result["agentCapabilities"]["loadSession"], false);
    // A newer client is answered with what is spoken here.
    let answer = sent(&ask(
        &mut mock,
        0,
        "initialize",
        &json!({"protocolVersion": 9}),
    ));
    assert_eq!(answer[0]["result"]["protocolVersion"], 1);

    let answer = sent(&ask(
        &mut mock,
        1,
        "authenticate",
        &json!({"methodId": "mock"}),
    ));
    assert_eq!(answer[0]["result"], json!({}));
    let answer = sent(&ask(
        &mut mock,
        1,
        "authenticate",
        &json!({"methodId": "other"}),
    ));
    assert_eq!(answer[0]["error"]["code"], -32602);

    let params = json!({"cwd": "/work", "mcpServers": []});
    let answer = sent(&ask(&mut mock, 2, "session/new", &params));
    let result = &answer[0]["result"];
    let values = |option: &Value| -> Vec<Value> {
        let options = option["options"].as_array().unwrap();
        options.iter().map(|o| o["value"].clone()).collect()
    };
    let options: Vec<(Value, Vec<Value>)> = result["configOptions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|option| (option["category"].clone(), values(option)))
        .collect();
    let expected = [
        ("model", &["mock", "mock-fast"][..]),
        ("mode", &["normal", "plan"]),
        ("thought_level", &["low", "medium", "high"]),
    ];
    let expected: Vec<(Value, Vec<Value>)> = expected
        .iter()
        .map(|(id, values)| ((*id).into(), values.iter().map(|v| (*v).into()).collect()))
        .collect();
    assert_eq!(options, expected);
    assert_eq!(result["modes"]["currentModeId"], "normal");
    assert_eq!(
        result["models"]["availableModels"][1]["modelId"],
        "mock-fast"
    );
}

#[test]
fn what_is_not_spoken_is_refused() {
    let mut mock = ready();
    let cases = [
        ("session/load", json!({}), -32601),
        ("no/such", json!({}), -32601),
        (
            "session/new",
            json!({"cwd": "relative", "mcpServers": []}),
            -32602,
        ),
        ("session/new", json!({"cwd": "/work"}), -32602),
        (
            "session/prompt",
            json!({"sessionId": "other", "prompt": []}),
            -32002,
        ),
        ("session/prompt", json!({"sessionId": "mock-1"}), -32602),
        (
            "session/set_mode",
            json!({"sessionId": "mock-1", "modeId": "none"}),
            -32602,
        ),
        (
            "session/set_model",
            json!({"sessionId": "other", "modelId": "mock"}),
            -32002,
        ),
        (
            "session/set_config_option",
            json!({"sessionId": "mock-1", "configId": "none", "value": "x"}),
            -32602,
        ),
    ];
    for (method, params, code) in cases {
        let answer = sent(&ask(&mut mock, 5, method, &params));
        assert_eq!(answer.len(), 1, "{method}");
        assert_eq!(answer[0]["error"]["code"], code, "{method} {params}");
        assert_eq!(answer[0]["id"], 5);
    }
    for (line, id, code) in [
        ("garbage", Value::Null, -32700),
        ("[]", Value::Null, -32600),
        ("{}", Value::Null, -32600),
        (r#"{"id":7,"method":3}"#, json!(7), -32600),
        (r#"{"id":7}"#, json!(7), -32600),
    ] {
        let answer = sent(&mock.line(line));
        assert_eq!(answer[0]["error"]["code"], code, "{line}");
        assert_eq!(answer[0]["id"], id, "{line}");
    }
    // Nobody waits for these.
    for line in [
        r#"{"jsonrpc":"2.0","method":"no/such"}"#,
        r#"{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"mock-1"}}"#,
        r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"x","error":{}}"#,
    ] {
        assert_eq!(mock.line(line), [], "{line}");
    }
}

#[test]
fn a_prompt_is_echoed_in_pieces_and_counted() {
    let mut mock = ready();
    let messages = sent(&prompt(&mut mock, 3, "good morning"));
    assert_eq!(said(&messages), "mock: good morning");
    assert!(messages.len() >= 3, "two chunks and the answer");
    let result = &answer_to(&messages, 3)["result"];
    assert_eq!(result["stopReason"], "end_turn");
    let usage = json!({"inputTokens": 3, "outputTokens": 5, "totalTokens": 8});
    assert_eq!(result["usage"], usage);

    let long = "ä".repeat(5000);
    assert_eq!(
        said(&sent(&prompt(&mut mock, 4, &long))),
        format!("mock: {long}")
    );
}

#[test]
fn it_remembers_what_it_was_told_and_tells_history_apart() {
    let mut mock = ready();
    let question = "What did I say before?";
    let messages = sent(&prompt(&mut mock, 2, question));
    assert_eq!(said(&messages), "mock: before this I got no prompt");
    prompt(&mut mock, 3, "first");
    prompt(&mut mock, 4, "second");
    let messages = sent(&prompt(&mut mock, 5, "mock: before"));
    assert_eq!(
        said(&messages),
        "mock: before this I got 3 prompts; the last was: second"
    );

    let mut fresh = ready();
    let blocks = json!([{"type": "text", "text": "history"}, {"type": "text", "text": question}]);
    let params = json!({"sessionId": "mock-1", "prompt": blocks});
    let messages = sent(&ask(&mut fresh, 2, "session/prompt", &params));
    let expected = "mock: before this I got no prompt (this one came with 7 characters of history)";
    assert_eq!(said(&messages), expected);
    // A script is found behind the history.
    let blocks = json!([
        {"type": "text", "text": "history"},
        {"type": "image", "mimeType": "image/png", "data": ""},
        {"type": "text", "text": "mock: blocks"},
    ]);
    let params = json!({"sessionId": "mock-1", "prompt": blocks});
    let messages = sent(&ask(&mut fresh, 3, "session/prompt", &params));
    assert_eq!(said(&messages), "3 blocks: text of 7, image, text of 12");
}

#[test]
fn settings_are_kept_and_announced() {
    let mut mock = ready();
    let params = json!({"sessionId": "mock-1", "modeId": "plan"});
    let messages = sent(&ask(&mut mock, 2, "session/set_mode", &params));
    assert_eq!(messages[0]["params"]["update"]["currentModeId"], "plan");
    assert_eq!(answer_to(&messages, 2)["result"], json!({}));
    let params = json!({"sessionId": "mock-1", "modelId": "mock-fast"});
    ask(&mut mock, 3, "session/set_model", &params);
    let params = json!({"sessionId": "mock-1", "configId": "thought_level", "value": "high"});
    let messages = sent(&ask(&mut mock, 4, "session/set_config_option", &params));
    let options = &answer_to(&messages, 4)["result"]["configOptions"];
    assert_eq!(options[2]["currentValue"], "high");
    assert_eq!(messages[0]["params"]["update"]["configOptions"], *options);
    let messages = sent(&prompt(&mut mock, 5, "mock: settings"));
    assert_eq!(
        said(&messages),
        "model mock-fast, mode plan, thought_level high"
    );
}

#[test]
fn a_script_shows_every_kind_of_update() {
    let mut mock = ready();
    let script = "mock: think hm\n\
        mock: plan [x] read | [>] write | check\n\
        mock: tool t1 search Look around\n\
        mock: tool-done t1 found it\n\
        mock: tool t2 fetch Get\nmock: tool-fail t2 \"no\\nnetwork\"\n\
        mock: usage 10 1000 0.5 EUR\n\
        mock: mode plan\nmock: title A title\nmock: commands\n\
        mock: notify x/y {\"a\":1}\n\
        mock: cwd";
    let messages = sent(&prompt(&mut mock, 2, script));
    let kinds: Vec<&str> = messages
        .iter()
        .filter_map(|m| m["params"]["update"]["sessionUpdate"].as_str())
        .collect();
    let expected = [
        "agent_thought_chunk",
        "plan",
        "tool_call",
        "tool_call_update",
        "tool_call",
        "tool_call_update",
        "usage_update",
        "current_mode_update",
        "session_info_update",
        "available_commands_update",
        "agent_message_chunk",
    ];
    assert_eq!(kinds, expected);
    let plan = &messages[1]["params"]["update"]["entries"];
    let statuses: Vec<&str> = plan
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["completed", "in_progress", "pending"]);
    let failed = &messages[5]["params"]["update"];
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["content"][0]["content"]["text"], "no\nnetwork");
    let cost = json!({"amount": 0.5, "currency": "EUR"});
    assert_eq!(messages[6]["params"]["update"]["cost"], cost);
    assert_eq!(said(&messages), "/work");
}

#[test]
fn permission_decides_how_it_goes_on() {
    let script = "mock: ask Delete it\nmock: say deleted\nmock: anyway\nmock: say end";
    let decide = |mock: &mut Mock, id: u64, outcome: Value| {
        let messages = sent(&prompt(mock, id, script));
        let Some(request) = messages
            .iter()
            .find(|m| m["method"] == "session/request_permission")
        else {
            return said(&messages);
        };
        assert_eq!(request["params"]["options"].as_array().unwrap().len(), 4);
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": outcome}});
        let messages = sent(&mock.line(&answer.to_string()));
        // The same answer again is nothing.
        assert_eq!(mock.line(&answer.to_string()), []);
        let stop = answer_to(&messages, id)["result"]["stopReason"].clone();
        format!("{} {}", said(&messages), stop.as_str().unwrap())
    };
    let selected = |id: &str| json!({"outcome": "selected", "optionId": id});
    let mut mock = ready();
    let refused = decide(&mut mock, 2, selected("reject_once"));
    assert_eq!(refused, "permission: reject_onceend end_turn");
    let cancelled = decide(&mut mock, 3, json!({"outcome": "cancelled"}));
    assert_eq!(cancelled, " cancelled");
    let allowed = decide(&mut mock, 4, selected("allow_always"));
    assert_eq!(allowed, "permission: allow_alwaysdeletedend end_turn");
    let remembered = decide(&mut mock, 5, Value::Null);
    assert_eq!(remembered, "permission: allow_alwaysdeletedend");
}

#[test]
fn a_question_gives_back_what_was_chosen() {
    let mut mock = ready();
    let messages = sent(&prompt(
        &mut mock,
        2,
        "mock: choose Which one? | red | blue",
    ));
    let request = messages
        .iter()
        .find(|m| m.get("method") == Some(&json!("session/request_permission")));
    let request = request.unwrap();
    assert_eq!(request["params"]["toolCall"]["title"], "Which one?");
    let outcome = json!({"outcome": "selected", "optionId": "blue"});
    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": outcome}});
    let messages = sent(&mock.line(&answer.to_string()));
    assert_eq!(said(&messages), "answer: blue");
}

#[test]
fn cancelling_ends_every_wait_but_a_deaf_one() {
    let cancel = r#"{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"mock-1"}}"#;
    for script in [
        "mock: delay 60000",
        "mock: hang",
        "mock: ask X",
        "mock: request a/b",
    ] {
        let mut mock = ready();
        let actions = prompt(&mut mock, 2, script);
        assert!(
            !sent(&actions)
                .iter()
                .any(|m| m["id"] == 2 && m.get("result").is_some())
        );
        let busy = sent(&prompt(&mut mock, 3, "another"));
        assert_eq!(busy[0]["error"]["code"], -32600);
        let messages = sent(&mock.line(cancel));
        assert_eq!(
            answer_to(&messages, 2)["result"]["stopReason"],
            "cancelled",
            "{script}"
        );
        // What it waited for comes too late.
        assert_eq!(mock.wake(1), []);
        assert_eq!(mock.line(cancel), []);
        let messages = sent(&prompt(&mut mock, 4, "next"));
        assert_eq!(said(&messages), "mock: next");
    }
    let mut mock = ready();
    prompt(&mut mock, 2, "mock: deaf");
    assert_eq!(mock.line(cancel), []);
}

#[test]
fn it_goes_wrong_as_told() {
    let mut mock = ready();
    let messages = sent(&prompt(&mut mock, 2, "mock: error -32050 quota used up"));
    let error = json!({"code": -32050, "message": "quota used up"});
    assert_eq!(answer_to(&messages, 2)["error"], error);
    let messages = sent(&prompt(&mut mock, 3, "mock: stop max_tokens"));
    assert_eq!(
        answer_to(&messages, 3)["result"]["stopReason"],
        "max_tokens"
    );
    let messages = sent(&prompt(
        &mut mock,
        4,
        "mock: stray \"no-such\"\nmock: twice",
    ));
    assert_eq!(messages[0]["id"], "no-such");
    assert_eq!(messages[1], messages[2]);
    let actions = prompt(
        &mut mock,
        5,
        "mock: garbage {not json\nmock: raw \"half a\"\nmock: stderr warning",
    );
    assert_eq!(actions[0], Action::Send("{not json".to_owned()));
    assert_eq!(actions[1], Action::Raw(b"half a".to_vec()));
    assert_eq!(actions[2], Action::Stderr("warning".to_owned()));
    let actions = prompt(&mut mock, 6, "mock: ignore-signals\nmock: close-stdout");
    assert_eq!(&actions[..2], [Action::IgnoreSignals, Action::CloseStdout]);
    let actions = prompt(&mut mock, 7, "mock: crash 3 out of luck\nmock: say never");
    let expected = [Action::Stderr("out of luck".to_owned()), Action::Exit(3)];
    assert_eq!(actions, expected);
}

#[test]
fn a_wrong_script_names_its_line() {
    let mut mock = ready();
    for (script, part) in [
        (
            "mock: say a\nmock: dance",
            "line 2: there is no word `dance`",
        ),
        ("mock: say a\nsay b", "line 2: a line of a script begins"),
        ("mock: delay soon", "line 1: `soon` is no number"),
        (
            "mock: delay 99999999",
            "line 1: `99999999` is no number up to 3600000",
        ),
        ("mock: tool a dance x", "kinds are read, edit"),
        ("mock: say \"open", "line 1: the string"),
        ("mock: stop now", "reasons are end_turn"),
        ("mock: crash 256", "line 1: a code"),
        ("mock: choose only?", "a question and its answers"),
        ("mock: ask", "line 1: a title is missing"),
        ("mock: usage 1", "tokens used"),
        ("mock: usage 1 2 NaN", "`NaN` is no amount"),
    ] {
        let messages = sent(&prompt(&mut mock, 2, script));
        let error = &answer_to(&messages, 2)["error"];
        assert_eq!(error["code"], -32602);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part), "{script}: {message}");
    }
    let long = "mock: say x\n".repeat(1001);
    let messages = sent(&prompt(&mut mock, 3, &long));
    assert_eq!(answer_to(&messages, 3)["error"]["code"], -32602);
}

#[test]
fn chunks_come_in_batches_that_can_be_cancelled() {
    let mut mock = ready();
    let mut all = Vec::new();
    let mut actions = prompt(&mut mock, 2, "mock: chunks 1000 100");
    while let Some(Action::Wake { ticket, after_ms }) = actions.last().cloned() {
        assert_eq!(after_ms, 0);
        assert!(actions.len() <= 65, "a batch is bounded");
        all.extend(sent(&actions));
        actions = mock.wake(ticket);
    }
    all.extend(sent(&actions));
    assert_eq!(all.len(), 1001);
    let text = |index: usize| {
        all[index]["params"]["update"]["content"]["text"]
            .as_str()
            .unwrap()
    };
    for index in [0, 499, 999] {
        assert_eq!(text(index).len(), 100);
        assert!(text(index).starts_with(&format!("{} x", index + 1)));
    }
    let actions = prompt(&mut mock, 3, "mock: chunks 2 1 50");
    assert_eq!(
        actions.last(),
        Some(&Action::Wake {
            ticket: 2,
            after_ms: 50
        })
    );
}

#[test]
fn files_are_written_where_the_session_is() {
    let mut mock = ready();
    let actions = prompt(
        &mut mock,
        2,
        "mock: write a/b.txt \"one\\n\"\nmock: say done",
    );
    let Some(Action::Perform { ticket, job }) = actions.last() else {
        panic!("a job is expected");
    };
    let expected = Job::Write {
        path: "/work/a/b.txt".into(),
        text: "one\n".to_owned(),
    };
    assert_eq!(*job, expected);
    let messages = sent(&mock.performed(*ticket, Ok(String::new())));
    assert_eq!(messages[0]["params"]["update"]["status"], "completed");
    let diff = json!([{"type": "diff", "path": "/work/a/b.txt", "newText": "one\n"}]);
    assert_eq!(messages[0]["params"]["update"]["content"], diff);
    assert_eq!(said(&messages), "done");

    let actions = prompt(&mut mock, 3, "mock: write /etc/x y");
    let Some(Action::Perform { ticket, .. }) = actions.last() else {
        panic!("a job is expected");
    };
    let messages = sent(&mock.performed(*ticket, Err("not permitted".to_owned())));
    assert_eq!(messages[0]["params"]["update"]["status"], "failed");
}

#[test]
fn a_stored_session_is_told_again() {
    let mut mock = Mock::new(Options {
        prefix: "a-".to_owned(),
        store: true,
    });
    let params = json!({"cwd": "/work", "mcpServers": []});
    let actions = ask(&mut mock, 1, "session/new", &params);
    let mut history = String::new();
    let mut keep = |actions: &[Action]| {
        for action in actions {
            if let Action::Record { session, entry } = action {
                assert_eq!(session, "a-1");
                history.push_str(entry);
                history.push('\n');
            }
        }
    };
    keep(&actions);
    let params = json!({"sessionId": "a-1", "prompt": [{"type": "text", "text": "hello"}]});
    keep(&ask(&mut mock, 2, "session/prompt", &params));

    let mut fresh = Mock::new(Options {
        prefix: "b-".to_owned(),
        store: true,
    });
    let params = json!({"sessionId": "a-1", "cwd": "/work", "mcpServers": []});
    let actions = ask(&mut fresh, 3, "session/load", &params);
    let [
        Action::Perform {
            ticket,
            job: Job::Recall { session },
        },
    ] = &actions[..]
    else {
        panic!("the history is wanted: {actions:?}");
    };
    assert_eq!(session, "a-1");
    let messages = sent(&fresh.performed(*ticket, Ok(history)));
    let told: Vec<(&str, &str)> = messages[..2]
        .iter()
        .map(|m| &m["params"]["update"])
        .map(|u| {
            (
                u["sessionUpdate"].as_str().unwrap(),
                u["content"]["text"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("user_message_chunk", "hello"),
        ("agent_message_chunk", "mock: hello"),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        answer_to(&messages, 3)["result"]["modes"]["currentModeId"],
        "normal"
    );
    let params = json!({"sessionId": "a-1", "prompt": [{"type": "text", "text": "mock: before"}]});
    let messages = sent(&ask(&mut fresh, 4, "session/prompt", &params));
    assert_eq!(
        said(&messages),
        "mock: before this I got 1 prompt; the last was: hello"
    );

    for name in ["", "../a-1", "a/b"] {
        let params = json!({"sessionId": name, "cwd": "/work", "mcpServers": []});
        let messages = sent(&ask(&mut fresh, 5, "session/load", &params));
        assert_eq!(messages[0]["error"]["code"], -32002, "{name}");
    }
}

proptest! {
    /// Whatever comes in, the agent lives and answers with whole messages.
    #[test]
    fn no_line_breaks_it(lines in proptest::collection::vec(any_line(), 1..20)) {
        let mut mock = ready();
        for line in lines {
            sent(&mock.line(&line));
        }
    }
}

fn any_line() -> impl Strategy<Value = String> {
    let methods = [
        "initialize",
        "session/new",
        "session/prompt",
        "session/cancel",
        "session/set_mode",
    ];
    let message = (
        proptest::option::of(0_u64..4),
        proptest::sample::select(methods.to_vec()),
        "(mock: (say|hang|ask|delay|tool|plan|usage|chunks) ?[a-z0-9 |]{0,12}\n?){0,3}",
    )
        .prop_map(|(id, method, text)| {
            let params = json!({
                "sessionId": "mock-1", "cwd": "/", "mcpServers": [], "modeId": text,
                "prompt": [{"type": "text", "text": text}],
            });
            match id {
                Some(id) => json!({"id": id, "method": method, "params": params}).to_string(),
                None => json!({"method": method, "params": params}).to_string(),
            }
        });
    let answer = (0_u64..4).prop_map(|id| json!({"id": id, "result": {}}).to_string());
    prop_oneof![
        message,
        answer,
        ".*".prop_map(|s: String| s.replace(['\n', '\r'], " "))
    ]
}
