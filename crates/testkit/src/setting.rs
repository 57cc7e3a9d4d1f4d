//! Settings of the machine that a server under test changes.

use std::fs;
use std::path::PathBuf;

/// The kernel's setting that memory which comes later needs.
const USERFAULTFD: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// Puts a setting of the kernel back when it is dropped.
#[derive(Debug)]
pub struct Setting {
    path: PathBuf,
    value: String,
}

impl Setting {
    /// Of `userfaultfd`; `None` if this kernel has none.
    pub fn userfaultfd() -> Option<Self> {
        let path = PathBuf::from(USERFAULTFD);
        let value = fs::read_to_string(&path).ok()?;
        Some(Self { path, value })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.value) {
            eprintln!("{} is not as it was: {error}", self.path.display());
        }
    }
}
