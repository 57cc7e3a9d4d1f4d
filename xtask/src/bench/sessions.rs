//! `./x bench sessions`: the logs of sessions, beside what the disk and SQLite allow and beside
//! peers with durable settings, all in one run.

mod followers;
mod http;
mod peers;
mod store;

use anyhow::Result;
use woodfrog_testkit::Server;

use super::sample::Sample;

/// What measures a group of rows. Those that go through HTTP get the server.
type Part = fn(&Server) -> Result<Vec<Sample>>;

/// The groups, in the order of the table.
const PARTS: &[(&str, Part)] = &[
    ("SQLite", |_| store::sqlite()),
    ("Postgres", |_| store::postgres()),
    ("HTTP", http::all),
    (peers::REDIS, |server| peers::redis(server.data_dir())),
    (peers::NATS, |server| peers::nats(server.data_dir())),
];

/// All rows. A group that fails says so and does not hide the others.
pub(super) fn all(server: &Server) -> Vec<Sample> {
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        println!("\n-- {name}");
        let part = part(server);
        rows.extend(part.unwrap_or_else(|error| vec![Sample::missing(name, format!("{error:#}"))]));
    }
    rows
}

/// The rows about those who follow a session, alone.
pub(super) fn followers(server: &Server) -> Result<Vec<Sample>> {
    http::following(server)
}

/// The rows that an example of an adapter measures in a process of its own.
pub(super) fn store_rows(package: &str, example: &str) -> Result<Vec<Sample>> {
    store::all(package, example)
}

/// A row of steps of which each made one or more entries durable, or read them.
fn rate(name: &str, per_second: f64, p50: f64, p99: f64) -> Sample {
    let text = format!("{per_second:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms");
    let row = Sample::figure(name, text);
    println!("{row}");
    row
}
