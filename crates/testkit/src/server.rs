//! The built server, started for a test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::wait_for;

/// How long a server may take until it is ready: the first start makes the pool.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Lines of a log that are told of a server that a failed test leaves.
const LAST_LINES: usize = 30;

/// What servers said last that were dropped, not removed: what they are dropped by failed.
static LAST_WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What servers said last that were given up since this was asked before, the end of each log.
pub fn last_words() -> Vec<String> {
    std::mem::take(&mut *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What a command in a sandbox gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A running server with a data directory of its own. When dropped, its sandboxes, its process
/// and everything it had on the machine are removed.
pub struct Server {
    binary: PathBuf,
    data_dir: PathBuf,
    flags: Vec<String>,
    url: String,
    child: Option<Child>,
}

impl Server {
    /// Starts `binary` on a free port with `data_dir` and waits until it is ready.
    ///
    /// # Errors
    /// It does not start; the error has its log.
    pub fn start(binary: &Path, data_dir: &Path, flags: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(data_dir)?;
        let mut server = Self {
            binary: binary.into(),
            data_dir: data_dir.into(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            url: String::new(),
            child: None,
        };
        server.launch()?;
        Ok(server)
    }

    fn launch(&mut self) -> Result<()> {
        let endpoint = self.data_dir.join("endpoint");
        let _ = std::fs::remove_file(&endpoint);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data_dir.join("server.log"))?;
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(&self.flags);
        if !self.flags.iter().any(|flag| flag == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the server")?;
        self.child = Some(child);
        let ready = wait_for("the server to be ready", READY_MAX, || {
            let url = std::fs::read_to_string(&endpoint).unwrap_or_default();
            let url = url.trim();
            if !url.is_empty() {
                return Some(Ok(url.to_owned()));
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
            ended.map(Err)
        });
        match ready {
            Ok(Ok(url)) => self.url = url,
            Ok(Err(status)) => bail!("the server ended at its start ({status}):\n{}", self.log()),
            Err(error) => return Err(error.context(self.log())),
        }
        Ok(())
    }

    /// Its URL: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The binary it runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its process id; 0 when it is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("server.log")).unwrap_or_default()
    }

    /// The end of the log, with the name of the data directory.
    pub fn last_lines(&self) -> String {
        let (name, log) = (self.data_dir.file_name().unwrap_or_default(), self.log());
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("{}:\n{}", name.display(), last.join("\n"))
    }

    /// A `woodfrog` command against this server.
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env("WOODFROG_URL", &self.url)
            .env("WOODFROG_DATA_DIR", &self.data_dir)
            .env_remove("WOODFROG_API_KEY")
            .stdin(Stdio::null());
        command
    }

    /// Runs a `woodfrog` command and returns its standard output.
    ///
    /// # Errors
    /// Its exit code is not 0; the error has what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.cli(args).output().context("start the command line")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("woodfrog {}: {}: {said}", args.join(" "), output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a `woodfrog` command and parses the JSON it prints.
    ///
    /// # Errors
    /// It fails or prints no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let mut args = args.to_vec();
        args.push("--json");
        Ok(serde_json::from_str(&self.run(&args)?)?)
    }

    /// Creates a sandbox and returns its id.
    ///
    /// # Errors
    /// It could not be made.
    pub fn create(&self, flags: &[&str]) -> Result<String> {
        let mut args = vec!["sandbox", "create"];
        args.extend_from_slice(flags);
        Ok(self.run(&args)?.trim().to_owned())
    }

    /// Runs a shell command in a sandbox as its user (`user`) or another.
    ///
    /// # Errors
    /// The command line could not be started.
    pub fn exec(&self, id: &str, user: &str, command: &str) -> Result<ExecOutput> {
        let args = [
            "sandbox",
            "exec",
            id,
            "--user",
            user,
            "--timeout",
            "60",
            "--",
            "bash",
            "-c",
            command,
        ];
        let output = self.cli(&args).output().context("start the command line")?;
        Ok(ExecOutput {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Kills the server with SIGKILL, as a crash would. Sandboxes go on.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again on the same data directory (and another port).
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch()
    }

    /// Starts it again on the same data directory with other flags.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart_with(&mut self, flags: &[&str]) -> Result<()> {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.restart()
    }

    /// Gives the server up: it keeps running. Returns its process id.
    pub fn keep(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }

    /// Ends the server with SIGTERM; its sandboxes keep running.
    ///
    /// # Errors
    /// It does not end in time; it is killed then.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = child.id().to_string();
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .context("signal the server")?;
        let ended = wait_for("the server to end", STOP_MAX, || {
            child.try_wait().ok().flatten()
        });
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended.map(drop)
    }

    /// Deletes every sandbox, ends the server, and removes all it had on the machine.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn remove(mut self) -> Result<()> {
        self.tear_down()
    }

    fn tear_down(&mut self) -> Result<()> {
        self.stop()?;
        let output = Command::new(&self.binary)
            .args(["purge", "--yes", "--data-dir"])
            .arg(&self.data_dir)
            .output()?;
        if !output.status.success() {
            bail!("purge: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        let said = self.last_lines();
        let mut words = LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() < LAST_LINES {
            words.push(said);
        }
        drop(words);
        if let Err(error) = self.tear_down() {
            eprintln!("tear down of the server under test: {error:#}");
        }
    }
}
