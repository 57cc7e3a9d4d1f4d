//! API keys: making, turning over and ending them.

mod authenticate;

use std::time::Duration;

use woodfrog_core::access::{self, Action};
use woodfrog_core::key as text;
use woodfrog_types::key::{ApiKey, KeyReach, PreviousSecret, Principal, Scope};
use woodfrog_types::workspace::{Role, Workspace};
use woodfrog_types::{Code, Fault, KeyId, Timestamp, WorkspaceId};

pub use authenticate::{Identity, TokenVerifier};
pub(crate) use authenticate::{not_found, operator};

use crate::engine::Engine;
use crate::fault;
use crate::request::NewKey;
use crate::view::CreatedKey;

/// Bytes of a key's name.
const NAME_BYTES_MAX: usize = 256;
/// How long the secret before a rotation may be taken.
pub const GRACE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

impl Engine {
    /// Makes a key. The secret is in the answer and nowhere else. Admins make keys for their
    /// workspace that are no more than they are themselves, for themselves or for nobody in
    /// particular; what goes beyond needs admin scope.
    pub async fn key_create(
        &self,
        principal: &Principal,
        request: NewKey,
    ) -> Result<CreatedKey, Fault> {
        access::check(principal.role, Action::KeyCreate)?;
        let operator = principal.scope == Scope::Admin;
        if request.scope == Scope::Admin {
            need_admin(principal)?;
        }
        if request.workspace != principal.workspace && !operator {
            return Err(not_found());
        }
        let role = role_of(&request);
        if role > principal.role {
            let text = "Unauthorized: a key cannot be more than who makes it";
            return Err(Fault::new(Code::PermissionDenied, text));
        }
        if let Some(user) = &request.user {
            if !operator && *user != principal.user {
                let text = "Unauthorized: a key acts for who makes it, or for nobody";
                return Err(Fault::new(Code::PermissionDenied, text));
            }
            let there = self.inner.store.member_fetch(&request.workspace, user);
            let there = there.await.map_err(fault::store)?;
            if there.is_none() && request.scope == Scope::Workspace {
                let text = "User is not a member of this workspace";
                return Err(Fault::invalid("user", text));
            }
        }
        if request.reach == KeyReach::User && request.user.is_none() {
            let text = "a key for all workspaces of a user names the user";
            return Err(Fault::invalid("user", text));
        }
        if operator {
            self.adopt(&request.workspace).await?;
        }
        self.insert_key(request).await
    }

    async fn insert_key(&self, request: NewKey) -> Result<CreatedKey, Fault> {
        if request.name.is_empty() || request.name.len() > NAME_BYTES_MAX {
            return Err(Fault::invalid(
                "name",
                format!("a key's name has 1 to {NAME_BYTES_MAX} bytes"),
            ));
        }
        let role = role_of(&request);
        let secret_hex = secret()?;
        let key = ApiKey {
            id: KeyId::generate(),
            workspace: request.workspace,
            name: request.name,
            scope: request.scope,
            user: request.user,
            role,
            reach: request.reach,
            hint: text::hint(&secret_hex),
            digest: text::digest(&secret_hex),
            previous: None,
            created_at: Timestamp::now(),
            expires_at: request.expires_at,
            last_used_at: None,
        };
        self.inner
            .store
            .key_insert(&key)
            .await
            .map_err(fault::store)?;
        Ok(CreatedKey { key, secret_hex })
    }

    /// The keys of the caller's workspace, without their secrets; with admin scope, all.
    pub async fn key_list(&self, principal: &Principal) -> Result<Vec<ApiKey>, Fault> {
        access::check(principal.role, Action::KeyRead)?;
        let of = match principal.scope {
            Scope::Admin => None,
            Scope::Workspace => Some(&principal.workspace),
        };
        self.inner.store.key_list(of).await.map_err(fault::store)
    }

    /// Gives a key a new secret. The one before is taken for as long as `grace`.
    pub async fn key_rotate(
        &self,
        principal: &Principal,
        id: &KeyId,
        grace: Duration,
    ) -> Result<CreatedKey, Fault> {
        access::check(principal.role, Action::KeyRotate)?;
        if grace > GRACE_MAX {
            let days = GRACE_MAX.as_secs() / (24 * 3600);
            return Err(Fault::invalid("grace", format!("at most {days} days")));
        }
        let key = self.key(principal, id).await?;
        // Whoever sees the secret can be whom it acts for.
        let other = key
            .user
            .as_ref()
            .is_some_and(|user| *user != principal.user);
        if other && principal.scope != Scope::Admin {
            let text = "Unauthorized: the key acts for somebody else";
            return Err(Fault::new(Code::PermissionDenied, text));
        }
        let secret_hex = secret()?;
        let previous = PreviousSecret {
            digest: key.digest,
            until: Timestamp::now().plus(grace),
        };
        let key = ApiKey {
            hint: text::hint(&secret_hex),
            digest: text::digest(&secret_hex),
            previous: Some(previous),
            ..key
        };
        let updated = self.inner.store.key_update(&key).await;
        updated.map_err(fault::store)?;
        self.inner.grants.forget();
        Ok(CreatedKey { key, secret_hex })
    }

    /// Makes a key worthless at once; streams that were opened with it end.
    pub async fn key_revoke(&self, principal: &Principal, id: &KeyId) -> Result<(), Fault> {
        access::check(principal.role, Action::KeyRevoke)?;
        self.key(principal, id).await?;
        let removed = self.inner.store.key_remove(id).await;
        self.inner.grants.forget();
        match removed.map_err(fault::store)? {
            true => Ok(()),
            false => Err(no_key(id)),
        }
    }

    /// A key that the caller may deal with: of their workspace, and no more than they are.
    async fn key(&self, principal: &Principal, id: &KeyId) -> Result<ApiKey, Fault> {
        let key = self.inner.store.key_fetch(id).await;
        let key = key.map_err(fault::store)?.ok_or_else(|| no_key(id))?;
        if principal.scope == Scope::Admin {
            return Ok(key);
        }
        if key.workspace != principal.workspace || key.scope == Scope::Admin {
            return Err(no_key(id));
        }
        if key.role > principal.role {
            let text = "Unauthorized: the key is more than you are";
            return Err(Fault::new(Code::PermissionDenied, text));
        }
        Ok(key)
    }

    /// The first admin key of an empty server; `None` if there is one already. The caller keeps
    /// the secret where only the operator can read it.
    pub async fn bootstrap_admin_key(&self) -> Result<Option<CreatedKey>, Fault> {
        let keys = self
            .inner
            .store
            .key_list(None)
            .await
            .map_err(fault::store)?;
        if keys.iter().any(|key| key.scope == Scope::Admin) {
            return Ok(None);
        }
        let request = NewKey {
            scope: Scope::Admin,
            ..NewKey::new("admin", WorkspaceId::default_workspace())
        };
        self.insert_key(request).await.map(Some)
    }

    /// Every workspace that is spoken of has a record: the default one, and those of keys from
    /// before there were records.
    pub(crate) async fn adopt_workspaces(&self) -> Result<(), Fault> {
        self.adopt(&WorkspaceId::default_workspace()).await?;
        let keys = self.inner.store.key_list(None).await;
        for key in keys.map_err(fault::store)? {
            self.adopt(&key.workspace).await?;
        }
        Ok(())
    }

    async fn adopt(&self, id: &WorkspaceId) -> Result<(), Fault> {
        let there = self.inner.store.workspace_fetch(id).await;
        if there.map_err(fault::store)?.is_some() {
            return Ok(());
        }
        let name = match *id == WorkspaceId::default_workspace() {
            true => Workspace::DEFAULT_NAME.to_owned(),
            false => id.to_string(),
        };
        let workspace = Workspace {
            id: id.clone(),
            name,
            owner: woodfrog_types::workspace::UserId::operator(),
            generation: 1,
            created_at: Timestamp::now(),
            removing_since: None,
        };
        match self.inner.store.workspace_insert(&workspace).await {
            // Another server was first.
            Ok(()) | Err(woodfrog_store::StoreError::Constraint { .. }) => Ok(()),
            Err(error) => Err(fault::store(error)),
        }
    }
}

/// The most that the key will let its holder be.
fn role_of(request: &NewKey) -> Role {
    match request.scope {
        Scope::Admin => Role::Owner,
        Scope::Workspace => request.role,
    }
}

fn secret() -> Result<String, Fault> {
    let mut random = [0; text::SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|error| Fault::internal(error.to_string()))?;
    Ok(hex::encode(random))
}

fn no_key(id: &KeyId) -> Fault {
    Fault::new(Code::KeyNotFound, format!("no key `{id}`"))
}

pub(crate) fn unknown() -> Fault {
    Fault::new(Code::Unauthenticated, "the API key is not valid")
}

pub(crate) fn need_admin(principal: &Principal) -> Result<(), Fault> {
    if principal.scope == Scope::Admin {
        return Ok(());
    }
    Err(Fault::new(
        Code::PermissionDenied,
        "this needs a key with admin scope",
    ))
}
