//! All processes: running ones, and those that ended not long ago.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use rustix::process::{Pid, WaitStatus};
use tokio::time::Instant;
use woodfrog_guest_proto::{ErrorCode, Exit, Keep, ProcessInfo, ProcessRef, limits};

use super::{Process, pid_number};
use crate::error::{OpResult, fail};

#[derive(Default)]
pub(crate) struct Table {
    last_id: u64,
    running: BTreeMap<u64, Rc<Process>>,
    /// Oldest first.
    ended: VecDeque<(Instant, Rc<Process>)>,
    /// Those that are to be kept until they are forgotten, oldest first.
    kept: VecDeque<Rc<Process>>,
}

impl Table {
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn insert(&mut self, process: Rc<Process>) {
        self.running.insert(process.id, process);
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Records a reaped child; a stranger's (an orphan's) is of no interest.
    pub(crate) fn reaped(&self, pid: Pid, status: WaitStatus) {
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Exited { code },
            (None, Some(signal)) => Exit::Signaled {
                signal,
                core: status.as_raw() & 0x80 != 0,
            },
            (None, None) => return,
        };
        let mine = |p: &&Rc<Process>| p.pid == pid && p.exit.get().is_none();
        if let Some(process) = self.running.values().find(mine) {
            process.set_exit(exit);
        }
    }

    /// Moves a process to the ended ones and drops what is beyond the limits there.
    pub(crate) fn ended(&mut self, process: &Process) {
        if let Some(process) = self.running.remove(&process.id) {
            match process.request.keep {
                Keep::Briefly => self.ended.push_back((Instant::now(), process)),
                Keep::UntilForgotten => self.kept.push_back(process),
            }
        }
        self.prune_kept();
        self.prune();
    }

    /// Makes room among those that nobody forgets.
    fn prune_kept(&mut self) {
        let mut bytes: usize = self.kept.iter().map(|p| p.log.borrow().held()).sum();
        while self.kept.len() > limits::KEPT || (bytes > limits::KEPT_BYTES && self.kept.len() > 1)
        {
            let Some(oldest) = self.kept.pop_front() else {
                return;
            };
            bytes -= oldest.log.borrow().held();
        }
    }

    /// Drops what is kept of a process that has ended.
    pub(crate) fn forget(&mut self, target: &ProcessRef) -> OpResult<()> {
        let process = self.find(target)?;
        if self.running.contains_key(&process.id) {
            return Err(fail(
                ErrorCode::Busy,
                format!("process {} still runs", process.id),
            ));
        }
        self.kept.retain(|p| p.id != process.id);
        self.ended.retain(|(_, p)| p.id != process.id);
        Ok(())
    }

    /// Drops ended processes beyond the limits; the time at which that is due again.
    pub(crate) fn prune(&mut self) -> Option<Instant> {
        let mut bytes: usize = self.ended.iter().map(|(_, p)| p.log.borrow().held()).sum();
        while let Some((at, process)) = self.ended.front() {
            let old = at.elapsed() >= limits::ENDED_FOR;
            // The newest is kept whatever its size: somebody is about to ask for it.
            let many = self.ended.len() > limits::ENDED_KEPT
                || (bytes > limits::ENDED_BYTES && self.ended.len() > 1);
            if !old && !many {
                return Some(*at + limits::ENDED_FOR);
            }
            bytes -= process.log.borrow().held();
            self.ended.pop_front();
        }
        None
    }

    pub(crate) fn find(&mut self, target: &ProcessRef) -> OpResult<Rc<Process>> {
        self.prune();
        let matches = |p: &Process| match target {
            ProcessRef::Id(id) => p.id == *id,
            ProcessRef::Pid(pid) => pid_number(p.pid) == *pid,
            ProcessRef::Tag(tag) => p.tag.as_ref() == Some(tag),
        };
        let running = self.running.values().rev().find(|p| matches(p));
        let ended = || self.ended.iter().rev().map(|(_, p)| p).find(|p| matches(p));
        let kept = || self.kept.iter().rev().find(|p| matches(p));
        running
            .or_else(ended)
            .or_else(kept)
            .cloned()
            .ok_or_else(|| match target {
                ProcessRef::Id(id) => fail(ErrorCode::NotFound, format!("no process with id {id}")),
                ProcessRef::Pid(pid) => {
                    fail(ErrorCode::NotFound, format!("no process with pid {pid}"))
                }
                ProcessRef::Tag(tag) => {
                    fail(ErrorCode::NotFound, format!("no process with tag '{tag}'"))
                }
            })
    }

    pub(crate) fn infos(&mut self) -> Vec<ProcessInfo> {
        self.prune();
        let ended = self.ended.iter().map(|(_, p)| p.info());
        ended
            .chain(self.kept.iter().map(|p| p.info()))
            .chain(self.running.values().map(|p| p.info()))
            .collect()
    }
}
