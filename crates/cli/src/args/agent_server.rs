//! Flags of `agent-server`, named as those of `sandbox-agent server`.

use clap::Args;

/// The agent API for the machine it runs on.
#[derive(Debug, Clone, Args)]
pub struct AgentServerArgs {
    /// Address to listen on.
    #[arg(short = 'H', long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(short, long, default_value_t = 2468)]
    pub port: u16,
    /// Ask every request for this token (`Authorization: Bearer`).
    #[arg(
        short,
        long,
        required_unless_present = "no_token",
        conflicts_with = "no_token"
    )]
    pub token: Option<String>,
    /// Let everybody in who reaches the port.
    #[arg(short, long)]
    pub no_token: bool,
    /// An origin whose pages may call; may be given several times, `*` is every one.
    #[arg(short = 'O', long, value_name = "ORIGIN")]
    pub cors_allow_origin: Vec<String>,
    /// A method that they may use [default: any].
    #[arg(short = 'M', long, value_name = "METHOD")]
    pub cors_allow_method: Vec<String>,
    /// A header that they may send [default: any].
    #[arg(short = 'A', long, value_name = "HEADER")]
    pub cors_allow_header: Vec<String>,
    /// Let them send credentials.
    #[arg(short = 'C', long)]
    pub cors_allow_credentials: bool,
    /// Accepted for compatibility: nothing is ever reported to anybody.
    #[arg(long)]
    pub no_telemetry: bool,
    /// Log filter.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log: String,
}
