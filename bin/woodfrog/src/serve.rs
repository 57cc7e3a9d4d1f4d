//! `woodfrog serve`: the parts put together.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use woodfrog_cli::Config;
use woodfrog_cli::config::Tls;
use woodfrog_core::admission::Caps;
use woodfrog_driver_gvisor::GvisorOptions;
use woodfrog_driver_native::{NativeDriver, NativeOptions};
use woodfrog_engine::{Engine, KeyPolicy, Options, Ports};
use woodfrog_images::LayerStore;
use woodfrog_sandbox::Driver;
use woodfrog_server::agent::AgentFace;
use woodfrog_server::serve::{Faces, Listener, TlsSource, tls};
use woodfrog_server::{App, ServerOptions, control};
use woodfrog_sessions::Scope;
use woodfrog_store_sqlite::SqliteStore;

use crate::drivers::Drivers;
use crate::images::LocalImages;

/// The guest's program, built beside the server.
pub(crate) static GUEST: &[u8] = include_bytes!(env!("WOODFROG_GUEST_BINARY"));

/// Runs the server until it is told to end.
pub(crate) fn run(config: Config) -> Result<()> {
    crate::logging::start(&config)?;
    // Directories of sandboxes must be open to their users, whatever the operator's own habits;
    // what is secret is made with its mode.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(config));
    // Blocking work that hangs on a dead sandbox must not hold the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
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
    };
    let app = App::new(engine.clone(), options);
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
    let url = endpoint(&config, scheme, local.port());
    std::fs::write(data_dir.join("endpoint"), format!("{url}\n"))?;
    tracing::info!(%url, listen = %local, "serving");
    woodfrog_server::serve::serve(faces, vec![listener], stop).await?;
    let _ = std::fs::remove_file(data_dir.join("endpoint"));
    engine.shutdown().await;
    driver.shutdown().await;
    tracing::info!("ended; sandboxes keep running");
    Ok(())
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

async fn native(config: &Config) -> Result<NativeDriver> {
    let options = NativeOptions {
        data_dir: config.data_dir.clone(),
        guest: GUEST,
        uid_base: config.uid_base,
        launchers: config.launchers as usize,
        pool_size: config.pool_size,
        cidr: config.network_cidr.clone(),
        allow_private: config.network_allow_private.clone(),
        favor_moves: config.cgroup_favor_moves,
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
        memory_snapshots: config.gvisor_memory_snapshots,
    };
    Drivers::start(native(config).await?, options).await
}

async fn engine(config: &Config, driver: Arc<dyn Driver>) -> Result<Engine> {
    let store =
        SqliteStore::open(&config.data_dir.join("woodfrog.db")).context("open the database")?;
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
    options.sleep = config.sleep;
    options.drain_timeout = config.shutdown_timeout;
    let ports = Ports {
        store: Arc::new(store),
        driver,
        images: Arc::new(LocalImages::new(layers, config.insecure_registries.clone())),
    };
    Engine::start(ports, options)
        .await
        .map_err(anyhow::Error::new)
        .context("start the engine")
}

/// The admin key of a new server, and a loud word about development mode.
async fn welcome(config: &Config, engine: &Engine) -> Result<()> {
    if config.dev {
        tracing::warn!("DEVELOPMENT MODE: every API key is accepted, with all rights");
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
