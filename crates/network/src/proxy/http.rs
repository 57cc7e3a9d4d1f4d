//! The `Host` header of a plain HTTP request.

use super::Peek;

/// Sent instead of the wanted answer.
pub(super) const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 44\r\n\r\nblocked by the network policy of the sandbox";

/// Finds the host in the head of a request. Two `Host` headers count as none: which one
/// the server would believe is anybody's guess. So does an absolute request target, whose
/// host outranks the header.
pub(super) fn peek(data: &[u8]) -> Peek {
    let Some(end) = data.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if plausible(data) {
            Peek::Incomplete
        } else {
            Peek::Nameless
        };
    };
    let Ok(head) = std::str::from_utf8(&data[..end]) else {
        return Peek::Nameless;
    };
    let mut lines = head.split("\r\n");
    let target = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    if !target.starts_with('/') && target != "*" {
        return Peek::Nameless;
    }
    let mut hosts = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (Some((_, value)), None) => match without_port(value.trim()) {
            "" => Peek::Nameless,
            host => Peek::Host(host.to_owned()),
        },
        _ => Peek::Nameless,
    }
}

/// Only port 80 is meant, whatever the client writes behind the name.
fn without_port(value: &str) -> &str {
    match value.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => value,
    }
}

/// Whether this may still become a request: a method first.
fn plausible(data: &[u8]) -> bool {
    const LONGEST_METHOD: usize = 24;
    let method = data.split(|b| *b == b' ').next().unwrap_or_default();
    method.len() <= LONGEST_METHOD && method.iter().all(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Peek {
        Peek::Host(name.to_owned())
    }

    #[test]
    fn finds_the_host() {
        assert_eq!(
            peek(b"GET / HTTP/1.1\r\nhOsT: a.example.com:80\r\n\r\nx"),
            host("a.example.com")
        );
        assert_eq!(peek(b"GET / HTTP/1.1\r\nHost: a.ex"), Peek::Incomplete);
        assert_eq!(peek(b""), Peek::Incomplete);
    }

    #[test]
    fn refuses_ambiguity() {
        for request in [
            &b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"[..],
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET http://evil.org/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT evil.org:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"SSH-2.0-x\r\n",
        ] {
            assert_eq!(peek(request), Peek::Nameless);
        }
    }

    #[test]
    fn forbidden_has_the_right_length() {
        let text = std::str::from_utf8(FORBIDDEN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
