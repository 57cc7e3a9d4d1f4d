//! Content of files, through a descriptor where that is safe, else in-band.

use std::fs::File;

use bytes::Bytes;
use woodfrog_guest_proto::{
    Empty, EntryInfo, EntryReply, Frame, OpenMode, OpenRequest, PathRequest, ReadRequest, Request,
    WriteMode, WriteRequest, parse_json,
};

use crate::{GuestClient, GuestError, fd, link::Link};

/// An opened file of the sandbox.
pub enum FileRead {
    /// The file itself. Offset and length of the request are the caller's to apply.
    File { file: File, entry: EntryInfo },
    /// Bytes from the requested offset on.
    Stream {
        stream: ByteStream,
        entry: EntryInfo,
    },
}

/// Content arriving in-band.
pub struct ByteStream {
    link: Link,
    offset: u64,
    left: u64,
    ended: bool,
}

impl ByteStream {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GuestError> {
        if self.ended {
            return Ok(None);
        }
        match self.link.recv().await? {
            Frame::Data { offset, bytes, .. } if offset == self.offset => {
                let breach = || GuestError::Protocol("more bytes than asked for".to_owned());
                self.left = self
                    .left
                    .checked_sub(bytes.len() as u64)
                    .ok_or_else(breach)?;
                self.offset += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Frame::End(_) => {
                self.ended = true;
                Ok(None)
            }
            _ => Err(GuestError::Protocol(
                "not part of a file's content".to_owned(),
            )),
        }
    }
}

/// Content on its way to a file. Dropping it gives up: an atomic write then changes nothing.
pub struct FileWriter {
    link: Link,
    sent: u64,
}

impl FileWriter {
    /// Sends bytes. Must not be cancelled half-way if the writer is to be used again.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), GuestError> {
        self.link.send_data(self.sent, bytes).await?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Completes the file.
    pub async fn finish(mut self) -> Result<EntryInfo, GuestError> {
        self.link.send_end(&Empty {}).await?;
        Ok(self.link.end::<EntryReply>().await?.entry)
    }
}

impl GuestClient {
    /// Opens a regular file for reading. The descriptor is passed where its file system is
    /// trusted, otherwise (`/proc` for one) the content is streamed.
    pub async fn read_file(&self, request: ReadRequest) -> Result<FileRead, GuestError> {
        match self.open_file(request.at.clone(), OpenMode::Read).await {
            Ok((file, entry)) => Ok(FileRead::File { file, entry }),
            Err(GuestError::Descriptor(_)) => {
                let (stream, entry) = self.read_stream(request).await?;
                Ok(FileRead::Stream { stream, entry })
            }
            Err(e) => Err(e),
        }
    }

    /// Reads in-band.
    pub async fn read_stream(
        &self,
        request: ReadRequest,
    ) -> Result<(ByteStream, EntryInfo), GuestError> {
        self.in_time(async {
            let offset = request.offset;
            let left = request.length.unwrap_or(u64::MAX);
            let mut link = self.open(&Request::Read(request)).await?;
            let reply: EntryReply = link.reply().await?;
            Ok((
                ByteStream {
                    link,
                    offset,
                    left,
                    ended: false,
                },
                reply.entry,
            ))
        })
        .await
    }

    /// Writes in-band; errors of opening show at the first write or at the end.
    pub async fn write_file(&self, request: WriteRequest) -> Result<FileWriter, GuestError> {
        let link = self.in_time(self.open(&Request::Write(request))).await?;
        Ok(FileWriter { link, sent: 0 })
    }

    /// Writes a small file in one go.
    pub async fn write_all(
        &self,
        request: WriteRequest,
        bytes: &[u8],
    ) -> Result<EntryInfo, GuestError> {
        self.in_time(async {
            let mut writer = self.write_file(request).await?;
            writer.write(bytes).await?;
            writer.finish().await
        })
        .await
    }

    /// A descriptor for emptied content, or `Descriptor` when [`GuestClient::write_file`] has to
    /// be used.
    pub async fn create_file(
        &self,
        request: WriteRequest,
    ) -> Result<(File, EntryInfo), GuestError> {
        if request.replace == WriteMode::Atomic {
            return Err(GuestError::Descriptor("atomic writes go in-band"));
        }
        let open = OpenMode::Write {
            mode: request.mode,
            metadata: request.metadata,
        };
        self.open_file(request.at, open).await
    }

    async fn open_file(
        &self,
        at: PathRequest,
        open: OpenMode,
    ) -> Result<(File, EntryInfo), GuestError> {
        self.in_time(async {
            let mut link = self.open(&Request::Open(OpenRequest { at, open })).await?;
            let (frame, fd) = link.recv_with_fd().await?;
            let Frame::Reply(payload) = frame else {
                return Err(GuestError::Protocol("expected a reply".to_owned()));
            };
            let reply: EntryReply = parse_json(&payload)?;
            Ok((fd::regular_file(fd)?, reply.entry))
        })
        .await
    }
}
