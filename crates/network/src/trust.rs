//! Whom the host trusts, when it speaks TLS for a sandbox.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// All that is spoken to servers: what is read is put into requests and answers of HTTP/1.1.
const HTTP_1: &[u8] = b"http/1.1";

/// Why a connection cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// This is no PEM, or there is no certificate in it.
    #[error("no certificate in PEM")]
    Pem,
    /// A certificate cannot be used.
    #[error("a certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// A name cannot be in a certificate.
    #[error("`{0}` cannot be the name of a server")]
    Name(String),
}

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// [`TrustError::Pem`].
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(TrustError::Pem),
    }
}

/// Makes configurations for connections to servers and to proxies.
pub(crate) struct Trust {
    extra: Vec<CertificateDer<'static>>,
    host: OnceLock<RootCertStore>,
    servers: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    pub(crate) const fn new(extra: Vec<CertificateDer<'static>>) -> Self {
        Self {
            extra,
            host: OnceLock::new(),
            servers: OnceLock::new(),
        }
    }

    /// What the host trusts, read at the first use.
    fn roots(&self) -> &RootCertStore {
        self.host.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let native = rustls_native_certs::load_native_certs();
            for error in &native.errors {
                tracing::warn!(%error, "certificates of this machine cannot be read");
            }
            // Some that machines have are too old to be of use.
            roots.add_parsable_certificates(native.certs);
            roots.add_parsable_certificates(self.extra.iter().cloned());
            roots
        })
    }

    /// For servers of hosts with header rules.
    pub(crate) fn servers(&self) -> Arc<ClientConfig> {
        let made = self.servers.get_or_init(|| {
            let mut config = client(self.roots().clone());
            config.alpn_protocols = vec![HTTP_1.to_vec()];
            Arc::new(config)
        });
        Arc::clone(made)
    }

    /// For a proxy; `None`: what the host trusts.
    pub(crate) fn proxy(
        &self,
        own: Option<&[CertificateDer<'static>]>,
    ) -> Result<Arc<ClientConfig>, TrustError> {
        let Some(own) = own else {
            return Ok(Arc::new(client(self.roots().clone())));
        };
        let mut roots = RootCertStore::empty();
        for certificate in own {
            let added = roots.add(certificate.clone());
            added.map_err(TrustError::Certificate)?;
        }
        Ok(Arc::new(client(roots)))
    }
}

fn client(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A server's name, as it is checked.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, TrustError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TrustError::Name(name.to_owned()))
}
