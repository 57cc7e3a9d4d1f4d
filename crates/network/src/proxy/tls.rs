//! The server name in a TLS ClientHello.

use super::Peek;

/// A fatal `access_denied` alert.
pub(super) const DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Finds the server name; the hello may be spread over several records.
pub(super) fn peek(data: &[u8]) -> Peek {
    match hello(data) {
        Hello::Incomplete => Peek::Incomplete,
        Hello::Foreign => Peek::Nameless,
        Hello::Whole(body) => server_name(&body).map_or(Peek::Nameless, Peek::Host),
    }
}

enum Hello {
    Incomplete,
    Foreign,
    Whole(Vec<u8>),
}

fn hello(mut data: &[u8]) -> Hello {
    let mut joined = Vec::new();
    loop {
        match data {
            [HANDSHAKE, 3, _, high, low, rest @ ..] => {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                if len == 0 {
                    return Hello::Foreign;
                }
                joined.extend(&rest[..len.min(rest.len())]);
                data = rest.get(len..).unwrap_or_default();
            }
            [] | [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => {
                return if joined.first().is_none_or(|kind| *kind == CLIENT_HELLO) {
                    Hello::Incomplete
                } else {
                    Hello::Foreign
                };
            }
            _ => return Hello::Foreign,
        }
        if let [kind, a, b, c, body @ ..] = joined.as_slice() {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if *kind != CLIENT_HELLO {
                return Hello::Foreign;
            }
            if let Some(body) = body.get(..len) {
                return Hello::Whole(body.to_vec());
            }
        }
    }
}

fn server_name(body: &[u8]) -> Option<String> {
    const VERSION_AND_RANDOM: usize = 34;
    let rest = body.get(VERSION_AND_RANDOM..)?;
    let (_session, rest) = short(rest)?;
    let (_ciphers, rest) = long(rest)?;
    let (_compression, rest) = short(rest)?;
    let (mut extensions, _) = long(rest)?;
    while let [a, b, rest @ ..] = extensions {
        let (value, next) = long(rest)?;
        if u16::from_be_bytes([*a, *b]) == SERVER_NAME {
            let (list, _) = long(value)?;
            let [HOST_NAME, name @ ..] = list else {
                return None;
            };
            let (name, _) = long(name)?;
            return String::from_utf8(name.to_vec()).ok();
        }
        extensions = next;
    }
    None
}

/// A vector with a length of one byte, and what follows.
fn short(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// A vector with a length of two bytes, and what follows.
fn long(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_len(len: usize, data: &[u8]) -> Vec<u8> {
        let mut out = data.len().to_be_bytes()[8 - len..].to_vec();
        out.extend(data);
        out
    }

    /// A hello for `name`, cut into records of at most `record` bytes.
    fn client_hello(name: &str, record: usize) -> Vec<u8> {
        let mut entry = vec![HOST_NAME];
        entry.extend(with_len(2, name.as_bytes()));
        let mut extensions = vec![0, 23, 0, 0, 0, 0];
        extensions.extend(with_len(2, &with_len(2, &entry)));
        let mut body = vec![3; 34];
        body.extend(with_len(1, &[1; 32]));
        body.extend(with_len(2, &[0x13, 1]));
        body.extend(with_len(1, &[0]));
        body.extend(with_len(2, &extensions));
        let mut message = vec![CLIENT_HELLO];
        message.extend(with_len(3, &body));
        message
            .chunks(record)
            .flat_map(|part| [vec![HANDSHAKE, 3, 1], with_len(2, part)].concat())
            .collect()
    }

    #[test]
    fn finds_the_name_in_any_records() {
        for record in [7, 50, 10_000] {
            let hello = client_hello("api.example.com", record);
            assert_eq!(peek(&hello), Peek::Host("api.example.com".into()));
            for cut in 0..hello.len() {
                assert_eq!(peek(&hello[..cut]), Peek::Incomplete, "{record} {cut}");
            }
        }
    }

    #[test]
    fn other_protocols_are_nameless() {
        assert_eq!(peek(b"GET / HTTP/1.1\r\n"), Peek::Nameless);
        assert_eq!(peek(&[HANDSHAKE, 3, 1, 0, 0]), Peek::Nameless);
        assert_eq!(
            peek(&[HANDSHAKE, 3, 1, 0, 5, 2, 0, 0, 1, 0]),
            Peek::Nameless
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            peek(&data);
            let mut hello = vec![HANDSHAKE, 3, 1];
            hello.extend(with_len(2, &[&[CLIENT_HELLO][..], &with_len(3, &data)].concat()));
            peek(&hello);
        }
    }
}
