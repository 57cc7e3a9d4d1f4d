//! The native API, as far as benchmarks and the soak use it. The server runs with `--dev`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::http::Client;
use crate::wait_for;

/// A refusal of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    /// The code of the table of errors.
    pub code: String,
    pub message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

/// One connection to the API.
pub struct Api {
    client: Client,
}

impl Api {
    /// Connects to a server.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(url: &str) -> Result<Self> {
        let client = Client::connect(url)?;
        Ok(Self { client })
    }

    /// One request; a refusal is the inner error.
    ///
    /// # Errors
    /// The connection broke.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<std::result::Result<Value, Refused>> {
        let (status, answer) = self
            .client
            .request(method, &format!("/api/v1{path}"), body)
            .with_context(|| format!("{method} {path}"))?;
        if (200..300).contains(&status) {
            return Ok(Ok(answer));
        }
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Ok(Err(Refused {
            status,
            code: text("code"),
            message: text("detail"),
        }))
    }

    /// As [`Api::call`], where a refusal is an error too.
    ///
    /// # Errors
    /// The connection broke, or the server refused.
    pub fn must(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        match self.call(method, path, body)? {
            Ok(answer) => Ok(answer),
            Err(refused) => bail!("{method} {path}: {refused}"),
        }
    }

    /// A sandbox from `base` that never falls asleep by itself; returns its id.
    ///
    /// # Errors
    /// It could not be made.
    pub fn create(&mut self, memory_bytes: u64) -> Result<String> {
        let never = json!({
            "pause_after_seconds": null, "hibernate_after_seconds": null,
            "archive_after_seconds": null, "delete_after_seconds": null,
        });
        self.create_sleepy(memory_bytes, &never)
    }

    /// A sandbox with this sleep policy; returns its id.
    ///
    /// # Errors
    /// It could not be made.
    pub fn create_sleepy(&mut self, memory_bytes: u64, sleep: &Value) -> Result<String> {
        let body = json!({
            "template": "base",
            "sleep": sleep,
            "resources": { "memory_bytes": memory_bytes },
        });
        let made = self.must("POST", "/sandboxes", Some(&body))?;
        let id = made["id"].as_str().context("the id of a sandbox")?;
        Ok(id.to_owned())
    }

    /// One of `pause`, `hibernate`, `resume` …; returns how long it took.
    ///
    /// # Errors
    /// It was refused.
    pub fn act(&mut self, id: &str, what: &str) -> Result<Duration> {
        let start = Instant::now();
        self.must("POST", &format!("/sandboxes/{id}/{what}"), None)?;
        Ok(start.elapsed())
    }

    /// Runs a shell line as root and returns its output.
    ///
    /// # Errors
    /// It could not be run.
    pub fn shell(&mut self, id: &str, line: &str) -> Result<String> {
        let command = json!({ "command": ["/bin/bash", "-c", line], "user": "root" });
        let path = format!("/api/v1/sandboxes/{id}/exec?output=raw");
        let head = "X-API-Key: e2b_bench\r\nContent-Type: application/json\r\n";
        let body = command.to_string();
        let (status, bytes) = self.client.exchange("POST", &path, head, body.as_bytes())?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status != 200 {
            bail!("exec in {id}: {status} {text}");
        }
        Ok(text)
    }

    /// Starts a program that goes on by itself.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(&mut self, id: &str, command: &[&str]) -> Result<()> {
        let body = json!({ "command": command, "user": "root" });
        let path = format!("/sandboxes/{id}/exec?output=detach");
        self.must("POST", &path, Some(&body)).map(drop)
    }

    /// Deletes a sandbox.
    ///
    /// # Errors
    /// It was refused.
    pub fn delete(&mut self, id: &str) -> Result<()> {
        self.must("DELETE", &format!("/sandboxes/{id}"), None)
            .map(drop)
    }

    /// The state of a sandbox; never wakes it.
    ///
    /// # Errors
    /// There is none.
    pub fn state(&mut self, id: &str) -> Result<String> {
        let sandbox = self.must("GET", &format!("/sandboxes/{id}"), None)?;
        let state = sandbox["state"].as_str().context("the state")?;
        Ok(state.to_owned())
    }

    /// Starts [`HOLDER`] with so many MiB and waits until it has them.
    ///
    /// # Errors
    /// It does not come to answering.
    pub fn hold_memory(&mut self, id: &str, mib: usize) -> Result<()> {
        let program = HOLDER.replace("MIB", &mib.to_string());
        self.start(id, &["/usr/bin/env", "python3", "-c", &program])?;
        let ready = wait_for("the program that holds memory", HOLD_MAX, || {
            match self.memory_hash(id) {
                Ok(hash) if hash.len() == 64 => Some(Ok(())),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            }
        });
        ready?
    }

    /// The hash of what [`HOLDER`] holds; empty when it does not answer.
    ///
    /// # Errors
    /// Nothing can be run in the sandbox.
    pub fn memory_hash(&mut self, id: &str) -> Result<String> {
        let line = "exec 3<>/dev/tcp/127.0.0.1/7000 && cat <&3; true";
        let text = self.shell(id, &format!("{{ {line}; }} 2>/dev/null"))?;
        Ok(text.trim().to_owned())
    }
}

/// How long a program may take to fill its memory.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// Holds memory that does not compress, and tells its hash to whoever connects.
const HOLDER: &str = "
import hashlib, os, socket
held = [os.urandom(1 << 20) for _ in range(MIB)]
server = socket.create_server(('127.0.0.1', 7000))
while True:
    client, _ = server.accept()
    digest = hashlib.sha256()
    for part in held:
        digest.update(part)
    client.sendall(digest.hexdigest().encode())
    client.close()
";
