//! Killing a process with everything in its session.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Passes over `/proc`: a process may fork while one is under way.
const PASSES: usize = 8;

/// Kills the group that `leader` leads and every process of its session. Processes that made a
/// session of their own (daemons) have left and live on.
pub(crate) fn kill_session(leader: Pid) {
    // Failing means that the group is empty already.
    let _ = kill_process_group(leader, Signal::KILL);
    for _ in 0..PASSES {
        let members = members(leader);
        if members.is_empty() {
            return;
        }
        for pid in members {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Living processes of the session.
fn members(leader: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| session_of(*pid) == Some(leader.as_raw_nonzero().get()))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Session of a process that is not a zombie: state and session are fields 3 and 6 of its stat
/// line, counted after the name, which may contain anything.
fn session_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(2)?.parse().ok()
}
