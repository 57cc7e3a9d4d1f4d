//! Streams from a sandbox that outlast its sleep.
//!
//! A checkpoint is taken only when no connection leads to the guest. Streams let go of theirs when
//! they are told to; the client's side stays open, and when the sandbox runs again reading goes on
//! at the byte where it stopped. Nothing here wakes a sandbox.

use woodfrog_guest_client::proto::{From, Moment, ProcessRef, StartRequest, Started, Times};
use woodfrog_guest_client::proto::{WatchEvent, WatchKind, WatchRequest};
use woodfrog_guest_client::{GuestError, ProcessEvent, ProcessStream, WatchStream};

use crate::access::{Attachment, GuestLease};

/// How often in a row a stream is taken up again without anything coming of it.
const FUTILE_MAX: u32 = 3;

/// Whether the connection broke, rather than the guest having said no.
const fn broke(error: &GuestError) -> bool {
    match error {
        GuestError::Connect(_) | GuestError::Io(_) => true,
        GuestError::Protocol(_)
        | GuestError::Refused(_)
        | GuestError::Timeout
        | GuestError::Descriptor(_) => false,
    }
}

/// A process's output, followed through sleep.
pub struct Followed {
    lease: GuestLease,
    /// Whether its client waits for its end, which keeps the sandbox awake.
    waited_for: bool,
    started: Started,
    /// `None` while it is parked.
    link: Option<(ProcessStream, Attachment)>,
    /// Where reading goes on.
    offset: u64,
    announced: bool,
    /// Connections that broke since the last event.
    futile: u32,
    times: Times,
    /// What is told of the last output.
    moment: Option<Moment>,
}

impl Followed {
    /// Starts a process. A command whose end the client waits for keeps the sandbox awake; a
    /// terminal does so only while something moves on it.
    pub async fn start(lease: GuestLease, request: StartRequest) -> Result<Self, GuestError> {
        let waited_for = request.pty.is_none();
        let attachment = lease.connection();
        let stream = lease.start(request).await?;
        Ok(Self::new(lease, waited_for, stream, attachment))
    }

    /// Reads a process that exists. Does not keep the sandbox awake.
    pub async fn attach(
        lease: &GuestLease,
        process: ProcessRef,
        from: From,
    ) -> Result<Self, GuestError> {
        Self::attach_with(lease, process, from, Times::Untold).await
    }

    /// As [`Followed::attach`]; with [`Times::Told`], [`Followed::moment`] says when output was
    /// written.
    pub async fn attach_with(
        lease: &GuestLease,
        process: ProcessRef,
        from: From,
        times: Times,
    ) -> Result<Self, GuestError> {
        let attachment = lease.connection();
        let stream = lease.attach_with(process, from, times).await?;
        let followed = Self::new(lease.quiet(), false, stream, attachment);
        Ok(Self { times, ..followed })
    }

    fn new(
        lease: GuestLease,
        waited_for: bool,
        stream: ProcessStream,
        attachment: Option<Attachment>,
    ) -> Self {
        let started = stream.started().clone();
        let lease = if waited_for { lease } else { lease.quiet() };
        Self {
            lease,
            waited_for,
            offset: started.offset,
            started,
            // One that fell asleep meanwhile is taken up again when it wakes.
            link: attachment.map(|attachment| (stream, attachment)),
            announced: false,
            futile: 0,
            times: Times::Untold,
            moment: None,
        }
    }

    /// When the output that came last was written, and its number.
    pub fn moment(&self) -> Option<Moment> {
        self.moment
    }

    /// How the process was started.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// The guest that the process is in.
    pub fn lease(&self) -> &GuestLease {
        &self.lease
    }

    /// The next event; `None` after the end. Waits as long as the process is silent and as long as
    /// the sandbox sleeps. Safe to cancel and call again.
    pub async fn next(&mut self) -> Result<Option<ProcessEvent>, GuestError> {
        loop {
            let Some((stream, _)) = &mut self.link else {
                self.again().await?;
                continue;
            };
            let event = tokio::select! {
                biased;
                () = self.lease.closing() => {
                    self.park();
                    continue;
                }
                event = stream.next() => event,
            };
            match event {
                // The guest announces the process on each connection, the client hears it once.
                Ok(Some(ProcessEvent::Started(_))) if self.announced => {}
                Ok(Some(event)) => {
                    self.moment = stream.moment();
                    self.pass(&event);
                    return Ok(Some(event));
                }
                Ok(None) => return Ok(None),
                Err(error) if broke(&error) && self.futile < FUTILE_MAX => {
                    self.futile += 1;
                    self.park();
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn pass(&mut self, event: &ProcessEvent) {
        self.futile = 0;
        self.lease.touch();
        match event {
            ProcessEvent::Started(_) => self.announced = true,
            ProcessEvent::Output { offset, bytes, .. } => {
                self.offset = offset + bytes.len() as u64;
            }
            ProcessEvent::Gap(gap) => self.offset = gap.to,
            ProcessEvent::End(_) => {}
        }
    }

    /// Lets go of the guest; nobody waits for this stream then.
    fn park(&mut self) {
        self.link = None;
        self.lease = self.lease.quiet();
    }

    /// Takes it up again, if the sandbox is not falling asleep once more.
    async fn again(&mut self) -> Result<(), GuestError> {
        self.lease.awake().await;
        let Some(attachment) = self.lease.connection() else {
            return Ok(());
        };
        if self.waited_for
            && let Some(lease) = self.lease.renewed()
        {
            self.lease = lease;
        }
        let (process, from) = (ProcessRef::Id(self.started.id), From::Offset(self.offset));
        match self.lease.attach_with(process, from, self.times).await {
            Ok(stream) => self.link = Some((stream, attachment)),
            Err(error) if broke(&error) && self.futile < FUTILE_MAX => self.futile += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Changes of a directory, watched through sleep. Does not keep the sandbox awake.
pub struct Watched {
    lease: GuestLease,
    request: WatchRequest,
    /// `None` while it is parked.
    link: Option<(WatchStream, Attachment)>,
    futile: u32,
}

impl Watched {
    /// Returns once the watch is armed.
    pub async fn start(lease: &GuestLease, request: WatchRequest) -> Result<Self, GuestError> {
        let attachment = lease.connection();
        let stream = lease.watch(request.clone()).await?;
        Ok(Self {
            lease: lease.quiet(),
            request,
            link: attachment.map(|attachment| (stream, attachment)),
            futile: 0,
        })
    }

    /// The next change; `None` when the directory itself is gone. After a sleep that broke the
    /// watch the first event is [`WatchKind::Overflow`] if `gaps` are to be told: what changed in
    /// the moment between the wake and the new watch is not known.
    pub async fn next(&mut self, gaps: Gaps) -> Result<Option<WatchEvent>, GuestError> {
        loop {
            let Some((stream, _)) = &mut self.link else {
                if self.again().await? && gaps == Gaps::Told {
                    return Ok(Some(overflow()));
                }
                continue;
            };
            let event = tokio::select! {
                biased;
                () = self.lease.closing() => {
                    self.link = None;
                    continue;
                }
                event = stream.next() => event,
            };
            match event {
                Ok(event) => {
                    self.futile = 0;
                    self.lease.touch();
                    return Ok(event);
                }
                Err(error) if broke(&error) && self.futile < FUTILE_MAX => {
                    self.futile += 1;
                    self.link = None;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Arms the watch again, if the sandbox is not falling asleep once more; says whether it did.
    async fn again(&mut self) -> Result<bool, GuestError> {
        self.lease.awake().await;
        let Some(attachment) = self.lease.connection() else {
            return Ok(false);
        };
        let stream = self.lease.watch(self.request.clone()).await?;
        self.link = Some((stream, attachment));
        Ok(true)
    }
}

/// Whether a client of a watch understands that changes may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    Told,
    Silent,
}

fn overflow() -> WatchEvent {
    WatchEvent {
        kind: WatchKind::Overflow,
        name: String::new(),
        entry: None,
    }
}
