//! Processes of the sandbox.

use bytes::Bytes;
use woodfrog_guest_proto::{
    Channel, Empty, Follow, Frame, From, Gap, Moment, ProcessEnd, ProcessInfo, ProcessList,
    ProcessRef, PtySize, Request, SignalTarget, StartRequest, Started, StdinPosition, Times,
    limits, parse_json,
};

use crate::{GuestClient, GuestError, link::Link};

/// Most processes taken from a listing: the running and the ended ones that a guest keeps.
const MAX_LISTED: usize = limits::MAX_PROCESSES + limits::ENDED_KEPT + 1;

/// JSON bytes taken of one process listing; what a guest can have is far below.
const MAX_LISTED_BYTES: usize = 64 << 20;

/// What a process stream yields, in this order: one `Started`, output and gaps with rising
/// offsets, one `End`.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessEvent {
    Started(Started),
    Output {
        stream: Channel,
        offset: u64,
        bytes: Bytes,
    },
    /// Output that is no longer kept.
    Gap(Gap),
    End(ProcessEnd),
}

/// What comes between data.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Note {
    Gap(Gap),
    Moment(Moment),
}

/// Output of one process. Dropping it detaches and leaves the process alone; not reading it
/// holds the process back once it is its retention ahead.
pub struct ProcessStream {
    link: Link,
    started: Started,
    announced: bool,
    offset: u64,
    moment: Option<Moment>,
    ended: bool,
}

impl ProcessStream {
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// When the output that came last was written, and its number; only known to who attached
    /// with [`Times::Told`].
    pub fn moment(&self) -> Option<Moment> {
        self.moment
    }

    /// The next event; `None` after the end. Waits as long as the process is silent. Safe to
    /// cancel and call again.
    pub async fn next(&mut self) -> Result<Option<ProcessEvent>, GuestError> {
        if !self.announced {
            self.announced = true;
            return Ok(Some(ProcessEvent::Started(self.started.clone())));
        }
        while !self.ended {
            if let Some(event) = self.event().await? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// One frame; `None` if it is not for the caller.
    async fn event(&mut self) -> Result<Option<ProcessEvent>, GuestError> {
        let event = match self.link.recv().await? {
            Frame::Data {
                channel: Channel::Plain,
                ..
            } => return Err(breach("a plain channel")),
            Frame::Data {
                channel,
                offset,
                bytes,
            } => {
                self.expect(offset)?;
                self.offset += bytes.len() as u64;
                ProcessEvent::Output {
                    stream: channel,
                    offset,
                    bytes,
                }
            }
            Frame::Event(payload) => {
                let gap = match parse_json(&payload)? {
                    Note::Gap(gap) => gap,
                    Note::Moment(moment) => {
                        self.moment = Some(moment);
                        return Ok(None);
                    }
                };
                self.expect(gap.from)?;
                if gap.to < gap.from {
                    return Err(breach("a gap that runs backwards"));
                }
                self.offset = gap.to;
                ProcessEvent::Gap(gap)
            }
            Frame::End(payload) => {
                self.ended = true;
                ProcessEvent::End(parse_json(&payload)?)
            }
            Frame::Request(_) | Frame::Reply(_) | Frame::Error(_) => {
                return Err(breach("a frame that has no place in a process stream"));
            }
        };
        Ok(Some(event))
    }

    fn expect(&self, offset: u64) -> Result<(), GuestError> {
        if offset == self.offset {
            Ok(())
        } else {
            Err(breach("an offset out of order"))
        }
    }
}

fn breach(what: &str) -> GuestError {
    GuestError::Protocol(what.to_owned())
}

impl GuestClient {
    /// Starts a process and stays attached to it.
    pub async fn start(&self, mut request: StartRequest) -> Result<ProcessStream, GuestError> {
        request.follow = Follow::Attach;
        self.stream(Request::Start(request)).await
    }

    /// Starts a process nobody is attached to.
    pub async fn start_detached(&self, mut request: StartRequest) -> Result<Started, GuestError> {
        request.follow = Follow::Detach;
        self.in_time(async { self.open(&Request::Start(request)).await?.reply().await })
            .await
    }

    /// Reads the output of a process that exists, running or ended lately.
    pub async fn attach(
        &self,
        process: ProcessRef,
        from: From,
    ) -> Result<ProcessStream, GuestError> {
        self.attach_with(process, from, Times::Untold).await
    }

    /// As [`GuestClient::attach`]; [`ProcessStream::moment`] says when output was written, if it is
    /// to be told and the guest knows.
    pub async fn attach_with(
        &self,
        process: ProcessRef,
        from: From,
        times: Times,
    ) -> Result<ProcessStream, GuestError> {
        self.stream(Request::Attach {
            process,
            from,
            times,
        })
        .await
    }

    /// Drops what is kept of a process that has ended; `busy` while it runs.
    pub async fn forget(&self, process: ProcessRef) -> Result<(), GuestError> {
        self.command(&Request::Forget { process }).await
    }

    async fn stream(&self, request: Request) -> Result<ProcessStream, GuestError> {
        self.in_time(async {
            let mut link = self.open(&request).await?;
            let started: Started = link.reply().await?;
            let offset = started.offset;
            Ok(ProcessStream {
                link,
                started,
                announced: false,
                offset,
                moment: None,
                ended: false,
            })
        })
        .await
    }

    /// Running processes and those that ended lately.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>, GuestError> {
        self.in_time(async {
            let mut link = self.open(&Request::List {}).await?;
            let (mut all, mut bytes) = (Vec::new(), 0);
            loop {
                match link.recv().await? {
                    Frame::Event(payload) => {
                        bytes += payload.len();
                        all.extend(parse_json::<ProcessList>(&payload)?.processes);
                    }
                    Frame::End(_) => return Ok(all),
                    _ => return Err(breach("a frame that has no place in a listing")),
                }
                if all.len() > MAX_LISTED || bytes > MAX_LISTED_BYTES {
                    return Err(breach("more processes than there can be"));
                }
            }
        })
        .await
    }

    pub async fn signal(
        &self,
        process: ProcessRef,
        signal: i32,
        target: SignalTarget,
    ) -> Result<(), GuestError> {
        self.command(&Request::Signal {
            process,
            signal,
            target,
        })
        .await
    }

    pub async fn resize(&self, process: ProcessRef, size: PtySize) -> Result<(), GuestError> {
        self.command(&Request::Resize { process, size }).await
    }

    /// Writes input and waits until the process's pipe has taken it. With an offset, the part
    /// that the process has already is skipped, so a repeated write is not doubled. Returns the
    /// position after it.
    pub async fn write_stdin(
        &self,
        process: ProcessRef,
        offset: Option<u64>,
        bytes: &[u8],
    ) -> Result<u64, GuestError> {
        self.in_time(async {
            let mut writer = self.open_stdin(process, offset).await?;
            writer.write(bytes).await?;
            writer.finish().await
        })
        .await
    }

    /// Input in pieces over one connection. Other writers wait until it is finished or dropped.
    pub async fn open_stdin(
        &self,
        process: ProcessRef,
        offset: Option<u64>,
    ) -> Result<StdinWriter, GuestError> {
        let link = self
            .in_time(self.open(&Request::Stdin { process, offset }))
            .await?;
        Ok(StdinWriter { link, sent: 0 })
    }

    /// Closes stdin after what was written before. Closed already is fine.
    pub async fn close_stdin(&self, process: ProcessRef) -> Result<(), GuestError> {
        self.command(&Request::CloseStdin { process }).await
    }
}

/// Ordered input for one process.
pub struct StdinWriter {
    link: Link,
    sent: u64,
}

impl StdinWriter {
    /// Sends bytes; waits while the process does not read. Must not be cancelled half-way if
    /// the writer is to be used again.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), GuestError> {
        self.link.send_data(self.sent, bytes).await?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Waits until the process's pipe has taken everything; the position after it.
    pub async fn finish(mut self) -> Result<u64, GuestError> {
        self.link.send_end(&Empty {}).await?;
        Ok(self.link.end::<StdinPosition>().await?.offset)
    }
}
