//! One request to a worker, with the notices in between.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::find::Criu;
use super::proto::{Answer, Message, kind};
use super::refusal::Refusal;
use super::rpc::{ExternalTree, LOG_FILE, Notice, Notify, POST_DUMP, RpcError, SETUP_NAMESPACES};
use super::worker::{COMPLAINTS, Worker};
use crate::cgroup::Group;
use crate::fdpass::{recv_with_fds, send_with_fds};
use crate::process::wait_ended;

/// The longest answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Notices of a dump that lead on, not back.
const FORWARD: [&str; 3] = ["pre-dump", "network-lock", POST_DUMP];
/// How long CRIU may take to put everything back before it is killed.
const ROLLBACK: Duration = Duration::from_secs(10);
/// How long it may take to the end after the checkpoint counts.
const COMMITTED: Duration = Duration::from_secs(30);
/// As much of the end of CRIU's log is looked through for a reason.
const LOG_SEARCHED: usize = 256 * 1024;
/// The end of it that goes into an error.
const LOG_TAIL: usize = 1500;

pub(super) struct Call<'a> {
    pub(super) kind: u64,
    pub(super) options: Message,
    pub(super) work: &'a Path,
    pub(super) timeout: Duration,
    /// Who pays for the memory.
    pub(super) group: Option<&'a Group>,
    /// What the worker finds at [`ExternalTree::place`].
    pub(super) trees: &'a [ExternalTree],
}

impl Call<'_> {
    /// On an error nothing that the worker has started is left.
    pub(super) fn run(
        &self,
        criu: &Criu,
        netns: Option<BorrowedFd<'_>>,
        notify: Notify<'_>,
    ) -> Result<Answer, RpcError> {
        let mut worker = Worker::start(criu, netns, self.trees, self.work)?;
        let charged = match self.group {
            Some(group) => Some(group.charge(worker.pid())?),
            None => None,
        };
        let answered = self.converse(&mut worker, notify);
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                // Before the limits hold again.
                drop(worker);
                return Err(error);
            }
        };
        worker.finish()?;
        if let Some(charged) = charged {
            charged.settle()?;
        }
        Ok(answer)
    }

    fn converse(&self, worker: &mut Worker, notify: Notify<'_>) -> Result<Answer, RpcError> {
        let request = Message::default()
            .number(1, self.kind)
            .message(2, &self.options);
        send_with_fds(&worker.socket, request.as_bytes(), &[])?;
        let mut phase = Phase::Going(Instant::now() + self.timeout);
        loop {
            let answer = match self.receive(worker, phase.deadline()) {
                Ok(answer) => answer,
                Err(late @ RpcError::Timeout { .. }) => {
                    phase = phase.late(self.kind, late)?;
                    continue;
                }
                Err(error) => return Err(phase.error().unwrap_or(error)),
            };
            if answer.kind == kind::NOTIFY {
                phase = self.notice(worker, &answer, phase, notify)?;
            } else if let Some(error) = phase.error() {
                return Err(error);
            } else if answer.kind == self.kind && answer.success {
                return Ok(answer);
            } else {
                return Err(self.refused(answer));
            }
        }
    }

    /// Passes a notice on and answers it.
    fn notice(
        &self,
        worker: &mut Worker,
        answer: &Answer,
        phase: Phase,
        notify: Notify<'_>,
    ) -> Result<Phase, RpcError> {
        let (name, pid) = answer.notice.clone().unwrap_or_default();
        if self.kind == kind::RESTORE && name == SETUP_NAMESPACES {
            worker.restores(pid)?;
        }
        if let Phase::GivenUp { .. } = phase {
            // What it has to do to put everything back may be done.
            let wanted = !FORWARD.contains(&name.as_str());
            reply(worker, wanted)?;
            return Ok(phase);
        }
        let answered = notify(&Notice { name, pid });
        let recorded = self.kind == kind::DUMP && answer.is_notice(POST_DUMP);
        reply(worker, answered.is_ok())?;
        Ok(match answered {
            Err(error) => Phase::given_up(RpcError::GivenUp(error)),
            // From here on there is no way back, however long it takes.
            Ok(()) if recorded => Phase::Going(Instant::now() + self.timeout.max(COMMITTED)),
            Ok(()) => phase,
        })
    }

    fn receive(&self, worker: &Worker, deadline: Instant) -> Result<Answer, RpcError> {
        // Readable, or closed by the worker.
        while !wait_ended(worker.socket.as_fd(), left(deadline))? {
            if left(deadline).is_zero() {
                return Err(RpcError::Timeout {
                    timeout: self.timeout,
                    log: self.log_tail(),
                });
            }
        }
        let mut buffer = vec![0; MAX_ANSWER];
        let received = match recv_with_fds(&worker.socket, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?.len,
        };
        if received == 0 {
            return Err(RpcError::Died {
                log: self.log_tail(),
            });
        }
        Answer::decode(&buffer[..received])
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
    }

    fn refused(&self, answer: Answer) -> RpcError {
        let log = self.log();
        let end = tail(&log);
        let log = match Refusal::line_of(&log) {
            Some(line) if !end.contains(line) => format!("{line}\n{end}"),
            _ => end,
        };
        RpcError::Refused {
            errno: answer.errno,
            message: answer.message,
            log,
        }
    }

    fn log_tail(&self) -> String {
        tail(&self.log())
    }

    fn log(&self) -> String {
        let read = |name| fs::read(self.work.join(name)).unwrap_or_default();
        let bytes = [read(COMPLAINTS), read(LOG_FILE)].concat();
        let from = bytes.len().saturating_sub(LOG_SEARCHED);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }
}

/// How far an operation is.
enum Phase {
    /// To be done by then.
    Going(Instant),
    /// CRIU is to put everything back as it was, which it does when a notice is answered with no.
    GivenUp { why: RpcError, until: Instant },
}

impl Phase {
    fn given_up(why: RpcError) -> Self {
        let until = Instant::now() + ROLLBACK;
        Self::GivenUp { why, until }
    }

    fn deadline(&self) -> Instant {
        match self {
            Self::Going(until) | Self::GivenUp { until, .. } => *until,
        }
    }

    /// Half a restore can be killed; a checkpoint has to be undone.
    fn late(self, kind: u64, late: RpcError) -> Result<Self, RpcError> {
        match self {
            Self::Going(_) if kind == kind::DUMP => Ok(Self::given_up(late)),
            Self::Going(_) => Err(late),
            Self::GivenUp { why, .. } => Err(why),
        }
    }

    /// Why it was given up.
    fn error(&mut self) -> Option<RpcError> {
        match std::mem::replace(self, Self::Going(Instant::now())) {
            Self::GivenUp { why, .. } => Some(why),
            going @ Self::Going(_) => {
                *self = going;
                None
            }
        }
    }
}

fn reply(worker: &Worker, success: bool) -> io::Result<()> {
    let reply = Message::default()
        .number(1, kind::NOTIFY)
        .number(3, u64::from(success));
    send_with_fds(&worker.socket, reply.as_bytes(), &[]).map(drop)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn tail(log: &str) -> String {
    let from = log.len().saturating_sub(LOG_TAIL);
    let from = (from..log.len()).find(|at| log.is_char_boundary(*at));
    log[from.unwrap_or(0)..].trim().to_owned()
}
