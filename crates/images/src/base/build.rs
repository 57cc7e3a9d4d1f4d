//! Runs mmdebstrap and keeps its tar output, compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};

use super::BaseError;
use super::recipe::Recipe;
use super::watch::Watch;
use crate::blocking::Cancelled;
use crate::progress::Progress;

/// Kills the build when dropped. The first process is the parent of a pid namespace that dies
/// with it, and its mounts live in a mount namespace that does too: nothing stays behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds the recipe into `output`, a zstd-compressed tar. `scratch` is a directory of our own
/// with room for the unpacked system.
pub(super) fn build(
    recipe: &Recipe,
    scratch: &Path,
    output: &File,
    progress: &Progress,
    cancelled: &Cancelled,
) -> Result<(), BaseError> {
    let script = scratch.join("customize.sh");
    std::fs::write(&script, recipe.customize())?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))?;
    let options = scratch.join("apt.conf");
    std::fs::write(&options, recipe.apt_options())?;

    let mut child = Running(
        command(recipe, scratch, &script, &options)
            .spawn()
            .map_err(missing)?,
    );
    let archive = child.0.stdout.take().ok_or(BaseError::Lost)?;
    let talk = child.0.stderr.take().ok_or(BaseError::Lost)?;
    let (watch, copied) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| listen(talk, Watch::new(progress.clone())));
        let copied = compress(archive, output, cancelled);
        if copied.is_err() {
            let _ = child.0.kill();
        }
        (listener.join(), copied)
    });
    let watch = watch.map_err(|_| BaseError::Lost)?;
    if cancelled.is_set() {
        return Err(BaseError::Cancelled);
    }
    let status = child.0.wait()?;
    if !status.success() {
        return Err(BaseError::Failed {
            status,
            output: watch.tail(),
        });
    }
    copied
}

fn command(recipe: &Recipe, scratch: &Path, script: &Path, options: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child=KILL",
        ])
        .args([
            "--mount-proc",
            "--",
            "mmdebstrap",
            "--verbose",
            "--mode=root",
            "--variant=minbase",
        ])
        .args([
            "--format=tar",
            "--skip=output/dev",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ])
        .args(["--dpkgopt=path-exclude=/usr/share/doc/*"])
        .args(["--dpkgopt=path-include=/usr/share/doc/*/copyright"])
        .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
        .args(["--dpkgopt=path-include=/usr/share/locale/locale.alias"])
        .arg(format!("--include={}", recipe.packages().join(",")))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg(format!("--aptopt={}", options.display()))
        .arg(format!("--customize-hook={}", script.display()))
        .args([recipe.codename(), "-"])
        .args(recipe.sources())
        .env("TMPDIR", scratch)
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // When it fails, mmdebstrap sends SIGHUP to its process group: that must not be ours.
        .process_group(0);
    command
}

/// Waits until there is something to read, or nothing more to come. Most of a build passes before
/// the first byte of its archive, and nobody should wait for that who gives up.
fn wait_readable(archive: &impl AsFd, cancelled: &Cancelled) -> io::Result<()> {
    let every = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    while !cancelled.is_set() {
        let mut fds = [PollFd::new(archive, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&every)))? > 0 {
            return Ok(());
        }
    }
    Ok(())
}

fn compress(
    mut archive: impl io::Read + AsFd,
    output: &File,
    cancelled: &Cancelled,
) -> Result<(), BaseError> {
    let mut encoder = zstd::Encoder::new(output, 3)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        wait_readable(&archive, cancelled)?;
        if cancelled.is_set() {
            return Err(BaseError::Cancelled);
        }
        let got = archive.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        io::Write::write_all(&mut encoder, &buffer[..got])?;
    }
    encoder.finish()?;
    Ok(())
}

fn listen(talk: impl io::Read, mut watch: Watch) -> Watch {
    let mut talk = BufReader::new(talk);
    let mut line = Vec::new();
    // Progress bars end in carriage returns; such lines are long but few.
    while talk.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        watch.line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    watch
}

fn missing(source: io::Error) -> BaseError {
    match source.kind() {
        io::ErrorKind::NotFound => BaseError::NoTool("unshare", "util-linux"),
        _ => BaseError::Io(source),
    }
}
