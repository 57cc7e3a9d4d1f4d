//! What stays of a sandbox and of what runs in it, whatever its clients do.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use woodfrog_sandbox::fake::Call;
use woodfrog_types::WorkspaceId;

use super::client::Served;
use crate::fixture::Server;

/// Waits for something that comes by itself.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_stale_cursor_frees_nothing_that_runs() {
    let served = Served::start().await;
    let first = json!({"cursors": true, "enable_checkpoint": true});
    let mut client = served.create(first).await;
    assert_eq!(client.run("bash", "echo one").await, 0);
    let stale = client.cursor.clone();
    assert!(stale.is_some(), "output has a cursor");
    client.exec("bash", "read x; echo two; exit 3").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let mut back = served.return_of(&client).await;
    back.stdout.clear();
    let reconnect = json!({"action": "reconnect", "cursor": stale});
    back.say(reconnect.clone()).await;
    let why = back.failure("EXECUTION_ERROR").await;
    assert!(why.contains("something else runs now"), "{why}");
    // It runs still, and nothing is done as if it did not.
    back.exec("bash", "echo second").await;
    let why = back.failure("EXECUTION_ERROR").await;
    assert_eq!(why, "An execution is already in progress.");
    back.act("checkpoint").await;
    back.failure("EXECUTION_IN_PROGRESS_ERROR").await;
    // Also while its output comes, which goes on.
    back.act("reconnect").await;
    back.say(reconnect).await;
    back.failure("EXECUTION_ERROR").await;
    back.say(json!({"event": "stdin", "data": "\n"})).await;
    assert_eq!(back.done().await, 3);
    assert_eq!(back.stdout, "two\n");
}

#[tokio::test]
async fn a_second_client_does_not_disturb_the_first_s_snapshot() {
    let (server, driver) = Server::with_fake().await;
    let served = Served::over(server).await;
    let mut first = served.plain().await;
    // Longer than it takes until a client that does not answer is dropped.
    driver.set_delay(Call::Checkpoint, Duration::from_secs(12));
    first
        .say(json!({"action": "snapshot_filesystem", "name": "slow"}))
        .await;
    assert_eq!(first.status().await, "FILESYSTEM_SNAPSHOT_CREATING");
    let mut second = served.attach(&first, &[]).await;
    let saved = Cell::new(false);
    let refused = async {
        assert_eq!(second.status().await, "IN_USE");
        assert!(!saved.get(), "it need not wait for the snapshot");
        second.closed(1011).await;
    };
    let served_first = async {
        assert_eq!(first.status().await, "FILESYSTEM_SNAPSHOT_CREATED");
        saved.set(true);
    };
    tokio::join!(refused, served_first);
    // It is attached as before.
    first.act("reconnect").await;
    first.statuses(&["EXECUTION_DONE"]).await;
}

#[tokio::test]
async fn input_that_the_stop_drops_is_told_of() {
    let served = Served::start().await;
    let mut client = served.plain().await;
    client.exec("bash", "sleep 1000").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let data = "x".repeat(4 << 20);
    client.say(json!({"event": "stdin", "data": data})).await;
    // Frames are done in their order: it was taken once this is answered.
    client.say(json!({"event": "stdin"})).await;
    client.failure("STDIN_ERROR").await;
    let sockets = served.server.app.sockets.clone();
    let stopping = tokio::spawn(async move { sockets.shutdown().await });
    let why = client.failure("STDIN_ERROR").await;
    assert!(why.contains("bytes of input"), "{why}");
    client.failure("EXECUTION_ERROR").await;
    let done = client.frame().await;
    assert_eq!(done["status"], "SANDBOX_EXECUTION_DONE", "{done}");
    client.closed(1012).await;
    stopping.await.expect("it stops");
}

#[tokio::test]
async fn nothing_is_kept_of_sandboxes_that_are_gone() {
    let served = Served::start().await;
    let sockets = served.server.app.sockets.clone();
    // Its client removes it.
    let mut client = served.plain().await;
    assert_eq!(client.run("bash", "echo x").await, 0);
    assert!(!sockets.is_empty());
    client.act("kill_sandbox").await;
    let wanted = ["KILLING", "DELETING", "DELETED", "KILLED"];
    client.statuses(&wanted).await;
    client.closed(1000).await;
    drop(client);
    eventually("the one that was killed is forgotten", async || {
        sockets.is_empty()
    })
    .await;
    // Its client leaves, and nothing runs.
    let client = served.plain().await;
    assert!(!sockets.is_empty());
    drop(client);
    eventually("the one that was left is forgotten", async || {
        sockets.is_empty()
    })
    .await;
    // Its client leaves while something runs, and somebody else removes it.
    let mut client = served.plain().await;
    client.exec("bash", "sleep 1000").await;
    assert_eq!(client.status().await, "EXECUTION_RUNNING");
    let path = format!("/api/v1/sandboxes/{}", client.id);
    drop(client);
    assert_eq!(served.server.call("DELETE", &path, "").await.status, 204);
    eventually("the one that was removed is forgotten", async || {
        sockets.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_never_falls_back_to_files() {
    let served = Served::start().await;
    let path = format!(
        "/api/v1/workspaces/{}/sleep",
        WorkspaceId::default_workspace()
    );
    let change = json!({"sleep": {"fallback": "filesystem"}, "generation": 0});
    let set = served.server.call("PUT", &path, &change.to_string()).await;
    assert_eq!(set.status, 200, "{set:?}");
    let client = served.plain().await;
    let path = format!("/api/v1/sandboxes/{}", client.id);
    let shown = served.server.call("GET", &path, "").await.json();
    assert_eq!(shown["sleep_policy"]["fallback"], "stay_paused", "{shown}");
}

#[tokio::test]
async fn a_client_that_leaves_during_its_create_leaves_nothing() {
    let (server, driver) = Server::with_fake().await;
    let served = Served::over(server).await;
    driver.set_delay(Call::Launch, Duration::from_secs(1));
    let before = (driver.calls(Call::Launch), driver.calls(Call::Destroy));
    let key = served.server.admin.clone();
    let opened = served.open("/create", &[("x-api-key", &key)]).await;
    let mut client = opened.expect("a socket");
    // Nothing else would ever remove it.
    client.say(json!({"idle_timeout": 0})).await;
    assert_eq!(client.status().await, "CREATING");
    eventually("it is being made", async || {
        driver.calls(Call::Launch) > before.0
    })
    .await;
    drop(client);
    eventually("it is removed", async || {
        driver.calls(Call::Destroy) > before.1
    })
    .await;
    eventually("it is forgotten", async || {
        let left = served.server.call("GET", "/v2/sandboxes", "").await.json();
        left == Value::Array(Vec::new())
    })
    .await;
    // One whose client knows its name stays.
    driver.set_delay(Call::Launch, Duration::ZERO);
    let mut client = served.create(json!({"idle_timeout": 0})).await;
    client.act("reconnect").await;
    client.statuses(&["EXECUTION_DONE"]).await;
    let mut second = served.return_of(&client).await;
    drop(client);
    second.act("reconnect").await;
    second.statuses(&["EXECUTION_DONE"]).await;
}
