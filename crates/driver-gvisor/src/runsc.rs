//! Calling `runsc`. All of it blocks.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use woodfrog_linux::runsc::Runsc;
use woodfrog_linux::stage::{self, Mounts, Output, Stage};
use woodfrog_sandbox::DriverError;
use woodfrog_types::SandboxId;

use crate::error::step;

/// How long a start may take; it takes about 0.2 s.
pub(crate) const START_MAX: Duration = Duration::from_secs(30);
/// How long pausing, and other things said to a running sandbox, may take.
pub(crate) const WORD_MAX: Duration = Duration::from_secs(15);
/// The end of what it said that is repeated.
const TAIL: usize = 600;

/// How `runsc` is called here.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) runsc: Runsc,
    /// Where it keeps what it knows of containers.
    pub(crate) state: PathBuf,
}

/// What a new container is started in.
pub(crate) struct Place {
    pub(crate) cgroup: String,
    pub(crate) mounts: Mounts,
    pub(crate) netns: OwnedFd,
    /// Holds `config.json`.
    pub(crate) bundle: PathBuf,
}

/// What it is started from.
pub(crate) enum From<'a> {
    Nothing,
    /// The folder of a checkpoint's images.
    Image(&'a Path),
}

/// Why it did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("runsc {what}: {said}")]
    Refused { what: String, said: String },
    #[error("runsc {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl std::convert::From<CallError> for DriverError {
    fn from(error: CallError) -> Self {
        step("gVisor", error)
    }
}

impl Caller {
    /// Starts a container in the background; the pid of its sentry.
    pub(crate) fn start(
        &self,
        id: &SandboxId,
        place: Place,
        from: &From<'_>,
        timeout: Duration,
    ) -> Result<u32, CallError> {
        let text = |path: &Path| path.display().to_string();
        let (log, pid_file) = (place.bundle.join("log"), place.bundle.join("pid"));
        let verb = match from {
            From::Nothing => "run",
            From::Image(_) => "restore",
        };
        let failed = |source| CallError::Io {
            what: verb.to_owned(),
            source,
        };
        let mut argv = self.global();
        argv.push(format!("--log={}", text(&log)));
        argv.extend([verb.to_owned(), "--detach".to_owned()]);
        if let From::Image(dir) = from {
            argv.push(format!("--image-path={}", text(dir)));
        }
        argv.push(format!("--pid-file={}", text(&pid_file)));
        argv.push(format!("--bundle={}", text(&place.bundle)));
        argv.push(id.to_string());
        let stage = Stage {
            cgroup: Some(place.cgroup),
            mounts: Some(place.mounts),
            // What it starts would hold on to it, and could write to it for ever.
            output: Output::Dropped,
            argv,
        };
        let done = stage::run(&stage, Some(place.netns), timeout).map_err(failed)?;
        if done.code != Some(0) {
            let log = fs::read(&log).unwrap_or_default();
            let said = format!("{} {}", done.output, String::from_utf8_lossy(&log));
            return Err(CallError::Refused {
                what: verb.to_owned(),
                said: tail(&said),
            });
        }
        let pid = fs::read_to_string(&pid_file).map_err(failed)?;
        pid.trim()
            .parse()
            .map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))
    }

    /// Says something to a running container.
    pub(crate) fn say(
        &self,
        words: &[&str],
        id: &SandboxId,
        more: &[&str],
        timeout: Duration,
    ) -> Result<(), CallError> {
        let mut argv = self.global();
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        argv.push(id.to_string());
        argv.extend(more.iter().map(|word| (*word).to_owned()));
        let stage = Stage {
            argv,
            ..Stage::default()
        };
        let what = || words.first().copied().unwrap_or_default().to_owned();
        let done = stage::run(&stage, None, timeout).map_err(|source| CallError::Io {
            what: what(),
            source,
        })?;
        match done.code {
            Some(0) => Ok(()),
            _ => Err(CallError::Refused {
                what: what(),
                said: head(&done.output),
            }),
        }
    }

    /// Forgets a container that has no process any more.
    pub(crate) fn forget(&self, id: &SandboxId) -> io::Result<()> {
        for name in [
            format!("runsc-{id}.sock"),
            format!("{id}_sandbox:{id}.state"),
            format!("{id}_sandbox:{id}.lock"),
        ] {
            crate::files::remove_file(&self.state.join(name))?;
        }
        Ok(())
    }

    fn global(&self) -> Vec<String> {
        vec![
            self.runsc.program.display().to_string(),
            format!("--root={}", self.state.display()),
            "--platform=systrap".to_owned(),
            "--network=sandbox".to_owned(),
            // It is started in cgroups of ours.
            "--ignore-cgroups".to_owned(),
            // The host's overlay is below already.
            "--overlay2=none".to_owned(),
            // Connections that are open fail no checkpoint: they are reset.
            "--net-disconnect-ok".to_owned(),
        ]
    }
}

/// The first line says it; what follows are stacks.
fn head(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(TAIL).collect()
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(TAIL);
    text.chars().skip(skipped).collect()
}
