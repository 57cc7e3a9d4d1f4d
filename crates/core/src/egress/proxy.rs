//! The SOCKS5 proxy that a sandbox's connections go through.

use std::net::Ipv4Addr;

use woodfrog_types::Fault;
use woodfrog_types::network::{EgressProxy, Hidden, ProxyTls};

use super::is_domain;

/// Bytes of a user name or a password: the protocol has no more.
const CREDENTIAL_BYTES_MAX: usize = 255;
/// Bytes of the certificates.
const CA_BYTES_MAX: usize = 8192;

/// Checks what can be said without looking at the network.
pub(super) fn validate(proxy: &EgressProxy) -> Result<(), Fault> {
    let bad = |field: &str, why: &str| {
        Err(Fault::invalid(
            format!("network.egress_proxy.{field}"),
            why.to_owned(),
        ))
    };
    if address(&proxy.address).is_none() {
        return bad(
            "address",
            "must be `host:port`, where the host is a name or an IPv4 address",
        );
    }
    let fits = |text: &str| (1..=CREDENTIAL_BYTES_MAX).contains(&text.len());
    if proxy.username.as_deref().is_some_and(|name| !fits(name)) {
        return bad("username", "must have 1 to 255 bytes");
    }
    match (&proxy.username, &proxy.password) {
        (None, Some(_)) => return bad("password", "is only valid together with a user name"),
        (_, Some(Hidden::Plain(text))) if !fits(text) => {
            return bad("password", "must have 1 to 255 bytes");
        }
        (_, Some(Hidden::Plain(text))) if text == Hidden::SHOWN => {
            return bad("password", "this is what is shown instead of a password");
        }
        _ => {}
    }
    match &proxy.tls {
        Some(tls) => check_tls(tls),
        None => Ok(()),
    }
}

/// Host and port of an address.
fn address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // `parse` takes a leading `+`.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0)?;
    let valid = is_domain(host) || host.parse::<Ipv4Addr>().is_ok();
    valid.then_some((host, port))
}

fn check_tls(tls: &ProxyTls) -> Result<(), Fault> {
    if let Some(name) = &tls.server_name
        && !is_domain(name)
        && name.parse::<Ipv4Addr>().is_err()
    {
        return Err(Fault::invalid(
            "network.egress_proxy.tls.server_name",
            "must be a host name",
        ));
    }
    if let Some(pem) = &tls.ca_cert
        && (pem.len() > CA_BYTES_MAX || !pem.contains("-----BEGIN CERTIFICATE-----"))
    {
        return Err(Fault::invalid(
            "network.egress_proxy.tls.ca_cert",
            format!("must be certificates (PEM) of at most {CA_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(address: &str) -> EgressProxy {
        EgressProxy {
            address: address.to_owned(),
            username: None,
            password: None,
            tls: None,
        }
    }

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for good in ["proxy.example.com:1080", "203.0.113.7:1"] {
            assert!(validate(&proxy(good)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "proxy.example.com",
            "proxy:0",
            "proxy:+1",
            "proxy:65536",
            ":1080",
            "[::1]:1080",
            "socks5://proxy:1080",
            "a b:1",
            "user@proxy:1",
        ] {
            let fault = validate(&proxy(bad)).unwrap_err();
            let field = fault.field.as_deref();
            assert_eq!(field, Some("network.egress_proxy.address"), "{bad}");
        }
    }

    #[test]
    fn credentials_fit_the_protocol() {
        let with = |name: Option<&str>, password: Option<&str>| {
            validate(&EgressProxy {
                username: name.map(str::to_owned),
                password: password.map(|text| Hidden::Plain(text.to_owned())),
                ..proxy("p:1")
            })
        };
        let long = "x".repeat(256);
        assert!(with(Some("a"), Some(&long[1..])).is_ok());
        assert!(with(Some("a"), None).is_ok());
        for (name, password) in [
            (None, Some("p")),
            (Some("a"), Some(long.as_str())),
            (Some(long.as_str()), None),
            (Some(""), None),
            (Some("a"), Some("")),
            (Some("a"), Some(Hidden::SHOWN)),
        ] {
            let fault = with(name, password).unwrap_err();
            assert!(!format!("{fault:?}").contains("xxx"), "not told again");
        }
    }

    #[test]
    fn tls_has_a_name_and_certificates() {
        let with = |server_name: Option<&str>, ca_cert: Option<&str>| {
            let own = |text: &str| text.to_owned();
            validate(&EgressProxy {
                tls: Some(ProxyTls {
                    server_name: server_name.map(own),
                    ca_cert: ca_cert.map(own),
                }),
                ..proxy("p:1")
            })
        };
        assert!(with(Some("p.example.com"), Some("-----BEGIN CERTIFICATE-----")).is_ok());
        assert!(with(Some("a b"), None).is_err());
        assert!(with(None, Some("certainly not")).is_err());
        assert!(with(None, Some(&"x".repeat(CA_BYTES_MAX + 1))).is_err());
    }
}
