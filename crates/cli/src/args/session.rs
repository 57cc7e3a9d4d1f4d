//! Commands about sessions with agents.

use clap::Subcommand;

use super::Target;

/// A time, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Forever,
    Seconds(u64),
}

impl std::str::FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Forever);
        }
        super::duration(text).map(|time| Self::Seconds(time.as_secs()))
    }
}

/// A number of entries, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptEntries {
    All,
    Last(u64),
}

impl std::str::FromStr for KeptEntries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            text => text
                .parse()
                .map(Self::Last)
                .map_err(|_| "want a number, or all".to_owned()),
        }
    }
}

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
        /// Which session; all of the workspace's with --all.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// Every session of the workspace, each after a line about itself.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        target: Target,
    },
    /// List the turns of a session.
    Turns {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Go on from the end of an earlier turn, in a new sandbox that is as the session's was then.
    Rewind {
        id: String,
        /// Which turn; the session keeps snapshots of turns (`create --keep-turns`).
        #[arg(long, value_name = "NUMBER")]
        turn: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Make another session that begins as this one was at the end of a turn.
    Fork {
        id: String,
        /// Its last turn; the session keeps snapshots of turns (`create --keep-turns`).
        #[arg(long, value_name = "NUMBER")]
        turn: u64,
        /// Your own name for it.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Show how long sessions of the workspace are kept, or set it.
    Retention {
        /// How long a session is kept after its end: 30d, or never to keep it.
        #[arg(long, value_name = "TIME")]
        ended: Option<Kept>,
        /// How long entries of logs are kept.
        #[arg(long, value_name = "TIME")]
        age: Option<Kept>,
        /// How many entries of one log are kept; `all` keeps them.
        #[arg(long, value_name = "COUNT")]
        entries: Option<KeptEntries>,
        /// As the server has it, again.
        #[arg(long, conflicts_with_all = ["ended", "age", "entries"])]
        reset: bool,
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
