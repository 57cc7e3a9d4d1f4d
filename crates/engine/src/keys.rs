//! API keys: who is asking.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use woodfrog_core::key as text;
use woodfrog_types::key::{ApiKey, Principal, Scope};
use woodfrog_types::{Code, Fault, KeyId, Timestamp, WorkspaceId};

use crate::engine::Engine;
use crate::ports::KeyPolicy;
use crate::request::NewKey;
use crate::view::CreatedKey;
use crate::{fault, tasks};

/// How long a key that was found is not looked up again.
const CACHE_TTL: Duration = Duration::from_secs(30);
/// Keys that are remembered.
const CACHE_MAX: usize = 1024;
/// The resolution of a key's last use.
const MINUTE_MS: i64 = 60_000;
/// Bytes of a key's name.
const NAME_BYTES_MAX: usize = 256;

#[derive(Clone)]
struct Cached {
    key: Arc<ApiKey>,
    until: Instant,
    /// The minute of the last recorded use.
    used: i64,
}

/// Keys that were used lately, by digest.
#[derive(Default)]
pub(crate) struct KeyCache(Mutex<HashMap<[u8; 32], Cached>>);

impl KeyCache {
    fn get(&self, digest: &[u8; 32]) -> Option<Cached> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(digest)
            .filter(|cached| cached.until > Instant::now())
            .cloned()
    }

    fn put(&self, cached: Cached) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(cached.key.digest, cached);
    }

    fn clear(&self) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clear();
    }
}

impl Engine {
    /// Who presents this key. `Unauthenticated` if it is malformed, unknown, revoked or expired.
    pub async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
        if self.inner.options.keys == KeyPolicy::AcceptAny {
            return Ok(Principal {
                workspace: WorkspaceId::default_workspace(),
                key: None,
                scope: Scope::Admin,
            });
        }
        let digits = text::parse(secret)
            .map_err(|error| Fault::new(Code::Unauthenticated, error.to_string()))?;
        let digest = text::digest(digits);
        let now = Timestamp::now();
        let cached = match self.inner.keys.get(&digest) {
            Some(cached) => cached,
            None => self.look_up(&digest).await?,
        };
        if cached.key.expires_at.is_some_and(|at| at <= now) {
            return Err(unknown());
        }
        self.used(cached.clone(), now);
        Ok(Principal {
            workspace: cached.key.workspace.clone(),
            key: Some(cached.key.id.clone()),
            scope: cached.key.scope,
        })
    }

    async fn look_up(&self, digest: &[u8; 32]) -> Result<Cached, Fault> {
        let key = self.inner.store.key_by_digest(digest).await;
        let key = key.map_err(fault::store)?.ok_or_else(unknown)?;
        let cached = Cached {
            used: key.last_used_at.map_or(i64::MIN, minute),
            key: Arc::new(key),
            until: Instant::now() + CACHE_TTL,
        };
        self.inner.keys.put(cached.clone());
        Ok(cached)
    }

    /// Records the use, once a minute, beside the request.
    fn used(&self, mut cached: Cached, now: Timestamp) {
        if cached.used >= minute(now) {
            return;
        }
        cached.used = minute(now);
        let id = cached.key.id.clone();
        self.inner.keys.put(cached);
        let store = Arc::clone(&self.inner.store);
        tasks::spawn(&self.inner.tasks, "key use", async move {
            if let Err(error) = store.key_touch(&id, now).await {
                tracing::warn!(key = %id, %error, "the use of a key could not be recorded");
            }
        });
    }

    /// Makes a key. Needs admin scope. The secret is in the answer and nowhere else.
    pub async fn key_create(
        &self,
        principal: &Principal,
        request: NewKey,
    ) -> Result<CreatedKey, Fault> {
        need_admin(principal)?;
        self.insert_key(request).await
    }

    async fn insert_key(&self, request: NewKey) -> Result<CreatedKey, Fault> {
        if request.name.is_empty() || request.name.len() > NAME_BYTES_MAX {
            return Err(Fault::invalid(
                "name",
                format!("a key's name has 1 to {NAME_BYTES_MAX} bytes"),
            ));
        }
        let mut random = [0; text::SECRET_BYTES];
        getrandom::fill(&mut random).map_err(|error| Fault::internal(error.to_string()))?;
        let secret_hex = hex::encode(random);
        let key = ApiKey {
            id: KeyId::generate(),
            workspace: request.workspace,
            name: request.name,
            scope: request.scope,
            hint: text::hint(&secret_hex),
            digest: text::digest(&secret_hex),
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

    /// All keys, without their secrets. Needs admin scope.
    pub async fn key_list(&self, principal: &Principal) -> Result<Vec<ApiKey>, Fault> {
        need_admin(principal)?;
        self.inner.store.key_list(None).await.map_err(fault::store)
    }

    /// Makes a key worthless at once. Needs admin scope.
    pub async fn key_revoke(&self, principal: &Principal, id: &KeyId) -> Result<(), Fault> {
        need_admin(principal)?;
        let removed = self
            .inner
            .store
            .key_remove(id)
            .await
            .map_err(fault::store)?;
        self.inner.keys.clear();
        if removed {
            return Ok(());
        }
        Err(Fault::new(Code::KeyNotFound, format!("no key `{id}`")))
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
            name: "admin".to_owned(),
            workspace: WorkspaceId::default_workspace(),
            scope: Scope::Admin,
            expires_at: None,
        };
        self.insert_key(request).await.map(Some)
    }
}

fn minute(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(MINUTE_MS)
}

fn unknown() -> Fault {
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
