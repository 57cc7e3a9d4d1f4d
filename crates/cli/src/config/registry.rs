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
        "Schema in that database. It is made if it is missing. Every server needs one of its own, unless all that use it have a `node.name`.",
    ),
    setting(
        "node.name",
        "WOODFROG_NODE_NAME",
        "",
        "Experimental: several servers share the Postgres, each sandbox is on one of them and moves to where it is used; this is what this one is called. Read what is not safe yet in `docs/design/handoff.md`. Unset: the store is this server's alone.",
    ),
    setting(
        "node.lease",
        "WOODFROG_NODE_LEASE",
        "30s",
        "Servers that share a Postgres: how long a sandbox stays a server's that says nothing. Renewed three times as often.",
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
        "sleep.checkpoint_every",
        "WOODFROG_SLEEP_CHECKPOINT_EVERY",
        "never",
        "How often a running sandbox is saved meanwhile (10s at least), so that it comes back from that after the machine went down. Requests may say otherwise for their sandbox.",
    ),
    setting(
        "sleep.sweep",
        "WOODFROG_SLEEP_SWEEP",
        "",
        "When sandboxes that nobody used for `sleep.sweep_idle` go down one rung, whatever their own times say: a cron line in UTC such as `0 2 * * *` (every night at two). Unset: never.",
    ),
    setting(
        "sleep.sweep_idle",
        "WOODFROG_SLEEP_SWEEP_IDLE",
        "8h",
        "How long a sandbox must have been without use, or on its rung, for a sweep to put it on the next one.",
    ),
    setting(
        "archive.url",
        "WOODFROG_ARCHIVE_URL",
        "",
        "Where archived snapshots are kept: `file:///DIRECTORY`, `s3://BUCKET/PREFIX` (credentials, region and endpoint from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT` in the environment), or `none`. Unset: `archive` in the data directory. Servers may share one.",
    ),
    setting(
        "health.interval",
        "WOODFROG_HEALTH_INTERVAL",
        "10s",
        "How often running sandboxes are asked whether they answer; `never` is possible. One that stays silent is started anew with its files.",
    ),
    setting(
        "health.timeout",
        "WOODFROG_HEALTH_TIMEOUT",
        "5s",
        "How long such an answer may take.",
    ),
    setting(
        "health.misses",
        "WOODFROG_HEALTH_MISSES",
        "3",
        "Questions in a row without an answer after which a sandbox is started anew, and again after as many more, later each time.",
    ),
    setting(
        "agent.cors_origins",
        "WOODFROG_AGENT_CORS_ORIGINS",
        "",
        "Origins, comma-separated, whose pages may call the agent API of sandboxes from a browser; `*` is every one. Requests need their key or token all the same. Unset: none.",
    ),
    setting(
        "sessions.keep_ended",
        "WOODFROG_SESSIONS_KEEP_ENDED",
        "never",
        "How long a session with an agent is kept after its end, with its log; `never`: it is not removed. A workspace may say otherwise, as for the two settings below (`woodfrog session retention`).",
    ),
    setting(
        "sessions.keep_age",
        "WOODFROG_SESSIONS_KEEP_AGE",
        "never",
        "How long entries of such logs are kept; `never`: age is no reason to drop them. The last 1,000 of a log stay whatever their age, since an agent may have to be told what was said.",
    ),
    setting(
        "sessions.keep_entries",
        "WOODFROG_SESSIONS_KEEP_ENTRIES",
        "",
        "How many entries of one log are kept, at least 1,000. Unset: all.",
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
        "network.egress_proxies",
        "WOODFROG_NETWORK_EGRESS_PROXIES",
        "",
        "CIDR blocks, comma-separated, in which sandboxes' egress proxies may be although they are private or of this machine. Sandboxes cannot go there otherwise. Whoever makes sandboxes can have the server connect to any port there.",
    ),
    setting(
        "network.extra_ca",
        "WOODFROG_NETWORK_EXTRA_CA",
        "",
        "File with certificates (PEM) that servers and egress proxies may descend from, besides those this machine trusts, where the server speaks TLS for a sandbox.",
    ),
    setting(
        "network.name_servers",
        "WOODFROG_NETWORK_NAME_SERVERS",
        "",
        "Name servers, comma-separated `address:port`, that sandboxes' questions are passed on to. Unset: those of this machine's `/etc/resolv.conf`.",
    ),
    setting(
        "webhooks.allow_private",
        "WOODFROG_WEBHOOKS_ALLOW_PRIVATE",
        "false",
        "Whether webhooks may be told at addresses of this machine and of private networks. Whoever may add a webhook can then have the server post there.",
    ),
    setting(
        "traces.endpoint",
        "WOODFROG_TRACES_ENDPOINT",
        "",
        "Where spans of runs are sent, by OpenTelemetry's protocol over HTTP (protobuf): `http://127.0.0.1:4318/v1/traces`. Unset: nowhere.",
    ),
    setting(
        "traces.headers",
        "WOODFROG_TRACES_HEADERS",
        "",
        "Headers of these requests, comma-separated `name=value`: `authorization=Bearer KEY`. Not shown by `config show`.",
    ),
    setting(
        "traces.sample",
        "WOODFROG_TRACES_SAMPLE",
        "1",
        "Which part of the runs is told of, 0 to 1. It goes by the prompt: the same one always or never. Runs that fail are told of anyway.",
    ),
    setting(
        "traces.mode",
        "WOODFROG_TRACES_MODE",
        "batch",
        "`batch`: the spans of a run are sent when it is over, along with others. `realtime`: each is sent when it has ended.",
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
        "build_cache",
        "WOODFROG_BUILD_CACHE",
        "10GiB",
        "Layers that only the cache of build steps needs: so many bytes of them are kept, the newest first.",
    ),
    setting(
        "volumes.size",
        "WOODFROG_VOLUMES_SIZE",
        "10GiB",
        "What a volume holds whose request does not say. Volumes of before there were limits, and those of servers whose pool has no quotas, have none.",
    ),
    setting(
        "volumes.size_max",
        "WOODFROG_VOLUMES_SIZE_MAX",
        "100GiB",
        "The most that a request may ask for.",
    ),
    setting(
        "cgroup_favor_moves",
        "WOODFROG_CGROUP_FAVOR_MOVES",
        "true",
        "On cgroup v1 machines, mount the cgroup tree with `favordynmods`: creates save 4 to 24 ms, forks on the whole machine cost slightly more.",
    ),
    setting(
        "lazy_pages",
        "WOODFROG_LAZY_PAGES",
        "off",
        "Experimental: big sandboxes go on before their memory is in. `on` sets `vm.unprivileged_userfaultfd=1` at the start, which lets every process of the machine but sandboxes stop the kernel inside a copy; `auto` does it where that is set already.",
    ),
    setting(
        "gvisor_memory_snapshots",
        "WOODFROG_GVISOR_MEMORY_SNAPSHOTS",
        "false",
        "Experimental: save the memory of sandboxes that run on gVisor. Now and then one does not answer after its restore.",
    ),
    setting(
        "spares",
        "WOODFROG_SPARES",
        "3",
        "Sandboxes that are made ahead for each of the two kinds (template, size) that were asked for last and more than once: a create that takes one does not wait for the kernel. Each costs some 0.3 MiB, and goes two minutes after the last create of its kind. `0`: none.",
    ),
    setting(
        "launchers",
        "WOODFROG_LAUNCHERS",
        "2",
        "Launcher processes: how many sandboxes are started at the same instant.",
    ),
    setting(
        "auth.oidc.issuer",
        "WOODFROG_AUTH_OIDC_ISSUER",
        "",
        "Take bearer tokens of this identity provider: the `iss` of its tokens. Their `sub` is the user. Unset: only API keys.",
    ),
    setting(
        "auth.oidc.audience",
        "WOODFROG_AUTH_OIDC_AUDIENCE",
        "",
        "The `aud` that tokens must have.",
    ),
    setting(
        "auth.oidc.jwks",
        "WOODFROG_AUTH_OIDC_JWKS",
        "",
        "The provider's public keys (JWKS): a file, an `https` URL, or an `http` URL on this machine. Kept for ten minutes.",
    ),
    setting(
        "limits.user_runs_per_minute",
        "WOODFROG_LIMITS_USER_RUNS_PER_MINUTE",
        "10",
        "Runs that one user may start in any minute, unless their workspace says otherwise; `none` is possible, as for the three settings below.",
    ),
    setting(
        "limits.runs_per_minute",
        "WOODFROG_LIMITS_RUNS_PER_MINUTE",
        "none",
        "Runs that may be started in a workspace in any minute.",
    ),
    setting(
        "limits.user_requests_per_minute",
        "WOODFROG_LIMITS_USER_REQUESTS_PER_MINUTE",
        "none",
        "Requests of one user in any minute.",
    ),
    setting(
        "limits.requests_per_minute",
        "WOODFROG_LIMITS_REQUESTS_PER_MINUTE",
        "none",
        "Requests to a workspace in any minute.",
    ),
    setting(
        "limits.request_burst",
        "WOODFROG_LIMITS_REQUEST_BURST",
        "0",
        "Requests above either rate that are let in at once; they come back over ten minutes.",
    ),
    setting(
        "limits.prompt_retention_days",
        "WOODFROG_LIMITS_PROMPT_RETENTION_DAYS",
        "none",
        "Days after which the prompt, result and log of a run are removed, unless its workspace says otherwise; hashes stay. `none`: never, as for the three settings below.",
    ),
    setting(
        "limits.run_retention_days",
        "WOODFROG_LIMITS_RUN_RETENTION_DAYS",
        "none",
        "Days after which a run that is over is removed, with its log and artifacts; what it used stays in the books.",
    ),
    setting(
        "limits.artifact_retention_days",
        "WOODFROG_LIMITS_ARTIFACT_RETENTION_DAYS",
        "none",
        "Days after which artifacts are removed.",
    ),
    setting(
        "limits.audit_retention_days",
        "WOODFROG_LIMITS_AUDIT_RETENTION_DAYS",
        "none",
        "Days after which entries of the audit log are removed.",
    ),
];

/// The setting with this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}
