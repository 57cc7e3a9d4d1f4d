//! Connections over TCP, for a sandbox whose unix sockets the host cannot reach.
//!
//! Whoever connects first says a secret that only the host knows: every process inside, and every
//! user of the host, could connect. The listener never closes and shares its port with nobody, so
//! that nobody inside can take its place.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    rc::Rc,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};
use woodfrog_guest_proto::tcp::{SECRET_LEN, WELCOME};

use crate::guest::Guest;
use crate::serve::Server;

/// Connections the kernel keeps until they are taken.
const BACKLOG: i32 = 128;
/// A connection must have said the secret within this.
const SECRET_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes in flight each way.
const BUFFER: usize = 64 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Front {
    listener: TcpListener,
    secret: [u8; SECRET_LEN],
}

impl Front {
    /// Listens, and takes the secret from its file, which goes: nothing that runs later sees it.
    pub(crate) fn new(port: u16, secret: &Path) -> io::Result<Self> {
        let said = std::fs::read(secret)?;
        std::fs::remove_file(secret)?;
        let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "not a secret");
        let secret = said.try_into().map_err(invalid)?;
        // Without SO_REUSEADDR, which would let others bind the same port at another address.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        listen(&socket, BACKLOG)?;
        let listener = TcpListener::from_std(std::net::TcpListener::from(socket))?;
        Ok(Self { listener, secret })
    }

    /// Serves for ever.
    pub(crate) async fn serve(self, guest: Rc<Guest>) {
        let server = Server::new(guest);
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Before it has said the secret, too: strangers cannot take more than this either.
            let Some(slot) = server.slot() else {
                continue;
            };
            let (server, secret) = (server.clone(), self.secret);
            tokio::task::spawn_local(async move {
                let _slot = slot;
                // A stranger is told nothing.
                let _ = connection(&server, stream, secret).await;
            });
        }
    }
}

async fn connection(
    server: &Server,
    mut stream: TcpStream,
    secret: [u8; SECRET_LEN],
) -> io::Result<()> {
    let mut said = [0; SECRET_LEN];
    tokio::time::timeout(SECRET_TIMEOUT, stream.read_exact(&mut said)).await??;
    if !same(&said, &secret) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_nodelay(true)?;
    stream.write_all(&[WELCOME]).await?;
    let (here, there) = UnixStream::pair()?;
    let ((), copied) = tokio::join!(server.serve_without_descriptors(there), copy(here, stream),);
    copied
}

/// Owns both, so that a peer that breaks off is the end of what is served, too.
async fn copy(mut here: UnixStream, mut stream: TcpStream) -> io::Result<()> {
    tokio::io::copy_bidirectional_with_sizes(&mut here, &mut stream, BUFFER, BUFFER)
        .await
        .map(drop)
}

/// Takes the same time wherever they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}
