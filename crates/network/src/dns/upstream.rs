//! Questions to the real name servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Question};

/// How long one name server may take.
const SERVER_TIMEOUT: Duration = Duration::from_millis(2500);
/// As many as the C library uses.
const MAX_SERVERS: usize = 3;
/// Largest UDP message passed on.
pub(crate) const MAX_UDP: usize = 4096;
/// Where the host's servers are written.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How a question travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// The name servers questions are passed on to.
pub(crate) enum Upstreams {
    /// Given by the operator.
    Fixed(Vec<SocketAddr>),
    /// Those of the host's `resolv.conf`, read for every question: it may change, and it is
    /// a small file in memory.
    Host,
}

impl Upstreams {
    async fn servers(&self) -> Vec<SocketAddr> {
        match self {
            Self::Fixed(list) => list.clone(),
            Self::Host => {
                let text = tokio::fs::read_to_string(Path::new(RESOLV_CONF)).await;
                name_servers(&text.unwrap_or_default())
            }
        }
    }

    /// Passes a query on and returns the checked answer, with the id of the query.
    pub(crate) async fn ask(
        &self,
        query: &[u8],
        question: &Question,
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let mut last = io::Error::other("no name server is configured");
        for server in self.servers().await {
            let asked = timeout(SERVER_TIMEOUT, ask_one(server, query, question, transport)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(mut answer) => {
                    answer[..2].copy_from_slice(&query[..2]);
                    return Ok(answer);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The IPv4 addresses of a host name that [`crate::domain::normalise`] accepted.
    pub(crate) async fn resolve(&self, host: &str) -> io::Result<Vec<Ipv4Addr>> {
        let query = message::address_query([0, 0], host);
        let question = message::question(&query).ok_or(io::ErrorKind::InvalidInput)?;
        let mut answer = self.ask(&query, &question, Transport::Udp).await?;
        const TRUNCATED: u8 = 0x02;
        if answer[2] & TRUNCATED != 0 {
            answer = self.ask(&query, &question, Transport::Tcp).await?;
        }
        Ok(message::addresses(&answer, &question))
    }
}

/// A socket of its own per question, so that port and id are both hard to guess.
async fn ask_one(
    server: SocketAddr,
    query: &[u8],
    question: &Question,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&id);
    let valid = |answer: &[u8]| message::answers(query, question, id, answer);
    match transport {
        Transport::Udp => {
            let any: IpAddr = match server {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(server).await?;
            socket.send(&sent).await?;
            let mut buffer = vec![0; MAX_UDP];
            loop {
                let len = socket.recv(&mut buffer).await?;
                if valid(&buffer[..len]) {
                    buffer.truncate(len);
                    return Ok(buffer);
                }
            }
        }
        Transport::Tcp => {
            let mut stream = TcpStream::connect(server).await?;
            write_framed(&mut stream, &sent).await?;
            let answer = read_framed(&mut stream).await?;
            if valid(&answer) {
                Ok(answer)
            } else {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// Writes a message with its length in front, as DNS over TCP has it.
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed).await
}

/// Reads a message with its length in front (so at most 64 KiB).
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn name_servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .take(MAX_SERVERS)
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_resolv_conf() {
        let text =
            "# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.53\nnameserver ::1\nnameserver x\n";
        let servers: Vec<_> = super::name_servers(text)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(servers, vec!["127.0.0.53:53", "[::1]:53"]);
    }
}
