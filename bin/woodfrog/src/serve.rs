//! `woodfrog serve`: the parts put together.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use woodfrog_agents::HostStore;
use woodfrog_billing::{Billing, Reach};
use woodfrog_cli::Config;
use woodfrog_cli::config::{LazyPages as ConfiguredLazyPages, Pace as TracePace, Tls};
use woodfrog_cli::output::note;
use woodfrog_core::admission::Caps;
use woodfrog_core::schedule::Schedule;
use woodfrog_driver_gvisor::GvisorOptions;
use woodfrog_driver_native::{AUTHORITY, EgressOptions, LazyPages, NativeDriver, NativeOptions};
use woodfrog_engine::{EgressAuthority, Engine, KeyPolicy, Options, Ports, Sweep};
use woodfrog_images::LayerStore;
use woodfrog_network::Authority;
use woodfrog_runs::{Files, Pace};
use woodfrog_sandbox::Driver;
use woodfrog_server::agent::AgentFace;
use woodfrog_server::agent::cors::CorsOptions;
use woodfrog_server::oidc::{Jwks, Oidc, OidcOptions};
use woodfrog_server::serve::{Faces, Listener, TlsSource, tls};
use woodfrog_server::{App, ServerOptions, control};
use woodfrog_sessions::Scope;
use woodfrog_store::Store;
use woodfrog_store_postgres::PostgresStore;
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::NodeId;

use crate::drivers::Drivers;
use crate::images::LocalImages;
use crate::places::PoolPlaces;

/// The guest's program, built beside the server.
pub(crate) static GUEST: &[u8] = include_bytes!(env!("WOODFROG_GUEST_BINARY"));

/// How often memory that was freed is given back.
const GIVE_BACK: std::time::Duration = std::time::Duration::from_secs(30);

/// How long the meters and webhooks may take to end.
const BILLING_END: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs the server until it is told to end.
pub(crate) fn run(config: Config) -> Result<()> {
    woodfrog_linux::memory::keep_little();
    crate::logging::start(&config)?;
    // Directories of sandboxes must be open to their users, whatever the operator's own habits;
    // what is secret is made with its mode.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(config));
    // Blocking work that hangs on a dead sandbox must not hold the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// Takes as many descriptors as may be had: each connection of a client or a sandbox needs one or
/// two, and the usual limit is 1024.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: now.maximum,
        ..now
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(config: Config) -> Result<()> {
    let data_dir = config.data_dir.as_path();
    make_private(data_dir)
        .with_context(|| format!("make the data directory {}", data_dir.display()))?;
    let _lock = lock(data_dir)?;
    // Bound before anything else: a taken port must cost nothing.
    let tcp = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let driver = Arc::new(drivers(&config).await?);
    let engine = engine(&config, Arc::clone(&driver) as Arc<dyn Driver>).await?;
    welcome(&config, &engine).await?;
    let local = tcp.local_addr()?;
    let tls = load_tls(&config)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let options = ServerOptions {
        domain: config.domain.clone(),
        agent_cors: CorsOptions {
            origins: config.agent_cors_origins.clone(),
            ..CorsOptions::default()
        }
        .layer()
        .context("agent.cors_origins")?,
    };
    let reach = match config.webhooks_allow_private {
        true => Reach::Anywhere,
        false => Reach::Public,
    };
    let billing = Billing::new(&engine, reach);
    billing.prices.load().await?;
    let app = App::new(engine.clone(), options)
        .with_retention(config.retention)
        .with_billing(billing.clone());
    let app = app.with_agents(woodfrog_agents::Settings {
        // What `woodfrog agent install` put there.
        host_store: Some(HostStore::new(data_dir.join("agents"))),
        ..woodfrog_agents::Settings::default()
    });
    let (app, traces) = traced(&config, app)?;
    let artifacts = Files::open(&data_dir.join("artifacts"));
    let mut app = app.with_artifacts(artifacts.context("open the artifacts")?);
    app.keep_no_remains();
    // What agents say goes on from where the server before left it; nothing waits for that.
    let sessions = app.sessions.clone();
    let awake = engine
        .awake()
        .into_iter()
        .map(|(workspace, sandbox)| Scope { workspace, sandbox });
    let awake: Vec<Scope> = awake.collect();
    tokio::spawn(async move { sessions.take_up(&awake).await });
    let faces = Faces::new(
        Arc::new(engine.clone()),
        control(&app),
        Arc::clone(&app.options),
    )
    .with_agent(AgentFace::new(app.clone()));
    let listener = Listener {
        tcp,
        tls: tls.map(|tls| tls.config),
    };
    let stop = CancellationToken::new();
    tokio::spawn(wait_for_signal(stop.clone())?);
    // Runs go on from where the server before left them.
    let (runs, ending) = (app.runs.clone(), stop.clone());
    tokio::spawn(async move { runs.watch(ending).await });
    // Their connections are no requests that could end by themselves.
    let (sockets, stopped) = (app.sockets.clone(), stop.clone());
    let sockets = tokio::spawn(async move {
        stopped.cancelled().await;
        sockets.shutdown().await;
    });
    tokio::spawn(app.retainer.clone().run(stop.clone()));
    tokio::spawn(stay_small(stop.clone()));
    let (runs, ending) = (app.runs.clone(), stop.clone());
    tokio::spawn(async move { runs.tend(ending).await });
    let told = tokio::spawn({
        let stop = stop.clone();
        async move {
            if let Some(traces) = traces {
                traces.run(stop).await;
            }
        }
    });
    let billed = tokio::spawn({
        let stop = stop.clone();
        async move { billing.run(stop).await }
    });
    let url = endpoint(&config, scheme, local.port());
    std::fs::write(data_dir.join("endpoint"), format!("{url}\n"))?;
    tracing::info!(%url, listen = %local, "serving");
    let drain = config.shutdown_timeout;
    woodfrog_server::serve::serve(faces, vec![listener], stop, drain).await?;
    sockets.await?;
    let _ = std::fs::remove_file(data_dir.join("endpoint"));
    // What it was about to book is booked by the next server if this one is too slow.
    let _ = tokio::time::timeout(BILLING_END, billed).await;
    // It ends by itself soon enough, whatever the collector does.
    if let Err(error) = told.await {
        tracing::error!(%error, "what tells the collector of traces broke down");
    }
    engine.shutdown().await;
    driver.shutdown().await;
    tracing::info!("ended; sandboxes keep running");
    Ok(())
}

/// Gives back, now and then, what large transfers and bursts left behind.
async fn stay_small(stop: CancellationToken) {
    let trim = || tokio::task::spawn_blocking(woodfrog_linux::memory::give_back_freed);
    while stop
        .run_until_cancelled(tokio::time::sleep(GIVE_BACK))
        .await
        .is_some()
    {
        if let Err(error) = trim().await {
            tracing::warn!(%error, "freed memory was not given back");
        }
    }
}

/// Tells a collector of runs, if there is one; what sends is to be run.
fn traced(config: &Config, app: App) -> Result<(App, Option<woodfrog_otlp::Sender>)> {
    let Some(traces) = &config.traces else {
        return Ok((app, None));
    };
    let pace = match traces.pace {
        TracePace::AtEnd => Pace::AtEnd,
        TracePace::AtOnce => Pace::AtOnce,
    };
    let options = woodfrog_otlp::Options {
        endpoint: traces.endpoint.clone(),
        headers: traces.headers.clone().into_iter().collect(),
        gather: pace == Pace::AtEnd,
        service_version: env!("CARGO_PKG_VERSION"),
    };
    let (exporter, sender) =
        woodfrog_otlp::Exporter::new(options).context("set up traces.endpoint")?;
    Ok((app.with_traces(exporter, traces.sample, pace), Some(sender)))
}

/// How clients on this machine reach the server.
fn endpoint(config: &Config, scheme: &str, port: u16) -> String {
    match &config.domain {
        Some(domain) if scheme == "https" => format!("https://api.{domain}"),
        // As a socket address, which puts IPv6 in brackets.
        _ => format!(
            "{scheme}://{}",
            std::net::SocketAddr::new(config.listen.ip(), port)
        ),
    }
}

/// Makes the data directory, for its owner only: users of this machine have no business among
/// sandboxes' files, set-user-id programs included. A directory that everybody may write to is
/// refused.
fn make_private(data_dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)?;
    let mode = std::fs::metadata(data_dir)?.permissions().mode();
    anyhow::ensure!(mode & 0o1000 == 0, "it is shared with others");
    if mode & 0o077 != 0 {
        std::fs::set_permissions(data_dir, PermissionsExt::from_mode(mode & 0o7700))?;
    }
    Ok(())
}

/// One server per data directory.
fn lock(data_dir: &Path) -> Result<std::fs::File> {
    let path = data_dir.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another server is using {}; give it a data directory of its own",
            data_dir.display()
        )
    })?;
    Ok(file)
}

/// The ways out of sandboxes, the same for all drivers.
fn ways_out(config: &Config) -> EgressOptions {
    EgressOptions {
        extra_ca: config.network_extra_ca.clone(),
        proxies: config.network_egress_proxies.clone(),
        name_servers: config.network_name_servers.clone(),
    }
}

/// Whom sandboxes with header rules trust: the authority that the drivers use, too.
fn egress_authority(config: &Config) -> Result<EgressAuthority> {
    let dir = config.data_dir.join(AUTHORITY);
    let authority = Authority::open(&dir).context("open the egress authority")?;
    Ok(EgressAuthority {
        certificate: authority.certificate().to_owned(),
        link: authority.link().to_owned(),
    })
}

async fn native(config: &Config) -> Result<NativeDriver> {
    let options = NativeOptions {
        data_dir: config.data_dir.clone(),
        guest: GUEST,
        uid_base: config.uid_base,
        launchers: config.launchers as usize,
        pool_size: config.pool_size,
        cidr: config.network_cidr.clone(),
        allow_private: config.network_allow_private.clone(),
        egress: ways_out(config),
        favor_moves: config.cgroup_favor_moves,
        lazy_pages: match config.lazy_pages {
            ConfiguredLazyPages::Off => LazyPages::Never,
            ConfiguredLazyPages::Auto => LazyPages::IfAllowed,
            ConfiguredLazyPages::On => LazyPages::Allow,
        },
    };
    NativeDriver::start(options)
        .await
        .context("start the native driver (see `woodfrog doctor`)")
}

/// Both drivers.
pub(crate) async fn drivers(config: &Config) -> Result<Drivers> {
    let options = GvisorOptions {
        data_dir: config.data_dir.clone(),
        guest: GUEST,
        runsc_prefix: woodfrog_linux::runsc::default_prefix(),
        pool_size: config.pool_size,
        // The configured block is the native driver's.
        cidr: None,
        allow_private: config.network_allow_private.clone(),
        egress: ways_out(config),
        memory_snapshots: config.gvisor_memory_snapshots,
    };
    Drivers::start(native(config).await?, options).await
}

async fn store(config: &Config) -> Result<Arc<dyn Store>> {
    let Some(postgres) = &config.store else {
        let file = config.data_dir.join("woodfrog.db");
        return Ok(Arc::new(SqliteStore::open(&file)?));
    };
    let settings = woodfrog_store_postgres::Settings {
        schema: postgres.schema.clone(),
        node: match &postgres.node_name {
            Some(_) => Some(woodfrog_store_postgres::NodeSettings {
                id: node(&config.data_dir)?,
                lease: postgres.lease,
            }),
            None => None,
        },
        ..woodfrog_store_postgres::Settings::new(postgres.url.clone())
    };
    Ok(Arc::new(PostgresStore::open(&settings).await?))
}

/// Which server this is among those that share its store: as long as its data directory lasts,
/// which is where its sandboxes are.
fn node(data_dir: &Path) -> Result<NodeId> {
    let path = data_dir.join("node");
    match std::fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = NodeId::generate();
            let beside = path.with_extension("new");
            std::fs::write(&beside, format!("{id}\n"))?;
            std::fs::rename(&beside, &path)?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

async fn engine(config: &Config, driver: Arc<dyn Driver>) -> Result<Engine> {
    let layers = LayerStore::open(config.data_dir.join("pool/layers"))
        .await
        .context("open the layers")?;
    let mut options = Options::new(&config.data_dir);
    options.keys = if config.dev {
        KeyPolicy::AcceptAny
    } else {
        KeyPolicy::Required
    };
    options.caps = Caps {
        server: config.sandboxes_max as usize,
        workspace: config.sandboxes_per_workspace_max as usize,
    };
    // Clients give a create 60 s; making the base from packages takes about half of that.
    options.base_wait = std::time::Duration::from_secs(55);
    options.timeout_max = config.sandbox_timeout_max;
    options.spares = config.spares as usize;
    options.build_cache_bytes = config.build_cache;
    options.volume_places = Some(Arc::new(PoolPlaces));
    options.volume_bytes = config.volume_bytes;
    options.volume_bytes_max = config.volume_bytes_max;
    options.sleep = config.sleep;
    options.sweep = sweep(config)?;
    options.health = config.health;
    options.egress_authority = Some(egress_authority(config)?);
    options.drain_timeout = config.shutdown_timeout;
    options.limits = config.limits.clone();
    if let Some(postgres) = &config.store {
        options.lease = postgres.lease;
        // Below the data directory it is this server's own.
        options.shared_archive = config.archive_is_set;
        let host = || {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        };
        options.node_name = postgres.node_name.clone().unwrap_or_else(host);
    }
    options.workspace_contents = App::WORKSPACE_CONTENTS;
    if let Some(oidc) = &config.oidc {
        let verifier = Oidc::new(OidcOptions {
            issuer: oidc.issuer.clone(),
            audience: oidc.audience.clone(),
            jwks: match oidc.jwks.contains("://") {
                true => Jwks::Url(oidc.jwks.clone()),
                false => Jwks::File(oidc.jwks.clone().into()),
            },
        });
        options.tokens = Some(Arc::new(verifier.context("set up auth.oidc")?));
    }
    let ports = Ports {
        store: store(config).await.context("open the database")?,
        driver,
        images: Arc::new(LocalImages::new(layers, config.insecure_registries.clone())),
        archive: crate::archive::open(config.archive_url.as_deref()).context("open the archive")?,
    };
    Engine::start(ports, options)
        .await
        .map_err(anyhow::Error::new)
        .context("start the engine")
}

/// The times of the setting `sleep.sweep`.
fn sweep(config: &Config) -> Result<Option<Sweep>> {
    let Some(line) = &config.sleep_sweep else {
        return Ok(None);
    };
    let schedule: Schedule = line
        .parse()
        .map_err(|why| anyhow::anyhow!("sleep.sweep = `{line}`: {why}"))?;
    Ok(Some(Sweep {
        next: Arc::new(move |after| schedule.next(after)),
        idle: config.sleep_sweep_idle,
    }))
}

/// The admin key of a new server, and a loud word about development mode.
async fn welcome(config: &Config, engine: &Engine) -> Result<()> {
    if config.dev {
        // Not a line of the log, which may be silent.
        note("DEVELOPMENT MODE: every API key is accepted, with all rights");
    }
    let Some(created) = engine.bootstrap_admin_key().await? else {
        return Ok(());
    };
    let path = config.data_dir.join("admin.key");
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("write {}", path.display()))?;
    writeln!(file, "wf_{}", created.secret_hex)?;
    // To a terminal once; a log file must not hold a secret.
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "admin key (shown once): wf_{}", created.secret_hex)?;
    }
    tracing::info!(path = %path.display(), "made the admin key; it is kept in this file");
    Ok(())
}

fn load_tls(config: &Config) -> Result<Option<tls::Tls>> {
    let source = match (&config.tls, &config.domain) {
        (Tls::Off, _) => return Ok(None),
        (Tls::Files { cert, key }, _) => TlsSource::Files {
            certificate: cert.clone(),
            key: key.clone(),
        },
        (Tls::SelfSigned, domain) => TlsSource::SelfSigned {
            directory: config.data_dir.join("tls"),
            domain: domain.clone().context("tls_self_signed needs domain")?,
        },
    };
    let loaded = tls::load(&source).context("load the certificates")?;
    if let Some(authority) = &loaded.authority {
        tracing::info!(ca = %authority.display(), "clients must trust this authority (NODE_EXTRA_CA_CERTS, SSL_CERT_FILE)");
    }
    Ok(Some(loaded))
}

fn wait_for_signal(stop: CancellationToken) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: open requests may finish");
        stop.cancel();
    })
}
