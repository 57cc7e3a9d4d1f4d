use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;

/// A key made for the test: how it signs, and what its issuer publishes of it.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

fn es256(id: &str) -> Signer {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    // An uncompressed point: 4, x, y.
    let point = pair.public_key_raw();
    let (x, y) = point[1..].split_at(32);
    Signer {
        algorithm: Algorithm::ES256,
        key: EncodingKey::from_ec_der(&pair.serialize_der()),
        jwk: json!({ "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256",
                     "x": B64.encode(x), "y": B64.encode(y) }),
    }
}

fn eddsa(id: &str) -> Signer {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    Signer {
        algorithm: Algorithm::EdDSA,
        key: EncodingKey::from_ed_der(&pair.serialize_der()),
        jwk: json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA",
                     "x": B64.encode(pair.public_key_raw()) }),
    }
}

impl Signer {
    fn token(&self, id: &str, change: impl FnOnce(&mut Value)) -> String {
        let now = Timestamp::now().as_secs();
        let mut claims = json!({
            "iss": "https://id.test", "aud": "woodfrog", "sub": "ann",
            "exp": now + 600, "nbf": now - 1,
        });
        change(&mut claims);
        let header = Header {
            kid: Some(id.to_owned()),
            ..Header::new(self.algorithm)
        };
        encode(&header, &claims, &self.key).unwrap()
    }
}

struct World {
    oidc: Oidc,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(signers: &[&Signer]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        let oidc = Oidc::new(OidcOptions {
            issuer: "https://id.test".to_owned(),
            audience: "woodfrog".to_owned(),
            jwks: Jwks::File(path.clone()),
        });
        let world = Self {
            oidc: oidc.unwrap(),
            path,
            _dir: dir,
        };
        world.publish(signers);
        world
    }

    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<&Value> = signers.iter().map(|one| &one.jwk).collect();
        let set = json!({ "keys": keys }).to_string();
        std::fs::write(&self.path, set).unwrap();
    }

    async fn verify(&self, token: &str) -> Result<String, String> {
        let verified = self.oidc.verify(token, Timestamp::now()).await;
        verified
            .map(|one| one.user.to_string())
            .map_err(|fault| fault.message)
    }
}

#[tokio::test]
async fn the_subject_of_a_good_token_is_the_user() {
    let (one, two) = (es256("one"), eddsa("two"));
    let world = World::new(&[&one, &two]);
    for (signer, id) in [(&one, "one"), (&two, "two")] {
        let token = signer.token(id, |_| {});
        assert_eq!(world.verify(&token).await.as_deref(), Ok("ann"));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said() {
    let signer = es256("one");
    let world = World::new(&[&signer]);
    let now = Timestamp::now().as_secs();
    type Change = Box<dyn FnOnce(&mut Value)>;
    let cases: Vec<(Change, &str)> = vec![
        (
            Box::new(move |c| c["exp"] = json!(now - 120)),
            "the token has expired",
        ),
        (
            Box::new(move |c| c["nbf"] = json!(now + 600)),
            "the token is not valid yet",
        ),
        (
            Box::new(|c| c["iss"] = json!("https://else.test")),
            "the token is of another issuer",
        ),
        (
            Box::new(|c| c["aud"] = json!("else")),
            "the token is for another audience",
        ),
        (
            Box::new(|c| drop(c.as_object_mut().unwrap().remove("aud"))),
            "the token has no `aud`",
        ),
        (
            Box::new(|c| c["sub"] = json!("operator")),
            "the token's subject cannot be a user's name",
        ),
        (
            Box::new(|c| c["sub"] = json!("")),
            "the token's subject cannot be a user's name",
        ),
    ];
    for (change, text) in cases {
        let token = signer.token("one", change);
        assert_eq!(world.verify(&token).await, Err(text.to_owned()));
    }
    let good = signer.token("one", |_| {});
    let (rest, _) = good.rsplit_once('.').unwrap();
    let forged = es256("one").token("one", |_| {});
    let (_, signature) = forged.rsplit_once('.').unwrap();
    let mixed = format!("{rest}.{signature}");
    let wrong = Err("the token's signature is wrong".to_owned());
    assert_eq!(world.verify(&mixed).await, wrong);
    assert_eq!(world.verify(&forged).await, wrong);
    let cannot = Err("the token cannot be read".to_owned());
    assert_eq!(world.verify("a.b.c").await, cannot);
}

#[tokio::test]
async fn a_token_is_signed_as_its_key_says_and_not_otherwise() {
    let signer = es256("one");
    let world = World::new(&[&signer]);
    // A secret of both sides: the public key must not do as one.
    let public = signer.jwk["x"].as_str().unwrap().to_owned();
    let header = Header {
        kid: Some("one".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let key = EncodingKey::from_secret(public.as_bytes());
    let token = encode(&header, &json!({ "sub": "ann" }), &key).unwrap();
    let text = "the token is signed with HS256; RS256, ES256 and EdDSA are taken";
    assert_eq!(world.verify(&token).await, Err(text.to_owned()));
    let header = B64.encode(r#"{"alg":"none","kid":"one"}"#);
    let unsigned = format!("{header}.{}.", B64.encode(r#"{"sub":"ann"}"#));
    assert!(world.verify(&unsigned).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn new_keys_of_the_issuer_are_found() {
    let (old, new) = (es256("old"), es256("new"));
    let world = World::new(&[&old]);
    assert!(world.verify(&old.token("old", |_| {})).await.is_ok());
    world.publish(&[&new]);
    let token = new.token("new", |_| {});
    let unknown = "the token is signed with a key that its issuer does not publish";
    // Not at once: whoever makes up ids must not have the keys read each time.
    assert_eq!(world.verify(&token).await, Err(unknown.to_owned()));
    tokio::time::advance(KEYS_AGAIN).await;
    assert!(world.verify(&token).await.is_ok());
    // And the old one is not taken any more.
    let refused = world.verify(&old.token("old", |_| {})).await;
    assert_eq!(refused, Err(unknown.to_owned()));
    // An issuer that is away takes nothing back.
    std::fs::remove_file(&world.path).unwrap();
    tokio::time::advance(KEYS_FRESH).await;
    assert!(world.verify(&token).await.is_ok());
}
