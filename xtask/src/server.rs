//! Starting the built server for a demo or a test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take until it is ready: the first start makes the pool.
const READY_MAX: Duration = Duration::from_secs(60);

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Builds the server and returns its path.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--package", "woodfrog"])
        .current_dir(root());
    if release {
        command.arg("--release");
    }
    crate::step::run(&mut command)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    Ok(target
        .join(if release { "release" } else { "debug" })
        .join("woodfrog"))
}

/// A running server; ended with its sandboxes removed when dropped.
pub(crate) struct Server {
    pub(crate) binary: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) url: String,
    child: Option<Child>,
}

impl Server {
    /// Starts a server on a free port and waits until it is ready.
    pub(crate) fn start(binary: &Path, data_dir: &Path, extra: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(data_dir)?;
        let endpoint = data_dir.join("endpoint");
        let _ = std::fs::remove_file(&endpoint);
        let log = File::create(data_dir.join("server.log"))?;
        let child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the server")?;
        let mut server = Self {
            binary: binary.into(),
            data_dir: data_dir.into(),
            url: String::new(),
            child: Some(child),
        };
        server.url = server.wait_ready(&endpoint)?;
        Ok(server)
    }

    fn wait_ready(&mut self, endpoint: &Path) -> Result<String> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            if let Ok(url) = std::fs::read_to_string(endpoint)
                && !url.trim().is_empty()
            {
                return Ok(url.trim().to_owned());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                bail!("the server ended at its start ({status}):\n{}", self.log());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        bail!(
            "the server was not ready after {READY_MAX:?}:\n{}",
            self.log()
        )
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("server.log")).unwrap_or_default()
    }

    /// A `woodfrog` command against this server.
    pub(crate) fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env("WOODFROG_URL", &self.url)
            .env("WOODFROG_DATA_DIR", &self.data_dir)
            .env_remove("WOODFROG_API_KEY");
        command
    }

    /// Gives the server up: it keeps running. Returns its process id.
    pub(crate) fn keep(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }

    /// Ends the server gracefully; its sandboxes keep running.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        crate::step::run(Command::new("kill").args(["-TERM", &child.id().to_string()]))?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        child.kill()?;
        child.wait()?;
        bail!("the server did not end within 20 s of SIGTERM")
    }

    /// Deletes every sandbox, ends the server and removes its data directory.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.delete_sandboxes();
        self.stop()?;
        crate::step::run(
            Command::new(&self.binary)
                .args(["purge", "--yes", "--data-dir"])
                .arg(&self.data_dir),
        )
    }

    fn delete_sandboxes(&self) {
        let listed = self.cli(&["sandbox", "list", "--json"]).output();
        let Ok(listed) = listed else { return };
        let Ok(serde_json::Value::Array(items)) = serde_json::from_slice(&listed.stdout) else {
            return;
        };
        let ids: Vec<&str> = items
            .iter()
            .filter_map(|item| item["id"].as_str())
            .collect();
        if !ids.is_empty() {
            let mut args = vec!["sandbox", "delete"];
            args.extend(ids);
            let _ = self.cli(&args).stdout(Stdio::null()).status();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.delete_sandboxes();
            let _ = self.stop();
            let _ = Command::new(&self.binary)
                .args(["purge", "--yes", "--data-dir"])
                .arg(&self.data_dir)
                .status();
        }
    }
}
