//! Our standard input as a stream.

use std::io::{self, Read};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait to be taken.
const WAITING_MAX: usize = 4;

/// What comes on standard input, to its end. It is read by a thread of its own, which may stay in
/// a read that never returns; it does not hold the exit. To be called once.
pub(super) fn chunks() -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (chunks, waiting) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            let chunk = match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let ended = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || ended {
                return;
            }
        }
    });
    stream::unfold(waiting, |mut waiting| async move {
        Some((waiting.recv().await?, waiting))
    })
}
