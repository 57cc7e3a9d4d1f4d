//! `./x bench runs`: what recording a run costs, how many go through, and reports over many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use woodfrog_testkit::Server;
use woodfrog_testkit::api::Api;

use super::sample::{Sample, measure};
use super::sessions::store_rows;

/// Runs of each kind, one after the other.
const RUNS: usize = 200;
/// Sandboxes that the mock agent speaks in, and clients that start runs.
const SANDBOXES: usize = 4;
const CLIENTS: usize = 8;
const LASTS: Duration = Duration::from_secs(10);

/// What measures a group of rows.
type Group = fn(&Server) -> Result<Vec<Sample>>;

/// All rows. A group that fails says so and does not hide the others.
pub(super) fn all(server: &Server) -> Vec<Sample> {
    let groups: [(&str, Group); 3] = [
        ("one after the other", one_by_one),
        ("many", many),
        ("reports", |_| {
            store_rows("woodfrog-store-sqlite", "analytics_bench")
        }),
    ];
    let mut rows = Vec::new();
    for (name, group) in groups {
        println!("\n-- {name}");
        let group = group(server);
        rows.extend(
            group.unwrap_or_else(|error| vec![Sample::missing(name, format!("{error:#}"))]),
        );
    }
    rows
}

/// The default rate is for people.
fn lift_rates(server: &Server) -> Result<()> {
    let mut args = vec!["workspace", "limits", "set"];
    for flag in [
        "--user-runs-per-minute",
        "--runs-per-minute",
        "--runs-at-once",
        "--user-requests-per-minute",
        "--requests-per-minute",
    ] {
        args.extend([flag, "none"]);
    }
    args.extend(["--workspace", "default"]);
    server.run(&args).map(drop)
}

fn sandbox(api: &mut Api) -> Result<String> {
    let made = api.must("POST", "/sandboxes", Some(&json!({"template": "base"})))?;
    let id = made["id"].as_str();
    Ok(id.context("a sandbox")?.to_owned())
}

fn run(api: &mut Api, body: &Value) -> Result<()> {
    let done = api.must("POST", "/runs", Some(body))?;
    ensure!(done["status"] == "succeeded", "{done}");
    Ok(())
}

/// The same command in the same sandbox, recorded and not.
fn one_by_one(server: &Server) -> Result<Vec<Sample>> {
    lift_rates(server)?;
    let mut api = Api::connect(server.url())?;
    let id = sandbox(&mut api)?;
    let mut rows = Vec::new();
    for (name, track) in [("recorded", true), ("not recorded", false)] {
        let body = json!({"command": "true", "sandbox": id, "wait": true, "track": track});
        run(&mut api, &body)?;
        let name = format!("run of `true` in a warm sandbox, {name}");
        rows.push(measure(&name, RUNS, || run(&mut api, &body))?);
    }
    if let [Some(with), Some(without)] = [rows[0].median(), rows[1].median()] {
        let text = format!("{:.2} ms at the median", with - without);
        rows.push(Sample::figure("what recording adds to a run", text));
    }
    api.must("DELETE", &format!("/sandboxes/{id}"), None)?;
    Ok(rows)
}

/// As many as go through.
fn many(server: &Server) -> Result<Vec<Sample>> {
    lift_rates(server)?;
    let mut api = Api::connect(server.url())?;
    let sandboxes = (0..SANDBOXES).map(|_| sandbox(&mut api));
    let sandboxes = sandboxes.collect::<Result<Vec<_>>>()?;
    let agent = |number: usize| {
        let sandbox = &sandboxes[number % SANDBOXES];
        json!({"agent": "mock", "prompt": "hello", "thread": format!("bench-{number}"),
            "sandbox": sandbox, "wait": true})
    };
    let command = |number: usize| json!({"command": "true", "sandbox": sandboxes[number % SANDBOXES], "wait": true});
    let rows = vec![
        rate(
            server,
            "runs of the mock agent, 8 clients, 4 warm sandboxes",
            &agent,
        )?,
        rate(
            server,
            "runs of `true`, 8 clients, 4 warm sandboxes",
            &command,
        )?,
    ];
    for id in sandboxes {
        api.must("DELETE", &format!("/sandboxes/{id}"), None)?;
    }
    Ok(rows)
}

/// Starts runs from all clients, each after its last one ended.
fn rate(server: &Server, name: &str, body: &(dyn Fn(usize) -> Value + Sync)) -> Result<Sample> {
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let client = |number: usize| -> Result<()> {
        let mut api = Api::connect(server.url())?;
        let body = body(number);
        // The first one starts the agent.
        run(&mut api, &body)?;
        while !over.load(Ordering::Relaxed) {
            run(&mut api, &body)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        // Threads of a scope before may have unparked this one.
        while begun.elapsed() < LASTS {
            std::thread::park_timeout(LASTS.saturating_sub(begun.elapsed()));
        }
        over.store(true, Ordering::Relaxed);
        let joined = clients.into_iter().map(|client| {
            let ended = client.join();
            ended.unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        });
        joined.collect::<Result<Vec<()>>>()
    })?;
    let per_second = done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    let row = Sample::figure(name, format!("{per_second:.0}/s"));
    println!("{row}");
    Ok(row)
}
