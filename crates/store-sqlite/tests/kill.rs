//! `kill -9` loses nothing that was acknowledged, and leaves nothing half written.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use woodfrog_store::conformance::fixture::{event, moved, running, sandbox};
use woodfrog_store::{EventStore, SandboxStore};
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::{SandboxId, WorkspaceId};

const CHILD_ENV: &str = "WOODFROG_TEST_STORE_CHILD";
const WRITERS: usize = 8;
const ROUNDS: usize = 6;
/// Between two acknowledgements.
const PATIENCE: Duration = Duration::from_secs(30);

/// The process that is killed: writes for ever, and prints an id once its two writes are
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by acknowledged_writes_survive_a_kill as a child process"]
async fn child() {
    let Some(path) = std::env::var_os(CHILD_ENV) else {
        return;
    };
    let store = Arc::new(SqliteStore::open(Path::new(&path)).unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            loop {
                let first = sandbox(&WorkspaceId::default_workspace(), 0);
                store
                    .sandbox_insert(&first, vec![event(0, "made"), event(0, "made too")])
                    .await
                    .unwrap();
                let second = moved(&first, running());
                store
                    .sandbox_update(&second, vec![event(0, "runs")])
                    .await
                    .unwrap();
                // One write call per line, so that lines of different tasks do not mix.
                let line = format!("ack {}\n", first.id);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    writers.join_next().await.unwrap().unwrap();
}

fn start_child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(CHILD_ENV, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads acknowledgements; kills the child after `count` and takes what is left in the pipe.
fn kill_after(mut child: Child, count: usize) -> Vec<SandboxId> {
    let output = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            // The last line may be cut off by the kill.
            let id = line.strip_prefix("ack ").map(str::parse::<SandboxId>);
            if let Some(Ok(id)) = id {
                send.send(id).unwrap();
            }
        }
    });
    let first: Vec<_> = (0..count)
        .map_while(|_| lines.recv_timeout(PATIENCE).ok())
        .collect();
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    reader.join().unwrap();
    assert_eq!(first.len(), count, "the child stopped by itself");
    first.into_iter().chain(lines.try_iter()).collect()
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        acknowledged.extend(kill_after(start_child(&path), 1 + round * 40));
        let store = SqliteStore::open(&path).unwrap();
        for id in &acknowledged {
            let found = store.sandbox_fetch(id).await.unwrap();
            assert_eq!(found.unwrap().generation, 2, "{id}");
        }
        // Acknowledged or not: a sandbox and its events were written together.
        for sandbox in store.sandbox_all().await.unwrap() {
            let log = store.event_list(&sandbox.id, 0, 10).await.unwrap();
            let events = usize::try_from(sandbox.generation).unwrap() + 1;
            assert_eq!(log.len(), events, "{}", sandbox.id);
        }
    }
}
