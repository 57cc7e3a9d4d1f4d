//! Many files at once: a tar archive, unpacked as it arrives.

use std::io;

use axum::body::Body;
use axum::extract::Query;
use axum::routing::post;
use axum::{Extension, Json, Router};
use futures_util::TryStreamExt;
use http::{HeaderMap, header};
use tokio::runtime::Handle;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::GuestError;
use woodfrog_guest_client::proto::WriteRequest;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::agent::fs::{DirectoryQuery, Unpacked};

use super::place::{at, of};
use super::{failed, make_directory};
use crate::agent::AgentHost;
use crate::agent::problem::{Failure, Result};
use crate::transfer::write_fault;

mod archive;

use archive::{Content, Item};

/// Paths that an answer lists.
const LISTED_MAX: usize = 1024;
/// Bytes that go to the guest at a time, where it takes no descriptors.
const PIECE: usize = 256 << 10;

pub(super) fn routes() -> Router {
    Router::new().route("/v1/fs/upload-batch", post(upload))
}

/// Unpacks below the given directory. What was unpacked before something fails stays.
async fn upload(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<DirectoryQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Unpacked>> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.to_ascii_lowercase().starts_with("application/x-tar") {
        return Err(Failure::invalid("content-type must be application/x-tar"));
    }
    let target = at(query.path.as_deref().unwrap_or("."))?;
    let guest = host.guest().await?;
    let root = make_directory(&guest, target).await?;
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let bytes = body.into_data_stream().map_err(io::Error::other);
    let reader = SyncIoBridge::new(StreamReader::new(bytes));
    let unpacking = Unpacking {
        guest: guest.clone(),
        root,
        runtime: Handle::current(),
    };
    let work = tokio::task::spawn_blocking(move || unpacking.run(reader, &stop));
    tokio::select! {
        done = work => Ok(Json(done.map_err(Fault::internal)??)),
        () = guest.ended() => Err(Fault::sandbox_not_found(host.sandbox().as_str()).into()),
    }
}

/// Work on a thread for blocking.
struct Unpacking {
    guest: GuestLease,
    root: String,
    runtime: Handle,
}

impl Unpacking {
    fn run(self, reader: impl io::Read, stop: &CancellationToken) -> Result<Unpacked> {
        let mut done = Unpacked::default();
        archive::each(reader, |item| {
            // Who sent the archive is gone.
            if stop.is_cancelled() {
                return Err(Failure::invalid("the request was given up"));
            }
            let path = self.put(item)?;
            if done.paths.len() < LISTED_MAX {
                done.paths.push(path);
            } else {
                done.truncated = true;
            }
            Ok(())
        })?;
        Ok(done)
    }

    fn put(&self, item: Item<'_>) -> Result<String> {
        let path = format!("{}/{}", self.root.trim_end_matches('/'), item.path);
        match item.content {
            Content::Directory => {
                let made = make_directory(&self.guest, of(path));
                self.runtime.block_on(made)
            }
            Content::File { mode, bytes } => {
                self.write(&path, mode, bytes)?;
                Ok(path)
            }
        }
    }

    fn write(&self, path: &str, mode: u32, bytes: &mut dyn io::Read) -> Result<()> {
        let request = WriteRequest {
            at: of(path.to_owned()),
            mode: Some(mode),
            ..WriteRequest::default()
        };
        match self
            .runtime
            .block_on(self.guest.create_file(request.clone()))
        {
            Ok((mut file, _)) => {
                let mut copying = Reading::of(bytes);
                io::copy(&mut copying, &mut file).map_err(|error| copying.blame(error))?;
                Ok(())
            }
            Err(GuestError::Descriptor(_)) => self.write_in_band(request, bytes),
            Err(error) => Err(failed(error)),
        }
    }

    fn write_in_band(&self, request: WriteRequest, bytes: &mut dyn io::Read) -> Result<()> {
        let writer = self.runtime.block_on(self.guest.write_file(request));
        let mut writer = writer.map_err(failed)?;
        let mut piece = vec![0; PIECE];
        loop {
            let read = io::Read::read(bytes, &mut piece).map_err(archive::damaged)?;
            let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else {
                break;
            };
            self.runtime.block_on(writer.write(read)).map_err(failed)?;
        }
        self.runtime.block_on(writer.finish()).map_err(failed)?;
        Ok(())
    }
}

/// Knows whether it was the source that failed.
struct Reading<'a> {
    source: &'a mut dyn io::Read,
    failed: bool,
}

impl<'a> Reading<'a> {
    fn of(source: &'a mut dyn io::Read) -> Self {
        Self {
            source,
            failed: false,
        }
    }

    fn blame(&self, error: io::Error) -> Failure {
        match self.failed {
            true => archive::damaged(error),
            false => write_fault(error).into(),
        }
    }
}

impl io::Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer);
        self.failed = read.is_err();
        read
    }
}

/// The archive is over a limit.
fn too_large(message: String) -> Failure {
    Fault::new(Code::TooLarge, message).into()
}
