//! Sessions over a real guest on this machine, with the mock agent.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::proto::StartRequest;
use woodfrog_guest_client::{GuestClient, PathConnector};
use woodfrog_sessions::acp::{Envelope, Prompt};
use woodfrog_sessions::{Batch, Machines, NewSession, Options, Posted, Reader, Scope, Sessions};
use woodfrog_store::SessionStore as _;
use woodfrog_store::memory::MemoryStore;
use woodfrog_types::session::{Session, SessionEvent, SessionFace, Stream, kind};
use woodfrog_types::{Code, Fault, SandboxId, SnapshotId, WorkspaceId};

/// Long enough for a busy machine; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Machine {
    client: GuestClient,
    /// Whether the mock agent keeps its conversations on disk, and so can load them.
    keeps: AtomicBool,
    dir: TempDir,
    child: std::sync::Mutex<Child>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = child.wait();
    }
}

#[async_trait::async_trait]
impl Machines for Machine {
    async fn guest(&self, _: &SandboxId) -> Result<GuestLease, Fault> {
        Ok(GuestLease::new(
            self.client.clone(),
            CancellationToken::new(),
        ))
    }

    async fn is_awake(&self, _: &SandboxId) -> bool {
        true
    }

    async fn is_gone(&self, _: &SandboxId) -> bool {
        false
    }

    fn known(&self, agent: &str) -> Result<(), Fault> {
        match agent {
            "mock" | "broken" => Ok(()),
            _ => Err(Fault::invalid("agent", "unknown agent")),
        }
    }

    async fn command(
        &self,
        _: &SandboxId,
        _: &GuestLease,
        session: &Session,
    ) -> Result<StartRequest, Fault> {
        let (cmd, mut args) = match session.agent.as_str() {
            "mock" => (guest_binary(), vec!["mock-agent".to_owned()]),
            _ => (
                "/bin/sh".into(),
                vec!["-c".to_owned(), "echo no luck >&2; exit 4".to_owned()],
            ),
        };
        if self.keeps.load(Ordering::SeqCst) {
            args.extend(["--store".to_owned(), self.path("kept")]);
        }
        Ok(StartRequest {
            cmd: cmd.to_str().unwrap().to_owned(),
            args,
            user: Some("root".to_owned()),
            ..StartRequest::default()
        })
    }

    async fn replace(&self, _: &Session) -> Result<Option<SandboxId>, Fault> {
        Ok(None)
    }

    async fn at_turn(&self, _: &Session, _: &SnapshotId) -> Result<SandboxId, Fault> {
        Ok(SandboxId::generate())
    }

    async fn discard(&self, _: &Session, _: &SandboxId) {}

    async fn keep_turn(&self, session: &Session, _: u64) -> Result<Option<SnapshotId>, Fault> {
        let settings: Value = serde_json::from_str(&session.settings).unwrap();
        Ok((settings["snapshots"] == "turn").then(SnapshotId::generate))
    }
}

impl Machine {
    async fn start() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let passwd = format!("root:x:0:0::{}:/bin/sh\n", dir.path().display());
        std::fs::write(etc.join("passwd"), passwd).unwrap();
        std::fs::write(etc.join("group"), "root:x:0:\n").unwrap();
        let socket = dir.path().join("run/guest.sock");
        let child = Command::new(guest_binary())
            .arg("--socket")
            .arg(&socket)
            .arg("--etc")
            .arg(&etc)
            .arg("--no-init")
            .spawn()
            .unwrap();
        let machine = Self {
            client: GuestClient::new(Arc::new(PathConnector(socket))),
            keeps: AtomicBool::new(false),
            dir,
            child: std::sync::Mutex::new(child),
        };
        let start = Instant::now();
        while machine.client.hello().await.is_err() {
            assert!(start.elapsed() < PATIENCE, "the guest does not answer");
            tokio::task::yield_now().await;
        }
        Arc::new(machine)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

pub(crate) struct World {
    pub(crate) machine: Arc<Machine>,
    store: Arc<MemoryStore>,
    pub(crate) sessions: Sessions,
    pub(crate) scope: Scope,
    next: u64,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let machine = Machine::start().await;
        let store = Arc::new(MemoryStore::new());
        let sessions = Sessions::new(store.clone(), machine.clone(), options);
        let scope = Scope {
            workspace: WorkspaceId::default_workspace(),
            sandbox: SandboxId::generate(),
        };
        Self {
            machine,
            store,
            sessions,
            scope,
            next: 1,
        }
    }

    pub(crate) fn store(&self) -> Arc<MemoryStore> {
        self.store.clone()
    }

    /// The server is gone, and another comes.
    pub(crate) fn restart(&mut self) {
        self.sessions = self.another_server();
    }

    /// A second server over the same store and machine.
    pub(crate) fn another_server(&self) -> Sessions {
        Sessions::new(self.store.clone(), self.machine.clone(), Options::default())
    }

    /// Agents can load what they had from now on.
    pub(crate) fn keep(&self) {
        std::fs::create_dir_all(self.machine.path("kept")).unwrap();
        self.machine.keeps.store(true, Ordering::SeqCst);
    }

    pub(crate) async fn post(&self, server: &str, message: Value) -> Result<Posted, Fault> {
        let envelope = Envelope::from_value(message).unwrap();
        let post = self
            .sessions
            .acp_post(&self.scope, server, Some("mock"), envelope, None);
        tokio::time::timeout(PATIENCE, post)
            .await
            .expect("no answer")
    }

    /// A request's result.
    pub(crate) async fn call(&mut self, server: &str, method: &str, params: Value) -> Value {
        self.next += 1;
        let message =
            json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        let Posted::Response(line) = self.post(server, message).await.unwrap() else {
            panic!("no response");
        };
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], self.next, "{answer}");
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// A conversation with the mock agent over ACP.
    pub(crate) async fn conversation(&mut self, server: &str) -> String {
        let init = json!({"protocolVersion": 1, "clientCapabilities": {}});
        self.call(server, "initialize", init).await;
        let params = json!({"cwd": self.machine.path(""), "mcpServers": []});
        let made = self.call(server, "session/new", params).await;
        made["sessionId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn prompt(&mut self, server: &str, session: &str, text: &str) -> Value {
        let params = prompt_params(session, text);
        self.call(server, "session/prompt", params).await
    }

    /// What the agent said in the log of a server, joined.
    pub(crate) async fn said(&self, server: &str) -> String {
        said(&self.log(server).await)
    }

    pub(crate) async fn log(&self, server: &str) -> Vec<SessionEvent> {
        let session = self.sessions.acp_find(&self.scope, server).await.unwrap();
        self.log_of(&session.unwrap()).await
    }

    pub(crate) async fn log_of(&self, session: &Session) -> Vec<SessionEvent> {
        let slice = self
            .sessions
            .read(&session.id, Stream::Log, 0, 100_000, 1 << 30)
            .await
            .unwrap();
        for (event, place) in slice.events.iter().zip(1..) {
            assert_eq!(event.sequence, place, "the log has a hole");
        }
        slice.events
    }

    /// Kills the agents, and waits until the server's log says so.
    pub(crate) async fn kill_agent_of(&self, server: &str) {
        self.kill_agents().await;
        let mut reader = self
            .sessions
            .acp_follow(&self.scope, server, 0)
            .await
            .unwrap()
            .reader;
        read_until(&mut reader, |seen| {
            seen.last()
                .is_some_and(|it| it.event.kind == kind::AGENT_EXITED)
        })
        .await;
    }

    pub(crate) async fn kill_agents(&self) {
        self.signal_agents(rustix::process::Signal::KILL).await;
    }

    pub(crate) async fn signal_agents(&self, signal: rustix::process::Signal) {
        let agents = self.machine.client.processes().await.unwrap();
        for agent in agents.iter().filter(|agent| agent.end.is_none()) {
            let pid = rustix::process::Pid::from_raw(agent.pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }

    pub(crate) async fn managed(&self, settings: Value) -> Session {
        let new = NewSession {
            face: SessionFace::Native,
            name: None,
            agent: "mock".to_owned(),
            cwd: Some(self.machine.path("")),
            mcp_servers: Vec::new(),
            settings,
        };
        self.sessions.create(&self.scope, new).await.unwrap()
    }

    pub(crate) async fn trim(&self, session: &Session, before: u64) {
        self.store
            .session_trim(&session.id, Stream::Log, before)
            .await
            .unwrap();
    }
}

pub(crate) fn prompt_params(session: &str, text: &str) -> Value {
    json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})
}

pub(crate) fn text_prompt(author: &str, text: &str) -> Prompt {
    Prompt {
        blocks: vec![json!({"type": "text", "text": text})],
        author: Some(author.to_owned()),
    }
}

pub(crate) fn said(log: &[SessionEvent]) -> String {
    let mut text = String::new();
    for event in log {
        let payload: Value = serde_json::from_str(&event.event.payload).unwrap_or(Value::Null);
        let update = &payload["params"]["update"];
        if event.event.kind == "message" && update["sessionUpdate"] == "agent_message_chunk" {
            text.push_str(update["content"]["text"].as_str().unwrap_or_default());
        }
    }
    text
}

pub(crate) fn kinds(log: &[SessionEvent]) -> Vec<&str> {
    log.iter().map(|event| event.event.kind.as_str()).collect()
}

/// Reads until `enough`.
pub(crate) async fn read_until(
    reader: &mut Reader,
    mut enough: impl FnMut(&[SessionEvent]) -> bool,
) -> Vec<SessionEvent> {
    let mut seen = Vec::new();
    let read = async {
        while !enough(&seen) {
            match reader.next().await.unwrap() {
                Batch::Events(events) => seen.extend(events.iter().map(|it| (**it).clone())),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("nothing comes");
    seen
}

pub(crate) fn code(result: Result<impl std::fmt::Debug, Fault>) -> Code {
    result.expect_err("an error").code
}

/// Built by cargo beside this test's directory.
fn guest_binary() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("woodfrog-guest");
    static BUILD: Once = Once::new();
    BUILD.call_once(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--locked", "--quiet", "-p", "woodfrog-guest"])
            .status()
            .unwrap();
        assert!(status.success());
    });
    path
}
