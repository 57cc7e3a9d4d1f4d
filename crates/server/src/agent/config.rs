//! MCP servers and skills of a directory, kept in files of the sandbox:
//! `<directory>/.sandbox-agent/config/{mcp,skills}.json`, each an object from names to entries.

use axum::extract::Query;
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::proto::{ErrorCode, PathRequest, ReadRequest, WriteMode, WriteRequest};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::agent::config::{McpQuery, McpServer, Skills, SkillsQuery};
use woodfrog_wire::agent::problem::{Kind, Problem};

use super::AgentHost;
use super::extract::Json as JsonBody;
use super::fs::at;
use super::problem::{Failure, Result, fault};

/// Bytes of one file of entries.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Bytes of an entry's name.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn routes() -> Router {
    Router::new()
        .route(
            "/v1/config/mcp",
            get(mcp_fetch).put(mcp_put).delete(mcp_remove),
        )
        .route(
            "/v1/config/skills",
            get(skills_fetch).put(skills_put).delete(skills_remove),
        )
}

/// One entry of a directory, by kind and name.
struct Slot {
    kind: &'static str,
    name: String,
    file: PathRequest,
}

impl Slot {
    fn mcp(query: McpQuery) -> Result<Self> {
        Self::new("mcp", "mcpName", query.directory, query.name)
    }

    fn skills(query: SkillsQuery) -> Result<Self> {
        Self::new("skills", "skillName", query.directory, query.name)
    }

    fn new(kind: &'static str, field: &str, directory: String, name: String) -> Result<Self> {
        let missing = |field: &str| {
            let message = format!("missing required '{field}' query parameter");
            Err(Failure::invalid(message))
        };
        if directory.trim().is_empty() {
            return missing("directory");
        }
        if name.trim().is_empty() {
            return missing(field);
        }
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let message = format!(
                "{field} must be at most {NAME_BYTES_MAX} bytes without control characters"
            );
            return Err(Failure::invalid(message));
        }
        let directory = directory.trim_end_matches('/');
        let file = at(&format!("{directory}/.sandbox-agent/config/{kind}.json"))?;
        Ok(Self { kind, name, file })
    }

    fn missing(&self) -> Failure {
        let id = format!("{}:{}", self.kind, self.name);
        Problem::new(Kind::SessionNotFound, &id)
            .with("sessionId", id)
            .into()
    }

    async fn fetch<T: DeserializeOwned>(&self, host: &AgentHost) -> Result<Json<T>> {
        let mut all = self.read(&host.guest().await?).await?;
        let entry = all.remove(&self.name).ok_or_else(|| self.missing())?;
        serde_json::from_value(entry)
            .map(Json)
            .map_err(|error| self.damaged(&error))
    }

    /// Changes the file as a whole, one change of a sandbox's files at a time.
    async fn put(&self, host: &AgentHost, entry: impl Serialize) -> Result<StatusCode> {
        let entry = serde_json::to_value(entry).map_err(Fault::internal)?;
        let guest = host.guest().await?;
        let _turn = host.state.config.lock().await;
        let mut all = self.read(&guest).await?;
        all.insert(self.name.clone(), entry);
        self.write(&guest, &all).await
    }

    async fn remove(&self, host: &AgentHost) -> Result<StatusCode> {
        let guest = host.guest().await?;
        let _turn = host.state.config.lock().await;
        let mut all = self.read(&guest).await?;
        match all.remove(&self.name) {
            Some(_) => self.write(&guest, &all).await,
            None => Ok(StatusCode::NO_CONTENT),
        }
    }

    /// Every entry; none if there is no file.
    async fn read(&self, guest: &GuestLease) -> Result<Map<String, Value>> {
        let request = ReadRequest {
            at: self.file.clone(),
            length: Some(FILE_BYTES_MAX as u64 + 1),
            ..ReadRequest::default()
        };
        let mut stream = match guest.read_stream(request).await {
            Ok((stream, _)) => stream,
            Err(error) if error.code() == Some(ErrorCode::NotFound) => return Ok(Map::new()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await? {
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() > FILE_BYTES_MAX {
            return Err(too_large());
        }
        serde_json::from_slice(&bytes).map_err(|error| self.damaged(&error))
    }

    async fn write(&self, guest: &GuestLease, all: &Map<String, Value>) -> Result<StatusCode> {
        let bytes = serde_json::to_vec_pretty(all).map_err(Fault::internal)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(too_large());
        }
        let request = WriteRequest {
            at: self.file.clone(),
            replace: WriteMode::Atomic,
            ..WriteRequest::default()
        };
        guest.write_all(request, &bytes).await.map_err(fault)?;
        Ok(StatusCode::NO_CONTENT)
    }

    /// Somebody else wrote what this API does not know: it is left as it is.
    fn damaged(&self, error: &serde_json::Error) -> Failure {
        let message = format!("{} cannot be understood: {error}", self.file.path);
        Fault::new(Code::Conflict, message).into()
    }
}

fn too_large() -> Failure {
    let message = format!("a file of entries has at most {FILE_BYTES_MAX} bytes");
    Fault::new(Code::TooLarge, message).into()
}

async fn mcp_fetch(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<McpQuery>,
) -> Result<Json<McpServer>> {
    Slot::mcp(query)?.fetch(&host).await
}

async fn mcp_put(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<McpQuery>,
    JsonBody(entry): JsonBody<McpServer>,
) -> Result<StatusCode> {
    Slot::mcp(query)?.put(&host, entry).await
}

async fn mcp_remove(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<McpQuery>,
) -> Result<StatusCode> {
    Slot::mcp(query)?.remove(&host).await
}

async fn skills_fetch(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<SkillsQuery>,
) -> Result<Json<Skills>> {
    Slot::skills(query)?.fetch(&host).await
}

async fn skills_put(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<SkillsQuery>,
    JsonBody(entry): JsonBody<Skills>,
) -> Result<StatusCode> {
    Slot::skills(query)?.put(&host, entry).await
}

async fn skills_remove(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<SkillsQuery>,
) -> Result<StatusCode> {
    Slot::skills(query)?.remove(&host).await
}
