//! Sessions through HTTP, on loopback, with the mock agent: what a client sees.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use woodfrog_testkit::api::Api;
use woodfrog_testkit::{Server, wait_for};

use super::followers;
use crate::bench::sample::{Sample, measure};

/// Streams on which nothing moves.
const IDLE: usize = 10_000;
/// Descriptors that are left alone.
const SPARE: usize = 500;
/// Entries of the long log.
const LONG: u64 = 1_000_000;
const PROMPTS: usize = 200;
const DELETES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(1_800);

/// A session of the mock agent, and a way to it.
pub(super) struct Session<'a> {
    server: &'a Server,
    api: Api,
    id: String,
    sandbox: String,
}

impl<'a> Session<'a> {
    pub(super) fn new(server: &'a Server) -> Result<Self> {
        let mut api = Api::connect(server.url())?;
        let made = api.must("POST", "/sessions", Some(&json!({"agent": "mock"})))?;
        let text = |name: &str| made[name].as_str().map(str::to_owned).context("a session");
        let (id, sandbox) = (text("id")?, text("sandbox")?);
        let mut session = Self {
            server,
            api,
            id,
            sandbox,
        };
        session.prompt("warm up")?;
        Ok(session)
    }

    pub(super) fn prompt(&mut self, text: &str) -> Result<()> {
        let path = format!("/sessions/{}/prompt", self.id);
        let done = self
            .api
            .must("POST", &path, Some(&json!({ "text": text })))?;
        ensure!(done["stop_reason"] == "end_turn", "{done}");
        Ok(())
    }

    pub(super) fn last(&mut self) -> Result<u64> {
        let shown = self
            .api
            .must("GET", &format!("/sessions/{}", self.id), None)?;
        shown["last"].as_u64().context("the last place")
    }

    /// A stream of what comes after a place; returns when its head is there.
    pub(super) fn follow(&self, after: u64) -> Result<BufReader<TcpStream>> {
        let host = self.server.url().trim_start_matches("http://");
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!(
            "GET /api/v1/sessions/{}/events?after={after} HTTP/1.1\r\nHost: {host}\r\n\
             X-API-Key: e2b_bench\r\nAccept: text/event-stream\r\n\r\n",
            self.id
        );
        stream.write_all(request.as_bytes())?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "{line}");
        while line.trim_end() != "" {
            line.clear();
            stream.read_line(&mut line)?;
        }
        Ok(stream)
    }

    pub(super) fn remove(mut self) -> Result<()> {
        self.api
            .must("DELETE", &format!("/sessions/{}", self.id), None)?;
        self.api.delete(&self.sandbox)
    }
}

pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = vec![load()?];
    rows.extend(prompts(server)?);
    rows.push(deletes(server)?);
    rows.extend(following(server)?);
    rows.extend(replay(server)?);
    Ok(rows)
}

/// Those who follow a session.
pub(super) fn following(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = followers::all(server)?;
    rows.push(idle(server)?);
    Ok(rows)
}

/// What else goes on here: figures mean little without it.
fn load() -> Result<Sample> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let text: Vec<&str> = text.split(' ').take(3).collect();
    Ok(Sample::figure("load of the machine before", text.join(" ")))
}

/// A prompt and its answer through the server, and to the agent alone over its pipes.
fn prompts(server: &Server) -> Result<Vec<Sample>> {
    let mut session = Session::new(server)?;
    let name = "prompt to its answer, through HTTP, in the log";
    let through = measure(name, PROMPTS, || session.prompt("hello"))?;
    session.remove()?;
    let mut child = Command::new(server.binary())
        .arg("__mock-agent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    let mut output = BufReader::new(child.stdout.take().context("its output")?);
    let mut next = 0;
    let mut ask = |method: &str, params: Value| -> Result<Value> {
        next += 1;
        let request = json!({"jsonrpc": "2.0", "id": next, "method": method, "params": params});
        writeln!(input, "{request}")?;
        loop {
            let mut line = String::new();
            ensure!(output.read_line(&mut line)? > 0, "the agent ended");
            let answer: Value = serde_json::from_str(&line)?;
            if answer["id"] == next {
                return Ok(answer["result"].clone());
            }
        }
    };
    ask(
        "initialize",
        json!({"protocolVersion": 1, "clientCapabilities": {}}),
    )?;
    let made = ask("session/new", json!({"cwd": "/", "mcpServers": []}))?;
    let prompt = json!({
        "sessionId": made["sessionId"],
        "prompt": [{"type": "text", "text": "hello"}],
    });
    let alone = measure(
        "limit: the same prompt to the agent alone, over pipes",
        PROMPTS,
        || ask("session/prompt", prompt.clone()).map(drop),
    )?;
    drop(input);
    child.wait()?;
    Ok(vec![through, alone])
}

/// DELETE of an agent that works on a prompt.
fn deletes(server: &Server) -> Result<Sample> {
    let session = Session::new(server)?;
    let base = format!("/agent/{}/v1/acp", session.sandbox);
    let head = "X-API-Key: e2b_bench\r\nContent-Type: application/json\r\n";
    let mut client = woodfrog_testkit::http::Client::connect(server.url())?;
    let mut millis = Vec::new();
    for number in 0..DELETES {
        let path = format!("{base}/b{number}?agent=mock");
        let request = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {"protocolVersion": 1, "clientCapabilities": {}},
        });
        let (status, answer) =
            client.exchange("POST", &path, head, request.to_string().as_bytes())?;
        ensure!(status == 200, "{}", String::from_utf8_lossy(&answer));
        let start = Instant::now();
        let (status, _) = client.exchange("DELETE", &format!("{base}/b{number}"), head, b"")?;
        millis.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(status == 204, "{status}");
    }
    session.remove()?;
    let row = Sample::new("DELETE of a live agent (ACP)", millis);
    println!("{row}");
    Ok(row)
}

/// Memory of the server for streams on which nothing moves.
fn idle(server: &Server) -> Result<Sample> {
    let mut session = Session::new(server)?;
    let after = session.last()?;
    let count = IDLE.min(descriptors()?.saturating_sub(SPARE));
    let before = resident(server)?;
    let streams: Vec<_> = (0..count)
        .map(|_| session.follow(after))
        .collect::<Result<_>>()?;
    let grown = resident(server)?.saturating_sub(before);
    drop(streams);
    session.remove()?;
    let each = grown as f64 / count as f64 / 1024.0;
    let name = format!("memory of the server for {count} idle followers");
    let row = Sample::figure(name, format!("{} MiB, {each:.1} KiB each", grown >> 20));
    println!("{row}");
    Ok(row)
}

/// Reading a long log from anywhere.
fn replay(server: &Server) -> Result<Vec<Sample>> {
    let mut session = Session::new(server)?;
    let start = Instant::now();
    session.prompt(&format!("mock: chunks {LONG} 64"))?;
    let written = LONG as f64 / start.elapsed().as_secs_f64();
    let last = session.last()?;
    let mut rows = vec![Sample::figure(
        "an agent's chunks, to the end of the turn",
        format!("{written:.0} entries/s"),
    )];
    for after in [0, last / 2, last - 1_000] {
        let before = resident(server)?;
        let start = Instant::now();
        let mut stream = session.follow(after)?;
        let mut line = String::new();
        let (mut first, mut seen, mut most) = (None, 0_u64, before);
        while seen < last - after {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the stream ended");
            first.get_or_insert_with(|| start.elapsed());
            if line.starts_with("data:") {
                seen += 1;
                if seen % 100_000 == 0 {
                    most = most.max(resident(server)?);
                }
            }
        }
        let rate = seen as f64 / start.elapsed().as_secs_f64();
        let first = first.unwrap_or_default().as_secs_f64() * 1000.0;
        let grown = most.saturating_sub(before) >> 20;
        rows.push(Sample::figure(
            format!("replay (SSE) of a log of {last} entries after {after}"),
            format!("first byte {first:.1} ms, {rate:.0} entries/s, memory +{grown} MiB"),
        ));
    }
    for row in &rows {
        println!("{row}");
    }
    session.remove()?;
    Ok(rows)
}

/// Bytes of the server that are in memory.
fn resident(server: &Server) -> Result<u64> {
    let read = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib << 10)
    };
    wait_for("the server's memory", Duration::from_secs(5), read)
}

/// Descriptors that both ends may have.
fn descriptors() -> Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok())
        .context("the limit of open files")
}
