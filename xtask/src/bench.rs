//! `./x bench sandbox`: speed and size beside peers and physical limits measured in the same run.

mod commands;
mod floor;
mod handoff;
mod memory;
mod runs;
mod sample;
mod sessions;
mod sleep;
mod transfer;
mod ws;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use woodfrog_testkit::{Server, Setting, wait_for};

use crate::server::{build, complete, root};
use crate::setup::{self, Level};
use crate::step::step;
use sample::{Sample, measure};
use woodfrog_testkit::http::Client;

/// Sandboxes created one after the other for the latency figures.
const CREATES: usize = 200;
/// Sandboxes created at once.
const PARALLEL: usize = 50;

/// How long making the base template may take.
const PREPARE_MAX: std::time::Duration = std::time::Duration::from_secs(900);

/// Runs a benchmark by name; `debug` tries the benchmark itself on a build that is not optimised.
pub(crate) fn run_bench(name: &str, debug: bool) -> Result<()> {
    let measure: fn(&Server) -> Result<()> = match name {
        "sandbox" => figures,
        "commands" => |server| commands::all(server).map(|rows| table(&rows)),
        "sleep" => |server| sleep::all(server).map(|rows| table(&rows)),
        "sessions" => |server| {
            table(&sessions::all(server));
            Ok(())
        },
        "followers" => |server| sessions::followers(server).map(|rows| table(&rows)),
        "ws" => |server| {
            table(&ws::all(server));
            Ok(())
        },
        "runs" => |server| {
            table(&runs::all(server));
            Ok(())
        },
        other => {
            bail!(
                "no benchmark `{other}`; there are: sandbox, commands, sleep, sessions, followers, runs, ws"
            )
        }
    };
    setup::run(Level::Bench)?;
    let binary = match debug {
        true => step("build for debugging: the figures mean nothing", || {
            build(false)
        }),
        false => step("build for release", || build(true)),
    }?;
    complete(&binary)?;
    let data_dir = root().join("target/bench");
    // What the server sets for memory that comes later is put back at the end.
    let _setting = Setting::userfaultfd();
    std::fs::create_dir_all(&data_dir)?;
    let config = data_dir.join("bench.toml");
    std::fs::write(&config, "lazy_pages = \"on\"\n")?;
    let config = config.to_str().context("the path of the settings")?;
    let mut flags = vec!["--dev", "--config", config];
    if name == "sleep" {
        // What is left on the machine is counted there.
        flags.extend(["--spares", "0"]);
    }
    let server = Server::start(&binary, &data_dir, &flags)?;
    step("prepare the base template", || prepare(&server))?;
    let result = step("measure", || measure(&server));
    server.remove()?;
    result
}

fn figures(server: &Server) -> Result<()> {
    let mut rows = Vec::new();
    rows.extend(floor::all()?);
    rows.extend(creates(server)?);
    rows.push(turns(server)?);
    rows.push(parallel_creates(server)?);
    rows.extend(commands::all(server)?);
    rows.extend(transfer::all(server)?);
    rows.extend(memory::all(server)?);
    table(&rows);
    Ok(())
}

fn table(rows: &[Sample]) {
    println!("\n| what | figure | n |\n|---|---|---|");
    for row in rows {
        println!("{row}");
    }
}

/// The body of a create; timeouts end what an interrupted run leaves.
pub(crate) fn create_body() -> Value {
    json!({ "templateID": "base", "timeout": 600 })
}

fn create(client: &mut Client) -> Result<String> {
    let (status, body) = client.request("POST", "/v2/sandboxes", Some(&create_body()))?;
    match body["sandboxID"].as_str() {
        Some(id) if status == 201 => Ok(id.to_owned()),
        _ => bail!("create: {status} {body}"),
    }
}

fn delete(client: &mut Client, id: &str) -> Result<()> {
    let (status, body) = client.request("DELETE", &format!("/sandboxes/{id}"), None)?;
    if status != 204 {
        bail!("delete: {status} {body}");
    }
    Ok(())
}

/// The first create makes the server prepare the template, and is refused until that is done.
fn prepare(server: &Server) -> Result<()> {
    let mut client = Client::connect(server.url())?;
    let id = wait_for("the base template", PREPARE_MAX, || {
        match client.request("POST", "/v2/sandboxes", Some(&create_body())) {
            Ok((409, _)) => None,
            Ok((201, body)) => body["sandboxID"].as_str().map(|id| Ok(id.to_owned())),
            Ok((status, body)) => Some(Err(anyhow::anyhow!("create: {status} {body}"))),
            Err(error) => Some(Err(error)),
        }
    })??;
    delete(&mut client, &id)
}

/// Creates one after the other with all of them kept, then their deletes.
fn creates(server: &Server) -> Result<Vec<Sample>> {
    let mut client = Client::connect(server.url())?;
    for _ in 0..5 {
        let id = create(&mut client)?;
        delete(&mut client, &id)?;
    }
    let mut made = Vec::new();
    let name = "create through HTTP, durable, guest ready; all kept";
    let creates = measure(name, CREATES, || {
        made.push(create(&mut client)?);
        Ok(())
    })?;
    let deletes = measure("delete through HTTP, nothing left", CREATES, || {
        let id = made.pop().context("as many as were made")?;
        delete(&mut client, &id)
    })?;
    Ok(vec![creates, deletes])
}

/// Creates with a delete between each two, which the kernel is still busy with.
fn turns(server: &Server) -> Result<Sample> {
    let mut client = Client::connect(server.url())?;
    let mut millis = Vec::with_capacity(CREATES);
    for _ in 0..CREATES {
        let start = std::time::Instant::now();
        let id = create(&mut client)?;
        millis.push(start.elapsed().as_secs_f64() * 1000.0);
        delete(&mut client, &id)?;
    }
    let sample = Sample::new("create through HTTP, right after a delete", millis);
    println!("{sample}");
    Ok(sample)
}

fn parallel_creates(server: &Server) -> Result<Sample> {
    let url = server.url().to_owned();
    let start = std::time::Instant::now();
    let threads: Vec<_> = (0..PARALLEL)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || -> Result<(String, f64)> {
                let mut client = Client::connect(&url)?;
                let start = std::time::Instant::now();
                let id = create(&mut client)?;
                Ok((id, start.elapsed().as_secs_f64() * 1000.0))
            })
        })
        .collect();
    let mut times = Vec::new();
    let mut ids = Vec::new();
    for thread in threads {
        let (id, time) = thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ids.push(id);
        times.push(time);
    }
    let total = start.elapsed().as_secs_f64() * 1000.0;
    let mut client = Client::connect(&url)?;
    for id in &ids {
        delete(&mut client, id)?;
    }
    Ok(Sample::new(
        &format!("{PARALLEL} creates in parallel ({total:.0} ms in all)"),
        times,
    ))
}

/// A program to compare with, where it is there: where the server keeps its own, or the system's.
fn peer(program: &str) -> Option<PathBuf> {
    let own = Path::new("/opt/woodfrog").join(program).join("usr/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
    std::iter::once(own)
        .chain(system.map(PathBuf::from))
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
