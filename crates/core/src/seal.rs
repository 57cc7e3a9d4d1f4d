//! Sealing small values with the server's secret, so that who reads where they are stored without
//! having that secret learns their length and nothing else.
//!
//! ChaCha20-Poly1305 with a key derived for this purpose and a random nonce. What a value belongs
//! to is authenticated with it: a sealed value cannot be moved to another record.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::token::ServerSecret;

const LABEL: &[u8] = b"woodfrog.seal.v1";
/// The first byte of what is sealed so.
const VERSION: u8 = 1;

/// Bytes of a nonce. It must be random and fresh for every value.
pub const NONCE_BYTES: usize = NONCE_LEN;

/// Seals a value for `owner`.
pub fn seal(secret: &ServerSecret, owner: &str, nonce: [u8; NONCE_BYTES], value: &[u8]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&nonce);
    let mut body = value.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key(secret)
        .seal_in_place_append_tag(nonce, Aad::from(owner.as_bytes()), &mut body)
        .expect("values are far below the cipher's limit");
    out.append(&mut body);
    out
}

/// The value that was sealed for `owner`; `None` if it was changed, is another's, or of another
/// server.
pub fn open(secret: &ServerSecret, owner: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed
        .strip_prefix(&[VERSION])?
        .split_first_chunk::<NONCE_BYTES>()?;
    let mut body = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = key(secret)
        .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut body)
        .ok()?
        .len();
    body.truncate(plain);
    Some(body)
}

fn key(secret: &ServerSecret) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &secret.derive_key(LABEL));
    LessSafeKey::new(key.expect("the cipher's keys have 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_server_opens_it_for_the_same_owner() {
        let (mine, theirs) = (ServerSecret::new([1; 32]), ServerSecret::new([2; 32]));
        for value in [&b""[..], b"x", &[7; 70_000]] {
            let sealed = seal(&mine, "a", [3; NONCE_BYTES], value);
            assert_eq!(open(&mine, "a", &sealed).as_deref(), Some(value));
            assert_eq!(open(&theirs, "a", &sealed), None);
            assert_eq!(open(&mine, "b", &sealed), None);
            for at in [0, 1, NONCE_BYTES, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(open(&mine, "a", &changed), None, "byte {at}");
            }
            for length in [0, 1, NONCE_BYTES, sealed.len() - 1] {
                assert_eq!(open(&mine, "a", &sealed[..length]), None, "{length}");
            }
        }
        let sealed = seal(&mine, "a", [3; NONCE_BYTES], b"plainly here");
        assert!(!sealed.windows(5).any(|part| part == b"plain"));
    }
}
