//! Logs of others, on the same disk and told to be durable: 64 clients, each of which appends
//! one entry of 1 KB to a stream of its own, waits for the answer, and appends the next.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use woodfrog_testkit::wait_for;

use super::rate;
use crate::bench::peer;
use crate::bench::sample::Sample;

pub(super) const REDIS: &str = "peer: Redis stream, appendfsync always, 64 clients";
pub(super) const NATS: &str =
    "peer: NATS JetStream, file storage, 64 clients (2.9 answers before it syncs)";

const CLIENTS: usize = 64;
const PAYLOAD: usize = 1024;
const SPAN: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn redis(dir: &Path) -> Result<Vec<Sample>> {
    let Some(program) = peer("redis-server") else {
        return Ok(vec![Sample::missing(REDIS, "apt-get install redis-server")]);
    };
    let port = free_port()?;
    let dir = dir.join("bench-redis");
    std::fs::create_dir_all(&dir)?;
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    command.args(["--save", "", "--daemonize", "no", "--dir"]);
    let _peer = Peer::start(command.arg(&dir), port, dir.clone())?;
    Ok(vec![measure(REDIS, |number| {
        RedisClient::new(port, number)
    })?])
}

pub(super) fn nats(dir: &Path) -> Result<Vec<Sample>> {
    let Some(program) = peer("nats-server") else {
        return Ok(vec![Sample::missing(NATS, "apt-get install nats-server")]);
    };
    let port = free_port()?;
    let dir = dir.join("bench-nats");
    std::fs::create_dir_all(&dir)?;
    let mut command = Command::new(program);
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--jetstream", "--store_dir"]);
    let _peer = Peer::start(command.arg(&dir), port, dir.clone())?;
    let mut first = NatsClient::new(port, 0)?;
    let stream = r#"{"name":"B","subjects":["b.*"],"storage":"file"}"#;
    let answer = first.ask("$JS.API.STREAM.CREATE.B", stream.as_bytes())?;
    ensure!(!answer.contains("\"error\""), "{answer}");
    Ok(vec![measure(NATS, |number| NatsClient::new(port, number))?])
}

/// A peer's server; it ends and its files go with this.
struct Peer {
    child: Child,
    dir: PathBuf,
}

impl Peer {
    fn start(command: &mut Command, port: u16, dir: PathBuf) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start a peer")?;
        let peer = Self { child, dir };
        wait_for("the peer's port", PATIENCE, || connect(port).ok())?;
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Somebody who appends an entry and returns when it is acknowledged.
trait Client: Send + 'static {
    fn append(&mut self, payload: &[u8]) -> Result<()>;
}

fn measure<C: Client>(name: &str, client: impl Fn(usize) -> Result<C>) -> Result<Sample> {
    let clients: Vec<C> = (0..CLIENTS).map(client).collect::<Result<_>>()?;
    let start = Instant::now();
    let threads = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || -> Result<Vec<f64>> {
            let payload = [b'x'; PAYLOAD];
            let mut millis = Vec::new();
            while start.elapsed() < SPAN {
                let one = Instant::now();
                client.append(&payload)?;
                millis.push(one.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(millis)
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut millis = Vec::new();
    for thread in threads {
        let joined = thread.join();
        millis.extend(joined.map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    let per_second = millis.len() as f64 / start.elapsed().as_secs_f64();
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis.get(millis.len() * percent / 100).copied();
    let (p50, p99) = at(50).zip(at(99)).context("no entry was written")?;
    Ok(rate(name, per_second, p50, p99))
}

struct RedisClient {
    stream: BufReader<TcpStream>,
    key: String,
}

impl RedisClient {
    fn new(port: u16, number: usize) -> Result<Self> {
        Ok(Self {
            stream: BufReader::new(connect(port)?),
            key: format!("s{number}"),
        })
    }

    /// A line without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "Redis hung up");
        Ok(line.trim_end().to_owned())
    }
}

impl Client for RedisClient {
    fn append(&mut self, payload: &[u8]) -> Result<()> {
        let words: [&[u8]; 5] = [b"XADD", self.key.as_bytes(), b"*", b"p", payload];
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)?;
        let answer = self.line()?;
        ensure!(answer.starts_with('$'), "Redis: {answer}");
        self.line().map(drop)
    }
}

struct NatsClient {
    stream: BufReader<TcpStream>,
    inbox: String,
    subject: String,
}

impl NatsClient {
    fn new(port: u16, number: usize) -> Result<Self> {
        let mut client = Self {
            stream: BufReader::new(connect(port)?),
            inbox: format!("_INBOX.{number}"),
            subject: format!("b.{number}"),
        };
        let mut greeting = String::new();
        client.stream.read_line(&mut greeting)?;
        ensure!(greeting.starts_with("INFO "), "NATS: {greeting}");
        let hello = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB {} 1\r\n",
            client.inbox
        );
        client.stream.get_mut().write_all(hello.as_bytes())?;
        Ok(client)
    }

    /// Sends a request and returns what comes to the inbox.
    fn ask(&mut self, subject: &str, payload: &[u8]) -> Result<String> {
        let head = format!("PUB {subject} {} {}\r\n", self.inbox, payload.len());
        let request = [head.as_bytes(), payload, b"\r\n"].concat();
        self.stream.get_mut().write_all(&request)?;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => self.stream.get_mut().write_all(b"PONG\r\n")?,
                ["MSG", .., length] => {
                    let mut body = vec![0; length.parse::<usize>()? + 2];
                    self.stream.read_exact(&mut body)?;
                    return Ok(String::from_utf8_lossy(&body).trim_end().to_owned());
                }
                _ => bail!("NATS: {}", line.trim_end()),
            }
        }
    }
}

impl Client for NatsClient {
    fn append(&mut self, payload: &[u8]) -> Result<()> {
        let subject = self.subject.clone();
        let answer = self.ask(&subject, payload)?;
        ensure!(answer.contains("\"seq\""), "NATS: {answer}");
        Ok(())
    }
}
