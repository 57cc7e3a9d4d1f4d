//! Finding and installing agents in a real machine. The npm here is a script, so that what it does
//! and how it fails is known; the registry's is used by `./x setup --tests`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acp;
#[path = "../../guest-client/tests/common/mod.rs"]
mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use acp::{Acp, said};
use common::TestGuest;
use woodfrog_agents::{
    AgentId, Agents, HostStore, InstallOptions, Kind, LaunchOptions, Machine, Preinstalled,
    Settings, Source,
};
use woodfrog_guest_client::proto::{StdinMode, limits};
use woodfrog_types::{Code, Fault};

/// A machine with a directory of its own on the path, and data in a directory with an odd name.
struct Place {
    guest: TestGuest,
    machine: Machine,
}

impl Place {
    async fn new() -> Self {
        let guest = TestGuest::start().await;
        let bin = guest.dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let data = guest.home().join("it's data");
        let env = [
            ("PATH", format!("{}:/usr/bin:/bin", bin.display())),
            ("XDG_DATA_HOME", data.to_str().unwrap().to_owned()),
        ];
        let machine = Machine {
            user: Some("user".to_owned()),
            env: env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            ..Machine::new("test", guest.client.clone())
        };
        Self { guest, machine }
    }

    fn data(&self) -> PathBuf {
        self.guest.home().join("it's data/sandbox-agent")
    }

    /// An executable file, with its directory.
    fn program(&self, path: &str, text: &str) {
        let path = self.guest.dir.path().join(path);
        woodfrog_testkit::program::write(&path, text).unwrap();
    }

    /// An npm that notes how it is called and makes an OpenCode that is the mock agent, and a
    /// helper that it starts by name.
    fn npm(&self, version: &str) {
        let guest = common::guest_binary();
        let calls = self.guest.home().join("calls");
        self.program(
            "bin/npm",
            &format!(
                "#!/bin/sh\n\
                 echo \"$@\" >> '{calls}'\n\
                 to=\"$3/node_modules\"\n\
                 mkdir -p \"$to/opencode-ai/bin\" \"$to/.bin\" || exit 1\n\
                 printf '#!/bin/sh\\necho {version} > \"$HOME/ran\"\\n' > \"$to/.bin/helper\"\n\
                 printf '#!/bin/sh\\nhelper && [ \"$1\" = acp ] || exit 9\\nexec {guest} mock-agent\\n' > \"$to/opencode-ai/bin/opencode.exe\"\n\
                 chmod 755 \"$to/.bin/helper\" \"$to/opencode-ai/bin/opencode.exe\"\n",
                calls = calls.display(),
                guest = guest.display(),
            ),
        );
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.guest.home().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn talk(&self, agents: &Agents, id: AgentId) -> String {
        let options = LaunchOptions::default();
        let request = agents.command(&self.machine, id, &options).await.unwrap();
        let mut agent = Acp::start(&self.guest.client, request).await;
        let session = agent.open("/").await;
        let messages = agent.prompt(&session, "hello").await;
        agent.close().await;
        said(&messages)
    }
}

fn agents() -> Agents {
    let guest = common::guest_binary().to_str().unwrap().to_owned();
    Agents::new(Settings {
        mock: vec![guest, "mock-agent".to_owned()],
        ..Settings::default()
    })
}

async fn install(place: &Place, agents: &Agents, id: AgentId) -> Result<bool, Fault> {
    let options = InstallOptions::default();
    let installed = agents.install(&place.machine, id, &options).await?;
    Ok(installed.already_installed)
}

#[tokio::test]
async fn a_bare_machine_has_the_mock_only() {
    let place = Place::new().await;
    let all = agents().statuses(&place.machine).await.unwrap();
    let ids: Vec<&str> = all.iter().map(|status| status.id.as_str()).collect();
    let expected = [
        "claude", "codex", "opencode", "amp", "pi", "cursor", "gemini", "mock",
    ];
    assert_eq!(ids, expected);
    for status in &all {
        let is_mock = status.id == AgentId::Mock;
        assert_eq!(status.installed, is_mock, "{}", status.id);
        assert_eq!(status.credentials_available, is_mock, "{}", status.id);
    }
    let missing = agents()
        .command(&place.machine, AgentId::Codex, &LaunchOptions::default())
        .await;
    assert_eq!(missing.unwrap_err().code, Code::AgentNotInstalled);
    // A sandbox without our guest where it is expected has no mock either.
    let elsewhere = Agents::new(Settings {
        mock: vec!["/nonexistent/guest".to_owned()],
        ..Settings::default()
    });
    let status = elsewhere
        .status(&place.machine, AgentId::Mock)
        .await
        .unwrap();
    assert!(!status.installed);
    let refused = install(&place, &elsewhere, AgentId::Mock)
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::InstallFailed);
}

#[tokio::test]
async fn launchers_win_over_the_path_and_credentials_are_seen() {
    let mut place = Place::new().await;
    let agents = agents();
    place.program("bin/opencode", "#!/bin/sh\n");
    let status = agents
        .status(&place.machine, AgentId::Opencode)
        .await
        .unwrap();
    assert_eq!(status.path, Some(place.guest.path("bin/opencode")));
    assert_eq!(status.source, Some(Source::LocalPath));

    let launcher = "home/it's data/sandbox-agent/bin/agent_processes/opencode-acp";
    let guest = common::guest_binary();
    place.program(
        launcher,
        &format!("#!/bin/sh\nexec {} mock-agent\n", guest.display()),
    );
    let status = agents
        .status(&place.machine, AgentId::Opencode)
        .await
        .unwrap();
    assert_eq!(status.path, Some(place.guest.path(launcher)));
    assert_eq!(
        (status.source, status.version),
        (Some(Source::LocalPath), None)
    );
    assert_eq!(place.talk(&agents, AgentId::Opencode).await, "mock: hello");
    assert!(install(&place, &agents, AgentId::Opencode).await.unwrap());
    assert_eq!(place.calls(), [] as [&str; 0]);

    // What is not executable is no launcher.
    let path = place.guest.dir.path().join(launcher);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let status = agents
        .status(&place.machine, AgentId::Opencode)
        .await
        .unwrap();
    assert_eq!(status.path, Some(place.guest.path("bin/opencode")));

    place
        .machine
        .env
        .insert("OPENAI_API_KEY".to_owned(), "a b'c".to_owned());
    place
        .machine
        .env
        .insert("ANTHROPIC_API_KEY".to_owned(), String::new());
    std::fs::create_dir(place.guest.home().join(".claude")).unwrap();
    let file = place.guest.home().join(".claude/.credentials.json");
    std::fs::write(&file, "").unwrap();
    let with = async |agents: &Agents| -> Vec<&str> {
        let all = agents.statuses(&place.machine).await.unwrap();
        let with = all.iter().filter(|status| status.credentials_available);
        with.map(|status| status.id.as_str()).collect()
    };
    assert_eq!(with(&agents).await, ["codex", "opencode", "pi", "mock"]);
    std::fs::write(&file, "{}").unwrap();
    assert_eq!(
        with(&agents).await,
        ["claude", "codex", "opencode", "pi", "mock"]
    );
}

#[tokio::test]
async fn a_command_carries_what_a_session_needs() {
    let mut place = Place::new().await;
    place.program("bin/opencode", "#!/bin/sh\n");
    place
        .machine
        .env
        .insert("FROM".to_owned(), "machine".to_owned());
    let options = LaunchOptions {
        cwd: Some("/tmp".to_owned()),
        env: [("FROM".to_owned(), "caller".to_owned())].into(),
        tag: Some("agent-1".to_owned()),
    };
    let agents = agents();
    let request = agents
        .command(&place.machine, AgentId::Opencode, &options)
        .await
        .unwrap();
    assert_eq!(request.args, ["acp"]);
    assert_eq!(request.env["FROM"], "caller");
    assert_eq!(request.env["OPENCODE_DISABLE_AUTOUPDATE"], "1");
    assert_eq!(request.stdin, StdinMode::Open);
    assert_eq!(request.retention, Some(limits::MAX_RETENTION as u64));
    assert_eq!(request.user.as_deref(), Some("user"));
    assert_eq!(
        (request.cwd.as_deref(), request.tag.as_deref()),
        (Some("/tmp"), Some("agent-1"))
    );
}

#[tokio::test]
async fn npm_installs_once_however_many_ask() {
    let place = Place::new().await;
    place.npm("1");
    let agents = agents();
    let id = AgentId::Opencode;
    let (one, two) = tokio::join!(install(&place, &agents, id), install(&place, &agents, id));
    let mut both = [one.unwrap(), two.unwrap()];
    both.sort_unstable();
    assert_eq!(both, [false, true]);
    let calls = place.calls();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].ends_with(" opencode-ai@1.18.33"), "{calls:?}");

    let status = agents.status(&place.machine, id).await.unwrap();
    assert_eq!(status.source, Some(Source::Registry));
    assert_eq!(status.version.as_deref(), Some("1.18.33"));
    assert_eq!(place.talk(&agents, id).await, "mock: hello");

    // Another version takes its place; nothing half-made is left.
    place.npm("2");
    let options = InstallOptions {
        agent_version: Some("2.0.0".to_owned()),
        ..InstallOptions::default()
    };
    let installed = agents.install(&place.machine, id, &options).await.unwrap();
    assert!(!installed.already_installed);
    let kinds: Vec<(Kind, Source, Option<&str>)> = installed
        .artifacts
        .iter()
        .map(|a| (a.kind, a.source, a.version.as_deref()))
        .collect();
    let expected = [
        (Kind::NativeAgent, Source::Registry, Some("2.0.0")),
        (Kind::AgentProcess, Source::Registry, Some("2.0.0")),
    ];
    assert_eq!(kinds, expected);
    for artifact in &installed.artifacts {
        assert!(PathBuf::from(&artifact.path).exists(), "{}", artifact.path);
    }
    assert_eq!(place.talk(&agents, id).await, "mock: hello");
    let ran = std::fs::read_to_string(place.guest.home().join("ran")).unwrap();
    assert_eq!(ran, "2\n");
    let again = agents.install(&place.machine, id, &options).await.unwrap();
    assert!(again.already_installed);
    let reinstall = InstallOptions {
        reinstall: true,
        ..options
    };
    let again = agents
        .install(&place.machine, id, &reinstall)
        .await
        .unwrap();
    assert!(!again.already_installed);
    let mut left: Vec<_> = std::fs::read_dir(place.data().join("agents/opencode"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["1.18.33", "2.0.0"]);
}

#[tokio::test]
async fn what_cannot_be_installed_says_why() {
    let place = Place::new().await;
    let agents = agents();
    let refusal = async |id| {
        let fault = install(&place, &agents, id).await.unwrap_err();
        (fault.code, fault.message)
    };
    for id in [AgentId::Amp, AgentId::Cursor] {
        let (code, message) = refusal(id).await;
        assert_eq!(code, Code::UnsupportedAgent);
        assert!(message.contains("cannot be installed"), "{message}");
    }
    place.program(
        "bin/npm",
        "#!/bin/sh\nseq 1 100 >&2\necho 'npm error no network' >&2\nexit 7\n",
    );
    let (code, message) = refusal(AgentId::Opencode).await;
    assert_eq!(code, Code::InstallFailed);
    assert!(message.contains("exit status 7"), "{message}");
    assert!(message.ends_with("npm error no network"), "{message}");
    assert_eq!(message.lines().count(), 17, "the last lines only");

    place.program("bin/npm", "#!/bin/sh\nexit 0\n");
    let (_, message) = refusal(AgentId::Opencode).await;
    assert!(
        message.contains("has no opencode-ai/bin/opencode.exe"),
        "{message}"
    );
    place.program("bin/node", "#!/bin/sh\necho 12\n");
    let (_, message) = refusal(AgentId::Claude).await;
    assert!(
        message.contains("needs Node 22 or newer, the machine has 12"),
        "{message}"
    );
    assert!(
        !agents
            .status(&place.machine, AgentId::Opencode)
            .await
            .unwrap()
            .installed
    );
    let left = std::fs::read_dir(place.data().join("agents/opencode")).unwrap();
    assert_eq!(left.count(), 0);

    place.program("bin/npm", "#!/bin/sh\nexec sleep 1000\n");
    let hasty = Agents::new(Settings {
        install_timeout: Duration::from_millis(300),
        ..Settings::default()
    });
    let fault = install(&place, &hasty, AgentId::Opencode)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::InstallFailed);
    assert!(
        fault.message.contains("took longer than"),
        "{}",
        fault.message
    );
}

#[tokio::test]
async fn agents_come_on_demand_unless_they_must_be_there() {
    let place = Place::new().await;
    place.npm("1");
    let strict = Agents::new(Settings {
        preinstalled: Preinstalled::Required,
        ..Settings::default()
    });
    let refused = strict
        .ensure(&place.machine, AgentId::Opencode)
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::AgentNotInstalled);
    assert_eq!(place.calls(), [] as [&str; 0]);
    let status = agents()
        .ensure(&place.machine, AgentId::Opencode)
        .await
        .unwrap();
    assert!(status.installed);
    assert_eq!(
        strict
            .ensure(&place.machine, AgentId::Opencode)
            .await
            .unwrap(),
        status
    );
    assert_eq!(place.calls().len(), 1);
}

#[tokio::test]
async fn the_hosts_store_needs_no_npm_in_the_machine() {
    let place = Place::new().await;
    // A machine whose npm must not be asked.
    place.program(
        "bin/npm",
        "#!/bin/sh\necho called >> \"$HOME/calls\"\nexit 1\n",
    );
    let store = place.guest.dir.path().join("store");
    let guest = common::guest_binary();
    let script = format!("#!/bin/sh\nexec {} mock-agent\n", guest.display());
    let program = "store/opencode/1.0.0/node_modules/opencode-ai/bin/opencode.exe";
    place.program(program, &script);
    // More than fits into a pipe.
    let ballast: Vec<u8> = (0..5_u32 << 20).map(|n| (n % 251) as u8).collect();
    std::fs::write(store.join("opencode/1.0.0/ballast"), &ballast).unwrap();
    std::fs::write(
        store.join("opencode/current.json"),
        r#"{"version":"1.0.0"}"#,
    )
    .unwrap();
    let agents = Agents::new(Settings {
        host_store: Some(HostStore::new(&store)),
        ..Settings::default()
    });
    let id = AgentId::Opencode;
    let options = InstallOptions::default();
    let installed = agents.install(&place.machine, id, &options).await.unwrap();
    assert!(!installed.already_installed);
    let versions: Vec<_> = installed
        .artifacts
        .iter()
        .map(|a| a.version.as_deref())
        .collect();
    assert_eq!(versions, [Some("1.0.0"), Some("1.0.0")]);
    for artifact in &installed.artifacts {
        assert!(PathBuf::from(&artifact.path).exists(), "{}", artifact.path);
    }
    let status = agents.status(&place.machine, id).await.unwrap();
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
    let brought = place.data().join("agents/opencode/1.0.0/ballast");
    assert!(std::fs::read(brought).unwrap() == ballast);
    assert_eq!(place.talk(&agents, id).await, "mock: hello");
    assert_eq!(place.calls(), [] as [&str; 0]);

    // A version that is not in store is asked of npm.
    let options = InstallOptions {
        agent_version: Some("3.0.0".to_owned()),
        ..InstallOptions::default()
    };
    let fault = agents
        .install(&place.machine, id, &options)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::InstallFailed);
    assert_eq!(place.calls(), ["called"]);
}
