//! `./x demo`: the main job on embedded defaults, shown step by step.

use std::time::Instant;

use anyhow::Result;

use woodfrog_testkit::Server;

use crate::server::{build, complete, root};
use crate::setup;
use crate::step::{output, run, step};

const PROGRAM: &str = "import os, sys, time, platform
print('hello from', platform.node(), 'as', os.popen('whoami').read().strip(), flush=True)
for i in range(1, 4):
    time.sleep(0.3)
    print(f'streamed line {i} at {time.strftime(\"%H:%M:%S\")}', flush=True)
print('primes:', [n for n in range(2, 60) if all(n % d for d in range(2, n))], flush=True)
";

/// Runs the demo; `keep` leaves its server running.
pub(crate) fn run_demo(keep: bool) -> Result<()> {
    step("set up the machine", || setup::run(setup::Level::Run))?;
    let binary = step("build woodfrog", || build(true))?;
    step("bring what checkpoints need", || complete(&binary))?;
    let data_dir = root().join("target/demo");
    let server = step("start the server", || {
        Server::start(&binary, &data_dir, &[])
    })?;
    println!("serving on {}", server.url());
    step(
        "prepare the template `base` (once per machine: Debian packages)",
        || run(&mut server.cli(&["template", "prepare", "base"])),
    )?;

    let start = Instant::now();
    let created = output(&mut server.cli(&["sandbox", "create", "base", "--timeout", "600"]))?;
    let id = created.trim().to_owned();
    println!(
        "\nsandbox {id} created in {:.1} ms (command line included)",
        millis(start)
    );
    show(
        &server,
        &id,
        "a shell command",
        &["uname -srm; id; cat /etc/debian_version"],
    )?;
    show(
        &server,
        &id,
        "Python, streamed",
        &["python3", "-c", PROGRAM],
    )?;
    show(
        &server,
        &id,
        "it has a disk of its own",
        &["echo kept > ~/note; cat ~/note; df -h / | tail -1"],
    )?;
    sleep(&server, &id)?;
    timings(&server)?;
    finish(server, &id, keep)
}

fn show(server: &Server, id: &str, what: &str, command: &[&str]) -> Result<()> {
    println!("\n--- {what}");
    let start = Instant::now();
    let mut args = vec!["sandbox", "exec", id, "--"];
    args.extend_from_slice(command);
    run(&mut server.cli(&args))?;
    println!("--- {:.1} ms", millis(start));
    Ok(())
}

/// To disk and back, with a process that counts.
fn sleep(server: &Server, id: &str) -> Result<()> {
    let counter = "nohup sh -c 'i=0; while :; do i=$((i+1)); echo $i > ~/count; sleep 0.1; done' \
                   > /dev/null 2>&1 & sleep 1; cat ~/count";
    show(server, id, "a process that counts", &["sh", "-c", counter])?;
    println!("\n--- to sleep, on disk: nothing of it stays in memory");
    let start = Instant::now();
    run(&mut server.cli(&["sandbox", "hibernate", id]))?;
    println!("--- {:.1} ms", millis(start));
    let look = "cat ~/count; sleep 0.5; cat ~/count";
    show(
        server,
        id,
        "any access wakes it, and it counts on",
        &["sh", "-c", look],
    )
}

/// Ten more sandboxes, one after the other.
fn timings(server: &Server) -> Result<()> {
    println!("\n--- ten more sandboxes");
    let mut times = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        let text = output(&mut server.cli(&["sandbox", "create", "base", "--json"]))?;
        times.push(millis(start));
        let created: serde_json::Value = serde_json::from_str(&text)?;
        ids.extend(created["id"].as_str().map(str::to_owned));
    }
    times.sort_by(f64::total_cmp);
    println!(
        "create: fastest {:.1} ms, median {:.1} ms, slowest {:.1} ms (each with the start of a client process)",
        times[0], times[5], times[9]
    );
    let mut args = vec!["sandbox", "delete"];
    args.extend(ids.iter().map(String::as_str));
    let start = Instant::now();
    output(&mut server.cli(&args))?;
    println!("delete of all ten: {:.1} ms", millis(start));
    Ok(())
}

fn finish(server: Server, id: &str, keep: bool) -> Result<()> {
    if keep {
        let (url, binary, dir) = (
            server.url().to_owned(),
            server.binary().to_owned(),
            server.data_dir().to_owned(),
        );
        let pid = server.keep();
        println!("\nThe server keeps running (pid {pid}). Try:");
        println!(
            "  export WOODFROG_URL={url} WOODFROG_DATA_DIR={}",
            dir.display()
        );
        println!("  {} sandbox shell {id}", binary.display());
        println!("Stop it with: kill {pid}");
        return Ok(());
    }
    step("clean up", || server.remove())?;
    println!("\nAll gone. `./x demo --keep` leaves the server running.");
    Ok(())
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
