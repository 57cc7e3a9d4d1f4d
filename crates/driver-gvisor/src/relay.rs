//! Connections to the guest: TCP into the sandbox's network, a unix socket towards the engine.
//!
//! gVisor's unix sockets cannot be seen from outside, and no descriptor comes out of it. What the
//! engine holds is one end of a pair; a task copies between the other and the guest. A `Connect`,
//! which is answered with a descriptor, is the exception: the TCP connection itself is what is passed.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use woodfrog_guest_proto::tcp::WELCOME;
use woodfrog_guest_proto::{
    Configure, Decoder, Frame, FrameKind, HEADER_LEN, Request, encode, encode_json, parse_json,
};
use woodfrog_linux::fdpass::send_with_fds;
use woodfrog_sandbox::{DriverError, Result};

use crate::bundle::GUEST_PORT;
use crate::instance::Instance;

/// How long the guest may take until it takes connections.
const LISTEN_MAX: Duration = Duration::from_secs(10);
/// How long a paused one may take: it is the caller who gives up.
const PAUSED_MAX: Duration = Duration::from_secs(24 * 3600);
/// One attempt: before the sandbox has a network nobody answers at all.
const ATTEMPT_MAX: Duration = Duration::from_millis(250);
/// How long the guest's first answer may take, at the first attempt.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes in flight each way.
const BUFFER: usize = 64 << 10;
/// How long the other end of the pair may take to say what it is for.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long the guest may take to connect to a port.
const PORT_MAX: Duration = Duration::from_secs(60);

/// A new connection to the guest; waits until it takes one. A paused guest does so once it goes on.
pub(crate) async fn connect(instance: &Arc<Instance>) -> Result<UnixStream> {
    let failed = |error: io::Error| DriverError::Guest {
        id: instance.note.id.clone(),
        detail: error.to_string(),
    };
    let room = Arc::clone(&instance.room).try_acquire_owned();
    let room = room.map_err(|_| failed(io::Error::other("too many connections are open")))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let instance = Arc::clone(instance);
    if instance.is_paused() {
        tokio::spawn(async move {
            if let Ok(guest) = reach(&instance, PAUSED_MAX).await {
                relay(ours, guest, room).await;
            }
        });
    } else {
        let guest = reach(&instance, LISTEN_MAX).await.map_err(failed)?;
        tokio::spawn(relay(ours, guest, room));
    }
    Ok(theirs)
}

/// Tells the guest of a copy its own host name: the one in its memory is its original's.
pub(crate) async fn rename_host(instance: &Arc<Instance>, hostname: &str) -> Result<()> {
    let failed = |error: io::Error| DriverError::Guest {
        id: instance.note.id.clone(),
        detail: error.to_string(),
    };
    let request = Request::Configure(Configure {
        hostname: Some(hostname.to_owned()),
        ..Configure::default()
    });
    let request = encode_json(FrameKind::Request, &request);
    let request = request.map_err(|e| failed(io::Error::other(e)))?;
    let said = async {
        let mut guest = reach(instance, LISTEN_MAX).await?;
        guest.write_all(&request).await?;
        match exact_frame(&mut guest).await? {
            (FrameKind::End, _) => Ok(()),
            (_, answer) => Err(io::Error::other(
                String::from_utf8_lossy(answer.get(HEADER_LEN..).unwrap_or_default()).into_owned(),
            )),
        }
    };
    match timeout(LISTEN_MAX, said).await {
        Ok(said) => said.map_err(failed),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// Connects and says the secret.
async fn reach(instance: &Instance, patience: Duration) -> io::Result<TcpStream> {
    let address = SocketAddr::from((instance.note.address, GUEST_PORT));
    let secret = hex::decode(&instance.note.secret).map_err(io::Error::other)?;
    let deadline = Instant::now() + patience;
    let mut answers = [ANSWER_MAX, 2 * ANSWER_MAX, 4 * ANSWER_MAX].into_iter();
    loop {
        if instance.has_ended()? {
            let ended = "the sandbox has ended";
            return Err(io::Error::new(io::ErrorKind::NotFound, ended));
        }
        let answered = timeout(ATTEMPT_MAX, TcpStream::connect(address)).await;
        // A guest under load may answer late, and a connection from the moment of a restore may
        // be lost: each next attempt waits longer.
        if let Ok(Ok(stream)) = answered
            && let Ok(stream) = {
                let answer_max = answers.next().unwrap_or(LISTEN_MAX);
                timeout(answer_max, introduce(stream, &secret)).await
            }
        {
            match stream {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                Err(_) => {}
            }
        }
        if Instant::now() >= deadline {
            let silent = "nobody takes connections at its port";
            return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn introduce(mut stream: TcpStream, secret: &[u8]) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.write_all(secret).await?;
    match stream.read_u8().await? {
        WELCOME => Ok(stream),
        _ => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "what answers is not the guest",
        )),
    }
}

/// Until both directions have ended.
async fn relay(mut engine: UnixStream, mut guest: TcpStream, _room: OwnedSemaphorePermit) {
    let Ok(Ok((head, port))) = timeout(REQUEST_MAX, first_frame(&mut engine)).await else {
        return;
    };
    if guest.write_all(&head).await.is_err() {
        return;
    }
    if port {
        let _ = timeout(PORT_MAX, hand_over(engine, guest)).await;
        return;
    }
    // A side that breaks off is the other's end, and nobody is to be told of it here.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut engine, &mut guest, BUFFER, BUFFER).await;
}

/// What the engine said until its first frame was complete, and whether that asks for a port.
async fn first_frame(engine: &mut UnixStream) -> io::Result<(Vec<u8>, bool)> {
    let (mut decoder, mut head) = (Decoder::new(), Vec::new());
    loop {
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            let asks = match frame {
                Frame::Request(payload) => {
                    matches!(parse_json(&payload), Ok(Request::Connect { .. }))
                }
                _ => false,
            };
            return Ok((head, asks));
        }
        // As much as may belong to it: the decoder tells.
        let mut bytes = vec![0; decoder.wanted().max(HEADER_LEN)];
        let read = engine.read(&mut bytes).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.feed(&bytes[..read]);
        head.extend_from_slice(&bytes[..read]);
    }
}

/// Passes the guest's two frames on, and with the first the connection, which is the port's then.
async fn hand_over(mut engine: UnixStream, mut guest: TcpStream) -> io::Result<()> {
    let (kind, reply) = exact_frame(&mut guest).await?;
    if kind != FrameKind::Reply {
        return engine.write_all(&reply).await;
    }
    let (_, end) = exact_frame(&mut guest).await?;
    let sent = engine
        .async_io(Interest::WRITABLE, || {
            send_with_fds(&engine, &reply, &[guest.as_fd()])
        })
        .await?;
    engine.write_all(&reply[sent..]).await?;
    engine.write_all(&end).await
}

/// One frame and not a byte more.
async fn exact_frame(guest: &mut TcpStream) -> io::Result<(FrameKind, Vec<u8>)> {
    let mut decoder = Decoder::new();
    let mut wanted = HEADER_LEN;
    loop {
        let mut bytes = vec![0; wanted];
        guest.read_exact(&mut bytes).await?;
        decoder.feed(&bytes);
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            let (kind, payload) = match frame {
                Frame::Reply(payload) => (FrameKind::Reply, payload),
                Frame::End(payload) => (FrameKind::End, payload),
                Frame::Error(payload) => (FrameKind::Error, payload),
                Frame::Request(_) | Frame::Data { .. } | Frame::Event(_) => {
                    return Err(io::Error::other("not an answer"));
                }
            };
            let frame = encode(kind, &payload).map_err(io::Error::other)?;
            return Ok((kind, frame));
        }
        wanted = decoder.wanted();
    }
}
