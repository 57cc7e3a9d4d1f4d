//! How connections of a sandbox get to where they are allowed to go.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::domain;
use crate::policy::PolicyError;
use crate::trust::certificates;

/// Bytes of a user name or a password: the protocol has no more.
const CREDENTIAL_BYTES_MAX: usize = 255;

/// The way of TCP connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// The host's own.
    #[default]
    Direct,
    /// Through a proxy.
    Proxy(Arc<SocksProxy>),
    /// Through a proxy that the server is told later. Connections wait until then.
    Unknown,
}

/// A SOCKS5 proxy. Its password does not show in its `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SocksProxy {
    pub(crate) host: ProxyHost,
    pub(crate) port: u16,
    /// User name and password.
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) tls: Option<ProxyTls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHost {
    Address(Ipv4Addr),
    Name(String),
}

/// TLS to a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTls {
    /// What its certificate must be for.
    pub(crate) server_name: String,
    /// What its certificate must descend from; `None`: what the host trusts.
    pub(crate) roots: Option<Vec<CertificateDer<'static>>>,
}

impl SocksProxy {
    /// A proxy at `host:port`. A user name may come without a password.
    ///
    /// # Errors
    /// With what is wrong, and never with the password.
    pub fn new(
        address: &str,
        username: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, PolicyError> {
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok().filter(|p| *p != 0)?)))
            .ok_or_else(|| invalid("the address is not `host:port`"))?;
        let host = match host.parse() {
            Ok(address) => ProxyHost::Address(address),
            Err(_) => domain::normalise(host)
                .map(ProxyHost::Name)
                .ok_or_else(|| invalid("the address has no host name and no IPv4 address"))?,
        };
        let (name, secret) = (username.unwrap_or_default(), password.unwrap_or_default());
        if name.len() > CREDENTIAL_BYTES_MAX || secret.len() > CREDENTIAL_BYTES_MAX {
            return Err(invalid("user name and password have at most 255 bytes"));
        }
        Ok(Self {
            host,
            port,
            credentials: username.map(|_| (name.to_owned(), secret.to_owned())),
            tls: None,
        })
    }

    /// The same proxy, over TLS. `server_name` and the certificates `ca` (PEM) replace the
    /// address's host and what this host trusts.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn over_tls(
        self,
        server_name: Option<&str>,
        ca: Option<&str>,
    ) -> Result<Self, PolicyError> {
        let roots = ca.map(|pem| certificates(pem.as_bytes())).transpose();
        let tls = ProxyTls {
            server_name: server_name.map_or_else(|| self.host.to_string(), str::to_owned),
            roots: roots.map_err(|_| invalid("the CA certificate is not one in PEM"))?,
        };
        Ok(Self {
            tls: Some(tls),
            ..self
        })
    }
}

impl fmt::Display for ProxyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for SocksProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for SocksProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocksProxy({self})")
    }
}

fn invalid(reason: &str) -> PolicyError {
    PolicyError::Invalid {
        field: "egressProxy",
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_a_host_and_a_port() {
        let proxy = SocksProxy::new("Proxy.example.com:1080", Some("ann"), Some("secret-1"));
        let proxy = proxy.unwrap();
        assert_eq!(format!("{proxy:?}"), "SocksProxy(proxy.example.com:1080)");
        let tls = proxy.over_tls(None, None).unwrap().tls.unwrap();
        assert_eq!(tls.server_name, "proxy.example.com");
        for bad in ["", "a", "a:", "a:0", "[::1]:1", "a b:1"] {
            assert!(SocksProxy::new(bad, None, None).is_err(), "{bad}");
        }
        let plain = SocksProxy::new("192.0.2.1:1", None, None).unwrap();
        assert!(plain.over_tls(None, Some("no certificate")).is_err());
    }
}
