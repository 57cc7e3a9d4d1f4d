//! More sandboxes than the memory that is meant for them: those that nobody asks sleep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::json;
use woodfrog_testkit::Server;
use woodfrog_testkit::api::Api;
use woodfrog_testkit::soak::Random;

use super::MIB;
use crate::bench::sample::Sample;

const SANDBOXES: usize = 40;
const HELD_MIB: usize = 64;
/// Idle sandboxes go to disk after this.
const IDLE_SECONDS: u64 = 2;
const CLIENTS: u64 = 2;
const REQUESTS: u64 = 400;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(100);
/// What they may have together.
const BUDGET: u64 = 2 << 30;

/// Clients ask sandboxes that are chosen by Zipf's law.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut api = Api::connect(server.url())?;
    let mut ids = Vec::new();
    let result = make(&mut api, &mut ids).and_then(|()| run(server, &ids));
    for id in &ids {
        api.delete(id)?;
    }
    result
}

fn make(api: &mut Api, ids: &mut Vec<String>) -> Result<()> {
    let sleep = json!({
        "pause_after_seconds": 1, "hibernate_after_seconds": IDLE_SECONDS,
        "archive_after_seconds": null, "delete_after_seconds": null,
    });
    for _ in 0..SANDBOXES {
        let id = api.create_sleepy(256 * MIB, &sleep)?;
        ids.push(id.clone());
        api.hold_memory(&id, HELD_MIB)?;
    }
    Ok(())
}

fn run(server: &Server, ids: &[String]) -> Result<Vec<Sample>> {
    let refused = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (url, refusals) = (server.url(), &refused);
    let (times, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| peak(ids, &done));
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|number| scope.spawn(move || client(url, ids, number, refusals)))
            .collect();
        let times: Result<Vec<_>> = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect();
        done.store(true, Relaxed);
        let peak = watcher.join().map_err(|_| anyhow!("the watcher panicked"));
        times.and_then(|times| Ok((times.concat(), peak?)))
    })?;
    let name = format!("overcommit: {SANDBOXES} sandboxes of {HELD_MIB} MiB, Zipf");
    let requests = Sample::new(&format!("{name}, each request"), times);
    println!("{requests}");
    Ok(vec![
        requests,
        Sample::figure(
            format!("{name}: refused"),
            refused.load(Relaxed).to_string(),
        ),
        Sample::figure(
            format!("{name}: most memory of all together"),
            format!("{} of {} MiB", peak / MIB, BUDGET / MIB),
        ),
    ])
}

fn client(url: &str, ids: &[String], number: u64, refused: &AtomicU64) -> Result<Vec<f64>> {
    let mut api = Api::connect(url)?;
    let mut random = Random::new(number);
    let mut times = Vec::new();
    for _ in 0..REQUESTS / CLIENTS {
        let id = &ids[random.zipf(ids.len())];
        let start = Instant::now();
        match api.shell(id, "echo here") {
            Ok(said) if said == "here\n" => {
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(said) => {
                eprintln!("{id} said {said:?}");
                refused.fetch_add(1, Relaxed);
            }
            Err(error) => {
                eprintln!("{error:#}");
                refused.fetch_add(1, Relaxed);
                api = Api::connect(url)?;
            }
        }
        std::thread::park_timeout(PAUSE);
    }
    Ok(times)
}

/// The most bytes that the cgroups of these had at once.
fn peak(ids: &[String], done: &AtomicBool) -> u64 {
    let mut most = 0;
    while !done.load(Relaxed) {
        most = most.max(crate::bench::memory::charged_now(ids));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    most
}
