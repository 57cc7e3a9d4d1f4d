//! The client's side of SOCKS5 (RFC 1928) with user name and password (RFC 1929).

use std::io;
use std::net::SocketAddrV4;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const NO_CREDENTIALS: u8 = 0;
const PASSWORD: u8 = 2;
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Where the proxy is to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination<'a> {
    Address(SocketAddrV4),
    /// The proxy looks the name up.
    Name(&'a str, u16),
}

/// Why a proxy did not connect.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocksError {
    #[error("the connection to the proxy broke")]
    Io(#[from] io::Error),
    #[error("it does not speak SOCKS5")]
    Protocol,
    #[error("it wants credentials, or others than it was given")]
    Credentials,
    #[error("it refused the connection: {0}")]
    Refused(&'static str),
}

/// Has the proxy connect; what follows on the stream is the connection's.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: Option<&(String, String)>,
    destination: Destination<'_>,
) -> Result<(), SocksError> {
    let offered: &[u8] = match credentials {
        Some(_) => &[VERSION, 2, NO_CREDENTIALS, PASSWORD],
        None => &[VERSION, 1, NO_CREDENTIALS],
    };
    say(stream, offered).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match (answer, credentials) {
        ([VERSION, NO_CREDENTIALS], _) => {}
        ([VERSION, PASSWORD], Some((name, password))) => log_in(stream, name, password).await?,
        ([VERSION, _], _) => return Err(SocksError::Credentials),
        _ => return Err(SocksError::Protocol),
    }
    say(stream, &request(destination)?).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [VERSION, reply, _, kind] = head else {
        return Err(SocksError::Protocol);
    };
    if reply != 0 {
        return Err(SocksError::Refused(reason(reply)));
    }
    // Where it connected from, which does not matter.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(stream.read_u8().await?),
        _ => return Err(SocksError::Protocol),
    };
    let mut bound = vec![0; length + 2];
    stream.read_exact(&mut bound).await?;
    Ok(())
}

/// Over TLS what is written is sent when it is flushed.
async fn say<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    stream.write_all(message).await?;
    stream.flush().await
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    name: &str,
    password: &str,
) -> Result<(), SocksError> {
    let mut message = vec![PASSWORD_VERSION];
    for text in [name, password] {
        message.push(u8::try_from(text.len()).map_err(|_| SocksError::Credentials)?);
        message.extend(text.as_bytes());
    }
    say(stream, &message).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match answer {
        [_, 0] => Ok(()),
        _ => Err(SocksError::Credentials),
    }
}

fn request(destination: Destination<'_>) -> Result<Vec<u8>, SocksError> {
    let mut message = vec![VERSION, CONNECT, 0];
    let port = match destination {
        Destination::Address(address) => {
            message.push(IPV4);
            message.extend(address.ip().octets());
            address.port()
        }
        Destination::Name(name, port) => {
            message.push(NAME);
            message.push(u8::try_from(name.len()).map_err(|_| SocksError::Protocol)?);
            message.extend(name.as_bytes());
            port
        }
    };
    message.extend(port.to_be_bytes());
    Ok(message)
}

const fn reason(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "an unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Talks to a proxy that says these things, and gives what it was told.
    async fn talk(
        credentials: Option<(&str, &str)>,
        destination: Destination<'_>,
        proxy: &[u8],
    ) -> (Result<(), SocksError>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(proxy).await.unwrap();
        theirs.shutdown().await.unwrap();
        let credentials = credentials.map(|(n, p)| (n.to_owned(), p.to_owned()));
        let result = connect(&mut ours, credentials.as_ref(), destination).await;
        drop(ours);
        let mut told = Vec::new();
        theirs.read_to_end(&mut told).await.unwrap();
        (result, told)
    }

    #[tokio::test]
    async fn it_speaks_as_the_standard_says() {
        let address = Destination::Address("1.2.3.4:258".parse().unwrap());
        let good = [5, 0, 5, 0, 0, 1, 9, 9, 9, 9, 0, 1];
        let (result, told) = talk(None, address, &good).await;
        result.unwrap();
        assert_eq!(told, [5, 1, 0, 5, 1, 0, 1, 1, 2, 3, 4, 1, 2]);
        let good = [5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 1];
        let (result, told) = talk(Some(("ab", "c")), Destination::Name("h", 80), &good).await;
        result.unwrap();
        let expected = [
            &[5, 2, 0, 2][..],
            &[1, 2, b'a', b'b', 1, b'c'],
            &[5, 1, 0, 3, 1, b'h', 0, 80],
        ];
        assert_eq!(told, expected.concat());
    }

    #[tokio::test]
    async fn whatever_a_proxy_says_is_an_error_if_it_is_wrong() {
        let to = Destination::Name("h", 80);
        for (said, why) in [
            (&b"HTTP/1.1 400 Bad"[..], "does not speak"),
            (&[5, 255], "credentials"),
            (&[5, 2, 1, 1], "credentials"),
            (&[5, 0, 5, 5, 0, 1], "refused the connection: connection"),
            (&[5, 0, 5, 0, 0, 9], "does not speak"),
            (&[5, 0, 5, 0, 0, 1, 1], "broke"),
            (&[], "broke"),
        ] {
            let error = talk(Some(("a", "b")), to, said).await.0.unwrap_err();
            assert!(error.to_string().contains(why), "{said:?}: {error}");
        }
        let error = talk(None, to, &[5, 2]).await.0.unwrap_err();
        assert!(matches!(error, SocksError::Credentials), "{error}");
    }
}
