//! OpenCode from npm, in a machine, with a scripted model on loopback: it edits real files through
//! real tool calls, without a key and without a network. `docs/guides/agents.md` has the recipe.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acp;
#[path = "../../guest-client/tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};

use acp::{Acp, PATIENCE, said, updates};
use common::TestGuest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use woodfrog_agents::{AgentId, Agents, Install, LaunchOptions, Machine, Settings, Source};
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{Exit, StartRequest};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Where `./x setup --tests` puts the agents.
fn programs() -> String {
    let dir = root().join("target/sdk/agents/node_modules/.bin");
    assert!(
        dir.join("opencode").exists(),
        "run `./x setup --tests` first"
    );
    dir.to_str().unwrap().to_owned()
}

/// A machine with OpenCode on its path, a scripted model on its loopback, and nothing else.
struct Bench {
    guest: TestGuest,
    machine: Machine,
    project: PathBuf,
    port: u16,
}

impl Bench {
    async fn start() -> Self {
        let guest = TestGuest::start().await;
        let project = guest.home().join("project");
        std::fs::create_dir(&project).unwrap();
        std::os::unix::fs::chown(&project, Some(54321), Some(54322)).unwrap();
        let (port, url) = model(&guest).await;
        let config = root().join("tests/agents/opencode.json");
        let env = [
            (
                "PATH",
                format!("{}:/usr/local/bin:/usr/bin:/bin", programs()),
            ),
            ("OPENCODE_CONFIG", config.to_str().unwrap().to_owned()),
            ("SCRIPTED_MODEL_URL", url),
            ("OPENCODE_DISABLE_MODELS_FETCH", "1".to_owned()),
            ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1".to_owned()),
            ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1".to_owned()),
            // Whoever tries to leave the machine fails at once.
            ("HTTPS_PROXY", "http://127.0.0.1:9".to_owned()),
            ("HTTP_PROXY", "http://127.0.0.1:9".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ];
        let machine = Machine {
            user: Some("user".to_owned()),
            env: env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            ..Machine::new("test", guest.client.clone())
        };
        Self {
            guest,
            machine,
            project,
            port,
        }
    }

    async fn agent(&self) -> Acp {
        let options = LaunchOptions {
            cwd: Some(self.cwd()),
            ..LaunchOptions::default()
        };
        let agents = Agents::new(Settings::default());
        let command = agents.command(&self.machine, AgentId::Opencode, &options);
        Acp::start(&self.guest.client, command.await.unwrap()).await
    }

    fn cwd(&self) -> String {
        self.project.to_str().unwrap().to_owned()
    }

    /// What the model was asked, as it tells.
    async fn asked(&self) -> Vec<Value> {
        let mut stream = self.guest.client.connect(self.port).await.unwrap();
        stream
            .write_all(b"GET /requests HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap()
    }
}

/// Starts the scripted model in the machine; its port and address.
async fn model(guest: &TestGuest) -> (u16, String) {
    let program = root().join("tests/agents/model_endpoint.mjs");
    let request = StartRequest {
        cmd: "node".to_owned(),
        args: vec![program.to_str().unwrap().to_owned()],
        ..StartRequest::default()
    };
    let mut stream = guest.client.start(request).await.unwrap();
    let mut said = String::new();
    let work = async {
        while !said.contains('\n') {
            match stream.next().await.unwrap().unwrap() {
                ProcessEvent::Output { bytes, .. } => {
                    said.push_str(std::str::from_utf8(&bytes).unwrap());
                }
                ProcessEvent::End(end) => panic!("the model ended: {end:?} {said}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("the model does not listen");
    let url = said
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();
    let port = url.rsplit(':').next().unwrap().trim_end_matches("/v1");
    (port.parse().unwrap(), url)
}

#[test]
fn the_tested_version_is_the_one_that_is_installed() {
    let text = std::fs::read_to_string(root().join("tests/agents/package.json")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let Install::Npm { packages, .. } = AgentId::Opencode.definition().install else {
        panic!("it comes from npm");
    };
    for package in packages {
        assert_eq!(list["dependencies"][package.name], package.version);
    }
}

#[tokio::test]
async fn a_real_agent_edits_files() {
    let bench = Bench::start().await;
    let agents = Agents::new(Settings::default());
    let status = agents
        .status(&bench.machine, AgentId::Opencode)
        .await
        .unwrap();
    assert_eq!(status.source, Some(Source::LocalPath));

    std::fs::write(bench.project.join("old.txt"), "an old text\n").unwrap();
    std::os::unix::fs::chown(bench.project.join("old.txt"), Some(54321), Some(54322)).unwrap();
    let mut agent = bench.agent().await;
    let session = agent.open(&bench.cwd()).await;
    let prompt = "Please do this.\n\
        do: write new.txt \"from the model\\n\"\n\
        do: read old.txt\n\
        do: edit old.txt old new\n\
        do: run \"cat new.txt old.txt > both.txt\"";
    let messages = agent.prompt(&session, prompt).await;

    // The files are what the model wanted, made by the agent as the machine's user.
    let both = std::fs::read_to_string(bench.project.join("both.txt")).unwrap();
    assert_eq!(both, "from the model\nan new text\n");
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(bench.project.join("new.txt"))
        .unwrap()
        .uid();
    assert_eq!(owner, 54321);

    // It told of it: four calls, each completed; it asked before it wrote.
    let completed: Vec<&Value> = updates(&messages, "tool_call_update")
        .filter(|update| update["status"] == "completed")
        .collect();
    assert_eq!(completed.len(), 4, "{messages:#?}");
    let asked = messages
        .iter()
        .filter(|m| m["method"] == "session/request_permission");
    assert_eq!(asked.count(), 2, "one for each edit");
    let diff = completed.iter().find_map(|update| {
        let content = update["content"].as_array()?;
        content
            .iter()
            .find(|part| part["type"] == "diff" && part["oldText"] == "old")
    });
    assert_eq!(diff.unwrap()["newText"], "new");
    assert!(
        said(&messages).ends_with("scripted: 4 steps done"),
        "{}",
        said(&messages)
    );
    let result = &messages.last().unwrap()["result"];
    assert_eq!(result["stopReason"], "end_turn");
    assert!(result["usage"]["totalTokens"].as_u64().unwrap() > 0);
    let usage = updates(&messages, "usage_update").last().unwrap();
    assert!(usage["cost"]["amount"].as_f64().unwrap() > 0.0);

    // And it was the model that said so.
    let turns: Vec<Value> = bench
        .asked()
        .await
        .into_iter()
        .filter(|request| !request["tools"].as_array().unwrap().is_empty())
        .map(|request| request["answer"].clone())
        .collect();
    assert_eq!(turns, ["write", "read", "edit", "bash", "text"]);
}

#[tokio::test]
async fn a_real_agent_remembers_and_is_loaded_again() {
    let bench = Bench::start().await;
    let mut agent = bench.agent().await;
    let session = agent.open(&bench.cwd()).await;
    agent.prompt(&session, "the first thing").await;
    let messages = agent.prompt(&session, "what did I say before?").await;
    let expected = "scripted: 1 messages before; the last was: the first thing";
    assert_eq!(said(&messages), expected);
    assert_eq!(agent.close().await, Exit::Exited { code: 0 });

    // A new process finds the conversation where the old one kept it.
    let mut agent = bench.agent().await;
    let fresh = agent.open(&bench.cwd()).await;
    let messages = agent.prompt(&fresh, "what did I say before?").await;
    assert!(
        said(&messages).starts_with("scripted: 0 messages before"),
        "{}",
        said(&messages)
    );
    let params = json!({"sessionId": session, "cwd": bench.cwd(), "mcpServers": []});
    let messages = agent.call("session/load", params).await;
    assert!(
        messages.last().unwrap()["result"].is_object(),
        "{messages:#?}"
    );
    let messages = agent.prompt(&session, "what did I say before?").await;
    assert!(
        said(&messages).starts_with("scripted: 2 messages before"),
        "{}",
        said(&messages)
    );
}
