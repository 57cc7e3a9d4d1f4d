//! Programs that a test puts somewhere and then starts.
//!
//! A file that is open for writing anywhere cannot be started (`ETXTBSY`). A test that wrote it
//! itself could meet that: what another of its threads starts meanwhile has the open file, too,
//! until it becomes another program. Therefore a process of its own writes it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Puts an executable file with this text at `to`; missing directories are made.
///
/// # Errors
/// It cannot be written.
pub fn write(to: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut child = install()
        .args(["-D", "-m", "755", "/dev/stdin"])
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .context("start install")?;
    let mut input = child.stdin.take().context("its input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let done = child.wait()?;
    ensure!(done.success(), "{} was not written: {done}", to.display());
    Ok(())
}

/// Puts an executable copy of `from` at `to`; missing directories are made.
///
/// # Errors
/// It cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = install();
    command.args(["-D", "-m", "755"]).arg(from).arg(to);
    let done = command.status().context("start install")?;
    ensure!(done.success(), "{} was not written: {done}", to.display());
    Ok(())
}

fn install() -> Command {
    Command::new("install")
}
