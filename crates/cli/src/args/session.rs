//! Commands about sessions with agents.

use clap::Subcommand;

use super::Target;

#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Make a session. Its agent is started by the first prompt.
    Create {
        /// Which agent: mock, claude, opencode, …
        agent: String,
        /// Where it is to run; a sandbox is made for the session if absent.
        #[arg(long, value_name = "ID", conflicts_with = "template")]
        sandbox: Option<String>,
        /// What that sandbox is made from [default: base].
        #[arg(long, value_name = "NAME")]
        template: Option<String>,
        /// Your own name for it.
        #[arg(long)]
        name: Option<String>,
        /// Where the agent works.
        #[arg(long, value_name = "DIR")]
        cwd: Option<String>,
        /// Allow what the agent asks for, without asking anybody.
        #[arg(long)]
        allow_all: bool,
        /// Keep a snapshot of the sandbox at the end of each turn.
        #[arg(long)]
        keep_turns: bool,
        #[command(flatten)]
        target: Target,
    },
    /// List sessions, newest first.
    List {
        /// Only those of this sandbox.
        #[arg(long, value_name = "ID")]
        sandbox: Option<String>,
        /// Only those of this agent.
        #[arg(long)]
        agent: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Show one session, and what its agent has asked.
    Show {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Prompt the agent and watch: text as it streams, tool calls as they happen, tokens at the end.
    Prompt {
        id: String,
        /// What to say.
        text: String,
        /// Who says it, where several people share the session.
        #[arg(long, value_name = "NAME")]
        author: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Answer what the agent asked; without an option the request is cancelled.
    Answer {
        id: String,
        /// The request, as `show` has it.
        request: String,
        /// One of its options.
        option: Option<String>,
        #[arg(long, value_name = "NAME")]
        author: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Ask the agent to stop what it does.
    Cancel {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Print the log.
    Events {
        id: String,
        /// Only entries after this place.
        #[arg(long, default_value_t = 0, value_name = "PLACE")]
        after: u64,
        /// Go on with what comes.
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Print the whole log as lines of JSON.
    Export {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// End sessions: agents are stopped, logs stay.
    End {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// End sessions and remove them with their logs.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
}
