//! Who presents a credential, where they are with it, and as what.

use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use woodfrog_core::access::through_key;
use woodfrog_core::key as text;
use woodfrog_types::key::{ApiKey, KeyReach, Principal, Scope};
use woodfrog_types::workspace::{Role, UserId, Workspace};
use woodfrog_types::{Code, Fault, Timestamp, WorkspaceId};

use super::unknown;
use crate::engine::Engine;
use crate::grants::{Grant, TTL};
use crate::ports::KeyPolicy;
use crate::{fault, tasks};

/// The resolution of a key's last use.
const MINUTE_MS: i64 = 60_000;
/// Bytes of a bearer token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Whom a token of an identity provider is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    pub expires_at: Timestamp,
}

/// Checks tokens of an identity provider.
#[async_trait]
pub trait TokenVerifier: std::fmt::Debug + Send + Sync {
    /// Whom the token is for. `Unauthenticated`, with what is wrong, if it is not good now.
    async fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, Fault>;
}

impl Engine {
    /// Who presents this credential, in the workspace that it is for or that the caller has.
    /// `Unauthenticated` if it is malformed, unknown, revoked or expired.
    pub async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
        self.authenticate_in(secret, None).await
    }

    /// As [`Engine::authenticate`], in the workspace of that id or name. `WorkspaceNotFound` if
    /// there is none, or the caller is not in it.
    pub async fn authenticate_in(
        &self,
        secret: &str,
        named: Option<&str>,
    ) -> Result<Principal, Fault> {
        if self.inner.options.keys == KeyPolicy::AcceptAny {
            let workspace = match named {
                None => WorkspaceId::default_workspace(),
                Some(named) => self.any_workspace(named).await?,
            };
            return Ok(operator(workspace));
        }
        let digest = match text::parse(secret) {
            Ok(digits) => text::digest(digits),
            Err(_) if self.takes_token(secret) => Sha256::digest(secret.as_bytes()).into(),
            Err(error) => return Err(Fault::new(Code::Unauthenticated, error.to_string())),
        };
        let asked = (digest, named.map(str::to_owned));
        let now = Timestamp::now();
        let grant = match self.inner.grants.get(&asked) {
            Some(grant) => grant,
            None => {
                let grant = self.look_up(secret, &digest, named, now).await?;
                self.inner.grants.put(asked.clone(), grant.clone());
                grant
            }
        };
        if grant.expires_at.is_some_and(|at| at <= now) {
            return Err(unknown());
        }
        if let Some((key, last)) = &grant.used
            && *last < minute(now)
        {
            self.inner.grants.used(&asked, minute(now));
            self.record_use(key.clone(), now);
        }
        Ok(grant.principal)
    }

    /// Resolves once the credential would be refused, or lets its holder be less than before: open
    /// streams of theirs end then. At once on this server, within seconds if another one took it.
    pub async fn revoked(&self, secret: &str, named: Option<&str>, was: &Principal) {
        let mut changes = self.inner.grants.changes();
        loop {
            // A store that is out of reach takes nothing away.
            let lost = match self.authenticate_in(secret, named).await {
                Ok(now) => now.workspace != was.workspace || now.role < was.role,
                Err(fault) => fault.code.http_status() < 500,
            };
            if lost {
                return;
            }
            let changed = tokio::time::timeout(TTL, changes.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                std::future::pending::<()>().await;
            }
        }
    }

    fn takes_token(&self, secret: &str) -> bool {
        let parts = secret.bytes().filter(|byte| *byte == b'.').count();
        self.inner.options.tokens.is_some() && parts == 2 && secret.len() <= TOKEN_BYTES_MAX
    }

    async fn look_up(
        &self,
        secret: &str,
        digest: &[u8; 32],
        named: Option<&str>,
        now: Timestamp,
    ) -> Result<Grant, Fault> {
        if text::parse(secret).is_err()
            && let Some(verifier) = &self.inner.options.tokens
        {
            let identity = verifier.verify(secret, now).await?;
            let principal = self.person(&identity.user, named).await?;
            return Ok(Grant {
                principal,
                expires_at: Some(identity.expires_at),
                used: None,
            });
        }
        let key = self.inner.store.key_by_digest(digest).await;
        let key = key.map_err(fault::store)?.ok_or_else(unknown)?;
        let before = key.previous.filter(|before| before.digest == *digest);
        let replaced_at = before.map(|before| before.until);
        let expires_at = match (key.expires_at, replaced_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if expires_at.is_some_and(|at| at <= now) {
            return Err(unknown());
        }
        let principal = self.holder(&key, named).await?;
        let last = key.last_used_at.map_or(i64::MIN, minute);
        Ok(Grant {
            principal,
            expires_at,
            used: Some((key.id, last)),
        })
    }

    /// Whoever holds a key.
    async fn holder(&self, key: &ApiKey, named: Option<&str>) -> Result<Principal, Fault> {
        let itself = || UserId::of_key(&key.id);
        let principal = |workspace, user, role| Principal {
            workspace,
            user,
            role,
            key: Some(key.id.clone()),
            scope: key.scope,
        };
        if key.scope == Scope::Admin {
            let workspace = match named {
                Some(named) => self.any_workspace(named).await?,
                None => key.workspace.clone(),
            };
            let user = key.user.clone().unwrap_or_else(itself);
            return Ok(principal(workspace, user, Role::Owner));
        }
        let Some(user) = &key.user else {
            let workspace = self.home(key, named).await?;
            return Ok(principal(workspace, itself(), key.role));
        };
        let all = self.memberships(user).await?;
        let there = match (key.reach, named) {
            (KeyReach::User, Some(named)) => Some(pick(all, named)?),
            (KeyReach::Bound, Some(_)) => {
                let home = self.home(key, named).await?;
                all.into_iter().find(|(one, _)| one.id == home)
            }
            (_, None) => all.into_iter().find(|(one, _)| one.id == key.workspace),
        };
        let (workspace, role) = there.ok_or_else(|| {
            let text = "the user whom the API key acts for is not in its workspace";
            Fault::new(Code::Unauthenticated, text)
        })?;
        let role = through_key(role, key.role);
        Ok(principal(workspace.id, user.clone(), role))
    }

    /// A person whom an identity provider names.
    async fn person(&self, user: &UserId, named: Option<&str>) -> Result<Principal, Fault> {
        let mut all = self.memberships(user).await?;
        let (workspace, role) = match (named, all.len()) {
            (Some(named), _) => {
                let (workspace, role) = pick(all, named)?;
                (workspace.id, role)
            }
            // Whoever is in no workspace sees nothing, and may make one.
            (None, 0) => (WorkspaceId::nowhere(), Role::Viewer),
            (None, 1) => {
                let (workspace, role) = all.remove(0);
                (workspace.id, role)
            }
            (None, _) => {
                let text = "you are in several workspaces: name one with X-Woodfrog-Workspace";
                return Err(Fault::invalid("x-woodfrog-workspace", text));
            }
        };
        Ok(Principal {
            workspace,
            user: user.clone(),
            role,
            key: None,
            scope: Scope::Workspace,
        })
    }

    /// The workspace of a key that is for no other; the one that was asked for must be it.
    async fn home(&self, key: &ApiKey, named: Option<&str>) -> Result<WorkspaceId, Fault> {
        let stored = self.inner.store.workspace_fetch(&key.workspace).await;
        let stored = stored.map_err(fault::store)?;
        if stored
            .as_ref()
            .is_some_and(|one| one.removing_since.is_some())
        {
            return Err(unknown());
        }
        let is = |named: &str| {
            let name = stored.as_ref().map(|one| one.name.as_str());
            named == key.workspace.as_str() || Some(named) == name
        };
        match named {
            Some(named) if !is(named) => Err(not_found()),
            _ => Ok(key.workspace.clone()),
        }
    }

    /// Any workspace of the server, by its id or, where only one has it, its name.
    pub(crate) async fn any_workspace(&self, named: &str) -> Result<WorkspaceId, Fault> {
        if let Ok(id) = named.parse::<WorkspaceId>() {
            let found = self.inner.store.workspace_fetch(&id).await;
            let found = found.map_err(fault::store)?;
            let there = found.filter(|one| one.removing_since.is_none());
            return there.map(|one| one.id).ok_or_else(not_found);
        }
        let mut found = Vec::new();
        let mut page = woodfrog_types::page::PageRequest {
            limit: woodfrog_types::limits::PAGE_ITEMS_MAX,
            cursor: None,
        };
        loop {
            let part = self.inner.store.workspace_list(&page).await;
            let part = part.map_err(fault::store)?;
            let open = part
                .items
                .into_iter()
                .filter(|one| one.removing_since.is_none());
            found.extend(
                open.filter(|one| one.name == named)
                    .map(|one| (one, Role::Owner)),
            );
            page.cursor = part.next;
            if page.cursor.is_none() {
                break;
            }
        }
        pick(found, named).map(|(one, _)| one.id)
    }

    /// Where somebody is a member, without those that are being removed.
    pub(crate) async fn memberships(&self, user: &UserId) -> Result<Vec<(Workspace, Role)>, Fault> {
        let all = self.inner.store.workspace_of(user).await;
        let mut all = all.map_err(fault::store)?;
        all.retain(|(one, _)| one.removing_since.is_none());
        Ok(all)
    }

    /// Records the use, beside the request.
    fn record_use(&self, id: woodfrog_types::KeyId, now: Timestamp) {
        let store = Arc::clone(&self.inner.store);
        tasks::spawn(&self.inner.tasks, "key use", async move {
            if let Err(error) = store.key_touch(&id, now).await {
                tracing::warn!(key = %id, %error, "the use of a key could not be recorded");
            }
        });
    }
}

/// Who runs the server, in a workspace.
pub(crate) fn operator(workspace: WorkspaceId) -> Principal {
    Principal {
        workspace,
        user: UserId::operator(),
        role: Role::Owner,
        key: None,
        scope: Scope::Admin,
    }
}

pub(crate) fn not_found() -> Fault {
    Fault::new(Code::WorkspaceNotFound, "Workspace not found")
}

/// The one of that id, or the only one of that name.
fn pick(all: Vec<(Workspace, Role)>, named: &str) -> Result<(Workspace, Role), Fault> {
    let is = |one: &Workspace| one.id.as_str() == named || one.name == named;
    let mut found = all.into_iter().filter(|(one, _)| is(one));
    let first = found.next().ok_or_else(not_found)?;
    if found.next().is_some() {
        let text = "several of your workspaces have this name: give the id";
        return Err(Fault::invalid("x-woodfrog-workspace", text));
    }
    Ok(first)
}

fn minute(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(MINUTE_MS)
}
