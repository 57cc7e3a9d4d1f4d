//! `kill -9` loses nothing that was acknowledged, and leaves nothing half written.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use woodfrog_store::conformance::fixture::{
    event, moved, running, sandbox, session, session_event,
};
use woodfrog_store::conformance::session_log::append;
use woodfrog_store::{EventStore, SandboxStore, SessionStore};
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::session::{SessionFilter, Stream};
use woodfrog_types::{SandboxId, SessionId, WorkspaceId};

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

/// As [`child`], for the logs of sessions: each writer has one of its own, and all write to one
/// more. Prints which entry is acknowledged: session, place and what is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by acknowledged_entries_survive_a_kill as a child process"]
async fn session_child() {
    let Some(path) = std::env::var_os(CHILD_ENV) else {
        return;
    };
    let store = Arc::new(SqliteStore::open(Path::new(&path)).unwrap());
    let made = async || {
        let one = session(&WorkspaceId::default_workspace(), 0);
        store.session_insert(&one).await.unwrap();
        let (_, end) = store.session_claim(&one.id).await.unwrap();
        (one.id, end.epoch)
    };
    let shared = made().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (store, targets) = (Arc::clone(&store), [shared.clone(), made().await]);
        writers.spawn(async move {
            for number in 0.. {
                let (id, epoch) = &targets[number % 2];
                let payload = format!("{writer}-{number}");
                let events = vec![session_event(Stream::Log, &payload); 1 + number % 3 / 2];
                let end = store.session_append(append(id, *epoch, events)).await;
                let line = format!("ack {id} {} {payload}\n", end.unwrap().log);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    writers.join_next().await.unwrap().unwrap();
}

fn start_child(path: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name, "--nocapture"])
        .env(CHILD_ENV, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads acknowledgements; kills the child after `count` and takes what is left in the pipe.
fn kill_after(mut child: Child, count: usize) -> Vec<String> {
    let output = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if let Some(what) = line.strip_prefix("ack ") {
                send.send(what.to_owned()).unwrap();
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
    let mut acknowledged: Vec<SandboxId> = Vec::new();
    for round in 0..ROUNDS {
        let lines = kill_after(start_child(&path, "child"), 1 + round * 40);
        // The last line may be cut off by the kill.
        acknowledged.extend(lines.iter().filter_map(|line| line.parse().ok()));
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

/// Entries of a session that were acknowledged are at the place that was told, and logs have no
/// holes: also across the points where the index takes entries up.
#[tokio::test]
async fn acknowledged_entries_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    for round in 0..ROUNDS {
        let child = start_child(&path, "session_child");
        let lines = kill_after(child, 1 + round * 400);
        let store = SqliteStore::open(&path).unwrap();
        for line in &lines {
            // The last line may be cut off by the kill.
            let words: Vec<_> = line.split(' ').collect();
            let [id, place, payload] = words[..] else {
                continue;
            };
            let (Ok(id), Ok(place)) = (id.parse::<SessionId>(), place.parse::<u64>()) else {
                continue;
            };
            let slice = store.session_read(&id, Stream::Log, place - 1, 1, 1).await;
            let found = slice.unwrap().events.remove(0);
            assert_eq!(found.sequence, place, "{line}");
            let cut_off = Some(line) == lines.last();
            assert!(
                found.event.payload == payload
                    || cut_off && found.event.payload.starts_with(payload),
                "{line}: {}",
                found.event.payload
            );
        }
        assert_dense(&store).await;
    }
}

async fn assert_dense(store: &SqliteStore) {
    let workspace = WorkspaceId::default_workspace();
    let page = woodfrog_types::page::PageRequest {
        limit: 1000,
        cursor: None,
    };
    let any = SessionFilter::default();
    let all = store.session_list(&workspace, &any, &page).await;
    for one in all.unwrap().items {
        let slice = store.session_read(&one.id, Stream::Log, 0, usize::MAX, usize::MAX);
        let slice = slice.await.unwrap();
        let places: Vec<_> = slice.events.iter().map(|event| event.sequence).collect();
        assert_eq!(
            places,
            (1..=slice.end.log).collect::<Vec<_>>(),
            "{}",
            one.id
        );
    }
}
