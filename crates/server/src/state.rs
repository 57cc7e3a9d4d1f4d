//! What every handler can reach.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use woodfrog_agents::Agents;
use woodfrog_engine::Engine;
use woodfrog_sessions::Sessions;
use woodfrog_sessions::machines::EngineMachines;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};

use crate::agent::{AgentFace, HostStates};
use crate::observe::Telemetry;

/// Options of the HTTP side. Immutable once the server runs.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The wildcard domain under which `{port}-{sandbox}.{domain}` and `api.{domain}` are served,
    /// with a port if it is not the scheme's own; `None`: header routing only.
    pub domain: Option<String>,
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
}

impl App {
    /// The state of a server over `engine`, with metrics of its own.
    pub fn new(engine: Engine, options: ServerOptions) -> Self {
        let agents = Arc::new(Agents::default());
        let sessions = sessions(&engine, &agents);
        Self {
            options: Arc::new(options),
            agents,
            sessions,
            engine,
            telemetry: Arc::new(Telemetry::new()),
            spool: std::env::temp_dir().into(),
            agent_hosts: Arc::default(),
        }
    }

    /// The same state with uploads kept under `spool`, which must exist; the system's directory
    /// for temporary files otherwise.
    #[must_use]
    pub fn with_spool(mut self, spool: impl Into<PathBuf>) -> Self {
        self.spool = spool.into().into();
        self
    }

    /// The same state with agents that are dealt with as `settings` say.
    #[must_use]
    pub fn with_agents(mut self, settings: woodfrog_agents::Settings) -> Self {
        self.agents = Arc::new(Agents::new(settings));
        self.sessions = sessions(&self.engine, &self.agents);
        self
    }

    /// Who is asking, by `X-API-Key` or `Authorization: Bearer`.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Fault> {
        let given = credential(headers);
        // An engine that takes any key (development) also takes none.
        let principal = self.engine.authenticate(given.unwrap_or_default()).await;
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
/// native API under its prefix, the tRPC procedures and the agent API under theirs, health and
/// metrics.
pub fn control(app: &App) -> Router {
    crate::e2b::router(app)
        .nest(crate::native::PREFIX, crate::native::router(app))
        .nest(crate::trpc::PREFIX, crate::trpc::router(app))
        .merge(AgentFace::new(app.clone()).below_path())
        .merge(crate::observe::router(app))
}

fn sessions(engine: &Engine, agents: &Arc<Agents>) -> Sessions {
    let machines = EngineMachines::new(engine.clone(), Arc::clone(agents));
    Sessions::new(
        engine.store(),
        Arc::new(machines),
        woodfrog_sessions::Options::default(),
    )
}

fn credential(headers: &HeaderMap) -> Option<&str> {
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
