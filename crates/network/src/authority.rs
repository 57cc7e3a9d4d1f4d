//! The certificate authority of one server, for hosts whose requests it changes.
//!
//! Its key is made once and never leaves the data directory. Sandboxes with header rules trust
//! its certificate; nobody else does.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;

const DAY: i64 = 24 * 3600;
/// Sandboxes may sleep for years and still trust it.
const AUTHORITY_DAYS: i64 = 7300;
const LEAF_DAYS: i64 = 90;
/// A leaf that is older is made anew.
const LEAF_KEPT_DAYS: i64 = 30;
/// Certificates kept in memory: patterns can mean any number of hosts.
const LEAVES_MAX: usize = 1024;
const SUBJECT: &str = "Woodfrog egress authority";
/// The name under which OpenSSL looks for it in a directory of certificates.
const LINK: &str = "835e7927.0";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key or a certificate cannot be made, or is none.
    #[error("make or read a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A certificate cannot be served.
    #[error("serve a certificate")]
    Serve(#[from] rustls::Error),
}

/// Makes certificates for hosts. Its key does not show in its `Debug`.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// Of all leaves, fresh for every start.
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<String, Leaf>>,
}

struct Leaf {
    made: i64,
    config: Arc<ServerConfig>,
}

impl Authority {
    /// Reads the authority of a directory, and makes both if need be. Blocking.
    ///
    /// # Errors
    /// When its files cannot be used. What is there is not overwritten then.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::File { path, source }
        };
        let mut folder = std::fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o700).create(dir);
        made.map_err(failed(dir))?;
        let (key_path, path) = (dir.join("ca.key"), dir.join("ca.pem"));
        let key = match read(&key_path).map_err(failed(&key_path))? {
            Some(text) => KeyPair::from_pem(&text)?,
            None => {
                let key = KeyPair::generate()?;
                let text = key.serialize_pem();
                write(&key_path, &text, 0o600).map_err(failed(&key_path))?;
                // One that another key signed is of no use.
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(&path)(error));
                    }
                    Ok(()) | Err(_) => key,
                }
            }
        };
        let pem = match read(&path).map_err(failed(&path))? {
            Some(text) => text,
            None => {
                let mut params = params();
                set_validity(&mut params, AUTHORITY_DAYS);
                let text = params.self_signed(&key)?.pem();
                write(&path, &text, 0o644).map_err(failed(&path))?;
                text
            }
        };
        Ok(Self {
            pem,
            issuer: Issuer::new(params(), key),
            leaf_key: KeyPair::generate()?,
            leaves: Mutex::default(),
        })
    }

    /// Its certificate, which sandboxes with header rules are to trust.
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    /// The name that its certificate must have in a directory such as `/etc/ssl/certs`, where
    /// OpenSSL looks certificates up by a hash of their subjects.
    pub const fn link(&self) -> &'static str {
        LINK
    }

    /// How to speak TLS as a host, with HTTP/1.1 inside.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        let now = jiff::Timestamp::now().as_second();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(host)
            && (leaf.made..leaf.made + LEAF_KEPT_DAYS * DAY).contains(&now)
        {
            return Ok(Arc::clone(&leaf.config));
        }
        if leaves.len() >= LEAVES_MAX {
            leaves.clear();
        }
        let config = Arc::new(self.make(host)?);
        let leaf = Leaf {
            made: now,
            config: Arc::clone(&config),
        };
        leaves.insert(host.to_owned(), leaf);
        Ok(config)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, AuthorityError> {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        // The subject has at most 64 characters; clients look at the alternative name only.
        params.distinguished_name = name("sandbox egress");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, LEAF_DAYS);
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// The same every time but for its dates: leaves name their issuer by it.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(SUBJECT);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From two days ago, for clocks that are behind.
fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = jiff::Timestamp::now().as_second();
    let day = |seconds: i64| {
        let date = jiff::Timestamp::from_second(seconds)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date();
        rcgen::date_time_ymd(
            i32::from(date.year()),
            u8::try_from(date.month()).unwrap_or(1),
            u8::try_from(date.day()).unwrap_or(1),
        )
    };
    params.not_before = day(now - 2 * DAY);
    params.not_after = day(now + days * DAY);
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file as a whole: nobody sees half of it.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    // A server that died while it wrote left it.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("egress");
        let first = Authority::open(&folder).unwrap();
        let again = Authority::open(&folder).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        let mode = |name: &str| {
            let found = std::fs::metadata(folder.join(name)).unwrap();
            found.permissions().mode() & 0o777
        };
        assert_eq!(mode("ca.key"), 0o600);
        let key = std::fs::read_to_string(folder.join("ca.key")).unwrap();
        assert!(!first.certificate().contains("PRIVATE") && key.contains("PRIVATE KEY"));
        // A key without a certificate gets one, a certificate without a key is replaced.
        std::fs::remove_file(folder.join("ca.pem")).unwrap();
        Authority::open(&folder).unwrap();
        assert_eq!(key, std::fs::read_to_string(folder.join("ca.key")).unwrap());
        std::fs::remove_file(folder.join("ca.key")).unwrap();
        let other = Authority::open(&folder).unwrap();
        assert_ne!(first.certificate(), other.certificate());
        std::fs::write(folder.join("ca.key"), "not a key").unwrap();
        assert!(Authority::open(&folder).is_err());
    }

    /// OpenSSL's hash of a name: SHA-1 over its parts in lower case.
    #[test]
    fn the_link_is_the_hash_of_the_subject() {
        let tagged = |tag: u8, bytes: &[u8]| {
            let mut out = vec![tag, u8::try_from(bytes.len()).unwrap()];
            out.extend(bytes);
            out
        };
        let text = tagged(0x0c, SUBJECT.to_lowercase().as_bytes());
        let name = [tagged(6, &[0x55, 4, 3]), text].concat();
        let part = tagged(0x31, &tagged(0x30, &name));
        let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &part);
        let first = u32::from_le_bytes(hash.as_ref()[..4].try_into().unwrap());
        assert_eq!(LINK, format!("{first:08x}.0"));
    }
}
