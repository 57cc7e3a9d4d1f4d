//! Every setting of the server, with its default and its documentation.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in the file (`network.cidr` is `cidr` in `[network]`) and of the flag.
    pub key: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// `""` means unset.
    pub default: &'static str,
    /// What it does, for the reference page.
    pub doc: &'static str,
}

const fn setting(
    key: &'static str,
    env: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting {
        key,
        env,
        default,
        doc,
    }
}

/// All settings, in the order of the reference page.
pub const SETTINGS: &[Setting] = &[
    setting(
        "listen",
        "WOODFROG_LISTEN",
        "127.0.0.1:7070",
        "Address and port of every face.",
    ),
    setting(
        "data_dir",
        "WOODFROG_DATA_DIR",
        "/var/lib/woodfrog",
        "Where everything is kept: the database, the pool of layers and sandboxes, keys.",
    ),
    setting(
        "store.url",
        "WOODFROG_STORE_URL",
        "",
        "Postgres to keep records in: `postgres://user:password@host/database`. The connection is not encrypted. Unset: SQLite, a file in the data directory. The pool of layers and sandboxes stays in the data directory.",
    ),
    setting(
        "store.schema",
        "WOODFROG_STORE_SCHEMA",
        "woodfrog",
        "Schema in that database. It is made if it is missing. Every server needs one of its own.",
    ),
    setting(
        "domain",
        "WOODFROG_DOMAIN",
        "",
        "Wildcard domain: `api.DOMAIN` and `{port}-{sandbox}.DOMAIN` reach this server.",
    ),
    setting(
        "tls_cert",
        "WOODFROG_TLS_CERT",
        "",
        "PEM file with the certificate chain.",
    ),
    setting(
        "tls_key",
        "WOODFROG_TLS_KEY",
        "",
        "PEM file with the private key.",
    ),
    setting(
        "tls_self_signed",
        "WOODFROG_TLS_SELF_SIGNED",
        "false",
        "Serve TLS with a certificate from a private authority in the data directory.",
    ),
    setting(
        "dev",
        "WOODFROG_DEV",
        "false",
        "Accept any API key as the default workspace with all rights. For development only.",
    ),
    setting(
        "log",
        "WOODFROG_LOG",
        "info",
        "Log filter: `info`, `woodfrog_engine=debug,info`.",
    ),
    setting(
        "log_json",
        "WOODFROG_LOG_JSON",
        "false",
        "Log one JSON object per line.",
    ),
    setting(
        "sandboxes_max",
        "WOODFROG_SANDBOXES_MAX",
        "1000",
        "Sandboxes on this server.",
    ),
    setting(
        "sandboxes_per_workspace_max",
        "WOODFROG_SANDBOXES_PER_WORKSPACE_MAX",
        "1000",
        "Sandboxes of one workspace.",
    ),
    setting(
        "sandbox_timeout_max",
        "WOODFROG_SANDBOX_TIMEOUT_MAX",
        "720h",
        "The longest timeout that a sandbox may ask for.",
    ),
    setting(
        "shutdown_timeout",
        "WOODFROG_SHUTDOWN_TIMEOUT",
        "10s",
        "How long open requests may finish after SIGTERM. Sandboxes keep running.",
    ),
    setting(
        "sleep.pause_after",
        "WOODFROG_SLEEP_PAUSE_AFTER",
        "10m",
        "How long a sandbox may be without activity until it is paused; `never` is possible. Requests may say otherwise for their sandbox, as for the four settings below.",
    ),
    setting(
        "sleep.hibernate_after",
        "WOODFROG_SLEEP_HIBERNATE_AFTER",
        "never",
        "How long a sandbox is paused until it is hibernated: until then it keeps its memory.",
    ),
    setting(
        "sleep.archive_after",
        "WOODFROG_SLEEP_ARCHIVE_AFTER",
        "never",
        "How long a sandbox is hibernated until its snapshot moves to the archive.",
    ),
    setting(
        "sleep.delete_after",
        "WOODFROG_SLEEP_DELETE_AFTER",
        "30d",
        "How long a sandbox is hibernated until it is deleted.",
    ),
    setting(
        "sleep.fallback",
        "WOODFROG_SLEEP_FALLBACK",
        "stay_paused",
        "What becomes of a sandbox whose memory cannot be saved when it is to hibernate by itself: `stay_paused`, or `filesystem` (its files are kept, its processes end).",
    ),
    setting(
        "network.cidr",
        "WOODFROG_NETWORK_CIDR",
        "",
        "IPv4 block (at least /26) for sandbox addresses. Unset: the first free /20 of 10.200.0.0/13.",
    ),
    setting(
        "network.allow_private",
        "WOODFROG_NETWORK_ALLOW_PRIVATE",
        "",
        "Private CIDR blocks, comma-separated, that sandboxes may reach although private ranges are blocked.",
    ),
    setting(
        "images.insecure_registries",
        "WOODFROG_INSECURE_REGISTRIES",
        "",
        "Registries, comma-separated `host:port`, that are spoken to over plain HTTP.",
    ),
    setting(
        "uid_base",
        "WOODFROG_UID_BASE",
        "1000000000",
        "First host uid of the sandboxes' range (65,536 ids from here must be unused).",
    ),
    setting(
        "pool_size",
        "WOODFROG_POOL_SIZE",
        "",
        "Size of the pool image if one has to be made: `200GiB`. It is sparse. Unset: most of the free disk.",
    ),
    setting(
        "cgroup_favor_moves",
        "WOODFROG_CGROUP_FAVOR_MOVES",
        "true",
        "On cgroup v1 machines, mount the cgroup tree with `favordynmods`: creates save 4 to 24 ms, forks on the whole machine cost slightly more.",
    ),
    setting(
        "gvisor_memory_snapshots",
        "WOODFROG_GVISOR_MEMORY_SNAPSHOTS",
        "false",
        "Experimental: save the memory of sandboxes that run on gVisor. Now and then one does not answer after its restore.",
    ),
    setting(
        "launchers",
        "WOODFROG_LAUNCHERS",
        "2",
        "Launcher processes: how many sandboxes are started at the same instant.",
    ),
];

/// The setting with this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}
