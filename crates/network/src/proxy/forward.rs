//! What HTTP says between two hops, and streams of which something was read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::domain;

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

/// A stream whose first bytes were read.
pub(super) struct Begun<S> {
    head: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S> Begun<S> {
    pub(super) const fn new(head: Vec<u8>, stream: S) -> Self {
        let at = 0;
        Self { head, at, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = &this.head[this.at..];
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        this.at += length;
        if this.at == this.head.len() {
            this.head = Vec::new();
            this.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Why a request is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is for another host than its connection.
    Misdirected,
    /// Its method makes the server show what it was sent, or is for proxies.
    Method,
}

/// What a client wants to speak instead of HTTP.
pub(super) fn wanted_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let protocol = request.headers().get(header::UPGRADE)?;
    let asked = tokens(request.headers()).any(|token| token.eq_ignore_ascii_case("upgrade"));
    // HTTP/2 without TLS would not be read here.
    let other = !protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    (asked && other && request.version() == Version::HTTP_11).then(|| protocol.clone())
}

/// Makes a request that came in one that goes to `host`, with `headers` set.
pub(super) fn outgoing<B>(
    request: &mut Request<B>,
    host: &str,
    headers: &HeaderMap,
) -> Result<(), Unfit> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Unfit::Method);
    }
    if !is_for(request, host) {
        return Err(Unfit::Misdirected);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
    let upgrade = wanted_upgrade(request);
    let own = request.headers_mut();
    strip_hop_by_hop(own);
    // It was answered when the body was asked for.
    own.remove(header::EXPECT);
    // The one that was looked at, whatever the client calls its own connection's.
    let named = HeaderValue::from_str(host).map_err(|_| Unfit::Misdirected)?;
    own.insert(header::HOST, named);
    for (name, value) in headers {
        own.insert(name, value.clone());
    }
    if let Some(protocol) = upgrade {
        own.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        own.insert(header::UPGRADE, protocol);
    }
    Ok(())
}

/// Whether a request is for the host that its connection is to, and says so once.
fn is_for<B>(request: &Request<B>, host: &str) -> bool {
    let mut named = request.headers().get_all(header::HOST).iter();
    let (Some(header), None) = (named.next(), named.next()) else {
        return false;
    };
    let same = |text: &str| {
        let name = match text.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) | None => text,
        };
        domain::normalise(name).is_some_and(|name| name == host)
    };
    let target = request.uri().authority();
    header.to_str().is_ok_and(same) && target.is_none_or(|target| same(target.as_str()))
}

/// Removes what belongs to one connection only.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers)
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn request(head: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/a?b=c");
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", HeaderValue::from_static("theirs"));
        headers
    }

    #[test]
    fn headers_replace_the_clients_even_if_it_calls_them_hop_by_hop() {
        let mut request = request(&[
            ("host", "A.de:80"),
            ("X-Key", "own"),
            ("x-key", "own again"),
            ("connection", "close, X-Key, Host"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]);
        outgoing(&mut request, "a.de", &headers()).unwrap();
        let all: Vec<_> = request.headers().get_all("x-key").iter().collect();
        assert_eq!(all, ["theirs"]);
        assert!(!request.headers().contains_key("connection"));
        assert!(!request.headers().contains_key("te"));
        assert_eq!(request.headers()["accept"], "*/*");
        assert_eq!(request.headers()["host"], "a.de");
        assert_eq!(request.uri(), "/a?b=c");
    }

    #[test]
    fn only_requests_for_the_host_of_the_connection_are_sent_on() {
        let unfit = |request: &mut Request<()>| outgoing(request, "a.de", &headers()).err();
        for head in [
            &[][..],
            &[("host", "b.de")],
            &[("host", "a.de"), ("host", "a.de")],
            &[("host", "a.de@b.de")],
        ] {
            assert_eq!(unfit(&mut request(head)), Some(Unfit::Misdirected));
        }
        let mut absolute = request(&[("host", "a.de")]);
        *absolute.uri_mut() = Uri::from_static("http://a.de/x");
        assert_eq!(unfit(&mut absolute), None);
        assert_eq!(absolute.uri(), "/x");
        *absolute.uri_mut() = Uri::from_static("http://b.de/x");
        assert_eq!(unfit(&mut absolute), Some(Unfit::Misdirected));
        let mut shown = request(&[("host", "a.de")]);
        *shown.method_mut() = Method::TRACE;
        assert_eq!(unfit(&mut shown), Some(Unfit::Method));
    }

    #[test]
    fn an_upgrade_is_asked_for_anew() {
        let mut request = request(&[
            ("host", "a.de"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("keep-alive", "1"),
        ]);
        outgoing(&mut request, "a.de", &headers()).unwrap();
        assert_eq!(request.headers()["connection"], "Upgrade");
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert!(!request.headers().contains_key("keep-alive"));
    }

    #[tokio::test]
    async fn what_was_read_comes_first() {
        let mut stream = Begun::new(b"abc".to_vec(), &b"def"[..]);
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&two, rest.as_str()), (b"ab", "cdef"));
    }
}
