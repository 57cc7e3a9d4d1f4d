//! The one table: action, its name in the audit log, who may, and what kind it is.

use woodfrog_types::workspace::Role;

/// What an action is to the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Changes nothing; leaves no entry.
    Read,
    /// Leaves an entry.
    Write,
    /// Leaves an entry that is on disk before the answer: who may do what, and for how much.
    Administrative,
}

macro_rules! actions {
    ($($name:ident = $text:literal, $least:ident, $kind:ident;)*) => {
        /// Something that can be asked of a workspace.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {$(
            #[doc = concat!("`", $text, "`")]
            $name,
        )*}

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A stable name: what the audit log has.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The least role that may do it.
            pub const fn least(self) -> Role {
                match self { $(Self::$name => Role::$least,)* }
            }

            /// What it is to the audit log.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

actions! {
    ServerInfo = "server.info", Viewer, Read;

    SandboxRead = "sandbox.read", Viewer, Read;
    SandboxCreate = "sandbox.create", Member, Write;
    SandboxUpdate = "sandbox.update", Member, Write;
    SandboxSleep = "sandbox.sleep", Member, Write;
    SandboxWake = "sandbox.wake", Member, Write;
    SandboxCheckpoint = "sandbox.checkpoint", Member, Write;
    SandboxFork = "sandbox.fork", Member, Write;
    SandboxDelete = "sandbox.delete", Member, Write;
    ProcessRead = "process.read", Viewer, Read;
    ProcessStart = "process.start", Member, Write;
    ProcessControl = "process.control", Member, Write;
    FileRead = "file.read", Viewer, Read;
    FileWrite = "file.write", Member, Write;

    SnapshotRead = "snapshot.read", Viewer, Read;
    SnapshotUpdate = "snapshot.update", Member, Write;
    SnapshotDelete = "snapshot.delete", Member, Write;

    SessionRead = "session.read", Viewer, Read;
    SessionCreate = "session.create", Member, Write;
    SessionPrompt = "session.prompt", Member, Write;
    SessionUpdate = "session.update", Member, Write;
    SessionDelete = "session.delete", Member, Write;
    SessionRetention = "session.retention", Admin, Administrative;
    SandboxSessionRead = "sandbox_session.read", Viewer, Read;
    SandboxSessionWrite = "sandbox_session.write", Member, Write;
    PersistRead = "persist.read", Viewer, Read;
    PersistWrite = "persist.write", Member, Write;
    AgentRead = "agent.read", Viewer, Read;
    AgentWrite = "agent.write", Member, Write;

    TemplateRead = "template.read", Viewer, Read;
    TemplateWrite = "template.write", Member, Write;
    TemplateDelete = "template.delete", Member, Write;
    SecretRead = "secret.read", Viewer, Read;
    SecretWrite = "secret.write", Member, Write;
    SecretDelete = "secret.delete", Member, Write;
    VolumeRead = "volume.read", Viewer, Read;
    VolumeWrite = "volume.write", Member, Write;
    VolumeDelete = "volume.delete", Member, Write;

    RunRead = "run.read", Viewer, Read;
    RunCreate = "run.create", Member, Write;
    RunUpdate = "run.update", Member, Write;
    RunCancel = "run.cancel", Member, Write;
    RunDelete = "run.delete", Member, Write;
    ArtifactRead = "artifact.read", Viewer, Read;
    ArtifactWrite = "artifact.write", Member, Write;
    ArtifactReview = "artifact.review", Admin, Administrative;
    UsageRead = "usage.read", Viewer, Read;
    UsageWrite = "usage.write", Member, Write;
    PriceRead = "price.read", Viewer, Read;
    PriceWrite = "price.write", Admin, Administrative;
    BudgetRead = "budget.read", Viewer, Read;
    BudgetWrite = "budget.write", Admin, Administrative;
    WebhookRead = "webhook.read", Member, Read;
    WebhookWrite = "webhook.write", Admin, Administrative;

    WorkspaceRead = "workspace.read", Viewer, Read;
    WorkspaceCreate = "workspace.create", Viewer, Administrative;
    WorkspaceRename = "workspace.rename", Owner, Administrative;
    WorkspaceRemove = "workspace.remove", Owner, Administrative;
    MemberRead = "member.read", Viewer, Read;
    MemberAdd = "member.add", Admin, Administrative;
    MemberRole = "member.role", Admin, Administrative;
    MemberRemove = "member.remove", Admin, Administrative;
    LimitsRead = "limits.read", Viewer, Read;
    LimitsWrite = "limits.write", Admin, Administrative;
    SleepDefaultsRead = "sleep_defaults.read", Viewer, Read;
    SleepDefaultsWrite = "sleep_defaults.write", Admin, Administrative;
    KeyRead = "key.read", Admin, Read;
    KeyCreate = "key.create", Admin, Administrative;
    KeyRotate = "key.rotate", Admin, Administrative;
    KeyRevoke = "key.revoke", Admin, Administrative;
    AuditRead = "audit.read", Admin, Read;

    // A route that nobody placed here yet.
    Unlisted = "unlisted", Owner, Write;
}
