//! What the contract lists as defects of another server, each by its number.

use serde_json::json;
use woodfrog_sandbox::fake::Call;

use super::client::{Client, Served};
use crate::fixture::Server;

#[tokio::test]
async fn c1_a_wrong_token_touches_nothing() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.act("checkpoint").await;
    let wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"];
    client.statuses(&wanted).await;
    client.closed(1000).await;
    for (token, why) in [
        ("", "Sandbox token is missing."),
        ("wrong", "Invalid sandbox token."),
        (&"0".repeat(64), "Invalid sandbox token."),
    ] {
        let path = format!("/attach/{}?sandbox_token={token}", client.id);
        let mut stranger = served.open(&path, &[]).await.expect("a socket");
        assert_eq!(stranger.failure("PERMISSION_DENIAL_ERROR").await, why);
        stranger.closed(4000).await;
    }
    let path = format!("/attach/{}", client.id);
    assert!(served.open(&path, &[]).await.is_err(), "without a token");
    let path = format!("/api/v1/sandboxes/{}", client.id);
    let shown = served.server.call("GET", &path, "").await.json();
    assert_eq!(shown["state"], "hibernated", "{shown}");
}

#[tokio::test]
async fn c1_a_stranger_does_not_disturb_who_is_attached() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "read x; echo got $x").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let path = format!("/attach/{}?sandbox_token=wrong", client.id);
    let mut stranger = served.open(&path, &[]).await.expect("a socket");
    stranger.failure("PERMISSION_DENIAL_ERROR").await;
    client.say(json!({"event": "stdin", "data": "it\n"})).await;
    assert_eq!(client.done().await, 0);
    assert_eq!(client.stdout, "got it\n");
}

#[tokio::test]
async fn c2_ids_are_long_and_tokens_their_own() {
    let served = Served::start().await;
    let (one, two) = (served.plain().await, served.plain().await);
    assert_eq!(one.id.len(), 28);
    assert_eq!(one.token.len(), 64);
    assert_ne!(one.token, two.token);
    let path = format!("/attach/{}?sandbox_token={}", one.id, two.token);
    let mut stranger = served.open(&path, &[]).await.expect("a socket");
    stranger.failure("PERMISSION_DENIAL_ERROR").await;
    // The token of the guest's own API does not open it either.
    let path = format!("/api/v1/sandboxes/{}", one.id);
    let shown = served.server.call("GET", &path, "").await.json();
    let token = shown["access_token"].as_str().expect("a token");
    let path = format!("/attach/{}?sandbox_token={token}", one.id);
    let mut stranger = served.open(&path, &[]).await.expect("a socket");
    stranger.failure("PERMISSION_DENIAL_ERROR").await;
}

#[tokio::test]
async fn c3_an_exit_code_is_told() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    assert_eq!(client.run("bash", "exit 7").await, 7);
    assert_eq!(
        client
            .run("python", "import os; os.kill(os.getpid(), 15)")
            .await,
        143
    );
}

#[tokio::test]
async fn c4_work_is_no_idleness() {
    let served = Served::start().await;
    let mut client = served.create(json!({"idle_timeout": 1})).await;
    assert_eq!(client.run("bash", "sleep 2").await, 0);
    // Then nothing happens.
    client.statuses(&["DELETING", "DELETED"]).await;
    client.closed(1000).await;
    let mut late = served.attach(&client, &[]).await;
    assert_eq!(late.status().await, "NOT_FOUND");
}

#[tokio::test]
async fn c4_an_idle_sandbox_is_kept_where_that_was_asked_for() {
    let served = Served::start().await;
    let first = json!({
        "idle_timeout": 1, "enable_checkpoint": true,
        "enable_idle_timeout_auto_checkpoint": true,
    });
    let mut client = served.create(first).await;
    let wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"];
    client.statuses(&wanted).await;
    client.closed(1000).await;
    let mut again = served.attach(&client, &[]).await;
    again.statuses(&["RESTORING", "RUNNING"]).await;
}

#[tokio::test]
async fn c4_a_client_that_left_leaves_the_clock_running() {
    let served = Served::start().await;
    let client = served.create(json!({"idle_timeout": 1})).await;
    let path = format!("/api/v1/sandboxes/{}", client.id);
    drop(client);
    let began = std::time::Instant::now();
    while served.server.call("GET", &path, "").await.status != 404 {
        assert!(
            began.elapsed() < super::client::PATIENCE,
            "it is still there"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn c5_a_stop_of_the_server_keeps_the_sandbox() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "sleep 1000").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let sockets = served.server.app.sockets.clone();
    let stopping = tokio::spawn(async move { sockets.shutdown().await });
    let message = client.failure("EXECUTION_ERROR").await;
    assert!(message.contains("the process goes on"), "{message}");
    let done = client.frame().await;
    assert_eq!(done["status"], "SANDBOX_EXECUTION_DONE", "{done}");
    assert_eq!(done["detached"], true, "{done}");
    client.closed(1012).await;
    stopping.await.expect("it stops");
    let path = format!("/api/v1/sandboxes/{}", client.id);
    let shown = served.server.call("GET", &path, "").await.json();
    assert_eq!(shown["state"], "running", "{shown}");
}

#[tokio::test]
async fn c6_a_failed_checkpoint_destroys_nothing() {
    let (server, driver) = Server::with_fake().await;
    let served = Served::over(server).await;
    let mut client = served.plain().await;
    driver.set_broken(Call::Checkpoint, true);
    client.act("checkpoint").await;
    assert_eq!(client.status().await, "CHECKPOINTING");
    client.failure("CHECKPOINT_ERROR").await;
    client.closed(4000).await;
    let mut again = served.attach(&client, &[]).await;
    assert_eq!(again.status().await, "RUNNING");
    driver.set_broken(Call::Checkpoint, false);
    again.act("checkpoint").await;
    let wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"];
    again.statuses(&wanted).await;
}

#[tokio::test]
async fn c7_there_is_nothing_to_be_had_without_a_key() {
    let server = Server::start().await;
    for (method, path) in [
        ("GET", "/ws/list"),
        ("POST", "/ws/containers/x/suspend"),
        ("DELETE", "/ws/containers/x"),
    ] {
        let answer = server.send(method, path, None, "").await;
        assert_eq!(answer.status, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn c8_somebody_else_s_delete_closes_the_socket() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "sleep 1000").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let path = format!("/api/v1/sandboxes/{}", client.id);
    assert_eq!(served.server.call("DELETE", &path, "").await.status, 204);
    let wanted = [
        "EXECUTION_FORCE_KILLED",
        "EXECUTION_DONE",
        "DELETING",
        "DELETED",
    ];
    client.statuses(&wanted).await;
    client.closed(1000).await;
}

#[tokio::test]
async fn c9_cuts_lose_and_double_nothing() {
    let served = Served::start().await;
    let code = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exit 9";
    let wanted: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    for cursors in [true, false] {
        let mut client = served.create(json!({ "cursors": cursors })).await;
        client.exec("bash", code).await;
        assert_eq!(client.status().await, "EXECUTION_RUNNING");
        for cut in 1..=20 {
            client.until(&format!("\n{}\n", cut * 800)).await;
            let back = served.return_of(&client).await;
            let mut reconnect = json!({"action": "reconnect"});
            if cursors {
                reconnect["cursor"] = client.cursor.clone().into();
            }
            client = back;
            client.say(reconnect).await;
        }
        assert_eq!(client.done().await, 9);
        assert!(client.stdout == wanted, "cursors: {cursors}");
    }
}

#[tokio::test]
async fn c9_a_process_waits_for_its_client() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "read x; seq 1 2000000").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    client.say(json!({"event": "stdin", "data": "\n"})).await;
    client.until("100\n").await;
    let mut back = served.return_of(&client).await;
    drop(client);
    back.act("reconnect").await;
    assert_eq!(back.done().await, 0);
    let wanted: String = (1..=2_000_000)
        .map(|number| format!("{number}\n"))
        .collect();
    assert!(back.stdout == wanted);
}

#[tokio::test]
async fn c9_the_end_is_told_to_who_comes_back_after_it() {
    let served = Served::start().await;
    let mut client = served.create(json!({"cursors": true})).await;
    client.exec("bash", "read x; echo last; exit 6").await;
    let running = client.frame().await;
    client.say(json!({"event": "stdin", "data": "\n"})).await;
    let mut back = served.return_of(&client).await;
    let cursor = &running["cursor"];
    assert!(cursor.is_string(), "{running}");
    back.say(json!({"action": "reconnect", "cursor": cursor}))
        .await;
    assert_eq!(back.done().await, 6);
    assert_eq!(back.stdout, "last\n");
    back.act("reconnect").await;
    assert_eq!(back.done().await, -1, "nothing runs");
}

#[tokio::test]
async fn a_second_client_is_refused_while_the_first_lives() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "sleep 1000").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let mut second = served.attach(&client, &[]).await;
    let status = tokio::select! {
        status = second.status() => status,
        // It answers pings only while it is read from.
        came = client.next() => panic!("nothing comes, but {came:?}"),
    };
    assert_eq!(status, "IN_USE");
    second.closed(1011).await;
    client.act("kill_process").await;
    assert_eq!(client.status().await, "EXECUTION_FORCE_KILLED");
}

#[tokio::test]
async fn c11_a_snapshot_is_its_workspace_s_own() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client
        .say(json!({"action": "snapshot_filesystem", "name": "mine"}))
        .await;
    let wanted = [
        "FILESYSTEM_SNAPSHOT_CREATING",
        "FILESYSTEM_SNAPSHOT_CREATED",
    ];
    client.statuses(&wanted).await;
    let key = served.server.other.clone();
    let opened = served.open("/create", &[("x-api-key", &key)]).await;
    let mut other = opened.expect("a socket");
    other.say(json!({"filesystem_snapshot_name": "mine"})).await;
    assert_eq!(other.status().await, "CREATING");
    other.failure("CREATION_ERROR").await;
    other.closed(4000).await;
}

#[tokio::test]
async fn c12_a_kill_removes_the_checkpoint() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.act("checkpoint").await;
    let wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"];
    client.statuses(&wanted).await;
    let mut again = served.attach(&client, &[]).await;
    again.statuses(&["RESTORING", "RUNNING"]).await;
    again.act("kill_sandbox").await;
    let wanted = ["KILLING", "DELETING", "DELETED", "KILLED"];
    again.statuses(&wanted).await;
    let left = served
        .server
        .call("GET", "/api/v1/snapshots?internal=true", "");
    let left = left.await.json();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(0), "{left}");
}

/// A sandbox that is just being restored for its first client.
async fn restoring() -> (
    Served,
    std::sync::Arc<woodfrog_sandbox::fake::FakeDriver>,
    Client,
) {
    let (server, driver) = Server::with_fake().await;
    let served = Served::over(server).await;
    let mut client = served.plain().await;
    client.act("checkpoint").await;
    let wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"];
    client.statuses(&wanted).await;
    client.closed(1000).await;
    driver.set_delay(Call::Restore, std::time::Duration::from_secs(3));
    let mut first = served.attach(&client, &[]).await;
    assert_eq!(first.status().await, "RESTORING");
    (served, driver, first)
}

#[tokio::test]
async fn a_second_client_does_not_disturb_the_first_s_restore() {
    let (served, _, mut first) = restoring().await;
    // Said before its time: it is done after the restore.
    first.act("reconnect").await;
    let mut second = served.attach(&first, &[]).await;
    let began = std::time::Instant::now();
    let refused = async {
        assert_eq!(second.status().await, "IN_USE");
        assert!(
            began.elapsed() < std::time::Duration::from_secs(2),
            "at once"
        );
        second.closed(1011).await;
    };
    let served_first = async {
        first.statuses(&["RUNNING", "EXECUTION_DONE"]).await;
    };
    tokio::join!(refused, served_first);
}

#[tokio::test]
async fn who_leaves_during_a_restore_gives_its_place_to_the_next() {
    let (served, driver, first) = restoring().await;
    let mut second = served.attach(&first, &[]).await;
    drop(first);
    second.statuses(&["RESTORING", "RUNNING"]).await;
    assert_eq!(driver.calls(Call::Restore), 1, "one restore serves both");
}
