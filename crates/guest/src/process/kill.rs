//! Killing a process with everything in its session.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::census;

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
    let leader = leader.as_raw_nonzero().get();
    let living = census::living().into_iter();
    living
        .filter(|stat| stat.session == leader)
        .map(|stat| stat.pid)
        .collect()
}
