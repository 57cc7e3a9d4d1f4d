//! Which server a client command talks to.

use std::path::PathBuf;

use clap::Args;

/// Which server a client command talks to.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The server's URL [default: that of the server of the data directory, else
    /// http://127.0.0.1:7070].
    #[arg(
        long,
        env = "WOODFROG_URL",
        value_name = "URL",
        help_heading = "Server"
    )]
    pub url: Option<String>,
    /// API key; else the admin key of a server on this machine is used if it can be read.
    #[arg(
        long,
        env = "WOODFROG_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Server"
    )]
    pub api_key: Option<String>,
    /// Data directory to look for a server's URL and admin key in.
    #[arg(
        long,
        env = "WOODFROG_DATA_DIR",
        default_value = "/var/lib/woodfrog",
        value_name = "DIR",
        help_heading = "Server"
    )]
    pub data_dir: PathBuf,
    /// PEM file of a private certificate authority to trust.
    #[arg(
        long,
        env = "SSL_CERT_FILE",
        value_name = "FILE",
        help_heading = "Server"
    )]
    pub ca: Option<PathBuf>,
    /// The workspace that is meant, by id or name [default: that of the key].
    #[arg(
        long,
        env = "WOODFROG_WORKSPACE",
        value_name = "WORKSPACE",
        help_heading = "Server"
    )]
    pub workspace: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
