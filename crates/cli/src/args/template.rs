//! Commands about templates.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Target, pair, size};

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// List templates.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
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
        /// User at the registry; the password is read from WOODFROG_REGISTRY_PASSWORD.
        #[arg(long, value_name = "NAME")]
        registry_user: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Build a template from a file of steps (a Dockerfile with FROM, COPY, RUN, ENV, ARG,
    /// WORKDIR, USER and CMD).
    Build(BuildArgs),
    /// Set what new sandboxes of a template may do beyond the default, and say what it costs.
    ///
    /// The options are those of the finished build that NAME (`name` or `name:tag`) has now:
    /// running sandboxes keep theirs, and a later build, or a build FROM the template, starts with
    /// all off.
    Security {
        name: String,
        /// What is allowed, separated by commas; without it, all is off.
        #[arg(long, value_name = "OPTION", value_delimiter = ',')]
        allow: Vec<Allowed>,
        /// What they run on.
        #[arg(long, value_enum, default_value_t)]
        runtime: On,
        #[command(flatten)]
        target: Target,
    },
    /// Remove from the server's disk the layers that nothing needs: no template, sandbox, snapshot,
    /// running build, nor the cache of build steps within its limit.
    Gc {
        #[command(flatten)]
        target: Target,
    },
    /// Delete a template and its builds; `name:tag` removes that tag only.
    #[command(visible_alias = "rm")]
    Delete {
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

/// What sandboxes run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// The host's kernel.
    #[default]
    Native,
    /// gVisor's: slower, and further from the host; what is allowed means nothing with it.
    Gvisor,
}

/// What `template security` can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Allowed {
    /// `unshare`, `clone` with namespaces; no checkpoint while one lives.
    NestedNamespaces,
    /// No checkpoint while a ring is open.
    #[value(alias = "io_uring")]
    IoUring,
    /// No checkpoint while one is open.
    Userfaultfd,
    /// Its restrictions are lost by a checkpoint.
    Landlock,
    /// No checkpoint while one is open; the others are lost by it.
    #[value(alias = "message_queues")]
    MessageQueues,
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Name of the template.
    pub name: String,
    /// The folder that COPY reads from.
    #[arg(default_value = ".")]
    pub context: PathBuf,
    /// The file [default: CONTEXT/Dockerfile].
    #[arg(long, short = 'f')]
    pub file: Option<PathBuf>,
    /// NAME=VALUE of an ARG, repeatable.
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = pair)]
    pub build_args: Vec<(String, String)>,
    /// Polled until it exits 0 before a sandbox counts as ready.
    #[arg(long)]
    pub ready_cmd: Option<String>,
    /// vCPUs of its sandboxes.
    #[arg(long)]
    pub cpus: Option<u32>,
    /// Memory of its sandboxes: `512MiB`.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Do not use cached layers.
    #[arg(long)]
    pub no_cache: bool,
    #[command(flatten)]
    pub target: Target,
}
