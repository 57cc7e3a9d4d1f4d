//! For this crate's tests: the launcher alone, or (given a script) an init that runs
//! it, or the self-test's init.

use std::error::Error;
use std::ffi::CString;

use rustix::process::{WaitOptions, wait};
use woodfrog_linux::caps::CapSet;
use woodfrog_linux::launcher::{adopt_stdin, launcher_main};
use woodfrog_linux::selfctl::set_undumpable;
use woodfrog_linux::spawn::{SpawnSpec, Stdio, spawn};

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(role) if role == "__checkpoint-subject" => woodfrog_linux::criu::subject_main(),
        Some(script) => init(script),
        None => launcher_main(adopt_stdin()?),
    }
}

fn init(script: String) -> Result<(), Box<dyn Error>> {
    set_undumpable()?;
    let null = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
    };
    let child = spawn(SpawnSpec {
        program: CString::from(c"sh"),
        argv: vec![
            CString::from(c"sh"),
            CString::from(c"-c"),
            CString::new(script)?,
        ],
        env: vec![CString::from(c"PATH=/usr/bin")],
        cwd: CString::from(c"/"),
        uid: 0,
        gid: 0,
        groups: vec![],
        stdio: Stdio::Fds {
            stdin: null()?.into(),
            stdout: null()?.into(),
            stderr: null()?.into(),
        },
        rlimits: vec![],
        umask: 0o022,
        capabilities: CapSet::SANDBOX,
        oom_score_adj: Some(100),
    })?;
    // As an init: everybody's orphans, until the script itself ends.
    while wait(WaitOptions::empty())?.is_some_and(|(pid, _)| pid != child.pid) {}
    Ok(())
}
