//! The WebSocket sandbox over a real guest.

pub(crate) mod client;
mod defects;
mod lasting;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::fixture::Server;
use client::Served;

#[tokio::test]
async fn there_is_a_rest_side() {
    let server = Server::start().await;
    for path in ["/ws/", "/ws"] {
        let hello = server.send("GET", path, None, "").await;
        assert_eq!(hello.json(), json!({"message": "Server is running"}));
    }
    let status = server.send("GET", "/ws/status", None, "").await;
    assert_eq!(status.json(), json!({"status": "ok"}));
    let refused = server.send("POST", "/ws/execute?language=bash", None, "x");
    assert_eq!(refused.await.status, 401);
    let refused = server.call("POST", "/ws/execute?language=ruby", "x").await;
    assert_eq!(refused.status, 400);
    let no_socket = server.call("GET", "/ws/create", "").await;
    assert_eq!(no_socket.status, 426);
}

#[tokio::test]
async fn code_is_executed_without_a_socket() {
    let server = Server::with_guest().await;
    let code = "echo out; echo err >&2; exit 3";
    let ran = server.call("POST", "/ws/execute?language=bash", code).await;
    assert_eq!(ran.status, 200);
    let text = String::from_utf8(ran.body).expect("text");
    assert!(text.contains("out\n") && text.contains("err\n"), "{text}");
    let left = server.call("GET", "/v2/sandboxes", "").await.json();
    assert_eq!(left, json!([]));
}

#[tokio::test]
async fn keys_are_asked_for_and_may_be_in_the_address() {
    let served = Served::start().await;
    assert!(served.open("/create", &[]).await.is_err());
    let path = format!("/create?api_key={}", served.server.admin);
    assert!(served.open(&path, &[]).await.is_ok());
    let bearer = format!("Bearer {}", served.server.admin);
    let opened = served.open("/create", &[("authorization", &bearer)]).await;
    assert!(opened.is_ok());
    assert!(served.open("/create?api_key=wrong", &[]).await.is_err());
    // As clients send the user info of `ws://x:KEY@host/ws`.
    let basic = |key: &str| format!("Basic {}", BASE64.encode(format!("x:{key}")));
    let right = basic(&served.server.admin);
    let opened = served.open("/create", &[("authorization", &right)]).await;
    assert!(opened.is_ok());
    let wrong = basic("wrong");
    let opened = served.open("/create", &[("authorization", &wrong)]).await;
    assert!(opened.is_err());
}

#[tokio::test]
async fn python_and_bash_are_run() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    let code = "import sys; print('é'); print('e', file=sys.stderr); sys.exit(4)";
    assert_eq!(client.run("python", code).await, 4);
    assert_eq!(
        (client.stdout.as_str(), client.stderr.as_str()),
        ("é\n", "e\n")
    );
    assert_eq!(client.run("bash", "echo $0 $((6*7))").await, 0);
    assert_eq!(client.stdout, "main.sh 42\n");
    // More than an argument may have.
    let long = format!("x = '{}'\nprint(len(x))", "y".repeat(300_000));
    assert_eq!(client.run("python", &long).await, 0);
    assert_eq!(client.stdout, "300000\n");
    let long = format!("x={}\necho ${{#x}}; exit 5", "y".repeat(300_000));
    assert_eq!(client.run("bash", &long).await, 5);
    assert_eq!(client.stdout, "300000\n");
}

#[tokio::test]
async fn refusals_of_a_create_have_the_contract_s_words() {
    let served = Served::start().await;
    let key = served.server.admin.clone();
    for (first, wanted) in [
        (
            json!({"enable_sandbox_handoff": true}).to_string(),
            "Sandbox handoff requires checkpointing to be enabled.",
        ),
        (
            json!({"enable_idle_timeout_auto_checkpoint": true}).to_string(),
            "Idle timeout auto checkpoint requires checkpointing to be enabled.",
        ),
        (
            json!({"filesystem_snapshot_name": "nosuch"}).to_string(),
            "Filesystem snapshot 'nosuch' not found.",
        ),
        (
            json!({"filesystem_snapshot_name": "../x"}).to_string(),
            "'../x' is no name of a snapshot: 1 to 128 characters of a-z, 0-9, '.', '_' and '-' \
             that begin with a letter or digit",
        ),
        (
            "nope".to_owned(),
            "Invalid first message: expected ident at line 1 column 2",
        ),
    ] {
        let opened = served.open("/create", &[("x-api-key", &key)]).await;
        let mut client = opened.expect("a socket");
        client.say_text(&first).await;
        assert_eq!(client.status().await, "CREATING", "{first}");
        assert_eq!(client.failure("CREATION_ERROR").await, wanted);
        client.closed(4000).await;
    }
}

#[tokio::test]
async fn input_comes_in_order_and_ends() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "cat; echo end").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let mut wanted = String::new();
    for number in 0..200 {
        let line = format!("{number}\n");
        client.say(json!({"event": "stdin", "data": line})).await;
        wanted.push_str(&line);
    }
    client.say(json!({"event": "stdin", "end": true})).await;
    assert_eq!(client.done().await, 0);
    assert_eq!(client.stdout, wanted + "end\n", "c10");
    client.say(json!({"event": "stdin"})).await;
    let message = client.failure("STDIN_ERROR").await;
    assert_eq!(
        message,
        "Invalid stdin message format. 'data' field is required."
    );
}

#[tokio::test]
async fn a_process_and_a_sandbox_are_killed() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "echo up; sleep 1000").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    client.until("up").await;
    client.exec("bash", "echo second").await;
    let message = client.failure("EXECUTION_ERROR").await;
    assert_eq!(message, "An execution is already in progress.");
    client.act("checkpoint").await;
    client.failure("EXECUTION_IN_PROGRESS_ERROR").await;
    client.act("kill_process").await;
    assert_eq!(client.status().await, "EXECUTION_FORCE_KILLED");
    assert_eq!(client.done().await, 137);
    assert_eq!(client.run("bash", "echo again").await, 0);
    assert_eq!(client.stdout, "again\n");
    client.act("kill_sandbox").await;
    let wanted = ["KILLING", "DELETING", "DELETED", "KILLED"];
    client.statuses(&wanted).await;
    client.closed(1000).await;
    let mut late = served.attach(&client, &[]).await;
    assert_eq!(late.status().await, "NOT_FOUND");
    late.closed(1011).await;
}

#[tokio::test]
async fn extensions_are_understood() {
    let served = Served::start().await;
    let env = json!({"env": {"FROG": "green"}, "metadata": {"a": "b"}});
    let mut client = served.create(env).await;
    let dir = served.server.path("");
    client
        .say(json!({
            "language": "bash", "code": "pwd; echo $FROG $POND; sleep 100",
            "cwd": dir, "env": {"POND": "deep"}, "timeout": 5,
        }))
        .await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let done = client.frame().await;
    assert_eq!(done["timed_out"], true, "{done}");
    assert_eq!(done["signal"], 9, "{done}");
    let wanted = format!("{}\n", dir.trim_end_matches('/'));
    assert!(client.stdout.starts_with(&wanted), "{}", client.stdout);
    assert!(client.stdout.contains("deep\n"), "{}", client.stdout);
    let path = format!("/api/v1/sandboxes/{}", client.id);
    let shown = served.server.call("GET", &path, "").await.json();
    assert_eq!(shown["metadata"]["a"], "b", "{shown}");
}

#[tokio::test]
async fn a_terminal_is_there_for_who_asks() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client
        .say(json!({
            "language": "bash", "code": "tty; stty size; read x; stty size",
            "pty": {"cols": 91, "rows": 17},
        }))
        .await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    client.until("17 91").await;
    client
        .say(json!({"action": "resize", "cols": 92, "rows": 18}))
        .await;
    client.say(json!({"event": "stdin", "data": "\n"})).await;
    assert_eq!(client.done().await, 0);
    assert!(client.stdout.contains("/dev/pts/"), "{}", client.stdout);
    assert!(client.stdout.contains("18 92"), "{}", client.stdout);
}

#[tokio::test]
async fn a_checkpoint_is_the_end_until_somebody_attaches() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.act("checkpoint").await;
    let wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"];
    client.statuses(&wanted).await;
    client.closed(1000).await;
    for _ in 0..3 {
        let mut again = served.attach(&client, &[]).await;
        again.statuses(&["RESTORING", "RUNNING"]).await;
        assert_eq!(again.run("bash", "echo back").await, 0);
        again.act("checkpoint").await;
        again.statuses(&wanted).await;
        again.closed(1000).await;
    }
}

#[tokio::test]
async fn snapshots_of_files_have_names() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    let snapshot = json!({"action": "snapshot_filesystem", "name": "first"});
    client.say(snapshot.clone()).await;
    let wanted = [
        "FILESYSTEM_SNAPSHOT_CREATING",
        "FILESYSTEM_SNAPSHOT_CREATED",
    ];
    client.statuses(&wanted).await;
    client.say(snapshot).await;
    assert_eq!(client.status().await, "FILESYSTEM_SNAPSHOT_CREATING");
    let message = client.failure("FILESYSTEM_SNAPSHOT_ERROR").await;
    assert!(message.contains("exists already"), "{message}");
    assert_eq!(client.status().await, "RUNNING");
    let mut copy = served
        .create(json!({"filesystem_snapshot_name": "first"}))
        .await;
    assert_eq!(copy.run("bash", "true").await, 0);
    client.say(json!({"action": "snapshot_filesystem"})).await;
    client.failure("ERROR").await;
    client.closed(4000).await;
}

#[tokio::test]
async fn large_output_is_whole_in_both_ways() {
    let served = Served::start().await;
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    for cursors in [false, true] {
        let mut client = served.create(json!({ "cursors": cursors })).await;
        assert_eq!(client.run("bash", "seq 1 200000").await, 0);
        assert!(client.stdout == wanted, "cursors: {cursors}");
        assert_eq!(client.cursor.is_some(), cursors);
    }
}

#[tokio::test]
async fn what_clients_change_is_in_the_audit_log() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    assert_eq!(client.run("bash", "true").await, 0);
    client.exec("bash", "sleep 600").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    client.act("kill_process").await;
    client.statuses(&["EXECUTION_FORCE_KILLED"]).await;
    client.done().await;
    let snapshot = json!({"action": "snapshot_filesystem", "name": "of-audit"});
    client.say(snapshot.clone()).await;
    let snapshotted = [
        "FILESYSTEM_SNAPSHOT_CREATING",
        "FILESYSTEM_SNAPSHOT_CREATED",
    ];
    client.statuses(&snapshotted).await;
    client.say(snapshot).await;
    assert_eq!(client.status().await, "FILESYSTEM_SNAPSHOT_CREATING");
    client.failure("FILESYSTEM_SNAPSHOT_ERROR").await;
    assert_eq!(client.status().await, "RUNNING");
    client.act("checkpoint").await;
    client.statuses(&["CHECKPOINTING"]).await;
    while client.next().await.is_ok() {}
    let mut again = served.attach(&client, &[]).await;
    again.statuses(&["RESTORING", "RUNNING"]).await;
    // The answer comes when the entry was asked for.
    let refused = served.create_refused(json!({"template": "nosuch"})).await;
    assert!(refused.contains("nosuch"), "{refused}");
    let ran = served
        .server
        .call("POST", "/ws/execute?language=bash", "true");
    assert_eq!(ran.await.status, 200);
    let expected = [
        ("sandbox.create", "done"),
        ("process.start", "done"),
        ("process.start", "done"),
        ("process.control", "done"),
        ("sandbox.checkpoint", "done"),
        ("sandbox.checkpoint", "failed"),
        ("sandbox.sleep", "done"),
        ("sandbox.wake", "done"),
        ("sandbox.create", "failed"),
        ("process.start", "done"),
    ];
    let audit = "/api/v1/workspaces/current/audit?limit=100";
    let entries = async {
        loop {
            let listed = served.server.call("GET", audit, "").await.json();
            let items = listed["items"].as_array().expect("items").clone();
            let items = items.into_iter().filter(|entry| entry["face"] == "ws");
            let mut items: Vec<serde_json::Value> = items.collect();
            if items.len() >= expected.len() {
                items.sort_by_key(|entry| entry["sequence"].as_u64());
                return items;
            }
            tokio::task::yield_now().await;
        }
    };
    let entries = tokio::time::timeout(client::PATIENCE, entries).await;
    let entries = entries.expect("the log never has them all");
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry["action"].as_str(), entry["outcome"].as_str()))
        .collect();
    let expected = expected.map(|(action, outcome)| (Some(action), Some(outcome)));
    assert_eq!(told, expected, "{entries:?}");
    let of_sandbox = entries.iter().take(8);
    for entry in of_sandbox {
        assert_eq!(entry["target"], client.id.as_str(), "{entry}");
    }
    // Who made it is known by the key; who attaches has the sandbox's token alone.
    assert!(entries[1]["key"].is_string(), "{}", entries[1]);
    assert!(entries[7]["key"].is_null(), "{}", entries[7]);
    assert_eq!(entries[5]["detail"], "already_exists");
}
