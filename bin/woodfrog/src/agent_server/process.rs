//! The guest's program as a child of this process: what it starts has our rights, our environment
//! and our directory, and ends when we do, however we end.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;
use woodfrog_guest_client::proto::Configure;
use woodfrog_guest_client::{GuestClient, PathConnector};

use crate::serve::GUEST;

/// How long the child may take to answer for the first time.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// How long it may take to end what it started, and itself.
const END: Duration = Duration::from_millis(3500);
/// The user's name where the machine has none for the number.
const NAMELESS: &str = "user";
/// In its directory.
const PROGRAM: &str = "guest";
const SOCKET: &str = "guest.sock";
/// Processes below it that are ended with it.
const DESCENDANTS_MAX: usize = 10_000;

/// A running child.
pub(super) struct Process {
    child: Child,
    lifeline: Option<ChildStdin>,
    client: GuestClient,
    user: User,
    /// Its program and its socket; removed at the end.
    directory: TempDir,
}

impl Process {
    pub(super) async fn start() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("woodfrog-agent-")
            .tempdir()
            .context("make a temporary directory")?;
        let program = directory.path().join(PROGRAM);
        write(&program, GUEST, 0o700)?;
        let etc = directory.path().join("etc");
        std::fs::create_dir(&etc)?;
        let user = User::own();
        write(&etc.join("passwd"), user.passwd().as_bytes(), 0o600)?;
        let groups = std::fs::read("/etc/group").unwrap_or_default();
        write(&etc.join("group"), &groups, 0o600)?;
        let (child, lifeline) = spawn(directory.path())?;
        let socket = directory.path().join(SOCKET);
        let client = GuestClient::new(Arc::new(PathConnector(socket)));
        let mut process = Self {
            child,
            lifeline,
            client,
            user,
            directory,
        };
        process.set_up().await?;
        Ok(process)
    }

    async fn set_up(&mut self) -> Result<()> {
        self.ready().await?;
        self.client.configure(self.user.defaults()).await?;
        Ok(())
    }

    /// Ends one that does not answer, with everything that it has started, and starts another one
    /// in its place: the same clients reach it.
    pub(super) async fn restart(&mut self) -> Result<()> {
        // It does not do that itself any more.
        let started = self.child.id().map(descendants).unwrap_or_default();
        self.child.kill().await?;
        for pid in started {
            // It may have ended with its parent.
            let _ = kill_process(pid, Signal::KILL);
        }
        let socket = self.directory.path().join(SOCKET);
        if let Err(error) = std::fs::remove_file(&socket)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).context("remove the socket");
        }
        (self.child, self.lifeline) = spawn(self.directory.path())?;
        self.set_up().await
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let Err(error) = self.client.hello().await else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("it ended at once ({status})");
            }
            if Instant::now() > deadline {
                return Err(error).context("it does not answer");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(super) fn client(&self) -> &GuestClient {
        &self.client
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Ends it with everything that it has started.
    pub(super) async fn end(&mut self) -> Result<()> {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else {
            return Ok(());
        };
        if let Some(pid) = Pid::from_raw(pid) {
            // It may be ending already.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(END, self.child.wait()).await {
            Ok(ended) => {
                ended?;
            }
            Err(_) => self.child.kill().await?,
        }
        Ok(())
    }
}

/// Starts the child whose program is in `directory`.
fn spawn(directory: &Path) -> Result<(Child, Option<ChildStdin>)> {
    let program = directory.join(PROGRAM);
    let mut child = Command::new(&program)
        .arg("--socket")
        .arg(directory.join(SOCKET))
        .arg("--etc")
        .arg(directory.join("etc"))
        .args(["--no-init", "--as-itself", "--until-eof"])
        // It ends when the other end of this pipe is gone, and so are we.
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!(
                "run {}: TMPDIR must allow programs to be run",
                program.display()
            )
        })?;
    // Out of the child, since waiting for that one closes its input.
    let lifeline = child.stdin.take();
    Ok((child, lifeline))
}

/// The processes below this one.
fn descendants(of: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        // One that has ended has no children.
        let threads = std::fs::read_dir(format!("/proc/{parent}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            for pid in children.split_whitespace().filter_map(|it| it.parse().ok()) {
                if found.len() < DESCENDANTS_MAX {
                    parents.push(pid);
                    found.extend(i32::try_from(pid).ok().and_then(Pid::from_raw));
                }
            }
        }
    }
    found
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("write {}", path.display()))
}

/// Who we are.
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
    /// The machine's own table.
    others: String,
}

impl User {
    fn own() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let others = std::fs::read("/etc/passwd").unwrap_or_default();
        let others = String::from_utf8_lossy(&others).into_owned();
        let fields = others
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid));
        let field = |index: usize| {
            let value = fields.as_ref()?.get(index)?;
            Some((*value).to_owned()).filter(|value| !value.is_empty())
        };
        // What a shell of this user would say, if it fits into a line of the table.
        let variable = |name: &str| {
            let value = std::env::var(name).ok()?;
            Some(value).filter(|value| value.starts_with('/') && !value.contains([':', '\n']))
        };
        let home = variable("HOME").or_else(|| field(5));
        let shell = variable("SHELL").or_else(|| field(6));
        Self {
            name: field(0).unwrap_or_else(|| NAMELESS.to_owned()),
            uid,
            gid: rustix::process::getegid().as_raw(),
            home: home.unwrap_or_else(|| "/".to_owned()),
            shell: shell.unwrap_or_else(|| "/bin/sh".to_owned()),
            others,
        }
    }

    /// The user's line, then everybody else's: the first line of a name counts.
    fn passwd(&self) -> String {
        let Self {
            name,
            uid,
            gid,
            home,
            shell,
            others,
        } = self;
        format!("{name}:x:{uid}:{gid}::{home}:{shell}\n{others}")
    }

    /// Processes get what we have.
    fn defaults(&self) -> Configure {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !name.is_empty() && !name.contains('='))
            .collect();
        let here = std::env::current_dir().ok();
        Configure {
            default_user: Some(self.name.clone()),
            default_workdir: here.and_then(|here| Some(here.to_str()?.to_owned())),
            env: Some(env),
            ..Configure::default()
        }
    }
}
