//! Writing a body into a descriptor.

use std::fs::File;
use std::io::{self, Write as _};

use bytes::Bytes;
use http::StatusCode;
use tokio::task::JoinHandle;
use woodfrog_guest_client::FileWriter;

use super::CHUNK;
use crate::envd::rest::RestError;

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// A file that takes bytes in order. Collects until a hop to a blocking thread is worth it.
pub(super) struct Sink {
    target: Target,
    pending: Vec<Bytes>,
    pending_len: usize,
    /// For the text of "disk full".
    announced: Option<u64>,
}

enum Target {
    /// On a disk that we may write to ourselves.
    Disk(File),
    /// A thread writes while more is received.
    Busy(JoinHandle<(File, io::Result<()>)>),
    /// Through the guest.
    Band(FileWriter),
    /// An earlier write failed.
    Lost,
}

impl Sink {
    pub(super) fn disk(file: File, announced: Option<u64>) -> Self {
        Self::new(Target::Disk(file), announced)
    }

    pub(super) fn band(writer: FileWriter, announced: Option<u64>) -> Self {
        Self::new(Target::Band(writer), announced)
    }

    fn new(target: Target, announced: Option<u64>) -> Self {
        Self {
            target,
            pending: Vec::new(),
            pending_len: 0,
            announced,
        }
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), RestError> {
        if let Target::Band(writer) = &mut self.target {
            let written = writer.write(&bytes).await;
            return written.map_err(super::not_opened);
        }
        self.pending_len += bytes.len();
        self.pending.push(bytes);
        if self.pending_len >= CHUNK {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Completes the file.
    pub(super) async fn finish(mut self) -> Result<(), RestError> {
        self.flush().await?;
        match self.target {
            Target::Band(writer) => {
                writer.finish().await.map_err(super::not_opened)?;
            }
            Target::Busy(_) => drop(self.idle().await?),
            Target::Disk(_) | Target::Lost => {}
        }
        Ok(())
    }

    /// Hands what is pending to a thread, once the one before is done.
    async fn flush(&mut self) -> Result<(), RestError> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_len = 0;
        if pending.is_empty() {
            return Ok(());
        }
        let mut file = self.idle().await?;
        self.target = Target::Busy(tokio::task::spawn_blocking(move || {
            let result = pending.iter().try_for_each(|bytes| file.write_all(bytes));
            (file, result)
        }));
        Ok(())
    }

    /// Takes the file out when nobody writes to it.
    async fn idle(&mut self) -> Result<File, RestError> {
        match std::mem::replace(&mut self.target, Target::Lost) {
            Target::Disk(file) => Ok(file),
            Target::Busy(write) => {
                let (file, result) = write.await.map_err(|_| failed("a writer stopped"))?;
                result.map_err(|error| self.not_written(&error))?;
                Ok(file)
            }
            Target::Band(_) | Target::Lost => Err(failed("an earlier write failed")),
        }
    }

    fn not_written(&self, error: &io::Error) -> RestError {
        match error.raw_os_error() {
            Some(ENOSPC | EDQUOT) => {
                let full = "not enough disk space available";
                let text = match self.announced {
                    Some(bytes) => format!("attempted to write {bytes} bytes: {full}"),
                    None => full.to_owned(),
                };
                RestError::new(StatusCode::INSUFFICIENT_STORAGE, text)
            }
            _ => failed(error),
        }
    }
}

fn failed(why: impl std::fmt::Display) -> RestError {
    let text = format!("error writing file: {why}");
    RestError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}
