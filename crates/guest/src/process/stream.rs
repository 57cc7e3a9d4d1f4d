//! Sends a process's output to one attached reader.

use std::{cell::Cell, io, io::IoSlice, rc::Rc};

use woodfrog_guest_proto::{FrameKind, From, Gap, Moment, Started, Times, data_prefix, limits};

use super::{Process, log::Piece, pid_number};
use crate::{
    conn::Conn,
    error::{OpResult, invalid},
};

/// Counts as attached, and so holds back the process, as long as it lives.
struct Reader {
    process: Rc<Process>,
    id: u64,
    times: Times,
    /// The number told last.
    told: Cell<Option<u64>>,
}

impl Reader {
    fn attach(process: Rc<Process>, from: From, times: Times) -> OpResult<(Self, Option<Gap>)> {
        let attached = process.log.borrow_mut().attach(from);
        match attached {
            Ok((id, gap)) => {
                let told = Cell::new(None);
                let reader = Self {
                    process,
                    id,
                    times,
                    told,
                };
                Ok((reader, gap))
            }
            Err(end) => Err(invalid(format!(
                "offset lies beyond the end of the output ({end})"
            ))),
        }
    }

    fn position(&self) -> u64 {
        self.process.log.borrow().position(self.id)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.process.log.borrow_mut().detach(self.id);
        self.process.moved.notify_waiters();
    }
}

/// Replies with where the stream begins, then streams until the process has ended or the host
/// is gone. Neither harms the process.
pub(crate) async fn follow(
    conn: &Conn,
    process: Rc<Process>,
    from: From,
    times: Times,
) -> OpResult<()> {
    let (reader, gap) = Reader::attach(process, from, times)?;
    // Failing to send means that the host is gone: nobody is left to tell.
    let _ = stream(conn, &reader, gap).await;
    Ok(())
}

async fn stream(conn: &Conn, reader: &Reader, gap: Option<Gap>) -> io::Result<()> {
    let process = &reader.process;
    let offset = gap.map_or(reader.position(), |gap| gap.from);
    let started = Started {
        id: process.id,
        pid: pid_number(process.pid),
        offset,
    };
    conn.send(FrameKind::Reply, &started).await?;
    if let Some(gap) = gap {
        conn.send(FrameKind::Event, &gap).await?;
    }
    loop {
        let grew = process.grew.notified();
        if send_run(conn, reader).await? {
            continue;
        }
        let end = process.end.borrow().clone();
        if let Some(end) = end {
            return conn.send(FrameKind::End, &end).await;
        }
        tokio::select! {
            () = grew => {}
            () = conn.hangup() => return Ok(()),
        }
    }
}

/// Sends one data frame straight from the log; false when there is nothing to send.
async fn send_run(conn: &Conn, reader: &Reader) -> io::Result<bool> {
    let process = &reader.process;
    let start = reader.position();
    let Some(piece) = process.log.borrow().run_at(start, limits::DATA_CHUNK) else {
        return Ok(false);
    };
    let Piece {
        channel,
        len,
        at_ms,
        number,
    } = piece;
    if reader.times == Times::Told && reader.told.replace(Some(number)) != Some(number) {
        let moment = Moment { at_ms, number };
        conn.send(FrameKind::Event, &moment).await?;
    }
    let prefix = data_prefix(channel, start, len);
    let mut sent = 0;
    while sent < prefix.len() + len {
        conn.writable().await?;
        let written = {
            let log = process.log.borrow();
            let done = sent.saturating_sub(prefix.len());
            let [a, b] = log.slices(start + done as u64, len - done);
            let head = IoSlice::new(prefix.get(sent..).unwrap_or_default());
            conn.try_write(&[head, a, b])?
        };
        let Some(written) = written else { continue };
        let before = sent.saturating_sub(prefix.len());
        sent += written;
        let progress = sent.saturating_sub(prefix.len()) - before;
        process.log.borrow_mut().advance(reader.id, progress);
        process.moved.notify_waiters();
    }
    Ok(true)
}
