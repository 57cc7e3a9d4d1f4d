use serde_json::{Value, json};

use super::*;

const PLAIN: Settings = Settings {
    checkpoint: true,
    on_idle: OnIdle::Delete,
};

fn machine() -> Machine {
    Machine::new(PLAIN, Found::Nothing, Client::Unknown)
}

/// Effects in short: statuses without their prefix, and what is done.
fn short(effects: &[Effect]) -> Vec<String> {
    let short = |effect: &Effect| match effect {
        Effect::Send(ServerFrame::Status(status, _)) => {
            status.as_str().trim_start_matches("SANDBOX_").to_owned()
        }
        Effect::Send(ServerFrame::Error { .. }) => "error".to_owned(),
        Effect::Send(ServerFrame::SandboxId { .. }) => "id".to_owned(),
        Effect::Start(_) => "start".to_owned(),
        Effect::Deliver { cursor } => match cursor {
            Some(cursor) => format!("deliver {cursor}"),
            None => "deliver".to_owned(),
        },
        Effect::Stdin { data, end } => format!("stdin {data:?} {end}"),
        Effect::Resize(_) => "resize".to_owned(),
        Effect::KillProcess => "kill process".to_owned(),
        Effect::Checkpoint => "checkpoint".to_owned(),
        Effect::Snapshot(name) => format!("snapshot {name}"),
        Effect::Delete => "delete".to_owned(),
        Effect::Close(close) => format!("close {}", close.code()),
    };
    effects.iter().map(short).collect()
}

fn frame(machine: &mut Machine, frame: Value) -> Vec<String> {
    short(&machine.frame(&frame.to_string()))
}

fn message(effects: &[Effect]) -> String {
    let mut messages = effects.iter().filter_map(|effect| match effect {
        Effect::Send(ServerFrame::Error { message }) => Some(message.clone()),
        _ => None,
    });
    messages.next_back().unwrap_or_default()
}

/// One that runs code.
fn running() -> Machine {
    let mut machine = machine();
    let effects = frame(&mut machine, json!({"language": "bash", "code": "x"}));
    assert_eq!(effects, ["start"]);
    let effects = short(&machine.started(Ok("1:0".to_owned())));
    assert_eq!(effects, ["EXECUTION_RUNNING", "deliver"]);
    machine
}

const ENDED: Ended = Ended {
    exit_code: 0,
    signal: None,
    timed_out: false,
};

#[test]
fn code_is_run_to_its_end() {
    let mut machine = running();
    let done = machine.drained(Some(Ended {
        exit_code: 137,
        signal: Some(9),
        timed_out: true,
    }));
    let Effect::Send(frame) = &done[0] else {
        panic!("{done:?}")
    };
    let text: Value = serde_json::from_str(&frame.to_text()).unwrap();
    let wanted = json!({
        "event": "status_update", "status": "SANDBOX_EXECUTION_DONE",
        "exit_code": 137, "signal": 9, "timed_out": true,
    });
    assert_eq!(text, wanted);
    assert!(!machine.is_running());
}

#[test]
fn bad_code_has_the_contract_s_words_and_is_done() {
    for (request, status, wanted) in [
        (
            json!({"language": "ruby", "code": "x"}),
            "EXECUTION_UNSUPPORTED_LANGUAGE_ERROR",
            "Unsupported language: 'ruby'. Supported languages are: python, bash",
        ),
        (
            json!({"code": "x"}),
            "EXECUTION_UNSUPPORTED_LANGUAGE_ERROR",
            "Unsupported language: 'None'. Supported languages are: python, bash",
        ),
        (
            json!({"action": "dance"}),
            "EXECUTION_UNSUPPORTED_LANGUAGE_ERROR",
            "Unsupported language: 'None'. Supported languages are: python, bash",
        ),
        (
            json!({"language": "python"}),
            "EXECUTION_ERROR",
            "Invalid message format. 'language' and 'code' fields are required. Supported \
             languages are: python, bash",
        ),
        (
            json!({"language": "python", "code": "a\u{0}"}),
            "EXECUTION_ERROR",
            "code must not contain null characters",
        ),
        (
            json!({"language": "python", "code": "", "timeout": 0}),
            "EXECUTION_ERROR",
            "timeout must be more than 0 and at most 2592000 seconds",
        ),
    ] {
        let mut machine = machine();
        let effects = machine.frame(&request.to_string());
        assert_eq!(short(&effects), [status, "error", "EXECUTION_DONE"]);
        assert_eq!(message(&effects), wanted);
        assert!(!machine.is_running() && !machine.is_closed());
    }
}

#[test]
fn a_status_says_why_by_itself() {
    let effects = machine().frame(r#"{"language":"ruby"}"#);
    let Effect::Send(ServerFrame::Status(_, details)) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!(details.message.as_deref(), Some(message(&effects).as_str()));
}

#[test]
fn one_execution_at_a_time() {
    let mut machine = running();
    let effects = machine.frame(r#"{"language":"bash","code":"y"}"#);
    assert_eq!(short(&effects), ["EXECUTION_ERROR", "error"]);
    assert_eq!(message(&effects), "An execution is already in progress.");
    let bad = frame(&mut machine, json!({"language": "ruby"}));
    assert_eq!(bad, ["EXECUTION_ERROR", "error"]);
    assert!(machine.is_running());
}

#[test]
fn input_is_passed_on() {
    let mut machine = running();
    let said = frame(&mut machine, json!({"event": "stdin", "data": "a"}));
    assert_eq!(said, [r#"stdin "a" false"#]);
    let ended = frame(&mut machine, json!({"event": "stdin", "end": true}));
    assert_eq!(ended, [r#"stdin "" true"#]);
    for bad in [
        json!({"event": "stdin"}),
        json!({"event": "stdin", "data": 5}),
    ] {
        let effects = machine.frame(&bad.to_string());
        assert_eq!(short(&effects), ["STDIN_ERROR", "error"]);
        assert_eq!(
            message(&effects),
            "Invalid stdin message format. 'data' field is required."
        );
    }
}

#[test]
fn a_process_is_killed() {
    let mut machine = machine();
    let kill = json!({"action": "kill_process"});
    let nothing = frame(&mut machine, kill.clone());
    assert_eq!(nothing, ["EXECUTION_FORCE_KILLED"]);
    let mut machine = running();
    assert_eq!(frame(&mut machine, kill.clone()), ["kill process"]);
    assert_eq!(short(&machine.killed(Ok(()))), ["EXECUTION_FORCE_KILLED"]);
    assert_eq!(short(&machine.drained(Some(ENDED))), ["EXECUTION_DONE"]);
    let mut machine = running();
    let failed = machine.killed(Err(Failed::new("no")));
    assert_eq!(short(&failed), ["EXECUTION_FORCE_KILL_ERROR", "error"]);
    // One that another connection left.
    let mut machine = Machine::new(PLAIN, Found::Running, Client::Unknown);
    assert_eq!(frame(&mut machine, kill), ["kill process"]);
    let killed = short(&machine.killed(Ok(())));
    assert_eq!(killed, ["EXECUTION_FORCE_KILLED", "deliver"]);
}

#[test]
fn a_checkpoint_is_the_end_for_this_client() {
    let mut machine = machine();
    let checkpoint = json!({"action": "checkpoint"});
    let begun = frame(&mut machine, checkpoint);
    assert_eq!(begun, ["CHECKPOINTING", "checkpoint"]);
    let done = short(&machine.checkpointed(Ok(())));
    assert_eq!(done, ["DELETING", "DELETED", "CHECKPOINTED", "close 1000"]);
    assert!(machine.is_closed());
    let after = frame(&mut machine, json!({"language": "bash", "code": "x"}));
    assert!(after.is_empty());
}

#[test]
fn a_checkpoint_waits_for_nobody_s_code() {
    let mut machine = running();
    let effects = frame(&mut machine, json!({"action": "checkpoint"}));
    assert_eq!(effects, ["EXECUTION_IN_PROGRESS_ERROR", "error"]);
    assert!(machine.is_running() && !machine.is_closed());
}

#[test]
fn c6_a_failed_checkpoint_deletes_nothing() {
    let mut failed = machine();
    frame(&mut failed, json!({"action": "checkpoint"}));
    let effects = short(&failed.checkpointed(Err(Failed::new("disk full"))));
    assert_eq!(effects, ["CHECKPOINT_ERROR", "error", "close 4000"]);
    let mut refused = Machine::new(
        Settings {
            checkpoint: false,
            ..PLAIN
        },
        Found::Nothing,
        Client::Unknown,
    );
    let effects = frame(&mut refused, json!({"action": "checkpoint"}));
    assert_eq!(effects, ["CHECKPOINT_ERROR", "error", "close 4000"]);
}

#[test]
fn snapshots_have_names() {
    let mut machine = machine();
    let snapshot = |name: &str| json!({"action": "snapshot_filesystem", "name": name});
    let begun = frame(&mut machine, snapshot("n"));
    assert_eq!(begun, ["FILESYSTEM_SNAPSHOT_CREATING", "snapshot n"]);
    let done = short(&machine.snapshotted(Ok(())));
    assert_eq!(done, ["FILESYSTEM_SNAPSHOT_CREATED"]);
    for bad in ["../x", "", "a/b", "..", "A"] {
        let effects = frame(&mut machine, snapshot(bad));
        let wanted = [
            "FILESYSTEM_SNAPSHOT_CREATING",
            "FILESYSTEM_SNAPSHOT_ERROR",
            "error",
            "RUNNING",
        ];
        assert_eq!(effects, wanted, "c11 {bad}");
    }
    let missing = frame(&mut machine, json!({"action": "snapshot_filesystem"}));
    assert_eq!(missing, ["ERROR", "error", "close 4000"]);
}

#[test]
fn a_sandbox_is_killed_with_its_process() {
    let kill = json!({"action": "kill_sandbox"});
    let mut quiet = machine();
    assert_eq!(
        frame(&mut quiet, kill.clone()),
        ["KILLING", "DELETING", "delete"]
    );
    let done = short(&quiet.deleted(Ok(())));
    assert_eq!(done, ["DELETED", "KILLED", "close 1000"]);
    let mut busy = running();
    let begun = ["KILLING", "DELETING", "delete"];
    assert_eq!(frame(&mut busy, kill.clone()), begun);
    let failed = short(&busy.deleted(Err(Failed::new("no"))));
    assert_eq!(failed, ["KILL_ERROR", "error"]);
    // Its process is not forgotten with that.
    assert!(busy.is_running() && !busy.is_closed());
    let second = frame(&mut busy, json!({"language": "bash", "code": "x"}));
    assert_eq!(second, ["EXECUTION_ERROR", "error"]);
    assert_eq!(frame(&mut busy, kill), begun);
    let done = short(&busy.deleted(Ok(())));
    let wanted = [
        "EXECUTION_FORCE_KILLED",
        "EXECUTION_DONE",
        "DELETED",
        "KILLED",
        "close 1000",
    ];
    assert_eq!(done, wanted);
}

#[test]
fn a_stale_cursor_frees_nothing_that_runs() {
    let stale = Failed::new("stale");
    let reconnect = json!({"action": "reconnect", "cursor": "1:5"});
    let mut held = Machine::new(PLAIN, Found::Running, Client::Unknown);
    assert_eq!(frame(&mut held, reconnect.clone()), ["deliver 1:5"]);
    let told = short(&held.misplaced(Found::Running, &stale));
    assert_eq!(told, ["EXECUTION_ERROR", "error"]);
    assert!(held.is_running());
    let exec = json!({"language": "bash", "code": "x"});
    assert_eq!(frame(&mut held, exec), ["EXECUTION_ERROR", "error"]);
    let checkpoint = frame(&mut held, json!({"action": "checkpoint"}));
    assert_eq!(checkpoint, ["EXECUTION_IN_PROGRESS_ERROR", "error"]);
    assert!(held.idle().is_empty());
    let whole = frame(&mut held, json!({"action": "reconnect"}));
    assert_eq!(whole, ["deliver"]);
    let mut left = Machine::new(PLAIN, Found::Ended, Client::Unknown);
    frame(&mut left, reconnect.clone());
    let told = short(&left.misplaced(Found::Ended, &stale));
    assert_eq!(told, ["EXECUTION_ERROR", "error"]);
    assert!(!left.is_running());
    // Nobody waits for what is not there.
    let mut nothing = machine();
    frame(&mut nothing, reconnect);
    let told = short(&nothing.misplaced(Found::Nothing, &stale));
    assert_eq!(told, ["EXECUTION_ERROR", "error", "EXECUTION_DONE"]);
}

#[test]
fn input_that_is_lost_is_told_of_before_the_end() {
    let stopped = running().shutdown(5);
    let wanted = [
        "STDIN_ERROR",
        "error",
        "EXECUTION_ERROR",
        "error",
        "EXECUTION_DONE",
        "close 1012",
    ];
    assert_eq!(short(&stopped), wanted);
    assert!(message(&stopped[..2]).contains("5 bytes"));
    let moved = short(&running().moved(5));
    let wanted = [
        "LOCK_RELEASE_REQUESTED",
        "CHECKPOINTING",
        "STDIN_ERROR",
        "error",
        "EXECUTION_DONE",
    ];
    assert_eq!(moved[..5], wanted);
    assert!(!short(&running().moved(0)).contains(&"STDIN_ERROR".to_owned()));
}

#[test]
fn a_client_that_comes_back_gets_the_rest() {
    let mut nothing = machine();
    let reconnect = json!({"action": "reconnect"});
    assert_eq!(frame(&mut nothing, reconnect.clone()), ["EXECUTION_DONE"]);
    let mut held = Machine::new(PLAIN, Found::Running, Client::Unknown);
    assert_eq!(frame(&mut held, reconnect), ["deliver"]);
    assert_eq!(short(&held.drained(Some(ENDED))), ["EXECUTION_DONE"]);
    // With a cursor also if the process is over, or the server knows nothing of it.
    let mut cursor = machine();
    let reconnect = json!({"action": "reconnect", "cursor": "1:5"});
    assert_eq!(frame(&mut cursor, reconnect), ["deliver 1:5"]);
}

#[test]
fn what_ended_unheard_is_told_of_and_in_nobody_s_way() {
    let mut left = Machine::new(PLAIN, Found::Running, Client::Unknown);
    left.over();
    let reconnect = json!({"action": "reconnect"});
    assert_eq!(frame(&mut left, reconnect), ["deliver"]);
    let mut left = Machine::new(PLAIN, Found::Ended, Client::Unknown);
    assert!(!left.is_running());
    let exec = json!({"language": "bash", "code": "x"});
    assert_eq!(frame(&mut left, exec), ["start"]);
}

#[test]
fn c8_an_idle_sandbox_goes_with_its_connection() {
    let mut deleted = machine();
    assert_eq!(short(&deleted.idle()), ["DELETING", "delete"]);
    assert_eq!(short(&deleted.deleted(Ok(()))), ["DELETED", "close 1000"]);
    let auto = Settings {
        on_idle: OnIdle::Checkpoint,
        ..PLAIN
    };
    let mut kept = Machine::new(auto, Found::Nothing, Client::Unknown);
    assert_eq!(short(&kept.idle()), ["CHECKPOINTING", "checkpoint"]);
    let failed = short(&kept.checkpointed(Err(Failed::new("no"))));
    assert_eq!(failed, ["error", "RUNNING"], "tried again later");
    kept.idle();
    let done = short(&kept.checkpointed(Ok(())));
    assert_eq!(done, ["DELETING", "DELETED", "CHECKPOINTED", "close 1000"]);
}

#[test]
fn c4_code_that_runs_is_no_idleness() {
    assert!(running().idle().is_empty());
    assert!(
        Machine::new(PLAIN, Found::Running, Client::Unknown)
            .idle()
            .is_empty()
    );
}

#[test]
fn somebody_else_ends_the_sandbox() {
    let gone = short(&running().gone());
    let wanted = [
        "EXECUTION_FORCE_KILLED",
        "EXECUTION_DONE",
        "DELETING",
        "DELETED",
        "close 1000",
    ];
    assert_eq!(gone, wanted);
}

#[test]
fn c5_a_stop_of_the_server_leaves_nobody_waiting() {
    let wanted = ["EXECUTION_ERROR", "error", "EXECUTION_DONE", "close 1012"];
    assert_eq!(short(&running().shutdown(0)), wanted);
    assert_eq!(short(&machine().shutdown(0)), ["close 1012"]);
    let mut returns = Machine::new(PLAIN, Found::Running, Client::Unknown);
    frame(&mut returns, json!({"action": "reconnect"}));
    assert_eq!(short(&returns.shutdown(0)), ["close 1012"]);
}

#[test]
fn what_is_no_frame_ends_the_connection_and_says_why() {
    for bad in ["nope", "[]", "5"] {
        let effects = machine().frame(bad);
        assert_eq!(short(&effects), ["ERROR", "error", "close 4000"], "{bad}");
    }
    let effects = machine().binary();
    assert_eq!(short(&effects), ["ERROR", "error", "close 4000"]);
}
