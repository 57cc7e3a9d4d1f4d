//! The tree of commands.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs AI agents in sandboxes that sleep when nobody needs them and lose nothing.
#[derive(Debug, Parser)]
#[command(name = "woodfrog", version, propagate_version = true)]
pub struct Cli {
    /// Configuration file (TOML).
    #[arg(long, global = true, env = "WOODFROG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Create and use sandboxes.
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Templates: what sandboxes start from.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Say what this machine can do, what is missing, what that costs and how to get it.
    Doctor(DoctorArgs),
    /// The server's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Remove everything a server has on this machine: sandboxes, networks, mounts, and its data
    /// directory. The server must not be running.
    Purge {
        #[arg(
            long,
            env = "WOODFROG_DATA_DIR",
            default_value = "/var/lib/woodfrog",
            value_name = "DIR"
        )]
        data_dir: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Print a completion script.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

/// Flags of `serve`. Unset ones fall back to the environment, the file and the default.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Address and port of every face [default: 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where everything is kept [default: /var/lib/woodfrog].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Wildcard domain, with `:port` if it is not 443.
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
    /// PEM file with the certificate chain.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<String>,
    /// PEM file with the private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<String>,
    /// Serve TLS with a certificate from a private authority made in the data directory.
    #[arg(long, conflicts_with = "tls_cert")]
    pub tls_self_signed: bool,
    /// Accept any API key as one local workspace. For development only.
    #[arg(long)]
    pub dev: bool,
    /// Log filter [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl ServeArgs {
    /// The flags that were given, as the highest layer of the configuration.
    pub fn layer(&self) -> BTreeMap<String, String> {
        let texts = [
            ("listen", &self.listen),
            ("data_dir", &self.data_dir),
            ("domain", &self.domain),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("log", &self.log),
        ];
        let flags = [("tls_self_signed", self.tls_self_signed), ("dev", self.dev)];
        texts
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
            .chain(
                flags
                    .into_iter()
                    .filter(|(_, on)| *on)
                    .map(|(k, _)| (k.into(), "true".into())),
            )
            .collect()
    }
}

/// Which server a client command talks to.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The server's URL.
    #[arg(
        long,
        env = "WOODFROG_URL",
        default_value = "http://127.0.0.1:7070",
        value_name = "URL"
    )]
    pub url: String,
    /// API key; else the admin key of a server on this machine is used if it can be read.
    #[arg(
        long,
        env = "WOODFROG_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub api_key: Option<String>,
    /// Data directory to look for the admin key in.
    #[arg(
        long,
        env = "WOODFROG_DATA_DIR",
        default_value = "/var/lib/woodfrog",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,
    /// PEM file of a private certificate authority to trust.
    #[arg(long, env = "SSL_CERT_FILE", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Create a sandbox and print its id.
    Create {
        /// Template name or id.
        #[arg(default_value = "base")]
        template: String,
        /// Seconds until it ends by itself; 0 is never.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
        /// KEY=VALUE, repeatable.
        #[arg(long = "metadata", short = 'm', value_name = "KEY=VALUE", value_parser = pair)]
        metadata: Vec<(String, String)>,
        /// KEY=VALUE for every process inside, repeatable.
        #[arg(long = "env", short = 'e', value_name = "KEY=VALUE", value_parser = pair)]
        env: Vec<(String, String)>,
        /// No access to the outside.
        #[arg(long)]
        no_internet: bool,
        /// vCPUs [default: the template's].
        #[arg(long)]
        cpus: Option<u32>,
        /// Memory: `512MiB` [default: the template's].
        #[arg(long, value_name = "SIZE")]
        memory: Option<String>,
        /// Disk above the template: `10GiB` [default: the template's].
        #[arg(long, value_name = "SIZE")]
        disk: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// List sandboxes, newest first.
    List {
        /// KEY=VALUE that must match, repeatable.
        #[arg(long = "metadata", short = 'm', value_name = "KEY=VALUE", value_parser = pair)]
        metadata: Vec<(String, String)>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Show one sandbox.
    Show {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Run a command in a sandbox; its output and exit code become this command's.
    Exec {
        id: String,
        /// User inside.
        #[arg(long, short = 'u')]
        user: Option<String>,
        /// Working directory.
        #[arg(long, short = 'w')]
        cwd: Option<String>,
        /// KEY=VALUE, repeatable.
        #[arg(long = "env", short = 'e', value_name = "KEY=VALUE", value_parser = pair)]
        env: Vec<(String, String)>,
        /// Seconds after which it is killed; 0 is never.
        #[arg(long, default_value_t = 0)]
        timeout: u64,
        /// Send this process's standard input.
        #[arg(long, short = 'i')]
        stdin: bool,
        #[command(flatten)]
        target: Target,
        /// The command and its arguments; one argument is run by a shell.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Open a terminal in a sandbox.
    Shell {
        id: String,
        /// User inside.
        #[arg(long, short = 'u')]
        user: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Copy a file into or out of a sandbox: one side is `ID:PATH`, `-` is standard input or output.
    Cp {
        from: String,
        to: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete sandboxes.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// List templates.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Wait until a template is ready; makes `base` on first use, with progress.
    Prepare {
        #[arg(default_value = "base")]
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Make a template from a root file system: a tarball, an OCI layout (folder or tar) or a
    /// registry image.
    Import {
        /// Name of the template.
        name: String,
        /// FILE.tar[.gz|.zst], an OCI layout, or a registry reference such as `debian:12`.
        source: String,
        #[command(flatten)]
        target: Target,
    },
    /// Build a template from a file of steps (a Dockerfile with FROM, COPY, RUN, ENV, WORKDIR,
    /// USER and CMD).
    Build {
        /// Name of the template.
        name: String,
        /// The folder that COPY reads from.
        #[arg(default_value = ".")]
        context: PathBuf,
        /// The file [default: CONTEXT/Dockerfile].
        #[arg(long, short = 'f')]
        file: Option<PathBuf>,
        /// Polled until it exits 0 before a sandbox counts as ready.
        #[arg(long)]
        ready_cmd: Option<String>,
        /// Do not use cached layers.
        #[arg(long)]
        no_cache: bool,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key; its secret is shown once.
    Create {
        name: String,
        /// Workspace id [default: the default workspace].
        #[arg(long)]
        workspace: Option<String>,
        /// May manage keys and every workspace.
        #[arg(long)]
        admin: bool,
        /// Lifetime: `30d`, `12h` [default: for ever].
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// List keys (never their secrets).
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Revoke a key; it stops working at once.
    Revoke {
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Install what is missing and can be installed.
    #[arg(long)]
    pub fix: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Data directory whose file system is probed.
    #[arg(
        long,
        env = "WOODFROG_DATA_DIR",
        default_value = "/var/lib/woodfrog",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration; exits 64 if it cannot be used.
    Check {
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Print every setting with its value and where it comes from.
    Show {
        #[command(flatten)]
        serve: ServeArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("want KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_may_have_flags_of_its_own() {
        let cli =
            Cli::try_parse_from(["woodfrog", "sandbox", "exec", "sb1", "ls", "-la", "--color"])
                .expect("parses");
        let Command::Sandbox(SandboxCommand::Exec { command, .. }) = cli.command else {
            panic!("not exec")
        };
        assert_eq!(command, ["ls", "-la", "--color"]);
    }
}
