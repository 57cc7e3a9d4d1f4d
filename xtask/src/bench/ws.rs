//! `./x bench ws`: sandboxes over a WebSocket, beside the same through the native API and beside
//! what a socket with nothing behind it does.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tungstenite::Message;
use woodfrog_testkit::Server;
use woodfrog_testkit::http::Client;
use woodfrog_testkit::websocket::Socket;

use super::sample::{Sample, measure};

/// Commands that are timed, and those before them that are not.
const RUNS: usize = 300;
const WARM: usize = 20;
const WAKES: usize = 20;
/// Bytes of output through one socket.
const OUTPUT: u64 = 1_000_000_000;
/// Bytes of one message of the socket with nothing behind it, as the server sends them.
const MESSAGE: usize = 64 << 10;
const KEY: &str = "e2b_bench";
const MEBI: f64 = 1024.0;

/// All rows. One that fails says so and does not hide the others.
pub(super) fn all(server: &Server) -> Vec<Sample> {
    type Part = fn(&Server) -> Result<Vec<Sample>>;
    let parts: [(&str, Part); 5] = [
        ("exec", exec),
        ("attach", attach),
        ("bare socket", |_| bare_socket()),
        ("output", output),
        ("hand-off", super::handoff::all),
    ];
    let mut rows = Vec::new();
    for (name, part) in parts {
        println!("\n-- {name}");
        let part = part(server);
        rows.extend(part.unwrap_or_else(|error| vec![Sample::missing(name, format!("{error:#}"))]));
    }
    rows
}

fn create(server: &Server, first: &Value) -> Result<Socket> {
    Socket::create(server.url(), KEY, first)
}

fn exec(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = Vec::new();
    for (name, cursors) in [("", false), (", client with cursors", true)] {
        let mut socket = create(server, &json!({ "cursors": cursors }))?;
        for _ in 0..WARM {
            socket.run("bash", "echo x")?;
        }
        let name = format!("`echo` in bash over a kept WebSocket{name}");
        rows.push(measure(&name, RUNS, || {
            socket.run("bash", "echo x")?;
            ensure!(socket.stdout == "x\n", "{}", socket.stdout);
            Ok(())
        })?);
        if cursors {
            rows.push(native(server, &socket.id)?);
        }
        socket.kill()?;
    }
    Ok(rows)
}

/// The same command through the native API on a kept connection.
fn native(server: &Server, id: &str) -> Result<Sample> {
    let mut client = Client::connect(server.url())?;
    let path = format!("/api/v1/sandboxes/{id}/exec");
    let body = json!({"command": ["/bin/bash", "-c", "echo x"]}).to_string();
    let head = "X-API-Key: e2b_bench\r\nContent-Type: application/json\r\n";
    let name = "the same through the native API on a kept connection";
    measure(name, RUNS, || {
        let (status, _) = client.exchange("POST", &path, head, body.as_bytes())?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
}

/// From the connect to the first output of a sandbox that sleeps on disk.
fn attach(server: &Server) -> Result<Vec<Sample>> {
    let mut socket = create(server, &json!({"enable_checkpoint": true}))?;
    let mut millis = Vec::new();
    let mut saves = Vec::new();
    for _ in 0..WAKES {
        let begun = Instant::now();
        socket.say(&json!({"action": "checkpoint"}))?;
        let code = socket.closed()?;
        ensure!(code == 1000, "closed with {code}: {:?}", socket.statuses);
        saves.push(begun.elapsed().as_secs_f64() * 1000.0);
        let begun = Instant::now();
        socket = Socket::attach(server.url(), &socket.id, &socket.token, false)?;
        socket.say(&json!({"language": "bash", "code": "echo awake"}))?;
        while socket.stdout.is_empty() {
            socket.read()?;
        }
        millis.push(begun.elapsed().as_secs_f64() * 1000.0);
        socket.until("EXECUTION_DONE")?;
    }
    socket.kill()?;
    let rows = vec![
        Sample::new("checkpoint over a WebSocket, to its close", saves),
        Sample::new(
            "attach to one on disk, to the first output of `echo`",
            millis,
        ),
    ];
    rows.iter().for_each(|row| println!("{row}"));
    Ok(rows)
}

/// Text messages through a WebSocket of this machine, with nothing behind it.
fn bare_socket() -> Result<Vec<Sample>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> Result<()> {
        let (stream, _) = listener.accept()?;
        let mut socket = tungstenite::accept(stream).map_err(|error| anyhow::anyhow!("{error}"))?;
        let text = "x".repeat(MESSAGE);
        for _ in 0..OUTPUT / MESSAGE as u64 {
            socket.write(Message::text(text.clone()))?;
        }
        socket.flush()?;
        socket.close(None)?;
        // The other side has read everything when it answers.
        while socket.read().is_ok() {}
        Ok(())
    });
    let stream = TcpStream::connect(address)?;
    let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let begun = Instant::now();
    let mut bytes = 0;
    while let Ok(message) = socket.read() {
        bytes += message.len() as u64;
    }
    let took = begun.elapsed().as_secs_f64();
    sender
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(vec![speed(
        "a bare WebSocket, 64 KiB messages",
        bytes,
        took,
    )])
}

fn output(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = Vec::new();
    for (name, cursors) in [(", client with cursors", true), ("", false)] {
        let mut socket = create(server, &json!({ "cursors": cursors }))?;
        let before = resident(server)?;
        socket.count = Some(0);
        let line = "0123456789abcdef".repeat(6);
        let code = format!("yes {line} | head -c {OUTPUT}");
        let begun = Instant::now();
        socket.run("bash", &code)?;
        let took = begun.elapsed().as_secs_f64();
        let bytes = socket.count.unwrap_or_default();
        ensure!(bytes >= OUTPUT, "only {bytes} bytes came");
        let grown = (peak(server)? - before).max(0.0);
        let name = format!("1 GB of output through one socket{name}");
        rows.push(speed(&name, OUTPUT, took));
        let text = format!("{grown:.0} MiB above {before:.0} MiB");
        let name = format!("{name}: most memory of the server");
        rows.push(Sample::figure(name, text));
        socket.kill()?;
    }
    rows.iter().for_each(|row| println!("{row}"));
    Ok(rows)
}

fn speed(name: &str, bytes: u64, seconds: f64) -> Sample {
    Sample::figure(name, format!("{:.0} MB/s", bytes as f64 / 1e6 / seconds))
}

fn resident(server: &Server) -> Result<f64> {
    memory(server, "VmRSS:")
}

fn peak(server: &Server) -> Result<f64> {
    memory(server, "VmHWM:")
}

/// MiB.
fn memory(server: &Server, which: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context(which.to_owned())?.parse::<f64>()? / MEBI)
}
