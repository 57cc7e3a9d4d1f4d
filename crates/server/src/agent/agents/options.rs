//! What can be chosen in an agent's sessions. Only the agent knows, so one is started, asked for a
//! session, and ended.

use std::time::Duration;

use memchr::memchr;
use serde_json::{Value, json};
use woodfrog_agents::{AgentId, LaunchOptions, Status};
use woodfrog_engine::GuestLease;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{Channel, PathRequest, ProcessRef, SignalTarget, StartRequest};
use woodfrog_types::{Code, Fault};

use crate::agent::AgentHost;
use crate::agent::problem::fault;

/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of one of its lines.
const LINE_MAX: usize = 4 << 20;
/// The version of the agents' protocol.
const PROTOCOL: u32 = 1;
const SIGKILL: i32 = 9;

/// The options that a session of the agent begins with; none if the agent has none.
pub(super) async fn ask(
    host: &AgentHost,
    guest: &GuestLease,
    status: &Status,
) -> Result<Option<Value>, Fault> {
    let mut session = session(host, guest, status).await?;
    Ok(session.get_mut("configOptions").map(Value::take))
}

/// What the agent says of a session that begins.
pub(super) async fn session(
    host: &AgentHost,
    guest: &GuestLease,
    status: &Status,
) -> Result<Value, Fault> {
    let command = status.command(&host.machine(guest), &LaunchOptions::default())?;
    let request = StartRequest {
        // Whatever becomes of us, it ends.
        timeout_ms: u64::try_from(PATIENCE.as_millis()).ok(),
        retention: None,
        ..command
    };
    let home = PathRequest {
        path: ".".to_owned(),
        ..PathRequest::default()
    };
    let home = guest.stat(home).await.map_err(fault)?.path;
    let process = Followed::start(guest.clone(), request).await;
    let mut agent = Talk {
        process: process.map_err(fault)?,
        guest: guest.clone(),
        received: Vec::new(),
    };
    let asked = tokio::select! {
        asked = tokio::time::timeout(PATIENCE, agent.session(&home)) => asked,
        () = guest.ended() => return Err(Fault::sandbox_not_found(host.sandbox().as_str())),
    };
    agent.end(status.id).await;
    asked.unwrap_or_else(|_| {
        let message = format!("{} did not answer in time", status.id);
        Err(Fault::new(Code::DeadlineExceeded, message))
    })
}

/// JSON-RPC over the standard streams of a process.
struct Talk {
    process: Followed,
    guest: GuestLease,
    /// What came of the line under way, and after it.
    received: Vec<u8>,
}

impl Talk {
    async fn session(&mut self, home: &str) -> Result<Value, Fault> {
        let hello = json!({
            "protocolVersion": PROTOCOL,
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}},
            "clientInfo": {"name": "woodfrog", "version": env!("CARGO_PKG_VERSION")},
        });
        self.call(1, "initialize", hello).await?;
        let session = json!({"cwd": home, "mcpServers": []});
        self.call(2, "session/new", session).await
    }

    async fn call(&mut self, id: u64, method: &str, params: Value) -> Result<Value, Fault> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let process = ProcessRef::Id(self.process.started().id);
        let line = format!("{message}\n");
        let written = self.guest.write_stdin(process, None, line.as_bytes());
        if let Err(error) = written.await
            && error.code().is_none()
        {
            return Err(fault(error));
        }
        // One that does not read may have ended: its last word says more than that.
        loop {
            let line = self.line().await?;
            // Notifications, the agent's own questions, and what is no JSON are passed over.
            let Ok(mut answer) = serde_json::from_slice::<Value>(&line) else {
                continue;
            };
            if answer["id"] != json!(id) || answer.get("method").is_some() {
                continue;
            }
            if let Some(error) = answer.get("error") {
                let said = error["message"].as_str().unwrap_or("no reason given");
                let message = format!("{method} failed: {said}");
                return Err(Fault::new(Code::Conflict, message));
            }
            return Ok(answer["result"].take());
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, Fault> {
        let mut looked = 0;
        loop {
            let fresh = self.received.get(looked..).unwrap_or_default();
            if let Some(end) = memchr(b'\n', fresh) {
                let rest = self.received.split_off(looked + end + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            looked = self.received.len();
            if looked > LINE_MAX {
                return Err(Fault::new(Code::TooLarge, "the agent's line does not end"));
            }
            match self.process.next().await.map_err(fault)? {
                Some(ProcessEvent::Output {
                    stream: Channel::Stdout,
                    bytes,
                    ..
                }) => {
                    self.received.extend_from_slice(&bytes);
                }
                Some(ProcessEvent::End(end)) => {
                    let message = format!("the agent ended ({})", end.status);
                    return Err(Fault::new(Code::Conflict, message));
                }
                None => return Err(Fault::new(Code::Conflict, "the agent ended")),
                Some(_) => {}
            }
        }
    }

    async fn end(self, id: AgentId) {
        let process = ProcessRef::Id(self.process.started().id);
        let killed = self.guest.signal(process, SIGKILL, SignalTarget::Group);
        if let Err(error) = killed.await {
            tracing::debug!(agent = %id, %error, "an agent that was asked had ended by itself");
        }
    }
}
