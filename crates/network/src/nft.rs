//! The `nft` program: one transaction per call.

pub(crate) mod script;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A transaction takes milliseconds; a stuck one must not hold up the server.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How much of the program's complaint is kept.
const MAX_MESSAGE: usize = 2000;
/// Where system programs live when `PATH` is that of a plain user.
const SYSTEM_DIRS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// A transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there.
    #[error("the `nft` program is missing; install the package `nftables`")]
    Missing,
    /// The program could not be run.
    #[error("run {program}")]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It did not end in time.
    #[error("nft did not finish within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The kernel or the program refused the script; nothing of it was applied.
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// The program, found.
#[derive(Clone, Debug)]
pub(crate) struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Uses `program`, or looks for `nft` on the search path and in the system directories.
    ///
    /// # Errors
    /// [`NftError::Missing`].
    pub(crate) fn find(program: Option<&Path>) -> Result<Self, NftError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = match program {
            Some(program) => Some(program.to_owned()),
            None => std::env::split_paths(&path)
                .chain(SYSTEM_DIRS.map(PathBuf::from))
                .map(|dir| dir.join("nft"))
                .find(|candidate| candidate.is_file()),
        };
        let program = found.filter(|p| p.is_file()).ok_or(NftError::Missing)?;
        Ok(Self { program })
    }

    /// Applies a script as one transaction.
    ///
    /// # Errors
    /// Nothing was applied.
    pub(crate) async fn apply(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-f", "-"], script).await.map(drop)
    }

    /// Names of the interfaces the `guarded` sets of our tables hold, by table.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub(crate) async fn guarded(&self) -> Result<Vec<(String, Vec<String>)>, NftError> {
        let tables = self.run(&["list", "tables", "inet"], "").await?;
        let names = tables
            .lines()
            .filter_map(|line| line.strip_prefix("table inet "));
        let mut found = Vec::new();
        for table in names.filter(|name| name.starts_with("woodfrog_")) {
            let list = ["list", "set", "inet", table, script::GUARDED];
            // A table of another version may have no such set, or may vanish meanwhile.
            let Ok(text) = self.run(&list, "").await else {
                continue;
            };
            found.push((table.to_owned(), script::quoted(&text)));
        }
        Ok(found)
    }

    /// Base chains of others that drop by default and would see sandbox traffic.
    ///
    /// # Errors
    /// When the chains cannot be read.
    pub(crate) async fn foreign_drop_chains(&self) -> Result<Vec<String>, NftError> {
        Ok(script::drop_chains(
            &self.run(&["list", "chains"], "").await?,
        ))
    }

    async fn run(&self, args: &[&str], input: &str) -> Result<String, NftError> {
        let failed = |source| NftError::Run {
            program: self.program.clone(),
            source,
        };
        let mut child = Command::new(&self.program)
            .args(args)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let talk = async {
            if let Some(mut stdin) = child.stdin.take() {
                // A program that fails early closes its input; its own message says more.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let talked = tokio::time::timeout(TIMEOUT, talk).await;
        let output = talked.map_err(|_| NftError::TimedOut)?.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        Err(NftError::Refused(
            message.trim().chars().take(MAX_MESSAGE).collect(),
        ))
    }
}
