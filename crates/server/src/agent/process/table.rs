//! The processes of this face among those of the guest: they carry a tag.

use woodfrog_engine::GuestLease;
use woodfrog_guest_client::proto::{Exit, ProcessEnd, ProcessInfo};
use woodfrog_wire::agent::problem::Problem;
use woodfrog_wire::agent::process::{Owner, Process, Status};

use crate::agent::problem::{Failure, Result};

const TAG: &str = "agent-proc";
const ID: &str = "proc_";

/// What a tag remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) owner: Owner,
    pub(super) interactive: bool,
}

impl Mark {
    pub(super) fn tag(self) -> String {
        let owner = match self.owner {
            Owner::User => "user",
            Owner::Desktop => "desktop",
            Owner::System => "system",
        };
        let how = if self.interactive { "interactive" } else { "" };
        format!("{TAG}:{owner}:{how}")
    }

    /// `None`: not a process of this face.
    pub(super) fn of(info: &ProcessInfo) -> Option<Self> {
        let mut parts = info.tag.as_deref()?.strip_prefix(TAG)?.split(':').skip(1);
        let owner = match parts.next()? {
            "user" => Owner::User,
            "desktop" => Owner::Desktop,
            "system" => Owner::System,
            _ => return None,
        };
        let interactive = parts.next()? == "interactive";
        Some(Self { owner, interactive })
    }
}

/// The guest's number of a process.
pub(super) fn number(id: &str) -> Result<u64> {
    let digits = id.strip_prefix(ID);
    let canonical = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .filter(canonical)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| unknown(id))
}

pub(super) fn name(id: u64) -> String {
    format!("{ID}{id}")
}

fn unknown(id: &str) -> Failure {
    let shown: String = id.chars().take(64).collect();
    Problem::not_found("process", &shown).into()
}

/// What the guest knows of one of our processes.
pub(super) async fn info(guest: &GuestLease, id: u64) -> Result<ProcessInfo> {
    let all = guest.processes().await?;
    all.into_iter()
        .find(|info| info.id == id && Mark::of(info).is_some())
        .ok_or_else(|| unknown(&name(id)))
}

pub(super) async fn find(guest: &GuestLease, id: u64) -> Result<Process> {
    wire(info(guest, id).await?).ok_or_else(|| unknown(&name(id)))
}

/// The process for clients; `None` if it is none of ours.
pub(super) fn wire(info: ProcessInfo) -> Option<Process> {
    let mark = Mark::of(&info)?;
    let running = info.end.is_none();
    Some(Process {
        id: name(info.id),
        command: info.cmd,
        args: info.args,
        cwd: Some(info.cwd),
        tty: info.pty.is_some(),
        interactive: mark.interactive,
        owner: mark.owner,
        status: match running {
            true => Status::Running,
            false => Status::Exited,
        },
        pid: running.then_some(info.pid),
        exit_code: info.end.as_ref().and_then(exit_code),
        created_at_ms: info.started_ms,
        exited_at_ms: info.ended_ms.filter(|_| !running),
    })
}

/// `None` for a process that a signal ended.
pub(super) fn exit_code(end: &ProcessEnd) -> Option<i32> {
    match end.exit {
        Exit::Exited { code } => Some(code),
        Exit::Signaled { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_correspond() {
        assert_eq!(number(&name(7)).expect("ours"), 7);
        for other in [
            "7",
            "proc_",
            "proc_-1",
            "proc_+1",
            "proc_x",
            "proc_99999999999999999999",
        ] {
            assert!(number(other).is_err(), "{other}");
        }
    }
}
