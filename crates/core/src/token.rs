//! Access tokens of sandboxes and signatures of file URLs.
//!
//! Tokens are derived, not stored: HMAC-SHA256 of the server's secret over what the token is for
//! and the sandbox's id. They stay valid for the sandbox's whole life and die with its id.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use woodfrog_types::{SandboxId, Timestamp, VolumeId};

/// The server's own secret. Whoever has it can make every token.
#[derive(Clone)]
pub struct ServerSecret([u8; 32]);

impl ServerSecret {
    /// Bytes of a secret.
    pub const BYTES: usize = 32;

    /// From random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key for something else than tokens; other labels give unrelated keys.
    pub(crate) fn derive_key(&self, label: &[u8]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        mac.update(label);
        mac.finalize().into_bytes().into()
    }

    /// From stored bytes; `None` if the length is not [`Self::BYTES`].
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerSecret(..)")
    }
}

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The guest: files and processes.
    Guest,
    /// Ports inside, where public traffic is off.
    Traffic,
    /// The sandbox over a WebSocket: code, checkpoints, its end.
    Socket,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Guest => b"woodfrog.guest.v1",
            Self::Traffic => b"woodfrog.traffic.v1",
            Self::Socket => b"woodfrog.socket.v1",
        }
    }
}

/// The token of a sandbox for a purpose: 64 lowercase hexadecimal digits.
pub fn derive(secret: &ServerSecret, purpose: Purpose, sandbox: &SandboxId) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of every length");
    mac.update(purpose.label());
    // Labels hold no zero byte, so label and id cannot run into each other.
    mac.update(&[0]);
    mac.update(sandbox.as_str().as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// The token of a volume's content: 64 lowercase hexadecimal digits.
pub fn derive_volume(secret: &ServerSecret, volume: &VolumeId) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of every length");
    mac.update(b"woodfrog.volume.v1");
    mac.update(&[0]);
    mac.update(volume.as_str().as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Compares in a time that does not depend on where the texts differ.
pub fn same(presented: &str, expected: &str) -> bool {
    presented.as_bytes().ct_eq(expected.as_bytes()).into()
}

/// What a signed file URL allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOperation {
    Read,
    Write,
}

impl FileOperation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What a file URL's signature covers.
#[derive(Debug, Clone, Copy)]
pub struct SignedFile<'a> {
    /// Exactly as in the query.
    pub path: &'a str,
    pub operation: FileOperation,
    /// Empty if the query has none.
    pub username: &'a str,
    /// Unix seconds; `None` never expires.
    pub expiration: Option<i64>,
}

/// Why a signature does not open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("missing signature query parameter")]
    Missing,
    #[error("invalid signature")]
    Invalid,
    #[error("signature is already expired")]
    Expired,
}

/// Signs a file URL with a sandbox's access token, as E2B clients do.
pub fn sign(file: &SignedFile<'_>, access_token: &str) -> String {
    let mut text = format!(
        "{}:{}:{}:{access_token}",
        file.path,
        file.operation.as_str(),
        file.username,
    );
    if let Some(expiration) = file.expiration {
        text.push_str(&format!(":{expiration}"));
    }
    let hash = Sha256::digest(text.as_bytes());
    format!("v1_{}", STANDARD_NO_PAD.encode(hash))
}

/// Checks a file URL's signature.
pub fn check(
    file: &SignedFile<'_>,
    signature: Option<&str>,
    access_token: &str,
    now: Timestamp,
) -> Result<(), SignatureError> {
    let signature = signature
        .filter(|signature| !signature.is_empty())
        .ok_or(SignatureError::Missing)?;
    if !same(signature, &sign(file, access_token)) {
        return Err(SignatureError::Invalid);
    }
    match file.expiration {
        Some(expiration) if expiration < now.as_secs() => Err(SignatureError::Expired),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: SignedFile<'static> = SignedFile {
        path: "hello.txt",
        operation: FileOperation::Read,
        username: "user",
        expiration: None,
    };
    const TOKEN: &str = "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0";
    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[test]
    fn signs_as_e2b_clients_do() {
        assert_eq!(
            sign(&HELLO, TOKEN),
            "v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E"
        );
    }

    #[test]
    fn refusals_say_why() {
        let check = |file: &SignedFile<'_>, signature: Option<&str>| {
            super::check(file, signature, TOKEN, NOW)
        };
        let good = sign(&HELLO, TOKEN);
        assert_eq!(check(&HELLO, Some(&good)), Ok(()));
        assert_eq!(check(&HELLO, None), Err(SignatureError::Missing));
        assert_eq!(check(&HELLO, Some("")), Err(SignatureError::Missing));
        assert_eq!(check(&HELLO, Some("v1_x")), Err(SignatureError::Invalid));
        let write = SignedFile {
            operation: FileOperation::Write,
            ..HELLO
        };
        assert_eq!(check(&write, Some(&good)), Err(SignatureError::Invalid));
        let until = |expiration| SignedFile {
            expiration: Some(expiration),
            ..HELLO
        };
        let (open, closed) = (until(1_790_000_000), until(1_789_999_999));
        assert_eq!(check(&open, Some(&sign(&open, TOKEN))), Ok(()));
        let late = sign(&closed, TOKEN);
        assert_eq!(check(&closed, Some(&late)), Err(SignatureError::Expired));
        // An expired URL cannot be revived by another time in the query.
        assert_eq!(check(&open, Some(&late)), Err(SignatureError::Invalid));
    }

    #[test]
    fn tokens_depend_on_everything() {
        let secrets = [ServerSecret::new([1; 32]), ServerSecret::new([2; 32])];
        let sandboxes = [SandboxId::generate(), SandboxId::generate()];
        let mut seen = std::collections::HashSet::new();
        for secret in &secrets {
            for sandbox in &sandboxes {
                for purpose in [Purpose::Guest, Purpose::Traffic, Purpose::Socket] {
                    let token = derive(secret, purpose, sandbox);
                    assert_eq!(token.len(), 64);
                    assert_eq!(token, derive(secret, purpose, sandbox));
                    assert!(seen.insert(token));
                }
            }
        }
        assert_eq!(format!("{:?}", secrets[0]), "ServerSecret(..)");
    }

    proptest! {
        #[test]
        fn a_signature_opens_only_its_file(path in ".{0,40}", other in ".{0,40}", token in "[a-f0-9]{64}") {
            let file = SignedFile { path: &path, ..HELLO };
            let signature = sign(&file, &token);
            prop_assert!(check(&file, Some(&signature), &token, NOW).is_ok());
            if other != path {
                let file = SignedFile { path: &other, ..HELLO };
                prop_assert_eq!(check(&file, Some(&signature), &token, NOW), Err(SignatureError::Invalid));
            }
        }
    }
}
