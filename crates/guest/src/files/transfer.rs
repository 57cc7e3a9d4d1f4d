//! Content: in-band, or by handing the open file to the host.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    sync::Arc,
};

use rustix::fs::OFlags;
use woodfrog_guest_proto::{
    Channel, Empty, EntryReply, ErrorCode, Frame, FrameKind, OpenMode, ReadEnd, WriteMode,
    WriteRequest, limits,
};

use super::{Place, blocking, create::Output};
use crate::{
    conn::Conn,
    error::{OpResult, fail, invalid, system},
    serve::end,
};

/// Opens a regular file. Nothing else is read: a pipe or device could block for ever.
pub(super) fn open_regular(place: &Place) -> OpResult<File> {
    let what = format!("path '{}'", place.path);
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let meta = fs::metadata(&place.path).map_err(|e| system(&what, e))?;
    let check = |meta: &fs::Metadata| {
        if meta.is_dir() {
            Err(fail(
                ErrorCode::IsADirectory,
                format!("{what} is a directory"),
            ))
        } else if !meta.is_file() {
            Err(invalid(format!("{what} is not a regular file")))
        } else {
            Ok(())
        }
    };
    // Before opening, because opening a device can have effects; after, because it may change.
    check(&meta)?;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(&place.path)
        .map_err(|e| system(&what, e))?;
    check(&file.metadata().map_err(|e| system(&what, e))?)?;
    Ok(file)
}

pub(super) async fn read(
    conn: &Conn,
    place: Place,
    offset: u64,
    length: Option<u64>,
) -> OpResult<()> {
    let what = format!("path '{}'", place.path);
    let (file, entry) = blocking(move || Ok((open_regular(&place)?, place.entry()?))).await?;
    let file = Arc::new(file);
    if conn
        .send(FrameKind::Reply, &EntryReply { entry })
        .await
        .is_err()
    {
        return Ok(());
    }
    let stop = offset.saturating_add(length.unwrap_or(u64::MAX));
    let mut at = offset;
    let mut buffer = vec![0; limits::MAX_DATA];
    while at < stop {
        let most = buffer
            .len()
            .min(usize::try_from(stop - at).unwrap_or(usize::MAX));
        let file = file.clone();
        // A file system can make a read wait; the other connections must not wait with it.
        let (filled, result) = blocking(move || {
            let result = file.read_at(buffer.get_mut(..most).unwrap_or_default(), at);
            Ok((buffer, result))
        })
        .await?;
        buffer = filled;
        let n = match result {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(system(&what, e)),
        };
        let chunk = buffer.get(..n).unwrap_or_default();
        if conn.data(Channel::Plain, at, chunk).await.is_err() {
            return Ok(());
        }
        at += n as u64;
    }
    end(conn, &ReadEnd { offset: at }).await
}

pub(super) async fn write(conn: &mut Conn, place: Place, request: WriteRequest) -> OpResult<()> {
    let what = format!("path '{}'", place.path);
    let (output, place) = blocking(move || {
        let output = Output::create(&place, request.replace, request.mode)?;
        output.set_metadata(&place, request.metadata.as_ref())?;
        Ok((output, place))
    })
    .await?;
    let mut at = 0;
    loop {
        match conn.recv().await {
            Ok(Some(Frame::Data { offset, bytes, .. })) if offset == at => {
                let (file, start) = (output.file.clone(), at);
                at += bytes.len() as u64;
                let written = blocking(move || Ok(file.write_all_at(&bytes, start))).await?;
                written.map_err(|e| system(&what, e))?;
            }
            Ok(Some(Frame::End(_))) => break,
            Ok(Some(_)) => return Err(invalid("expected contiguous data or the end")),
            // Given up: an atomic write leaves no trace, a plain one what arrived.
            Ok(None) | Err(_) => return Ok(()),
        }
    }
    let entry = blocking(move || {
        output.commit()?;
        place.entry()
    })
    .await?;
    end(conn, &EntryReply { entry }).await
}

pub(super) async fn open(conn: &Conn, place: Place, mode: OpenMode) -> OpResult<()> {
    let (file, entry) = blocking(move || {
        let file = match mode {
            OpenMode::Read => Arc::new(open_regular(&place)?),
            OpenMode::Write { mode, metadata } => {
                let output = Output::create(&place, WriteMode::Truncate, mode)?;
                output.set_metadata(&place, metadata.as_ref())?;
                output.file.clone()
            }
        };
        Ok((file, place.entry()?))
    })
    .await?;
    if conn
        .send_fd(FrameKind::Reply, &EntryReply { entry }, file.as_fd())
        .await
        .is_ok()
    {
        end(conn, &Empty {}).await?;
    }
    Ok(())
}
