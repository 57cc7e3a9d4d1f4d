//! Work that is done for a sandbox on its account.

use std::io;
use std::path::PathBuf;

use super::Group;
use super::files::{read, write};

/// Memory beyond the limit for who works for the sandbox, until that is over.
const HEADROOM: u64 = 64 << 20;

impl Group {
    /// Puts a process, and what it will fork, into the group: memory that they touch is the
    /// sandbox's, and stays so. Until [`Charged::settle`] the group's limits of CPU time and
    /// processes do not hold, and that of memory is higher by what the process itself may need.
    ///
    /// # Errors
    /// The limits are as before then.
    pub fn charge(&self, pid: u32) -> io::Result<Charged> {
        let mut charged = Charged { before: vec![] };
        for (file, lifted) in self.limit_files() {
            charged.lift(file, lifted)?;
        }
        self.add(pid)?;
        Ok(charged)
    }

    /// Those that there are, in the order in which they can be raised.
    fn limit_files(&self) -> Vec<(PathBuf, Lifted)> {
        let files: &[(&str, &str, Lifted)] = match self {
            Group::Unified { .. } => &[
                ("", "memory.max", Lifted::Headroom),
                ("", "cpu.max", Lifted::To("max")),
                ("", "pids.max", Lifted::To("max")),
            ],
            Group::Split { .. } => &[
                ("memory", "memory.memsw.limit_in_bytes", Lifted::Headroom),
                ("memory", "memory.limit_in_bytes", Lifted::Headroom),
                ("cpu", "cpu.cfs_quota_us", Lifted::To("-1")),
                ("pids", "pids.max", Lifted::To("max")),
            ],
        };
        let path = |controller: &str, name: &str| match self {
            Group::Unified { dir } => Some(dir.join(name)),
            Group::Split { controllers, .. } => Some(controllers.get(controller)?.join(name)),
        };
        files
            .iter()
            .filter_map(|(controller, name, lifted)| Some((path(controller, name)?, *lifted)))
            .filter(|(path, _)| path.exists())
            .collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Lifted {
    To(&'static str),
    Headroom,
}

/// A group whose limits are lifted; they come back when this is dropped.
#[derive(Debug)]
pub struct Charged {
    before: Vec<(PathBuf, String)>,
}

impl Charged {
    /// Puts the limits back: the work is done.
    pub fn settle(mut self) -> io::Result<()> {
        self.put_back()
    }

    fn lift(&mut self, file: PathBuf, lifted: Lifted) -> io::Result<()> {
        let before = read(&file)?.trim().to_owned();
        let value = match lifted {
            Lifted::To(value) => value.to_owned(),
            Lifted::Headroom => match before.parse::<u64>() {
                Ok(limit) if limit < 1 << 62 => (limit + HEADROOM).to_string(),
                _ => return Ok(()),
            },
        };
        if value == before {
            return Ok(());
        }
        write(&file, &value)?;
        self.before.push((file, before));
        Ok(())
    }

    /// In the opposite order. All are tried.
    fn put_back(&mut self) -> io::Result<()> {
        let mut first = Ok(());
        while let Some((file, before)) = self.before.pop() {
            let done = write(&file, &before);
            first = first.and(done);
        }
        first
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        // After an error of another kind, which is the one to report.
        let _ = self.put_back();
    }
}
