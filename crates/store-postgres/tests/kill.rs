//! `kill -9` of the server, and of the database under it, loses no entry that was acknowledged,
//! and leaves no hole and nothing twice.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use woodfrog_store::SessionStore;
use woodfrog_store::conformance::fixture::{page, session, session_event};
use woodfrog_store::conformance::session_log::append;
use woodfrog_store_postgres::{PostgresStore, Settings};
use woodfrog_types::session::{SessionFilter, Stream};
use woodfrog_types::{SessionId, WorkspaceId};

const URL_ENV: &str = "WOODFROG_TEST_STORE_URL";
const SCHEMA_ENV: &str = "WOODFROG_TEST_STORE_SCHEMA";
const WRITERS: usize = 8;
const ROUNDS: usize = 6;
/// Between two acknowledgements, and for the database to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process that is killed: each writer appends to a session of its own and, in turn, to one
/// that all share. Prints which entry is acknowledged: session, place and what is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by acknowledged_entries_survive_a_kill as a child process"]
async fn child() {
    let (Ok(url), Ok(schema)) = (std::env::var(URL_ENV), std::env::var(SCHEMA_ENV)) else {
        return;
    };
    let mut settings = Settings::new(url);
    settings.schema = schema;
    let store = Arc::new(PostgresStore::open(&settings).await.unwrap());
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
                let events = vec![session_event(Stream::Log, &payload)];
                let end = store.session_append(append(id, *epoch, events)).await;
                let line = format!("ack {id} {} {payload} .\n", end.unwrap().log);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    // Whoever lost the database ends all of it.
    writers.join_next().await.unwrap().unwrap();
}

fn start_child(settings: &Settings) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(URL_ENV, &settings.url)
        .env(SCHEMA_ENV, &settings.schema)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads acknowledgements; after `count` of them `kill` ends the child, or what it needs. Takes
/// what is left in the pipe.
fn kill_after(mut child: Child, count: usize, kill: impl FnOnce(&mut Child)) -> Vec<String> {
    let output = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            // The last line may be cut off by the kill.
            if let Some(whole) = line.strip_prefix("ack ").and_then(|l| l.strip_suffix(" .")) {
                send.send(whole.to_owned()).unwrap();
            }
        }
    });
    let first: Vec<_> = (0..count)
        .map_while(|_| lines.recv_timeout(PATIENCE).ok())
        .collect();
    kill(&mut child);
    assert!(!child.wait().unwrap().success());
    reader.join().unwrap();
    assert_eq!(first.len(), count, "the child stopped by itself");
    first.into_iter().chain(lines.try_iter()).collect()
}

/// Kills a process of the database, which ends all others of it and recovers from its log.
fn kill_database(backend: i32) {
    let mut kill = Command::new("kill");
    let status = kill.args(["-KILL", &backend.to_string()]).status();
    assert!(status.unwrap().success());
}

async fn backend(settings: &Settings) -> (tokio_postgres::Client, i32) {
    let connected = tokio_postgres::connect(&settings.url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    drop(tokio::spawn(connection));
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    let pid = row.unwrap().get(0);
    (client, pid)
}

/// The store, once the database takes connections again.
async fn reopen(settings: &Settings) -> PostgresStore {
    let open = async {
        loop {
            match PostgresStore::open(settings).await {
                Ok(store) => return store,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, open).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_entries_survive_a_kill() {
    let (store, settings) = common::fresh().await;
    drop(store);
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let (_client, pid) = backend(&settings).await;
        let child = start_child(&settings);
        let lines = kill_after(child, 1 + round * 100, |child| match round % 2 {
            0 => child.kill().unwrap(),
            _ => kill_database(pid),
        });
        acknowledged.extend(lines);
        let store = reopen(&settings).await;
        for line in &acknowledged {
            let words: Vec<_> = line.split(' ').collect();
            let [id, place, payload] = words[..] else {
                panic!("{line}");
            };
            let (id, place): (SessionId, u64) = (id.parse().unwrap(), place.parse().unwrap());
            let slice = store.session_read(&id, Stream::Log, place - 1, 1, 1).await;
            let found = slice.unwrap().events.remove(0);
            let got = (found.sequence, found.event.payload.as_str());
            assert_eq!(got, (place, payload), "{line}");
        }
        assert_dense(&store).await;
    }
}

async fn assert_dense(store: &PostgresStore) {
    let workspace = WorkspaceId::default_workspace();
    let any = SessionFilter::default();
    let all = store
        .session_list(&workspace, &any, &page(1000, None))
        .await;
    for one in all.unwrap().items {
        let slice = store
            .session_read(&one.id, Stream::Log, 0, usize::MAX, usize::MAX)
            .await;
        let slice = slice.unwrap();
        let places: Vec<_> = slice.events.iter().map(|event| event.sequence).collect();
        assert_eq!(
            places,
            (1..=slice.end.log).collect::<Vec<_>>(),
            "{}",
            one.id
        );
        // Nothing is there twice.
        let mut payloads: Vec<_> = slice.events.iter().map(|e| &e.event.payload).collect();
        payloads.sort();
        payloads.dedup();
        assert_eq!(payloads.len(), places.len(), "{}", one.id);
    }
}
