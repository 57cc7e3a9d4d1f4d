//! A client of an agent's process in a machine: lines of JSON in, lines of JSON out.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "every test file uses a part of this"
)]

use std::time::Duration;

use serde_json::{Value, json};
use woodfrog_guest_client::proto::{Channel, Exit, ProcessEnd, ProcessRef, StartRequest};
use woodfrog_guest_client::{GuestClient, ProcessEvent, ProcessStream};

/// Longer than anything takes on a busy machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// An agent's process.
pub struct Acp {
    client: GuestClient,
    stream: ProcessStream,
    stdout: Vec<u8>,
    pub stderr: String,
    pub end: Option<ProcessEnd>,
    id: u64,
}

impl Acp {
    pub async fn start(client: &GuestClient, request: StartRequest) -> Self {
        let stream = client.start(request).await.unwrap();
        Self {
            client: client.clone(),
            stream,
            stdout: Vec::new(),
            stderr: String::new(),
            end: None,
            id: 0,
        }
    }

    pub fn process(&self) -> ProcessRef {
        ProcessRef::Id(self.stream.started().id)
    }

    pub async fn write(&self, bytes: &[u8]) {
        let client = self.client.with_deadline(PATIENCE);
        client
            .write_stdin(self.process(), None, bytes)
            .await
            .unwrap();
    }

    pub async fn send(&self, message: &Value) {
        self.write(format!("{message}\n").as_bytes()).await;
    }

    /// Sends a request; its id.
    pub async fn request(&mut self, method: &str, params: Value) -> u64 {
        self.id += 1;
        let message = json!({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params});
        self.send(&message).await;
        self.id
    }

    /// The next line of stdout; `None` when it was closed by the end of the process.
    pub async fn line(&mut self) -> Option<String> {
        let work = async {
            let mut searched = 0;
            loop {
                let rest = self.stdout.get(searched..).unwrap();
                if let Some(at) = rest.iter().position(|b| *b == b'\n') {
                    let line = self.stdout.drain(..=searched + at).collect::<Vec<u8>>();
                    return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
                }
                searched = self.stdout.len();
                match self.stream.next().await.unwrap()? {
                    ProcessEvent::Output {
                        stream: Channel::Stdout,
                        bytes,
                        ..
                    } => {
                        self.stdout.extend_from_slice(&bytes);
                    }
                    ProcessEvent::Output { bytes, .. } => {
                        self.stderr.push_str(&String::from_utf8_lossy(&bytes));
                    }
                    ProcessEvent::End(end) => self.end = Some(end),
                    ProcessEvent::Started(_) => {}
                    ProcessEvent::Gap(gap) => panic!("output was lost: {gap:?}"),
                }
            }
        };
        let line = tokio::time::timeout(PATIENCE, work).await;
        line.expect("the agent says nothing")
    }

    /// Messages up to the answer to `id`; the answer is the last. Permissions are given.
    pub async fn until(&mut self, id: u64) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let line = self.line().await;
            let line = line.unwrap_or_else(|| panic!("it ended: {:?} {}", self.end, self.stderr));
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["method"] == "session/request_permission" {
                let option = &message["params"]["options"][0]["optionId"];
                let outcome = json!({"outcome": {"outcome": "selected", "optionId": option}});
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": outcome});
                self.send(&answer).await;
            } else if message.get("method").is_some() && message.get("id").is_some() {
                let error = json!({"code": -32601, "message": "this client has no such method"});
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
                self.send(&answer).await;
            }
            let answers = message["id"] == id && message.get("method").is_none();
            all.push(message);
            if answers {
                return all;
            }
        }
    }

    /// Sends a request and reads up to its answer.
    pub async fn call(&mut self, method: &str, params: Value) -> Vec<Value> {
        let id = self.request(method, params).await;
        self.until(id).await
    }

    /// A session in `cwd`; its id.
    pub async fn open(&mut self, cwd: &str) -> String {
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}});
        let answer = self.call("initialize", params).await;
        assert_eq!(answer.last().unwrap()["result"]["protocolVersion"], 1);
        let params = json!({"cwd": cwd, "mcpServers": []});
        let answer = self.call("session/new", params).await;
        let result = &answer.last().unwrap()["result"];
        result["sessionId"].as_str().unwrap().to_owned()
    }

    pub async fn prompt(&mut self, session: &str, text: &str) -> Vec<Value> {
        let id = self.ask(session, text).await;
        self.until(id).await
    }

    /// Sends a prompt and does not wait.
    pub async fn ask(&mut self, session: &str, text: &str) -> u64 {
        let prompt = json!([{"type": "text", "text": text}]);
        let params = json!({"sessionId": session, "prompt": prompt});
        self.request("session/prompt", params).await
    }

    /// Reads to the end of the process; how it ended.
    pub async fn ended(&mut self) -> Exit {
        while self.line().await.is_some() {}
        self.end.as_ref().unwrap().exit
    }

    pub async fn close(&mut self) -> Exit {
        self.client.close_stdin(self.process()).await.unwrap();
        self.ended().await
    }
}

/// The text of the answer among messages.
pub fn said(messages: &[Value]) -> String {
    updates(messages, "agent_message_chunk")
        .filter_map(|update| update["content"]["text"].as_str())
        .collect()
}

/// The updates of one kind.
pub fn updates<'a>(messages: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    messages
        .iter()
        .map(|message| &message["params"]["update"])
        .filter(move |update| update["sessionUpdate"] == kind)
}
