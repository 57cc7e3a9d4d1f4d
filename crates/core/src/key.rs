//! API keys: their text, their digest.

use sha2::{Digest as _, Sha256};

/// Prefixes under which the same secret is accepted: ours, and the one that E2B clients insist on.
pub const PREFIXES: [&str; 2] = ["wf_", "e2b_"];

/// Random bytes of a secret.
pub const SECRET_BYTES: usize = 32;

/// The text is no API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an API key is `wf_` or `e2b_` and 64 lowercase hexadecimal digits")]
pub struct NotAKey;

/// The secret's hexadecimal digits in the text that a client presents.
pub fn parse(presented: &str) -> Result<&str, NotAKey> {
    let digits = PREFIXES
        .iter()
        .find_map(|prefix| presented.strip_prefix(prefix))
        .ok_or(NotAKey)?;
    let valid = digits.len() == 2 * SECRET_BYTES
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if valid { Ok(digits) } else { Err(NotAKey) }
}

/// What is stored of a secret. The secret has 256 random bits, so a plain hash cannot be reversed.
pub fn digest(secret_hex: &str) -> [u8; 32] {
    Sha256::digest(secret_hex.as_bytes()).into()
}

/// The part of a secret that lists show to recognise a key by: 24 of its 256 bits.
pub fn hint(secret_hex: &str) -> String {
    secret_hex.chars().take(6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_prefixes_mean_the_same_key() {
        let digits = "0123456789abcdef".repeat(4);
        for prefix in PREFIXES {
            assert_eq!(parse(&format!("{prefix}{digits}")), Ok(digits.as_str()));
        }
        assert_eq!(hint(&digits), "012345");
    }

    #[test]
    fn anything_else_is_refused() {
        let digits = "0123456789abcdef".repeat(4);
        for bad in [
            String::new(),
            "wf_".into(),
            digits.clone(),
            format!("wf_{digits}0"),
            format!("wf_{}", &digits[1..]),
            format!("WF_{digits}"),
            format!("wf_{}", digits.to_uppercase()),
            format!("wf_{}é", &digits[2..]),
        ] {
            assert_eq!(parse(&bad), Err(NotAKey), "{bad}");
        }
    }

    #[test]
    fn digests_differ() {
        assert_ne!(digest("00"), digest("01"));
        assert_eq!(digest("00"), digest("00"));
    }
}
