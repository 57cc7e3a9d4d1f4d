//! TLS: given certificates, or a certificate authority of our own with a wildcard certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

mod authority;

/// Where certificates come from.
#[derive(Debug, Clone)]
pub enum TlsSource {
    /// PEM files: the chain with the leaf first, and its key.
    Files { certificate: PathBuf, key: PathBuf },
    /// Our own authority, kept in `directory`, and a leaf for the domain and one level below it.
    /// Both are made when missing; the leaf is also renewed when it nears its end or when the
    /// domain has changed.
    SelfSigned { directory: PathBuf, domain: String },
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read or write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} holds no usable certificate or key")]
    Pem { path: PathBuf },
    #[error("the domain `{domain}` cannot be in a certificate")]
    Domain { domain: String },
    #[error("cannot make a certificate")]
    Generate(#[source] rcgen::Error),
    #[error("certificate and key cannot be used")]
    Config(#[source] rustls::Error),
}

/// A server configuration that is ready, and what clients need to trust it.
#[derive(Debug, Clone)]
pub struct Tls {
    pub config: Arc<ServerConfig>,
    /// The authority that clients must be told about (`NODE_EXTRA_CA_CERTS`, `SSL_CERT_FILE`);
    /// `None` for given certificates.
    pub authority: Option<PathBuf>,
}

/// Loads or makes certificates. Blocks on files.
pub fn load(source: &TlsSource) -> Result<Tls, TlsError> {
    let (certificate, key, authority) = match source {
        TlsSource::Files { certificate, key } => (certificate.clone(), key.clone(), None),
        TlsSource::SelfSigned { directory, domain } => {
            let files = authority::ensure(directory, domain)?;
            (files.leaf, files.leaf_key, Some(files.authority))
        }
    };
    Ok(Tls {
        config: Arc::new(config(&certificate, &key)?),
        authority,
    })
}

fn config(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let pem = |path: &Path| TlsError::Pem {
        path: path.to_owned(),
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|_| pem(certificate))?;
    if chain.is_empty() {
        return Err(pem(certificate));
    }
    let key_der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| pem(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(TlsError::Config)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(directory: &Path, domain: &str) -> TlsSource {
        TlsSource::SelfSigned {
            directory: directory.to_owned(),
            domain: domain.to_owned(),
        }
    }

    #[test]
    fn certificates_are_made_once_and_renewed_for_another_domain() {
        let directory = tempfile::tempdir().unwrap();
        let files = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
        let tls = load(&source(directory.path(), "box.test:8443")).unwrap();
        assert_eq!(tls.authority.unwrap(), directory.path().join("ca.pem"));
        let (ca, leaf) = (files("ca.pem"), files("leaf.pem"));
        load(&source(directory.path(), "box.test:8443")).unwrap();
        assert_eq!(
            (files("ca.pem"), files("leaf.pem")),
            (ca.clone(), leaf.clone())
        );
        load(&source(directory.path(), "other.test")).unwrap();
        assert_eq!(files("ca.pem"), ca);
        assert_ne!(files("leaf.pem"), leaf);
    }

    #[test]
    fn keys_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        load(&source(directory.path(), "box.test")).unwrap();
        for name in ["ca.key", "leaf.key"] {
            let mode = std::fs::metadata(directory.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn damaged_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        load(&source(directory.path(), "box.test")).unwrap();
        let key = directory.path().join("leaf.key");
        let certificate = directory.path().join("ca.key");
        let error = load(&TlsSource::Files {
            certificate: certificate.clone(),
            key,
        })
        .unwrap_err();
        assert!(matches!(error, TlsError::Pem { path } if path == certificate));
        assert!(load(&source(directory.path(), "bad domain")).is_err());
    }
}
