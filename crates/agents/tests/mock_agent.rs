//! The mock agent as a process of a machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acp;
#[path = "../../guest-client/tests/common/mod.rs"]
mod common;

use std::time::Instant;

use acp::{Acp, said, updates};
use common::TestGuest;
use serde_json::{Value, json};
use woodfrog_agents::{AgentId, Agents, LaunchOptions, Machine, Settings, Source};
use woodfrog_guest_client::proto::{Exit, ProcessRef, SignalTarget};

fn agents() -> Agents {
    let guest = common::guest_binary().to_str().unwrap().to_owned();
    Agents::new(Settings {
        mock: vec![guest, "mock-agent".to_owned()],
        ..Settings::default()
    })
}

/// A machine whose agents run as an ordinary user.
fn machine(guest: &TestGuest) -> Machine {
    Machine {
        user: Some("user".to_owned()),
        ..Machine::new("test", guest.client.clone())
    }
}

async fn start(guest: &TestGuest, env: &[(&str, &str)]) -> Acp {
    let options = LaunchOptions {
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..LaunchOptions::default()
    };
    let machine = machine(guest);
    let request = agents()
        .command(&machine, AgentId::Mock, &options)
        .await
        .unwrap();
    Acp::start(&guest.client, request).await
}

#[tokio::test]
async fn an_ordinary_user_of_the_machine_can_talk_to_it() {
    let guest = TestGuest::start().await;
    let status = agents()
        .status(&machine(&guest), AgentId::Mock)
        .await
        .unwrap();
    assert_eq!(status.source, Some(Source::Builtin));
    assert!(status.installed && status.credentials_available);

    let mut agent = start(&guest, &[("COLOUR", "blue")]).await;
    let home = guest.home().to_str().unwrap().to_owned();
    let session = agent.open(&home).await;
    let messages = agent.prompt(&session, "hello").await;
    assert_eq!(said(&messages), "mock: hello");
    let script = "mock: write notes/a.txt \"one\\n\"\nmock: read notes/a.txt\nmock: env COLOUR\nmock: read none";
    let messages = agent.prompt(&session, script).await;
    assert!(
        said(&messages).starts_with("one\nblue"),
        "{}",
        said(&messages)
    );
    assert!(said(&messages).contains("failed: "), "{}", said(&messages));
    let statuses: Vec<&str> = updates(&messages, "tool_call_update")
        .map(|update| update["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["completed"]);
    let file = guest.home().join("notes/a.txt");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\n");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 54321);
    assert_eq!(agent.close().await, Exit::Exited { code: 0 });
}

#[tokio::test]
async fn it_goes_on_while_a_prompt_waits() {
    let guest = TestGuest::start().await;
    let mut agent = start(&guest, &[]).await;
    let (one, two) = (agent.open("/").await, agent.open("/").await);
    assert_ne!(one, two);
    let waiting = agent.ask(&one, "mock: delay 3600000\nmock: say late").await;
    assert_eq!(
        said(&agent.prompt(&two, "meanwhile").await),
        "mock: meanwhile"
    );
    let start = Instant::now();
    let cancel =
        json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": one}});
    agent.send(&cancel).await;
    let messages = agent.until(waiting).await;
    assert_eq!(
        messages.last().unwrap()["result"]["stopReason"],
        "cancelled"
    );
    assert!(start.elapsed() < acp::PATIENCE);
    // Delays end by themselves too.
    let messages = agent
        .prompt(&one, "mock: delay 20\nmock: say on time")
        .await;
    assert_eq!(said(&messages), "on time");
    // A flood can be cancelled in the middle.
    let flood = agent.ask(&one, "mock: chunks 10M 1K").await;
    let first = agent.line().await.unwrap();
    assert!(first.contains("agent_message_chunk"), "{first}");
    let cancel =
        json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": one}});
    agent.send(&cancel).await;
    let messages = agent.until(flood).await;
    assert_eq!(
        messages.last().unwrap()["result"]["stopReason"],
        "cancelled"
    );
}

#[tokio::test]
async fn long_lines_both_ways() {
    let guest = TestGuest::start().await;
    let mut agent = start(&guest, &[]).await;
    let session = agent.open("/").await;
    let messages = agent.prompt(&session, "mock: line 8M").await;
    assert_eq!(said(&messages).len(), 8 << 20);
    let text = "y".repeat(3 << 20);
    let messages = agent.prompt(&session, &text).await;
    assert_eq!(said(&messages).len(), text.len() + "mock: ".len());

    // What cannot be read is answered, and the next line is read.
    agent.write(b"\n  \n\xff\xfe\n{\"id\":1\n").await;
    for _ in 0..2 {
        let line = agent.line().await.unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["error"]["code"], -32700, "{line}");
    }
    assert_eq!(
        said(&agent.prompt(&session, "still there").await),
        "mock: still there"
    );
}

#[tokio::test]
async fn it_dies_as_told() {
    let guest = TestGuest::start().await;
    let mut agent = start(&guest, &[]).await;
    let session = agent.open("/").await;
    agent
        .ask(&session, "mock: stderr first\nmock: crash 3 out of luck")
        .await;
    assert_eq!(agent.ended().await, Exit::Exited { code: 3 });
    assert_eq!(agent.stderr, "first\nout of luck\n");

    let mut agent = start(&guest, &[]).await;
    let session = agent.open("/").await;
    agent
        .ask(
            &session,
            "mock: garbage {oops\nmock: raw \"half\"\nmock: crash 0",
        )
        .await;
    assert_eq!(agent.line().await.as_deref(), Some("{oops"));
    assert_eq!(agent.ended().await, Exit::Exited { code: 0 });
}

#[tokio::test]
async fn it_outlives_signals_and_the_end_of_its_input() {
    let guest = TestGuest::start().await;
    let mut agent = start(&guest, &[]).await;
    let session = agent.open("/").await;
    agent.prompt(&session, "mock: ignore-signals").await;
    let process = agent.process();
    let signal = async |number| {
        let target = SignalTarget::Process;
        guest
            .client
            .signal(process.clone(), number, target)
            .await
            .unwrap();
    };
    signal(15).await;
    signal(1).await;
    assert_eq!(said(&agent.prompt(&session, "alive").await), "mock: alive");
    guest.client.close_stdin(process.clone()).await.unwrap();
    signal(15).await;
    let running = async |process: &ProcessRef| {
        let all = guest.client.processes().await.unwrap();
        let found = all
            .iter()
            .find(|p| ProcessRef::Id(p.id) == *process)
            .unwrap();
        found.end.is_none()
    };
    assert!(running(&process).await);
    signal(9).await;
    let exit = agent.ended().await;
    assert_eq!(
        exit,
        Exit::Signaled {
            signal: 9,
            core: false
        }
    );

    let mut agent = start(&guest, &[]).await;
    let session = agent.open("/").await;
    agent
        .ask(&session, "mock: close-stdout\nmock: stderr gone")
        .await;
    common::eventually("the process lives on", async || {
        running(&agent.process()).await
    })
    .await;
    assert_eq!(agent.close().await, Exit::Exited { code: 0 });
    assert_eq!(agent.stderr, "gone\n");
}

#[tokio::test]
async fn a_stored_session_outlives_its_process() {
    let guest = TestGuest::start().await;
    let store = guest.home().join("sessions").to_str().unwrap().to_owned();
    let env = [("MOCK_AGENT_STORE", store.as_str())];
    let mut agent = start(&guest, &env).await;
    let session = agent.open("/").await;
    agent.prompt(&session, "remember this").await;
    assert_eq!(agent.close().await, Exit::Exited { code: 0 });

    let mut agent = start(&guest, &env).await;
    let other = agent.open("/").await;
    assert_ne!(other, session, "ids differ from process to process");
    let params = json!({"sessionId": session, "cwd": "/", "mcpServers": []});
    let messages = agent.call("session/load", params).await;
    assert_eq!(said(&messages), "mock: remember this");
    let messages = agent.prompt(&session, "what did I say before?").await;
    let expected = "mock: before this I got 1 prompt; the last was: remember this";
    assert_eq!(said(&messages), expected);
    let params = json!({"sessionId": "none", "cwd": "/", "mcpServers": []});
    let messages = agent.call("session/load", params).await;
    assert_eq!(messages.last().unwrap()["error"]["code"], -32002);
}

#[test]
fn the_protocols_own_client_understands_it() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = root.join("target/sdk/agents");
    let sdk = dir.join("node_modules/@agentclientprotocol/sdk");
    assert!(sdk.is_dir(), "run `./x setup --tests` first");
    // Modules are looked for beside the program.
    let program = dir.join("mock_agent.mjs");
    std::fs::copy(root.join("tests/agents/mock_agent.mjs"), &program).unwrap();
    let ran = std::process::Command::new("node")
        .arg(&program)
        .arg(common::guest_binary())
        .arg("mock-agent")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
}
