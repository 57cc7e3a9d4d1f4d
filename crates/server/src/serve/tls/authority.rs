//! The certificate authority of one data directory.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};

use super::{TlsError, read};

const DAY: i64 = 24 * 3600;
const AUTHORITY_DAYS: i64 = 3650;
/// What the strictest clients accept.
const LEAF_DAYS: i64 = 397;
/// A leaf with less left than this is made anew.
const RENEW_DAYS: i64 = 30;

pub(super) struct Files {
    pub(super) authority: PathBuf,
    pub(super) leaf: PathBuf,
    pub(super) leaf_key: PathBuf,
}

/// What was put into the certificates, so that they need not be parsed.
#[derive(Serialize, Deserialize)]
struct Note {
    domain: String,
    /// Unix seconds.
    authority_until: i64,
    leaf_until: i64,
}

pub(super) fn ensure(directory: &Path, domain: &str) -> Result<Files, TlsError> {
    let domain = domain
        .rsplit_once(':')
        .map_or(domain, |(name, _)| name)
        .to_ascii_lowercase();
    let files = Files {
        authority: directory.join("ca.pem"),
        leaf: directory.join("leaf.pem"),
        leaf_key: directory.join("leaf.key"),
    };
    let (note_path, key_path) = (directory.join("note.json"), directory.join("ca.key"));
    let now = jiff::Timestamp::now().as_second();
    let soon = now + RENEW_DAYS * DAY;
    let note: Option<Note> = std::fs::read(&note_path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let kept = files.authority.is_file() && key_path.is_file();
    let kept_leaf = files.leaf.is_file() && files.leaf_key.is_file();
    if let Some(note) = &note
        && kept
        && kept_leaf
        && note.domain == domain
        && note.leaf_until > soon
    {
        return Ok(files);
    }
    std::fs::create_dir_all(directory).map_err(|source| file_error(directory, source))?;
    // The note goes first and comes back last: a crash between the files means they are remade.
    let _ = std::fs::remove_file(&note_path);
    let kept_authority = note.filter(|note| kept && note.authority_until > now + LEAF_DAYS * DAY);
    let (authority_until, key) = match kept_authority {
        Some(note) => (note.authority_until, load_key(&key_path)?),
        None => make_authority(&files.authority, &key_path, now)?,
    };
    let leaf_until = now + LEAF_DAYS * DAY;
    make_leaf(&files, &domain, key, now, leaf_until)?;
    let note = Note {
        domain,
        authority_until,
        leaf_until,
    };
    let json = serde_json::to_vec(&note).expect("a note serializes");
    write(&note_path, &json, 0o644)?;
    Ok(files)
}

fn load_key(path: &Path) -> Result<KeyPair, TlsError> {
    let pem = String::from_utf8(read(path)?).unwrap_or_default();
    KeyPair::from_pem(&pem).map_err(|_| TlsError::Pem {
        path: path.to_owned(),
    })
}

/// The same every time but for its dates: a leaf names its issuer by this name.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Woodfrog local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn make_authority(path: &Path, key_path: &Path, now: i64) -> Result<(i64, KeyPair), TlsError> {
    let key = KeyPair::generate().map_err(TlsError::Generate)?;
    let until = now + AUTHORITY_DAYS * DAY;
    let mut params = authority_params();
    set_validity(&mut params, now, until);
    let certificate = params.self_signed(&key).map_err(TlsError::Generate)?;
    write(key_path, key.serialize_pem().as_bytes(), 0o600)?;
    write(path, certificate.pem().as_bytes(), 0o644)?;
    Ok((until, key))
}

fn make_leaf(
    files: &Files,
    domain: &str,
    authority_key: KeyPair,
    now: i64,
    until: i64,
) -> Result<(), TlsError> {
    let bad = |_| TlsError::Domain {
        domain: domain.to_owned(),
    };
    let plain = domain
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    if domain.is_empty() || !plain {
        return Err(TlsError::Domain {
            domain: domain.to_owned(),
        });
    }
    let names = vec![
        domain.to_owned(),
        format!("*.{domain}"),
        "localhost".to_owned(),
    ];
    let mut params = CertificateParams::new(names).map_err(bad)?;
    for address in [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()] {
        params.subject_alt_names.push(SanType::IpAddress(address));
    }
    params.distinguished_name = name(domain);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, until);
    let key = KeyPair::generate().map_err(TlsError::Generate)?;
    let issuer = Issuer::new(authority_params(), authority_key);
    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(TlsError::Generate)?;
    write(&files.leaf_key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.leaf, certificate.pem().as_bytes(), 0o644)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// A day back, for clocks that are behind.
fn set_validity(params: &mut CertificateParams, now: i64, until: i64) {
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
    params.not_before = day(now - DAY);
    params.not_after = day(until);
}

/// Replaces a file as a whole: nobody sees half of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let beside = path.with_extension("new");
    let attempt = || {
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    attempt().map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: std::io::Error) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        source,
    }
}
