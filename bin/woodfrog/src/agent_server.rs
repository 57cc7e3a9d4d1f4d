//! `woodfrog agent-server`: the agent API for this machine, without sandboxes. The guest's program
//! runs as an ordinary child, with the rights of whoever started the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use woodfrog_agents::{Agents, Preinstalled, Settings};
use woodfrog_cli::args::AgentServerArgs;
use woodfrog_engine::{GuestLease, Reach, SandboxAccess};
use woodfrog_guest_client::{GuestClient, GuestError};
use woodfrog_server::agent::{self, AgentHost, HostState};
use woodfrog_server::gateway::DataPlane;
use woodfrog_server::serve::{Faces, Listener};
use woodfrog_types::{Code, Fault, SandboxId, WorkspaceId};

mod health;
mod process;
mod sessions;

use health::Lives;
use process::Process;

/// Answers under way may finish within this when the server is told to end.
const DRAIN: Duration = Duration::from_secs(2);

/// Set to 1, true or yes: agents that are missing are refused instead of installed.
const REQUIRE_PREINSTALL: &str = "SANDBOX_AGENT_REQUIRE_PREINSTALL";

/// Serves until it is told to end, or the process that does the work has ended.
pub(crate) fn run(args: &AgentServerArgs) -> Result<()> {
    crate::logging::plain(&args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(args));
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

async fn serve(args: &AgentServerArgs) -> Result<()> {
    let cors = agent::cors::CorsOptions {
        origins: args.cors_allow_origin.clone(),
        methods: args.cors_allow_method.clone(),
        headers: args.cors_allow_header.clone(),
        credentials: args.cors_allow_credentials,
    };
    let gate = match &args.token {
        Some(token) => {
            anyhow::ensure!(!token.trim().is_empty(), "the token is empty");
            agent::auth::TokenGate::closed(token)
        }
        None => agent::auth::TokenGate::open(),
    };
    let address = format!("{}:{}", bracketed(&args.host), args.port);
    // Bound before anything else: a taken port must cost nothing.
    let tcp = TcpListener::bind(&address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let local = tcp.local_addr()?;
    let mut ending = ending()?;
    let mut process = Process::start().await.context("start the process driver")?;
    let lives = Arc::<Lives>::default();
    let plane = Machine::new(
        process.client().clone(),
        sessions::machine()?,
        Arc::clone(&lives),
    );
    let plane = Arc::new(plane);
    let agents = Arc::new(agents()?);
    let machine = sessions::Local {
        client: process.client().clone(),
        lives: Arc::clone(&lives),
        agents: Arc::clone(&agents),
    };
    let sessions = sessions::open(machine, args.port)?;
    let host = AgentHost::new(
        Arc::clone(&plane) as Arc<dyn DataPlane>,
        plane.access.id.clone(),
        None,
        agents,
        Arc::<HostState>::default(),
        sessions,
    );
    let router = agent::standalone(host, gate, &cors)?;
    warn(args, local);
    let stop = CancellationToken::new();
    let listener = Listener { tcp, tls: None };
    let faces = Faces::only(router);
    let serving = woodfrog_server::serve::serve(faces, vec![listener], stop.clone(), DRAIN);
    let serving = tokio::spawn(serving);
    let died = tokio::select! {
        () = &mut ending => None,
        status = health::keep(&mut process, &lives) => Some(status),
    };
    // Streams end now, so that nothing is left to wait for.
    lives.end();
    stop.cancel();
    let (_, ended) = tokio::join!(serving, process.end());
    ended.context("end the process driver")?;
    match died {
        None => {
            tracing::info!("ended");
            Ok(())
        }
        Some(status) => anyhow::bail!("the process driver ended by itself ({})", status?),
    }
}

/// Agents as this machine has them; the built-in one is this program.
fn agents() -> Result<Agents> {
    let program = std::env::current_exe().context("find this program")?;
    let program = program
        .to_str()
        .context("this program's path is not UTF-8")?;
    let required = std::env::var(REQUIRE_PREINSTALL)
        .is_ok_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes"));
    Ok(Agents::new(Settings {
        mock: vec![program.to_owned(), "__mock-agent".to_owned()],
        preinstalled: match required {
            true => Preinstalled::Required,
            false => Preinstalled::Optional,
        },
        ..Settings::default()
    }))
}

/// An IPv6 address as it is written before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn warn(args: &AgentServerArgs, local: SocketAddr) {
    tracing::warn!(
        "NO ISOLATION (driver: process): agents and clients act on this machine, with the rights \
         of this user"
    );
    if args.no_token && !local.ip().is_loopback() {
        tracing::warn!(
            "NO TOKEN on {local}: everybody who reaches this port can run programs here"
        );
    }
    tracing::info!("listening on http://{local}");
}

fn ending() -> Result<std::pin::Pin<Box<impl Future<Output = ()>>>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }))
}

/// This machine as the one sandbox there is.
struct Machine {
    client: GuestClient,
    access: SandboxAccess,
    lives: Arc<Lives>,
}

impl Machine {
    fn new(client: GuestClient, id: SandboxId, lives: Arc<Lives>) -> Self {
        Self {
            client,
            access: SandboxAccess {
                id,
                workspace: WorkspaceId::default_workspace(),
                secure: true,
                access_token: String::new(),
                traffic_token: None,
                network: Default::default(),
                default_user: String::new(),
                default_workdir: None,
                reach: Reach::Awake,
            },
            lives,
        }
    }
}

#[async_trait]
impl DataPlane for Machine {
    async fn peek(&self, id: &SandboxId) -> Result<SandboxAccess, Fault> {
        if *id == self.access.id && !self.lives.are_over() {
            Ok(self.access.clone())
        } else {
            Err(Fault::sandbox_not_found(id.as_str()))
        }
    }

    async fn access_by_signature(
        &self,
        _: &(dyn for<'a> Fn(&'a SandboxAccess) -> bool + Send + Sync),
    ) -> Option<SandboxAccess> {
        None
    }

    async fn guest(&self, id: &SandboxId) -> Result<GuestLease, Fault> {
        self.peek(id).await?;
        Ok(GuestLease::living(
            self.client.clone(),
            self.lives.present(),
        ))
    }

    async fn port_connect(&self, id: &SandboxId, port: u16) -> Result<TcpStream, Fault> {
        self.peek(id).await?;
        let stream = self.client.connect(port).await;
        stream.map_err(|error| match error {
            GuestError::Refused(body) => Fault::new(Code::PortNotOpen, body.message),
            other => Fault::internal(other),
        })
    }
}
