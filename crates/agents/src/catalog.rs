//! Every agent's entry: what it is, can do, needs, and where it comes from.

use crate::capabilities::Capabilities;
use crate::id::AgentId;

/// An agent's entry.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its name.
    pub id: AgentId,
    /// Its name for people.
    pub name: &'static str,
    /// Who makes it.
    pub vendor: &'static str,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Programs on the path that speak the protocol, the first that is there being taken.
    pub launch: &'static [Launch],
    /// How it can be installed.
    pub install: Install,
    /// Environment variables of which one is enough as a credential.
    pub credentials: &'static [&'static str],
    /// Files below the home directory of which one is enough as a credential.
    pub credential_files: &'static [&'static str],
    /// Set for the process, below what the caller sets.
    pub env: &'static [(&'static str, &'static str)],
}

/// A program that speaks the protocol on its standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Searched on the path.
    pub program: &'static str,
    /// Its arguments.
    pub args: &'static [&'static str],
}

/// Where an agent comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// It is part of this product.
    Builtin,
    /// From the npm registry.
    Npm {
        /// Installed together.
        packages: &'static [Package],
        /// The program to start, below `node_modules`, and its arguments.
        entry: Launch,
        /// Whether Node is needed to run it, or only to install it.
        node: Node,
    },
    /// Not from a registry; the sentence says what to do.
    ByHand(&'static str),
}

/// When Node is needed in the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// At least this major version, whenever the agent runs.
    ToRun(u32),
    /// To install it inside only.
    ToInstall,
}

/// A package of the npm registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// What is installed unless another version is asked for.
    pub version: &'static str,
}

/// What a package or an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The agent's own program.
    NativeAgent,
    /// What speaks the protocol.
    AgentProcess,
}

impl Kind {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NativeAgent => "native_agent",
            Self::AgentProcess => "agent_process",
        }
    }
}

impl AgentId {
    /// The agent's entry.
    pub const fn definition(self) -> &'static Definition {
        match self {
            Self::Claude => &CLAUDE,
            Self::Codex => &CODEX,
            Self::Opencode => &OPENCODE,
            Self::Amp => &AMP,
            Self::Pi => &PI,
            Self::Cursor => &CURSOR,
            Self::Gemini => &GEMINI,
            Self::Mock => &MOCK,
        }
    }
}

const fn plain(program: &'static str) -> Launch {
    Launch { program, args: &[] }
}

const ANTHROPIC: [&str; 3] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
];

static CLAUDE: Definition = Definition {
    id: AgentId::Claude,
    name: "Claude Code",
    vendor: "Anthropic",
    capabilities: Capabilities {
        permissions: true,
        questions: true,
        mcp_tools: true,
        streaming_deltas: true,
        ..Capabilities::BASIC
    },
    launch: &[plain("claude-agent-acp"), plain("claude-code-acp")],
    install: Install::Npm {
        packages: &[Package {
            kind: Kind::AgentProcess,
            name: "@agentclientprotocol/claude-agent-acp",
            version: "0.100.0",
        }],
        entry: plain(".bin/claude-agent-acp"),
        node: Node::ToRun(22),
    },
    credentials: &ANTHROPIC,
    credential_files: &[".claude/.credentials.json"],
    env: &[("DISABLE_AUTOUPDATER", "1")],
};

static CODEX: Definition = Definition {
    id: AgentId::Codex,
    name: "Codex",
    vendor: "OpenAI",
    capabilities: Capabilities {
        questions: false,
        ..Capabilities::ALL
    },
    launch: &[plain("codex-acp")],
    install: Install::Npm {
        packages: &[Package {
            kind: Kind::AgentProcess,
            name: "@zed-industries/codex-acp",
            version: "0.16.0",
        }],
        entry: plain(".bin/codex-acp"),
        node: Node::ToRun(18),
    },
    credentials: &["OPENAI_API_KEY", "CODEX_API_KEY"],
    credential_files: &[".codex/auth.json"],
    env: &[],
};

static OPENCODE: Definition = Definition {
    id: AgentId::Opencode,
    name: "OpenCode",
    vendor: "Anomaly",
    capabilities: Capabilities {
        permissions: true,
        questions: true,
        images: true,
        file_attachments: true,
        session_lifecycle: true,
        error_events: true,
        mcp_tools: true,
        streaming_deltas: true,
        item_started: true,
        ..Capabilities::BASIC
    },
    launch: &[Launch {
        program: "opencode",
        args: &["acp"],
    }],
    install: Install::Npm {
        packages: &[Package {
            kind: Kind::NativeAgent,
            name: "opencode-ai",
            version: "1.18.33",
        }],
        // A program of its own, in spite of the name.
        entry: Launch {
            program: "opencode-ai/bin/opencode.exe",
            args: &["acp"],
        },
        node: Node::ToInstall,
    },
    credentials: &[
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "OPENROUTER_API_KEY",
        "GEMINI_API_KEY",
        "OPENCODE_API_KEY",
        "OPENCODE_CONFIG_CONTENT",
    ],
    credential_files: &[".local/share/opencode/auth.json"],
    env: &[("OPENCODE_DISABLE_AUTOUPDATE", "1")],
};

static AMP: Definition = Definition {
    id: AgentId::Amp,
    name: "Amp",
    vendor: "Amp",
    capabilities: Capabilities {
        error_events: true,
        mcp_tools: true,
        ..Capabilities::BASIC
    },
    launch: &[plain("amp-acp"), plain("acp-amp")],
    install: Install::ByHand(
        "the maker of Amp publishes nothing that speaks the protocol: \
         put an adapter of your choice on the path as `amp-acp`, or its launcher in place",
    ),
    credentials: &["AMP_API_KEY"],
    credential_files: &[".local/share/amp/secrets.json"],
    env: &[],
};

static PI: Definition = Definition {
    id: AgentId::Pi,
    name: "Pi",
    vendor: "Earendil Works",
    capabilities: Capabilities {
        images: true,
        session_lifecycle: true,
        error_events: true,
        reasoning: true,
        streaming_deltas: true,
        item_started: true,
        ..Capabilities::BASIC
    },
    launch: &[plain("pi-acp")],
    install: Install::Npm {
        packages: &[
            Package {
                kind: Kind::NativeAgent,
                name: "@earendil-works/pi-coding-agent",
                version: "0.87.1",
            },
            Package {
                kind: Kind::AgentProcess,
                name: "pi-acp",
                version: "0.0.34",
            },
        ],
        entry: plain(".bin/pi-acp"),
        node: Node::ToRun(22),
    },
    credentials: &[
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "OPENROUTER_API_KEY",
    ],
    credential_files: &[".pi/agent/auth.json"],
    env: &[],
};

static CURSOR: Definition = Definition {
    id: AgentId::Cursor,
    name: "Cursor",
    vendor: "Anysphere",
    capabilities: Capabilities {
        plan_mode: true,
        permissions: true,
        images: true,
        session_lifecycle: true,
        error_events: true,
        streaming_deltas: true,
        item_started: true,
        ..Capabilities::BASIC
    },
    launch: &[Launch {
        program: "cursor-agent",
        args: &["acp"],
    }],
    install: Install::ByHand(
        "Cursor's command line is not in a package registry: install it with its own installer, \
         so that `cursor-agent` is on the path",
    ),
    credentials: &["CURSOR_API_KEY", "CURSOR_AUTH_TOKEN"],
    credential_files: &[".config/cursor/auth.json"],
    env: &[],
};

static GEMINI: Definition = Definition {
    id: AgentId::Gemini,
    name: "Gemini CLI",
    vendor: "Google",
    capabilities: Capabilities {
        permissions: true,
        images: true,
        reasoning: true,
        mcp_tools: true,
        streaming_deltas: true,
        ..Capabilities::BASIC
    },
    launch: &[Launch {
        program: "gemini",
        args: &["--acp"],
    }],
    install: Install::Npm {
        packages: &[Package {
            kind: Kind::NativeAgent,
            name: "@google/gemini-cli",
            version: "0.61.0",
        }],
        entry: Launch {
            program: ".bin/gemini",
            args: &["--acp"],
        },
        node: Node::ToRun(20),
    },
    credentials: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
    credential_files: &[".gemini/oauth_creds.json"],
    env: &[],
};

static MOCK: Definition = Definition {
    id: AgentId::Mock,
    name: "Mock",
    vendor: "Woodfrog",
    capabilities: Capabilities::ALL,
    launch: &[],
    install: Install::Builtin,
    credentials: &[],
    credential_files: &[],
    env: &[],
};
