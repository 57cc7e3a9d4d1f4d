//! A real Postgres for tests: a server of the Debian package, with a data directory of its own,
//! that ends and leaves nothing when the process that started it does, however that ends.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait_for;

/// Making a data directory and starting a server in it.
const START_MAX: Duration = Duration::from_secs(120);

/// Runs the server until standard input ends, which it does with the process that holds the other
/// end. `$1` is where the programs are, `$2` a directory of its own, `$3` a command that runs
/// others as the server's user.
///
/// The data is on disk when it is acknowledged (`fsync`), as on a server that is not for tests.
const KEEPER: &str = r#"
$3 "$1/initdb" --pgdata="$2/data" --auth=trust --username=postgres --encoding=UTF8 \
    --locale=C.UTF-8 --no-sync >"$2/log" 2>&1 || exit 1
$3 "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=400 \
    -c shared_buffers=64MB -c fsync=on >>"$2/log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT "$(head -n 1 "$2/data/postmaster.pid")"
wait "$server"
rm -rf "$2"
"#;

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    keeper: Mutex<Child>,
    /// Closed with this process.
    _input: ChildStdin,
}

impl Postgres {
    /// The server of this process; the first call starts it.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<std::result::Result<Postgres, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        shared.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn start() -> Result<Self> {
        let programs = programs()?;
        let dir = tempfile::Builder::new().prefix("wf-pg-").tempdir()?.keep();
        let run_as = match user()? {
            // It refuses to run as root.
            Some((uid, gid)) => {
                chown(&dir, Some(uid), Some(gid))?;
                "runuser -u postgres --"
            }
            None => "",
        };
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args([&programs, &dir])
            .arg(run_as)
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .context("start a keeper of Postgres")?;
        let input = keeper.stdin.take().context("the keeper's input")?;
        let postgres = Self {
            dir,
            keeper: Mutex::new(keeper),
            _input: input,
        };
        postgres.await_ready(&programs)?;
        Ok(postgres)
    }

    fn await_ready(&self, programs: &Path) -> Result<()> {
        wait_for("Postgres", START_MAX, || {
            let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(keeper.try_wait(), Ok(None)) {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Some(Err(anyhow::anyhow!("Postgres does not start: {log}")));
            }
            let ready = Command::new(programs.join("pg_isready"))
                .args(["--quiet", "--host"])
                .arg(&self.dir)
                .status();
            ready.is_ok_and(|status| status.success()).then_some(Ok(()))
        })?
    }

    /// The same as a URL.
    pub fn socket_url(&self) -> String {
        let host = self.dir.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{host}/postgres")
    }

    /// How to connect to it as its administrator, for clients that take `host=… user=…`.
    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.dir.display())
    }
}

/// Where Debian puts the newest version.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.context("no Postgres: apt-get install postgresql")?;
    let numbers = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let newest: Option<u32> = numbers.max();
    let newest = newest.context("no version of Postgres in /usr/lib/postgresql")?;
    Ok(Path::new("/usr/lib/postgresql")
        .join(newest.to_string())
        .join("bin"))
}

/// The user and group `postgres` if this process is root's.
fn user() -> Result<Option<(u32, u32)>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    if uid.and_then(|ids| ids.split_whitespace().nth(1)) != Some("0") {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    for line in users.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if let ["postgres", _, uid, gid, ..] = fields[..] {
            return Ok(Some((uid.parse()?, gid.parse()?)));
        }
    }
    bail!("there is no user `postgres`: apt-get install postgresql")
}
