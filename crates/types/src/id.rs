//! Typed identifiers.
//!
//! An id is a short tag and 26 characters of lowercase base32 (Crockford's alphabet) over a
//! UUIDv7, so ids sort by creation time and fit a DNS label (`[a-z0-9]`, at most 32 characters).

use std::fmt;
use std::str::FromStr;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters after the tag: 26 * 5 bits hold the 128 bits of a UUID.
const BODY_LEN: usize = 26;

/// A string that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a {kind} id")]
pub struct ParseIdError {
    /// The kind of id that was wanted, for people: `sandbox`.
    pub kind: &'static str,
    /// What was given, cut to 64 characters.
    pub value: String,
}

fn encode(value: u128) -> String {
    let mut out = [0_u8; BODY_LEN];
    let mut rest = value;
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[usize::try_from(rest & 31).expect("five bits fit a usize")];
        rest >>= 5;
    }
    out.iter().map(|byte| char::from(*byte)).collect()
}

fn is_body(body: &str) -> bool {
    body.len() == BODY_LEN
        && body.bytes().all(|byte| ALPHABET.contains(&byte))
        // 26 * 5 = 130 bits: the two highest must be zero.
        && body.as_bytes()[0] <= b'7'
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $tag:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The tag that every id of this kind starts with.
            pub const TAG: &'static str = $tag;

            /// A fresh id; later ids sort after earlier ones (to the millisecond).
            pub fn generate() -> Self {
                let body = encode(uuid::Uuid::now_v7().as_u128());
                Self(format!("{}{body}", $tag).into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(value: &str) -> Result<Self, ParseIdError> {
                match value.strip_prefix($tag) {
                    Some(body) if is_body(body) => Ok(Self(value.into())),
                    _ => Err(ParseIdError {
                        kind: $kind,
                        value: value.chars().take(64).collect(),
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

ids! {
    /// One sandbox, for its whole life.
    SandboxId, "sb", "sandbox";
    /// One template: a name under which images are built.
    TemplateId, "tp", "template";
    /// One workspace: the unit of tenancy.
    WorkspaceId, "ws", "workspace";
    /// One API key (not its secret).
    KeyId, "ky", "key";
    /// One snapshot: what a sandbox was at one moment.
    SnapshotId, "sn", "snapshot";
    /// One sandbox session: what an application remembers about a sandbox.
    SandboxSessionId, "ss", "sandbox session";
    /// One session: a conversation with an agent.
    SessionId, "se", "session";
    /// One secret. E2B's clients tell ids from names by the tag.
    SecretId, "sec_", "secret";
    /// One volume: files that outlive sandboxes.
    VolumeId, "vo", "volume";
    /// One run: one call of an agent or a program.
    RunId, "rn", "run";
    /// One file that a run left.
    ArtifactId, "af", "artifact";
    /// One server among those that share a store.
    NodeId, "nd", "node";
    /// One address that is told what happens.
    WebhookId, "wh", "webhook";
}

impl ArtifactId {
    /// The id that stands for a value: the same each time.
    pub fn of_value(value: u128) -> Self {
        Self(format!("{}{}", Self::TAG, encode(value)).into())
    }
}

impl WorkspaceId {
    /// No workspace: where somebody is who is in none. Nothing is ever in it.
    pub fn nowhere() -> Self {
        Self(format!("{}7{}", Self::TAG, "z".repeat(BODY_LEN - 1)).into())
    }

    /// The workspace that exists on every server: what has no other owner belongs to it.
    pub fn default_workspace() -> Self {
        Self(format!("{}{}", Self::TAG, "0".repeat(BODY_LEN)).into())
    }
}

/// One build of a template. A plain UUID, since E2B clients treat build ids as UUIDs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(uuid::Uuid);

impl BuildId {
    /// A fresh id; later ids sort after earlier ones.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7())
    }
}

impl FromStr for BuildId {
    type Err = ParseIdError;

    fn from_str(value: &str) -> Result<Self, ParseIdError> {
        uuid::Uuid::try_parse(value)
            .map(Self)
            .map_err(|_| ParseIdError {
                kind: "build",
                value: value.chars().take(64).collect(),
            })
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dns_safe_and_round_trip() {
        let id = SandboxId::generate();
        assert!(
            id.as_str()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert_eq!(id.as_str().parse::<SandboxId>(), Ok(id.clone()));
        assert!(id.as_str().parse::<TemplateId>().is_err());
    }

    #[test]
    fn ids_sort_by_creation() {
        let ids: Vec<_> = (0..100).map(|_| SandboxId::generate()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn ids_of_values_are_ids() {
        for value in [0, 1, u128::MAX] {
            let id = ArtifactId::of_value(value);
            assert_eq!(id.as_str().parse(), Ok(id));
        }
    }

    #[test]
    fn rubbish_is_refused() {
        for bad in [
            "",
            "sb",
            "sbxyz",
            "SB00000000000000000000000000",
            "sb8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "sb../../etc/passwd0000000000",
        ] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad}");
        }
        assert!(
            WorkspaceId::default_workspace()
                .as_str()
                .parse::<WorkspaceId>()
                .is_ok()
        );
    }
}
