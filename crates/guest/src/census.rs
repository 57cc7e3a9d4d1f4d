//! Who lives here, by `/proc`.

use rustix::process::Pid;

/// What is asked about a process that is not a zombie.
pub(crate) struct Stat {
    pub(crate) pid: Pid,
    pub(crate) parent: i32,
    pub(crate) session: i32,
}

/// Living processes. One that is born or ends meanwhile may be in it or not.
pub(crate) fn living() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(stat)
        .collect()
}

/// Everybody but the init.
pub(crate) fn all() -> Vec<Pid> {
    let others = living().into_iter().map(|stat| stat.pid);
    others.filter(|pid| *pid != Pid::INIT).collect()
}

/// Children of `ancestor`, their children, and so on.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let living = living();
    let mut found = vec![ancestor];
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|pid| pid.as_raw_nonzero().get()) {
        let children = living.iter().filter(|stat| stat.parent == parent);
        found.extend(children.map(|stat| stat.pid));
        at += 1;
    }
    found.split_off(1)
}

/// State, parent and session are fields 3, 4 and 6 of the stat line, counted after the name,
/// which may contain anything.
fn stat(pid: i32) -> Option<Stat> {
    let line = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = line.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        pid: Pid::from_raw(pid)?,
        parent,
        session,
    })
}
