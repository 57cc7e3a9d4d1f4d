//! The project's tasks. `./x help` lists them.
#![forbid(unsafe_code)]

mod bench;
mod demo;
mod dns;
mod edges;
mod sdk;
mod server;
mod setup;
mod step;
mod suite;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "x", about = "Tasks of the Woodfrog project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what running (and with --tests: testing) needs from the distribution's packages.
    Setup {
        /// Also what the tests need: Node and Python packages.
        #[arg(long)]
        tests: bool,
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
    /// Programs written against the E2B SDKs, run against the built binary.
    Sdk {
        /// Only programs whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Speed and size beside peers and limits.
    Bench {
        /// Which: sandbox.
        #[arg(default_value = "sandbox")]
        name: String,
    },
    /// Rules about the tree: file sizes, crate edges, unsafe code, documentation.
    Tidy,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Setup { tests } => setup::run(tests),
        Task::Demo { keep } => demo::run_demo(keep),
        Task::Test { only } => suite::run_all(&only),
        Task::Sdk { filter } => sdk::run(&filter).map(drop),
        Task::Bench { name } => bench::run_bench(&name),
        Task::Tidy => tidy::run().and_then(|()| edges::run()),
    }
}
