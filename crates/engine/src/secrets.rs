//! Secrets: values that are accepted and never given out. What is stored is sealed.

use std::collections::BTreeMap;

use woodfrog_core::{names, seal, validate};
use woodfrog_types::key::Principal;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::secret::{Sealed, Secret};
use woodfrog_types::{Code, Fault, SecretId, Timestamp, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::sandbox::check_page;

/// Secrets of one workspace.
const SECRETS_MAX: u64 = 1000;

/// A value on its way to being sealed; it does not show itself.
pub struct SecretValue(String);

impl SecretValue {
    pub const fn new(value: String) -> Self {
        Self(value)
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

impl Engine {
    /// Stores a secret. Its name is kept in lower case.
    pub async fn secret_create(
        &self,
        principal: &Principal,
        name: &str,
        value: &SecretValue,
        metadata: BTreeMap<String, String>,
    ) -> Result<Secret, Fault> {
        self.inner.accepting()?;
        let name = names::secret_name(name)?;
        validate::secret_metadata(&metadata)?;
        let store = &self.inner.store;
        let count = store.secret_count(&principal.workspace).await;
        if count.map_err(fault::store)? >= SECRETS_MAX {
            let text = format!("a workspace has at most {SECRETS_MAX} secrets");
            return Err(Fault::new(Code::QuotaExceeded, text));
        }
        let id = SecretId::generate();
        let now = Timestamp::now();
        let secret = Secret {
            value: sealed(&self.inner, &id, value)?,
            id,
            workspace: principal.workspace.clone(),
            name,
            version: 1,
            metadata,
            created_at: now,
            updated_at: now,
        };
        let stored = store.secret_insert(&secret).await;
        stored.map_err(fault::store)?;
        // Rules may name one that was removed.
        self.refill(&secret).await?;
        Ok(secret)
    }

    /// Replaces a secret's value and, if given, its metadata. Header rules that name it set the new
    /// one when this returns.
    pub async fn secret_update(
        &self,
        principal: &Principal,
        id_or_name: &str,
        value: &SecretValue,
        metadata: Option<BTreeMap<String, String>>,
    ) -> Result<Secret, Fault> {
        self.inner.accepting()?;
        let mut secret = self.secret_fetch(principal, id_or_name).await?;
        if let Some(metadata) = metadata {
            validate::secret_metadata(&metadata)?;
            secret.metadata = metadata;
        }
        secret.value = sealed(&self.inner, &secret.id, value)?;
        secret.version += 1;
        secret.updated_at = Timestamp::now();
        let stored = self.inner.store.secret_update(&secret).await;
        stored.map_err(fault::store)?;
        self.refill(&secret).await?;
        Ok(secret)
    }

    /// A secret of the workspace, its value sealed.
    pub async fn secret_fetch(
        &self,
        principal: &Principal,
        id_or_name: &str,
    ) -> Result<Secret, Fault> {
        let store = &self.inner.store;
        let found = match id_or_name.parse::<SecretId>() {
            Ok(id) => store.secret_fetch(&id).await,
            Err(_) => {
                let name = id_or_name.to_lowercase();
                store.secret_by_name(&principal.workspace, &name).await
            }
        };
        let found = found.map_err(fault::store)?;
        found
            .filter(|secret| secret.workspace == principal.workspace)
            .ok_or_else(|| {
                let shown: String = id_or_name.chars().take(128).collect();
                Fault::new(Code::NotFound, format!("secret '{shown}' not found"))
            })
    }

    /// A secret's value, for the environment of a process in the workspace's own sandboxes. It is
    /// never to be stored, logged or answered.
    pub async fn secret_reveal(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<String, Fault> {
        let found = value(&self.inner, workspace, name).await?;
        found.ok_or_else(|| Fault::new(Code::NotFound, "a secret of the run is gone"))
    }

    /// The workspace's secrets, by name.
    pub async fn secret_list(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<Secret>, Fault> {
        check_page(&page)?;
        let listed = self.inner.store.secret_list(&principal.workspace, &page);
        listed.await.map_err(fault::store)
    }

    /// Removes a secret; nothing of its value is left. Header rules that name it set an empty one.
    pub async fn secret_delete(
        &self,
        principal: &Principal,
        id_or_name: &str,
    ) -> Result<(), Fault> {
        self.inner.accepting()?;
        let secret = self.secret_fetch(principal, id_or_name).await?;
        let removed = self.inner.store.secret_remove(&secret.id).await;
        removed.map_err(fault::store)?;
        self.refill(&secret).await
    }
}

impl Engine {
    /// Seals a value of a record that is not a secret itself. Only [`Engine::unseal`] with the same
    /// owner, the record's id, gives it back.
    pub fn seal(&self, owner: &str, value: &[u8]) -> Result<Sealed, Fault> {
        let mut nonce = [0; seal::NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| Fault::internal(error.to_string()))?;
        Ok(Sealed(seal::seal(&self.inner.secret, owner, nonce, value)))
    }

    /// The value that was sealed for `owner`.
    pub fn unseal(&self, owner: &str, sealed: &Sealed) -> Result<Vec<u8>, Fault> {
        seal::open(&self.inner.secret, owner, &sealed.0)
            .ok_or_else(|| Fault::internal(format!("what is sealed for {owner} is damaged")))
    }
}

/// What a secret of the workspace holds, by name or id; `None` if there is no such secret.
pub(crate) async fn value(
    inner: &Inner,
    workspace: &WorkspaceId,
    name: &str,
) -> Result<Option<String>, Fault> {
    let found = match name.parse::<SecretId>() {
        Ok(id) => inner.store.secret_fetch(&id).await,
        Err(_) => {
            let name = name.to_lowercase();
            inner.store.secret_by_name(workspace, &name).await
        }
    };
    let found = found.map_err(fault::store)?;
    let own = found.filter(|secret| secret.workspace == *workspace);
    let open = |secret: Secret| {
        let opened = seal::open(&inner.secret, secret.id.as_str(), &secret.value.0);
        let value = opened.and_then(|bytes| String::from_utf8(bytes).ok());
        value.ok_or_else(|| Fault::internal("a secret cannot be opened"))
    };
    own.map(open).transpose()
}

fn sealed(inner: &Inner, id: &SecretId, value: &SecretValue) -> Result<Sealed, Fault> {
    validate::secret_value(&value.0)?;
    let mut nonce = [0; seal::NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| Fault::internal(error.to_string()))?;
    let bytes = seal::seal(&inner.secret, id.as_str(), nonce, value.0.as_bytes());
    Ok(Sealed(bytes))
}
