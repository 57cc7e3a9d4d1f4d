//! What every handler can reach.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use woodfrog_agents::Agents;
use woodfrog_billing::{Billing, Reach};
use woodfrog_engine::transition::Observer;
use woodfrog_engine::{Engine, WorkspaceContent};
use woodfrog_otlp::Exporter;
use woodfrog_runs::{Files, Pace, Runs, Traces};
use woodfrog_sessions::machines::EngineMachines;
use woodfrog_sessions::{Retainer, Sessions};
use woodfrog_types::key::Principal;
use woodfrog_types::retention::Retention;
use woodfrog_types::{Code, Fault};

use crate::agent::{AgentFace, HostStates};
use crate::observe::Telemetry;
use crate::paying::Paying;
use crate::traced::Traced;
use crate::ws::Sockets;

/// Options of the HTTP side. Immutable once the server runs.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The wildcard domain under which `{port}-{sandbox}.{domain}` and `api.{domain}` are served,
    /// with a port if it is not the scheme's own; `None`: header routing only.
    pub domain: Option<String>,
    /// Whose pages may call the agent API of sandboxes from a browser; `None`: nobody's.
    pub agent_cors: Option<tower_http::cors::CorsLayer>,
}

/// Shared by all handlers; a cheap clone.
#[derive(Clone)]
pub struct App {
    pub options: Arc<ServerOptions>,
    pub engine: Engine,
    pub telemetry: Arc<Telemetry>,
    /// Where uploads that become templates are kept until the engine has read them.
    pub spool: Arc<Path>,
    /// What finds, installs and starts agents in sandboxes.
    pub agents: Arc<Agents>,
    /// What the agent API remembers of sandboxes.
    pub agent_hosts: Arc<HostStates>,
    /// Conversations with them.
    pub sessions: Sessions,
    /// Prices, budgets, the books and webhooks.
    pub billing: Billing,
    /// Runs of agents and commands.
    pub runs: Runs,
    /// Where the files that runs leave are kept; `None`: they are not.
    artifacts: Option<Files>,
    /// Who is told what runs did; `None`: nobody is.
    pub traces: Option<Traced>,
    /// How runs are held.
    run_options: woodfrog_runs::Options,
    /// Clients of sandboxes over WebSockets.
    pub sockets: Sockets,
    /// How long these are kept.
    pub retainer: Retainer,
    /// What keeps something of workspaces, for the engine to ask.
    remains: Vec<Arc<dyn WorkspaceContent>>,
}

impl App {
    /// The state of a server over `engine`, with metrics of its own.
    pub fn new(engine: Engine, options: ServerOptions) -> Self {
        let agents = Arc::new(Agents::default());
        let sessions = sessions(&engine, &agents);
        let billing = Billing::new(&engine, Reach::Public);
        let run_options = woodfrog_runs::Options::default();
        let runs = runs(&engine, &sessions, &billing, &run_options, Told::default());
        let telemetry = Arc::new(Telemetry::new());
        engine.observe(Arc::clone(&telemetry) as Arc<dyn Observer>);
        let sockets = Sockets::default();
        engine.on_departure(Arc::new(sockets.clone()));
        Self {
            options: Arc::new(options),
            agents,
            sessions,
            billing,
            runs,
            artifacts: None,
            traces: None,
            run_options,
            retainer: Retainer::new(&engine.store(), Retention::FOREVER),
            remains: Vec::new(),
            engine,
            telemetry,
            spool: std::env::temp_dir().into(),
            agent_hosts: Arc::default(),
            sockets,
        }
    }

    /// The same state with uploads kept under `spool`, which must exist; the system's directory
    /// for temporary files otherwise.
    #[must_use]
    pub fn with_spool(mut self, spool: impl Into<PathBuf>) -> Self {
        self.spool = spool.into().into();
        self
    }

    /// The same state that bills, meters and tells through `billing`.
    #[must_use]
    pub fn with_billing(mut self, billing: Billing) -> Self {
        self.billing = billing;
        self.runs = self.runs_anew();
        self
    }

    /// The same state with sessions that are kept so long where their workspace does not say.
    #[must_use]
    pub fn with_retention(mut self, server: Retention) -> Self {
        self.retainer = Retainer::new(&self.engine.store(), server);
        self
    }

    /// The same state with agents that are dealt with as `settings` say.
    #[must_use]
    pub fn with_agents(mut self, settings: woodfrog_agents::Settings) -> Self {
        self.agents = Arc::new(Agents::new(settings));
        self.sessions = sessions(&self.engine, &self.agents);
        self.runs = self.runs_anew();
        self
    }

    /// The same state that keeps the files that runs leave.
    #[must_use]
    pub fn with_artifacts(mut self, artifacts: Files) -> Self {
        self.artifacts = Some(artifacts);
        self.runs = self.runs_anew();
        self
    }

    /// The same state with runs that are held so.
    #[must_use]
    pub fn with_run_options(mut self, options: woodfrog_runs::Options) -> Self {
        self.run_options = options;
        self.runs = self.runs_anew();
        self
    }

    /// The same state that tells the exporter of runs, as the options say.
    #[must_use]
    pub fn with_traces(mut self, exporter: Exporter, rate: f64, pace: Pace) -> Self {
        self.traces = Some(Traced {
            exporter,
            rate,
            pace,
        });
        self.runs = self.runs_anew();
        self
    }

    /// From now on, and as long as there is a clone of this, what runs and the books keep of a
    /// workspace is removed with it.
    pub fn keep_no_remains(&mut self) {
        self.remains = vec![Arc::new(self.runs.clone()), Arc::new(self.billing.clone())];
        for content in &self.remains {
            self.engine.on_workspace_removal(content);
        }
    }

    /// How many keep something of workspaces beside the engine.
    pub const WORKSPACE_CONTENTS: usize = 2;

    fn runs_anew(&self) -> Runs {
        let told = Told {
            files: self.artifacts.clone(),
            traces: self.traces.clone(),
        };
        let options = &self.run_options;
        runs(&self.engine, &self.sessions, &self.billing, options, told)
    }

    /// Who is asking, in the workspace that the header names or the key has. For faces that do not
    /// [pass](crate::door::pass) the door with whole requests.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Fault> {
        let (principal, _) = crate::door::principal(self, headers, None).await?;
        Ok(principal)
    }

    /// Who is asking, by `X-API-Key` or `Authorization: Bearer`, in the workspace of that id or
    /// name.
    pub(crate) async fn principal_in(
        &self,
        headers: &HeaderMap,
        workspace: Option<&str>,
    ) -> Result<Principal, Fault> {
        let given = credential(headers);
        // An engine that takes any key (development) also takes none.
        let secret = given.unwrap_or_default();
        let principal = self.engine.authenticate_in(secret, workspace).await;
        principal.map_err(|fault| match (given, fault.code) {
            (None, Code::Unauthenticated) => {
                let message = "an API key is required: send it as `X-API-Key` or as \
                               `Authorization: Bearer`";
                Fault::new(Code::Unauthenticated, message)
            }
            _ => fault,
        })
    }
}

/// Everything that does not name a sandbox by its host: the E2B control plane at the root, the
/// native API under its prefix, the tRPC procedures, the agent API and the WebSocket sandboxes
/// under theirs, health and metrics.
pub fn control(app: &App) -> Router {
    crate::e2b::router(app)
        .nest(crate::native::PREFIX, crate::native::router(app))
        .nest(crate::trpc::PREFIX, crate::trpc::router(app))
        .merge(AgentFace::new(app.clone()).below_path())
        .merge(crate::ws::router(app))
        .merge(crate::observe::router(app))
}

/// Where runs leave something.
#[derive(Default)]
struct Told {
    files: Option<Files>,
    traces: Option<Traced>,
}

fn runs(
    engine: &Engine,
    sessions: &Sessions,
    billing: &Billing,
    options: &woodfrog_runs::Options,
    told: Told,
) -> Runs {
    let paying = Arc::new(Paying(billing.clone()));
    let (prices, purse) = (Arc::clone(&paying), paying);
    let (sessions, options) = (sessions.clone(), options.clone());
    let traces = told
        .traces
        .map(|traced| Arc::new(traced) as Arc<dyn Traces>);
    Runs::new(engine, sessions, prices, purse, options, told.files, traces)
}

fn sessions(engine: &Engine, agents: &Arc<Agents>) -> Sessions {
    let machines = EngineMachines::new(engine.clone(), Arc::clone(agents));
    Sessions::new(
        engine.store(),
        Arc::new(machines),
        woodfrog_sessions::Options::default(),
    )
}

pub(crate) fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = || {
        let (scheme, secret) = text(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret)
    };
    text("x-api-key")
        .or_else(bearer)
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.insert(*name, value.parse().expect("header"));
        }
        map
    }

    #[test]
    fn a_key_is_found_in_either_header() {
        assert_eq!(
            credential(&headers(&[("x-api-key", "e2b_1")])),
            Some("e2b_1")
        );
        assert_eq!(
            credential(&headers(&[("authorization", "bearer  wf_1")])),
            Some("wf_1")
        );
        assert_eq!(
            credential(&headers(&[("authorization", "Basic abc")])),
            None
        );
        assert_eq!(credential(&headers(&[("x-api-key", " ")])), None);
    }
}
