//! What an agent's sessions can be set to, asked of the agent itself.

use std::time::Duration;

use serde_json::{Value, json};
use woodfrog_guest_client::proto::{Channel, ProcessRef, SignalTarget};
use woodfrog_guest_client::{ProcessEvent, ProcessStream};
use woodfrog_types::{Code, Fault};

use crate::agents::Agents;
use crate::command::LaunchOptions;
use crate::id::AgentId;
use crate::machine::Machine;
use crate::run::fault;

/// Bytes of answers that are read.
const ANSWERS_MAX: usize = 4 << 20;
/// SIGKILL.
const KILL: i32 = 9;

impl Agents {
    /// The configuration options of a new session: a list as the protocol has it, empty for an
    /// agent that has none. Starts the agent for it and ends it again; `within` bounds the whole.
    ///
    /// # Errors
    /// `agent_not_installed`; `agent_process_exited` when the agent ends or refuses, for want of a
    /// credential perhaps; `deadline_exceeded`.
    pub async fn config_options(
        &self,
        machine: &Machine,
        id: AgentId,
        within: Duration,
    ) -> Result<Vec<Value>, Fault> {
        let mut request = self.command(machine, id, &LaunchOptions::default()).await?;
        // Whatever becomes of us, it ends.
        request.timeout_ms = Some(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        let stream = machine.client.start(request).await.map_err(fault)?;
        let process = ProcessRef::Id(stream.started().id);
        let asked = tokio::time::timeout(within, ask(machine, id, stream)).await;
        let target = SignalTarget::Group;
        // One that ended by itself cannot be ended again.
        let _ = machine.client.signal(process, KILL, target).await;
        asked.unwrap_or_else(|_| {
            let what = format!("{id} did not tell its options in {} s", within.as_secs());
            Err(Fault::new(Code::DeadlineExceeded, what))
        })
    }
}

async fn ask(machine: &Machine, id: AgentId, stream: ProcessStream) -> Result<Vec<Value>, Fault> {
    let mut answers = Answers {
        id,
        process: ProcessRef::Id(stream.started().id),
        stream,
        text: Vec::new(),
        read: 0,
    };
    let hello = json!({"protocolVersion": 1, "clientCapabilities": {}});
    answers.call(machine, 1, "initialize", &hello).await?;
    let params = json!({"cwd": "/", "mcpServers": []});
    let mut session = answers.call(machine, 2, "session/new", &params).await?;
    match session.get_mut("configOptions").map(Value::take) {
        Some(Value::Array(options)) => Ok(options),
        _ => Ok(Vec::new()),
    }
}

struct Answers {
    id: AgentId,
    process: ProcessRef,
    stream: ProcessStream,
    text: Vec<u8>,
    read: usize,
}

impl Answers {
    async fn call(
        &mut self,
        machine: &Machine,
        number: u64,
        method: &str,
        params: &Value,
    ) -> Result<Value, Fault> {
        let request = json!({"jsonrpc": "2.0", "id": number, "method": method, "params": params});
        let line = format!("{request}\n");
        let written = machine
            .client
            .write_stdin(self.process.clone(), None, line.as_bytes());
        written.await.map_err(fault)?;
        loop {
            let Some(line) = self.line().await? else {
                return Err(self.fault("it ended"));
            };
            let Ok(mut message) = serde_json::from_slice::<Value>(&line) else {
                continue;
            };
            // Requests of the agent have ids of its own.
            if message.get("method").is_some() || message["id"] != number {
                continue;
            }
            return match message.get_mut("result").map(Value::take) {
                Some(result) => Ok(result),
                None => {
                    Err(self.fault(message["error"]["message"].as_str().unwrap_or("no reason")))
                }
            };
        }
    }

    /// A line of its output; `None` at the end.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            if let Some(at) = self.text.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.text.drain(..=at).collect()));
            }
            match self.stream.next().await.map_err(fault)? {
                Some(ProcessEvent::Output { stream, bytes, .. }) => {
                    self.read = self.read.saturating_add(bytes.len());
                    if self.read > ANSWERS_MAX {
                        return Err(self.fault("it says too much"));
                    }
                    if stream == Channel::Stdout {
                        self.text.extend_from_slice(&bytes);
                    }
                }
                Some(ProcessEvent::End(_)) | None => return Ok(None),
                Some(ProcessEvent::Started(_) | ProcessEvent::Gap(_)) => {}
            }
        }
    }

    fn fault(&self, why: &str) -> Fault {
        let why: String = why.chars().take(1024).collect();
        let what = format!("{} did not tell its options: {why}", self.id);
        Fault::new(Code::AgentExited, what)
    }
}
