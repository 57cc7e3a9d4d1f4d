//! Content of files between bodies and sandboxes. Where the guest hands out a descriptor, bytes go
//! between it and the socket without passing through the guest; a chunk or two is held at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::{ByteStream, FileWriter, GuestError};
use woodfrog_types::{Code, Fault};

/// Bytes that are read or written at a time.
const CHUNK: usize = 1 << 20;

/// Reads ahead by one chunk, on the threads for blocking work. A file that shrinks meanwhile cuts
/// the response off, so that nobody takes a part for the whole.
pub(crate) fn chunks(
    file: Arc<File>,
    start: u64,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let pieces = (0..length.div_ceil(CHUNK as u64)).map(move |piece| {
        let done = piece * CHUNK as u64;
        let want = usize::try_from((length - done).min(CHUNK as u64)).unwrap_or(CHUNK);
        let file = Arc::clone(&file);
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; want];
                file.read_exact_at(&mut buffer, start + done)?;
                Ok(Bytes::from(buffer))
            });
            read.await.map_err(io::Error::other)?
        }
    });
    stream::iter(pieces).buffered(2)
}

/// What the guest sends, to the end of it or of the sandbox.
pub(crate) fn arriving(
    guest: GuestLease,
    stream: ByteStream,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some((guest, stream)), |state| async move {
        let (guest, mut stream) = state?;
        let next = tokio::select! {
            next = stream.next() => next.map_err(io::Error::other),
            () = guest.ended() => Err(io::Error::other("the sandbox ended")),
        };
        match next {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), Some((guest, stream)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn cut_off(error: axum::Error) -> Fault {
    let message = "the body could not be read to its end";
    Fault::new(Code::InvalidArgument, message).because(error)
}

/// Writes a body to a file and says how long it was. Gathers chunks, and writes one while the next
/// arrives.
pub(crate) async fn receive(file: File, body: Body) -> Result<u64, Fault> {
    let file = Arc::new(file);
    let mut body = body.into_data_stream();
    let mut gathered = BytesMut::with_capacity(CHUNK);
    let mut offset = 0;
    let mut pending: Option<tokio::task::JoinHandle<io::Result<()>>> = None;
    loop {
        let chunk = body.next().await.transpose().map_err(cut_off)?;
        let ended = chunk.is_none();
        gathered.extend_from_slice(&chunk.unwrap_or_default());
        if !ended && gathered.len() < CHUNK {
            continue;
        }
        settle(pending.take()).await?;
        let bytes = std::mem::replace(&mut gathered, BytesMut::with_capacity(CHUNK)).freeze();
        let (at, file) = (offset, Arc::clone(&file));
        offset += bytes.len() as u64;
        pending = Some(tokio::task::spawn_blocking(move || {
            file.write_all_at(&bytes, at)
        }));
        if ended {
            settle(pending.take()).await?;
            return Ok(offset);
        }
    }
}

async fn settle(pending: Option<tokio::task::JoinHandle<io::Result<()>>>) -> Result<(), Fault> {
    let Some(write) = pending else { return Ok(()) };
    match write.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(write_fault(error)),
        Err(error) => Err(Fault::internal(error)),
    }
}

/// The fault for a write that failed on the host's side.
pub(crate) fn write_fault(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            let message = "the sandbox's disk is full or over its limit";
            Fault::new(Code::NoSpace, message)
        }
        _ => Fault::internal(error),
    }
}

/// Sends a body to a file that is written in-band, and says how long it was.
pub(crate) async fn receive_in_band(
    mut writer: FileWriter,
    body: Body,
    refused: impl Fn(GuestError) -> Fault,
) -> Result<u64, Fault> {
    let mut body = body.into_data_stream();
    let mut length = 0;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(cut_off)?;
        length += chunk.len() as u64;
        writer.write(&chunk).await.map_err(&refused)?;
    }
    writer.finish().await.map_err(refused)?;
    Ok(length)
}
