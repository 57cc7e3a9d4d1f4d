//! The project's tasks. `./x help` lists them.
#![forbid(unsafe_code)]

mod agent_sdk;
mod agents;
mod bench;
mod demo;
mod dns;
mod edges;
mod node;
mod sdk;
mod server;
mod setup;
mod soak;
mod step;
mod suite;
mod tidy;
mod trpc;
mod websocket;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::setup::Level;

#[derive(Parser)]
#[command(name = "x", about = "Tasks of the Woodfrog project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what running (with --tests or --bench: more) needs from the distribution's packages.
    Setup {
        /// Also what the tests need: Node and Python packages.
        #[arg(long)]
        tests: bool,
        /// Also what the benchmark compares with: bubblewrap and runc.
        #[arg(long)]
        bench: bool,
    },
    /// Build, start a server, make a sandbox, run code in it, show timings, clean up.
    Demo {
        /// Leave the server running and say how to use it.
        #[arg(long)]
        keep: bool,
    },
    /// Install what the tests need and run every test.
    Test {
        /// Only these steps (see the list it prints).
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Programs written against the E2B SDKs and the tRPC client, run against the built binary.
    Sdk {
        /// Only programs whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Speed and size beside peers and limits.
    Bench {
        /// Which: sandbox, commands (a part of it), sleep, sessions, followers (a part of it),
        /// runs, or ws.
        #[arg(default_value = "sandbox")]
        name: String,
        /// Not optimised: to try the benchmark itself.
        #[arg(long)]
        debug: bool,
    },
    /// Random operations on the built server, which is killed now and then, against a model.
    Soak {
        /// What: sandboxes, rounds (one sandbox falls asleep and wakes again and again, and is
        /// compared each time), or sessions (kills while agents speak, with either database).
        #[arg(default_value = "sandboxes")]
        name: String,
        /// Of sessions: how many kills.
        #[arg(long, default_value_t = 300)]
        kills: u64,
        /// Of rounds: how many.
        #[arg(long, default_value_t = 1000)]
        rounds: u64,
        /// Of sandboxes: for how long.
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
        /// The same in minutes.
        #[arg(long, conflicts_with = "seconds")]
        minutes: Option<u64>,
        /// Which sequence of operations.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Not optimised.
        #[arg(long)]
        debug: bool,
    },
    /// Rules about the tree: file sizes, crate edges, unsafe code, documentation.
    Tidy,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Setup { bench: true, .. } => setup::run(Level::Bench),
        Task::Setup { tests: true, .. } => setup::run(Level::Tests),
        Task::Setup { .. } => setup::run(Level::Run),
        Task::Demo { keep } => demo::run_demo(keep),
        Task::Test { only } => suite::run_all(&only),
        Task::Sdk { filter } => sdk::run(&filter).map(drop),
        Task::Bench { name, debug } => bench::run_bench(&name, debug),
        Task::Soak {
            name,
            kills,
            rounds,
            seconds,
            minutes,
            seed,
            debug,
        } => match name.as_str() {
            "sandboxes" => {
                let seconds = minutes.map_or(seconds, |minutes| minutes.saturating_mul(60));
                soak::run_soak(Duration::from_secs(seconds), seed, debug)
            }
            "rounds" => soak::run_rounds(rounds, debug),
            "sessions" => soak::run_sessions(kills),
            _ => anyhow::bail!("want sandboxes, rounds or sessions, not {name}"),
        },
        Task::Tidy => tidy::run().and_then(|()| edges::run()),
    }
}
