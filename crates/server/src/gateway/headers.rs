//! What changes in a head between two hops.

use std::net::SocketAddr;

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};
use woodfrog_types::network::NetworkSpec;

use super::upgrade::Wanted;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Names that belong to one connection, whether `Connection` lists them or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Who sent a request, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Makes a request that came in one that goes to a port inside.
pub(super) fn outgoing(
    request: &mut Request<Body>,
    network: &NetworkSpec,
    port: u16,
    peer: Peer,
    upgrade: Option<&Wanted>,
) {
    let host = request
        .headers()
        .get(header::HOST)
        .cloned()
        .or_else(|| HeaderValue::from_str(request.uri().authority()?.as_str()).ok());
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    headers.remove(super::TRAFFIC_TOKEN);
    join_cookies(headers);
    append_forwarded_for(headers, peer);
    headers.insert(
        FORWARDED_PROTO,
        HeaderValue::from_static(match peer.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }),
    );
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host.clone());
        headers.insert(header::HOST, host);
    }
    if let Some(masked) = masked_host(network, port) {
        headers.insert(header::HOST, masked);
    }
    if let Some(wanted) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, wanted.protocol.clone());
    }
}

fn masked_host(network: &NetworkSpec, port: u16) -> Option<HeaderValue> {
    let mask = network.mask_request_host.as_deref()?;
    HeaderValue::from_str(&mask.replace("${PORT}", &port.to_string())).ok()
}

fn append_forwarded_for(headers: &mut HeaderMap, peer: Peer) {
    let address = peer.address.ip().to_canonical().to_string();
    let before = headers
        .get(FORWARDED_FOR)
        .and_then(|value| value.to_str().ok());
    let value = before.map_or(address.clone(), |before| format!("{before}, {address}"));
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// HTTP/2 may split cookies into several fields; HTTP/1 must not.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().count() < 2 {
        return;
    }
    let parts: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Removes what belongs to one connection only.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer {
            address: "192.0.2.7:1".parse().unwrap(),
            scheme: Scheme::Https,
        }
    }

    #[test]
    fn a_head_is_rewritten_for_the_next_hop() {
        let mut request = Request::builder()
            .uri("https://3000-sb1.box.test/a?b=c")
            .version(Version::HTTP_2)
            .header("connection", "x-secret, close")
            .header("x-secret", "1")
            .header("te", "trailers")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-forwarded-for", "198.51.100.1")
            .header("e2b-traffic-access-token", "t")
            .body(Body::empty())
            .unwrap();
        outgoing(&mut request, &NetworkSpec::default(), 3000, peer(), None);
        assert_eq!(request.uri(), "/a?b=c");
        let text = |name: &str| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        assert_eq!(text("host"), Some("3000-sb1.box.test"));
        assert_eq!(text("cookie"), Some("a=1; b=2"));
        assert_eq!(text("x-forwarded-for"), Some("198.51.100.1, 192.0.2.7"));
        assert_eq!(text("x-forwarded-proto"), Some("https"));
        for gone in ["connection", "x-secret", "te", "e2b-traffic-access-token"] {
            assert_eq!(text(gone), None, "{gone}");
        }
    }

    #[test]
    fn hosts_are_masked() {
        let network = NetworkSpec {
            mask_request_host: Some("localhost:${PORT}".into()),
            ..NetworkSpec::default()
        };
        let mut request = Request::builder()
            .uri("/")
            .header("host", "a.test")
            .body(Body::empty())
            .unwrap();
        outgoing(&mut request, &network, 8080, peer(), None);
        assert_eq!(request.headers()["host"], "localhost:8080");
        assert_eq!(request.headers()["x-forwarded-host"], "a.test");
    }
}
