//! Records to test with.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use woodfrog_types::event::Level;
use woodfrog_types::key::{ApiKey, KeyReach, PreviousSecret, Scope};
use woodfrog_types::network::{EgressProxy, Hidden, NetworkSpec, ProxyTls};
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox::{InstanceState, OnTimeout, Resources, Sandbox, SandboxState};
use woodfrog_types::secret::{Sealed, VolumeMount};
use woodfrog_types::session::{
    AgentProcess, Binding, Choice, NewSessionEvent, Session, SessionFace, SessionState, Source,
    Stream, Turn, kind,
};
use woodfrog_types::sleep::{Fallback, Sleep, SleepCause, SleepPolicy};
use woodfrog_types::snapshot::{
    Snapshot, SnapshotContent, SnapshotPlace, SnapshotPurpose, SnapshotSize, SnapshotState,
};
use woodfrog_types::template::{Build, BuildLogLine, BuildState, Template};
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{
    BuildId, KeyId, SandboxId, SessionId, SnapshotId, TemplateId, Timestamp, VolumeId, WorkspaceId,
};

use crate::records::NewEvent;

/// A point in time, `millis` after a fixed one.
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + millis)
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A new sandbox in which no field has its default value.
pub fn sandbox(workspace: &WorkspaceId, started_at: i64) -> Sandbox {
    Sandbox {
        id: SandboxId::generate(),
        workspace: workspace.clone(),
        template: TemplateId::generate(),
        template_alias: Some("base \"quoted\" ü".to_owned()),
        build: BuildId::generate(),
        state: SandboxState::Creating,
        generation: 1,
        created_at: at(started_at - 5),
        started_at: at(started_at),
        deadline: Some(at(started_at + 300_000)),
        timeout: Some(Duration::from_millis(300_001)),
        on_timeout: OnTimeout::Pause { memory: true },
        auto_resume: true,
        sleep: SleepPolicy {
            pause_after: Some(Duration::from_millis(1)),
            hibernate_after: Some(Duration::from_millis(2)),
            archive_after: Some(Duration::from_millis(3)),
            delete_after: Some(Duration::from_millis(4)),
            fallback: Fallback::Filesystem,
            checkpoint_every: Some(Duration::from_millis(5)),
        },
        // Only those that sleep have one.
        sleep_due: None,
        last_snapshot: Some(SnapshotId::generate()),
        resources: Resources {
            cpu_count: 3,
            memory_bytes: 256 << 30,
            disk_bytes: u64::MAX,
            pids: 77,
        },
        env: map(&[("PATH", "/bin"), ("EMPTY", ""), ("MULTI", "a\nb\0c")]),
        metadata: map(&[("user", "ann"), ("quote\"\\", "\u{1}'; --")]),
        network: network(),
        secure: true,
        volumes: mounts(),
    }
}

/// The same at every call: records with these are compared.
fn mounts() -> Vec<VolumeMount> {
    let volume = format!("{}{}", VolumeId::TAG, "1".repeat(26));
    vec![VolumeMount {
        volume: volume.parse().expect("an id"),
        name: "Data_1".to_owned(),
        path: "/mnt/ü \"quoted\"".to_owned(),
    }]
}

fn network() -> NetworkSpec {
    let sealed = |bytes: &[u8]| Hidden::Sealed(Sealed(bytes.to_vec()));
    let headers = BTreeMap::from([("x-token".to_owned(), sealed(&[0, 255, 1]))]);
    NetworkSpec {
        internet: false,
        allow_out: vec!["*.example.com".to_owned()],
        deny_out: vec!["10.0.0.0/8".to_owned()],
        dns_servers: vec![IpAddr::from([1, 1, 1, 1]), IpAddr::from([0_u16; 8])],
        allow_public_traffic: false,
        mask_request_host: Some("localhost:${PORT}".to_owned()),
        header_rules: BTreeMap::from([("example.com".to_owned(), headers)]),
        egress_proxy: Some(EgressProxy {
            address: "proxy.example.com:1080".to_owned(),
            username: Some("ann".to_owned()),
            password: Some(sealed(b"")),
            tls: Some(ProxyTls {
                server_name: Some("p.example.com".to_owned()),
                ca_cert: None,
            }),
        }),
        https_ports: vec![1, u16::MAX],
    }
}

/// The next version of a sandbox, in another state.
pub fn moved(sandbox: &Sandbox, state: SandboxState) -> Sandbox {
    Sandbox {
        generation: sandbox.generation + 1,
        state,
        ..sandbox.clone()
    }
}

pub fn running() -> SandboxState {
    SandboxState::Running {
        instance: InstanceState("{\"pid\":1}".to_owned()),
    }
}

/// Every state in which a sandbox sleeps, is put to sleep or woken, in the order of the ladder.
pub fn sleeping(cause: SleepCause, content: SnapshotContent) -> Vec<SandboxState> {
    let instance = InstanceState("{\"frozen\":[]}".to_owned());
    let snapshot = SnapshotId::generate();
    let since = at(17);
    let sleep = Sleep { since, cause };
    vec![
        SandboxState::Paused {
            instance: instance.clone(),
            sleep,
        },
        SandboxState::Hibernating {
            instance,
            snapshot: snapshot.clone(),
            content,
            sleep,
        },
        SandboxState::Hibernated {
            snapshot: snapshot.clone(),
            content,
            sleep,
        },
        SandboxState::Waking {
            snapshot: snapshot.clone(),
            content,
            sleep,
        },
        SandboxState::Archiving {
            snapshot: snapshot.clone(),
            content,
            sleep,
        },
        SandboxState::Archived {
            snapshot,
            content,
            sleep,
        },
    ]
}

/// A checkpoint that is being written, in which no field has its default value.
pub fn snapshot(workspace: &WorkspaceId, created_at: i64) -> Snapshot {
    Snapshot {
        id: SnapshotId::generate(),
        workspace: workspace.clone(),
        source: SandboxId::generate(),
        parent: Some(SnapshotId::generate()),
        content: SnapshotContent::Memory,
        purpose: SnapshotPurpose::Checkpoint,
        state: SnapshotState::Writing,
        place: SnapshotPlace::Local,
        generation: 1,
        name: None,
        labels: map(&[("git", "abc"), ("quote\"\\", "\u{1}'; --")]),
        template: TemplateId::generate(),
        template_alias: Some("base \"quoted\" ü".to_owned()),
        build: BuildId::generate(),
        resources: Resources {
            cpu_count: 3,
            memory_bytes: 256 << 30,
            disk_bytes: u64::MAX,
            pids: 77,
        },
        env: map(&[("PATH", "/bin"), ("MULTI", "a\nb\0c")]),
        volumes: mounts(),
        driver: "native".to_owned(),
        size: SnapshotSize {
            memory_bytes: 300,
            written_bytes: 200,
            disk_bytes: 10,
        },
        created_at: at(created_at),
    }
}

/// The next version of a snapshot, in another state.
pub fn snapshot_moved(snapshot: &Snapshot, state: SnapshotState) -> Snapshot {
    Snapshot {
        generation: snapshot.generation + 1,
        state,
        ..snapshot.clone()
    }
}

/// An event with that message.
pub fn event(at_millis: i64, message: &str) -> NewEvent {
    NewEvent {
        at: at(at_millis),
        level: Level::Warn,
        kind: "test.event".to_owned(),
        message: message.to_owned(),
        fields: map(&[("key", "value")]),
    }
}

pub fn template(workspace: Option<&WorkspaceId>, name: &str) -> Template {
    Template {
        id: TemplateId::generate(),
        workspace: workspace.cloned(),
        name: name.to_owned(),
        resources: Resources::default(),
        tags: BTreeMap::from([("default".to_owned(), BuildId::generate())]),
        created_at: at(1),
        updated_at: at(2),
    }
}

pub fn build(template: &TemplateId, created_at: i64) -> Build {
    Build {
        id: BuildId::generate(),
        template: template.clone(),
        state: BuildState::Waiting,
        tags: vec!["default".to_owned(), "v1".to_owned()],
        created_at: at(created_at),
        finished_at: None,
    }
}

pub fn log_line(message: &str) -> BuildLogLine {
    BuildLogLine {
        at: at(3),
        level: Level::Info,
        step: Some("2".to_owned()),
        message: message.to_owned(),
    }
}

pub fn key(workspace: &WorkspaceId, digest: u8) -> ApiKey {
    ApiKey {
        id: KeyId::generate(),
        workspace: workspace.clone(),
        name: "laptop".to_owned(),
        scope: Scope::Admin,
        user: UserId::parse("ann \u{fc}"),
        role: Role::Member,
        reach: KeyReach::User,
        hint: "wf_ab".to_owned(),
        digest: [digest; 32],
        previous: Some(PreviousSecret {
            digest: [digest | 0x80; 32],
            until: at(500),
        }),
        created_at: at(i64::from(digest)),
        expires_at: Some(at(1000)),
        last_used_at: None,
    }
}

/// A session of a sandbox of its own, in which no field has its default value.
pub fn session(workspace: &WorkspaceId, created_at: i64) -> Session {
    Session {
        id: SessionId::generate(),
        workspace: workspace.clone(),
        sandbox: SandboxId::generate(),
        face: SessionFace::Universal,
        name: "my \"session\" ü\0".to_owned(),
        holds_name: true,
        agent: "mock".to_owned(),
        state: SessionState::Active,
        generation: 1,
        created_at: at(created_at),
        updated_at: at(created_at + 1),
        settings: r#"{"model":"m"}"#.to_owned(),
        handshake: Some(r#"{"protocolVersion":1}"#.to_owned()),
        process: Some(AgentProcess {
            id: 1 << 60,
            incarnation: 2,
            ready: Some(r#"{"agentCapabilities":{}}"#.to_owned()),
            over: false,
        }),
        bindings: vec![Binding {
            public: "p".to_owned(),
            agent: "a\0".to_owned(),
            incarnation: 2,
            init: "{}".to_owned(),
            chosen: vec![Choice {
                method: "session/set_mode".to_owned(),
                params: r#"{"modeId":"ü"}"#.to_owned(),
            }],
            replay_due: Some(7),
        }],
    }
}

/// The next version of a session.
pub fn session_moved(session: &Session, state: SessionState) -> Session {
    Session {
        generation: session.generation + 1,
        state,
        ..session.clone()
    }
}

/// An entry of a log with that payload.
pub fn session_event(stream: Stream, payload: &str) -> NewSessionEvent {
    NewSessionEvent {
        stream,
        at: at(8),
        source: Source::Agent,
        kind: kind::MESSAGE.to_owned(),
        author: None,
        connection: None,
        payload: payload.to_owned(),
        wire: None,
    }
}

/// A turn that goes on.
pub fn turn(number: u64) -> Turn {
    Turn {
        number,
        binding: "p".to_owned(),
        author: Some("ann \"ü\"\0".to_owned()),
        first: number,
        last: None,
        outcome: None,
        started_at: at(3),
        ended_at: None,
        snapshot: None,
    }
}

pub fn page(limit: usize, cursor: Option<String>) -> PageRequest {
    PageRequest { limit, cursor }
}
