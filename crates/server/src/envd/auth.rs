//! Who may talk to a sandbox's daemon: the access token, or a signature for one file.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::{HeaderMap, Method, header};
use sha2::{Digest as _, Sha256};
use woodfrog_engine::SandboxAccess;

const ACCESS_TOKEN: &str = "x-access-token";

/// The texts are part of the contract: clients compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error(
        "unauthorized access, please provide a valid access token or method signing if supported"
    )]
    Token,
    #[error("access token present in header but does not match")]
    HeaderMismatch,
    #[error("missing signature query parameter")]
    SignatureMissing,
    #[error("invalid signature")]
    SignatureInvalid,
    #[error("signature is already expired")]
    SignatureExpired,
}

/// What a signature allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
}

impl Operation {
    /// What a method on `/files` does.
    pub(crate) fn of(method: &Method) -> Self {
        if method == Method::POST {
            Self::Write
        } else {
            Self::Read
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// The query of `/files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct FilesQuery {
    pub(crate) path: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) signature: Option<String>,
    /// Unix seconds. Signed as it is written.
    pub(crate) signature_expiration: Option<String>,
}

impl FilesQuery {
    /// Whether the signature is one that this token makes for this request, expired or not.
    pub(crate) fn signed_by(&self, token: &str, operation: Operation) -> bool {
        let Some(given) = &self.signature else {
            return false;
        };
        let mut hash = Sha256::new();
        let path = self.path.as_deref().unwrap_or_default();
        let user = self.username.as_deref().unwrap_or_default();
        hash.update(format!("{path}:{}:{user}:{token}", operation.as_str()));
        if let Some(expiration) = &self.signature_expiration {
            hash.update(format!(":{expiration}"));
        }
        let wanted = format!("v1_{}", STANDARD_NO_PAD.encode(hash.finalize()));
        same(given.as_bytes(), wanted.as_bytes())
    }

    fn expired(&self, now_seconds: i64) -> Result<bool, AuthError> {
        let Some(text) = &self.signature_expiration else {
            return Ok(false);
        };
        let at: i64 = text.parse().map_err(|_| AuthError::SignatureInvalid)?;
        Ok(at < now_seconds)
    }
}

/// Compares secrets by their hashes, so that time tells nothing about where they differ.
pub(crate) fn same(left: &[u8], right: &[u8]) -> bool {
    Sha256::digest(left) == Sha256::digest(right)
}

/// Everything but health and files asks for the token.
pub(crate) fn check_token(access: &SandboxAccess, headers: &HeaderMap) -> Result<(), AuthError> {
    if !access.secure {
        return Ok(());
    }
    match headers.get(ACCESS_TOKEN) {
        Some(given) if same(given.as_bytes(), access.access_token.as_bytes()) => Ok(()),
        _ => Err(AuthError::Token),
    }
}

/// Files ask for the token or a signature; a wrong token is not made good by a signature.
pub(crate) fn check_files(
    access: &SandboxAccess,
    headers: &HeaderMap,
    query: &FilesQuery,
    operation: Operation,
) -> Result<(), AuthError> {
    if !access.secure {
        return Ok(());
    }
    if let Some(given) = headers.get(ACCESS_TOKEN).filter(|value| !value.is_empty()) {
        return if same(given.as_bytes(), access.access_token.as_bytes()) {
            Ok(())
        } else {
            Err(AuthError::HeaderMismatch)
        };
    }
    if query.signature.is_none() {
        return Err(AuthError::SignatureMissing);
    }
    if !query.signed_by(&access.access_token, operation) {
        return Err(AuthError::SignatureInvalid);
    }
    if query.expired(jiff::Timestamp::now().as_second())? {
        return Err(AuthError::SignatureExpired);
    }
    Ok(())
}

/// The user an RPC names: the name of `Authorization: Basic`, whose password means nothing.
pub(crate) fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let name = decoded.split(':').next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use woodfrog_engine::Reach;

    use super::*;

    const TOKEN: &str = "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0";

    fn access() -> SandboxAccess {
        SandboxAccess {
            id: woodfrog_types::SandboxId::generate(),
            workspace: woodfrog_types::WorkspaceId::default_workspace(),
            secure: true,
            access_token: TOKEN.to_owned(),
            traffic_token: None,
            network: Default::default(),
            default_user: "user".to_owned(),
            default_workdir: None,
            reach: Reach::Awake,
        }
    }

    fn signed() -> FilesQuery {
        FilesQuery {
            path: Some("hello.txt".into()),
            username: Some("user".into()),
            signature: Some("v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E".into()),
            signature_expiration: None,
        }
    }

    #[test]
    fn the_published_vector_verifies() {
        assert!(signed().signed_by(TOKEN, Operation::Read));
        assert!(!signed().signed_by(TOKEN, Operation::Write));
        assert!(!signed().signed_by("other", Operation::Read));
    }

    #[test]
    fn files_ask_for_token_or_signature() {
        let access = access();
        let none = HeaderMap::new();
        let check = |headers: &HeaderMap, query: &FilesQuery| {
            check_files(&access, headers, query, Operation::Read)
        };
        assert_eq!(check(&none, &signed()), Ok(()));
        assert_eq!(
            check(&none, &FilesQuery::default()),
            Err(AuthError::SignatureMissing)
        );
        let other = FilesQuery {
            path: Some("x".into()),
            ..signed()
        };
        assert_eq!(check(&none, &other), Err(AuthError::SignatureInvalid));
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_TOKEN, "wrong".parse().unwrap());
        assert_eq!(check(&headers, &signed()), Err(AuthError::HeaderMismatch));
        headers.insert(ACCESS_TOKEN, TOKEN.parse().unwrap());
        assert_eq!(check(&headers, &FilesQuery::default()), Ok(()));
    }

    #[test]
    fn signatures_expire() {
        let mut query = FilesQuery {
            signature_expiration: Some("1000".into()),
            ..signed()
        };
        let mut hash = Sha256::new();
        hash.update(format!("hello.txt:read:user:{TOKEN}:1000"));
        query.signature = Some(format!("v1_{}", STANDARD_NO_PAD.encode(hash.finalize())));
        assert_eq!(
            check_files(&access(), &HeaderMap::new(), &query, Operation::Read),
            Err(AuthError::SignatureExpired)
        );
    }

    #[test]
    fn users_come_from_basic_authorization() {
        let with = |value: &str| {
            basic_user(&HeaderMap::from_iter([(
                header::AUTHORIZATION,
                value.parse().unwrap(),
            )]))
        };
        assert_eq!(with("Basic dXNlcjo="), Some("user".into()));
        assert_eq!(with("basic cm9vdDp4"), Some("root".into()));
        assert_eq!(with("Basic Og=="), None);
        assert_eq!(with("Bearer dXNlcjo="), None);
        assert_eq!(with("Basic %%%"), None);
    }
}
