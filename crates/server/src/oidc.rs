//! Bearer tokens of an identity provider: who somebody is, by its signature.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use woodfrog_engine::{Identity, TokenVerifier};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Code, Fault, KeyId, Timestamp};

/// How long the issuer's keys are not looked at again.
const KEYS_FRESH: Duration = Duration::from_secs(600);
/// Between two looks because of a token with an unknown key.
const KEYS_AGAIN: Duration = Duration::from_secs(10);
/// How long the issuer may take to answer.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// Bytes of the issuer's keys.
const KEYS_BYTES_MAX: usize = 1 << 20;
/// Seconds that clocks may differ.
const LEEWAY_SECS: u64 = 60;
/// What tokens may be signed with.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// Where the issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    File(PathBuf),
    /// `https`, or `http` to this machine.
    Url(String),
}

/// Whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcOptions {
    pub issuer: String,
    pub audience: String,
    pub jwks: Jwks,
}

/// Checks tokens of one issuer. Its keys are read when they are needed and kept for ten minutes; a
/// token with a key that is not known has them read again, at most every ten seconds.
#[derive(Debug)]
pub struct Oidc {
    options: OidcOptions,
    http: reqwest::Client,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    set: Option<Arc<JwkSet>>,
    /// When `set` was read, and when it was tried last.
    read: Option<Instant>,
    tried: Option<Instant>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
}

impl Oidc {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(options: OidcOptions) -> Result<Self, reqwest::Error> {
        // Fails only if there is one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(FETCH_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            options,
            http,
            keys: Mutex::default(),
        })
    }

    /// The issuer's keys; read anew if they are old or, with `again`, not very new.
    async fn keys(&self, again: bool) -> Result<Arc<JwkSet>, Fault> {
        let mut keys = self.keys.lock().await;
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| at.elapsed());
        let fresh = since(keys.read) < KEYS_FRESH && !again;
        let tried = since(keys.tried) < KEYS_AGAIN;
        if let Some(set) = keys.set.as_ref().filter(|_| fresh || tried) {
            return Ok(Arc::clone(set));
        }
        keys.tried = Some(Instant::now());
        match self.read().await {
            Ok(set) => {
                let set = Arc::new(set);
                keys.read = keys.tried;
                keys.set = Some(Arc::clone(&set));
                Ok(set)
            }
            Err(why) => {
                tracing::warn!(
                    issuer = self.options.issuer,
                    why,
                    "cannot read the issuer's keys"
                );
                // Keys that were good are better than none.
                keys.set.clone().ok_or_else(|| {
                    let text = "the keys of the identity provider cannot be read now";
                    Fault::new(Code::Unavailable, text)
                })
            }
        }
    }

    async fn read(&self) -> Result<JwkSet, String> {
        let bytes = match &self.options.jwks {
            Jwks::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| error.to_string())?,
            Jwks::Url(url) => {
                let fetched = tokio::time::timeout(FETCH_MAX, self.fetch(url)).await;
                fetched.map_err(|_| "no answer in time".to_owned())??
            }
        };
        if bytes.len() > KEYS_BYTES_MAX {
            return Err(format!("more than {KEYS_BYTES_MAX} bytes"));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("not a set of keys: {error}"))
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let answer = self.http.get(url).send().await;
        let mut answer = answer.map_err(|error| error.without_url().to_string())?;
        if !answer.status().is_success() {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > KEYS_BYTES_MAX {
                break;
            }
        }
        Ok(bytes)
    }

    fn check(&self, token: &str, algorithm: Algorithm, key: &Jwk) -> Result<Claims, Fault> {
        let key = DecodingKey::from_jwk(key)
            .map_err(|_| refused("the token is signed with a key that cannot be used"))?;
        let mut rules = Validation::new(algorithm);
        rules.leeway = LEEWAY_SECS;
        rules.validate_nbf = true;
        rules.set_issuer(&[&self.options.issuer]);
        rules.set_audience(&[&self.options.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let checked = decode::<Claims>(token, &key, &rules);
        checked
            .map(|token| token.claims)
            .map_err(|error| why(&error))
    }
}

#[async_trait]
impl TokenVerifier for Oidc {
    async fn verify(&self, token: &str, _: Timestamp) -> Result<Identity, Fault> {
        let header = decode_header(token).map_err(|error| why(&error))?;
        if !ALGORITHMS.contains(&header.alg) {
            let text = format!(
                "the token is signed with {:?}; RS256, ES256 and EdDSA are taken",
                header.alg
            );
            return Err(refused(text));
        }
        let keys = self.keys(false).await?;
        let mut found = find(&keys, header.kid.as_deref());
        if found.is_none() {
            let keys = self.keys(true).await?;
            found = find(&keys, header.kid.as_deref());
        }
        let key = found.ok_or_else(|| {
            refused("the token is signed with a key that its issuer does not publish")
        })?;
        let claims = self.check(token, header.alg, &key)?;
        let reserved =
            claims.sub == UserId::operator().as_str() || claims.sub.parse::<KeyId>().is_ok();
        let user = UserId::parse(&claims.sub).filter(|_| !reserved);
        let user = user.ok_or_else(|| refused("the token's subject cannot be a user's name"))?;
        let expires_at = claims.exp.saturating_add(60).saturating_mul(1000);
        Ok(Identity {
            user,
            expires_at: Timestamp::from_millis(expires_at),
        })
    }
}

/// The key of that id; without an id, the only one.
fn find(set: &JwkSet, id: Option<&str>) -> Option<Jwk> {
    match (id, set.keys.as_slice()) {
        (Some(id), _) => set.find(id).cloned(),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    }
}

fn why(error: &Error) -> Fault {
    let text = match error.kind() {
        ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "the token is of another issuer".to_owned(),
        ErrorKind::InvalidAudience => "the token is for another audience".to_owned(),
        ErrorKind::InvalidSignature => "the token's signature is wrong".to_owned(),
        ErrorKind::InvalidAlgorithm => "the token is signed otherwise than its key says".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token has no `{claim}`"),
        _ => "the token cannot be read".to_owned(),
    };
    refused(text)
}

fn refused(text: impl Into<String>) -> Fault {
    Fault::new(Code::Unauthenticated, text)
}

#[cfg(test)]
mod tests;
