//! Agents: which there are, whether the sandbox has them, and how they get there.

use axum::extract::{Path, Query};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::stream::{self, StreamExt};
use woodfrog_agents::{AgentId, Capabilities, InstallOptions, Machine, Status};
use woodfrog_engine::GuestLease;
use woodfrog_types::Fault;
use woodfrog_wire::agent::agents::{
    AgentCapabilities, AgentInfo, AgentList, AgentQuery, Artifact, Install, Installed,
};
use woodfrog_wire::agent::problem::{Kind, Problem};

use super::AgentHost;
use super::extract::Json as JsonBody;
use super::problem::{Result, about_agent};

mod choices;
mod options;

/// Agents that are started at once to be asked.
const ASKED_AT_ONCE: usize = 2;

pub(super) fn routes() -> Router {
    Router::new()
        .route("/v1/agents", get(list))
        .route("/v1/agents/{agent}", get(fetch))
        .route("/v1/agents/{agent}/install", post(install))
        .route("/v1/agents/{agent}/modes", get(choices::modes))
        .route("/v1/agents/{agent}/models", get(choices::models))
}

/// The agent that a path names.
fn named(name: &str) -> Result<AgentId> {
    name.parse().map_err(|woodfrog_agents::Unknown(shown)| {
        Problem::new(Kind::UnsupportedAgent, &shown)
            .with("agent", shown)
            .into()
    })
}

impl AgentHost {
    fn machine(&self, guest: &GuestLease) -> Machine {
        Machine::new(self.sandbox.as_str(), (**guest).clone())
    }
}

async fn list(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<AgentQuery>,
) -> Result<Json<AgentList>> {
    let guest = host.guest().await?;
    let found = host.agents.statuses(&host.machine(&guest)).await?;
    let described = found
        .into_iter()
        .map(|status| describe(&host, &guest, status, query));
    let agents = stream::iter(described).buffered(ASKED_AT_ONCE).collect();
    Ok(Json(AgentList {
        agents: agents.await,
    }))
}

async fn fetch(
    Extension(host): Extension<AgentHost>,
    Path(agent): Path<String>,
    Query(query): Query<AgentQuery>,
) -> Result<Json<AgentInfo>> {
    let id = named(&agent)?;
    let guest = host.guest().await?;
    let found = host.agents.status(&host.machine(&guest), id).await?;
    Ok(Json(describe(&host, &guest, found, query).await))
}

/// An agent, with what can be chosen in its sessions if that is asked for and it is there.
async fn describe(
    host: &AgentHost,
    guest: &GuestLease,
    status: Status,
    query: AgentQuery,
) -> AgentInfo {
    let asked = match query.config == Some(true) && status.installed {
        true => options::ask(host, guest, &status).await,
        false => Ok(None),
    };
    let (config_options, config_error) = match asked {
        Ok(options) => (options, None),
        Err(fault) => {
            crate::input::log(&fault);
            (None, Some(fault.message))
        }
    };
    AgentInfo {
        id: status.id.as_str().to_owned(),
        installed: status.installed,
        credentials_available: status.credentials_available,
        version: status.version,
        path: status.path,
        capabilities: capabilities(status.id.definition().capabilities),
        config_options,
        config_error,
    }
}

/// Installs an agent. Goes on if its client leaves, so that nothing is half installed.
async fn install(
    Extension(host): Extension<AgentHost>,
    Path(agent): Path<String>,
    JsonBody(request): JsonBody<Install>,
) -> Result<Json<Installed>> {
    let id = named(&agent)?;
    let options = InstallOptions {
        reinstall: request.reinstall == Some(true),
        agent_version: request.agent_version,
        agent_process_version: request.agent_process_version,
    };
    let guest = host.guest().await?;
    let work = tokio::spawn(async move {
        let machine = host.machine(&guest);
        tokio::select! {
            done = host.agents.install(&machine, id, &options) => done,
            () = guest.ended() => Err(Fault::sandbox_not_found(host.sandbox.as_str())),
        }
    });
    let done = work.await.map_err(Fault::internal)?;
    let done = done.map_err(|fault| about_agent(id.as_str(), &fault))?;
    let artifact = |artifact: woodfrog_agents::Artifact| Artifact {
        kind: artifact.kind.as_str().to_owned(),
        path: artifact.path,
        source: artifact.source.as_str().to_owned(),
        version: artifact.version,
    };
    Ok(Json(Installed {
        already_installed: done.already_installed,
        artifacts: done.artifacts.into_iter().map(artifact).collect(),
    }))
}

fn capabilities(of: Capabilities) -> AgentCapabilities {
    AgentCapabilities {
        plan_mode: of.plan_mode,
        permissions: of.permissions,
        questions: of.questions,
        tool_calls: of.tool_calls,
        tool_results: of.tool_results,
        text_messages: of.text_messages,
        images: of.images,
        file_attachments: of.file_attachments,
        session_lifecycle: of.session_lifecycle,
        error_events: of.error_events,
        reasoning: of.reasoning,
        status: of.status,
        command_execution: of.command_execution,
        file_changes: of.file_changes,
        mcp_tools: of.mcp_tools,
        streaming_deltas: of.streaming_deltas,
        item_started: of.item_started,
        shared_process: of.shared_process,
    }
}
