//! A sandbox that moves between two servers on one machine, which share Postgres and an archive.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use woodfrog_testkit::Server;
use woodfrog_testkit::postgres::Postgres;
use woodfrog_testkit::websocket::Socket;

use super::sample::Sample;
use crate::server::root;

/// Moves that are timed; each goes to the other server.
const MOVES: usize = 20;
const KEY: &str = "e2b_bench";
/// What the sandbox holds in memory.
const HOLDER: &str = "setsid -f python3 -c '
import os, time
held = os.urandom(64 << 20)
open(\"/tmp/held\", \"w\").close()
time.sleep(100000)' >/dev/null 2>&1 </dev/null
until [ -e /tmp/held ]; do sleep 0.05; done";

/// Rows of a bare shell and of one beside 64 MB of noise.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let two = Two::start(server.binary())?;
    let rows = vec![
        two.moves("hand-off of a shell, to the first output", "true")?,
        two.moves("hand-off with 64 MB of memory, to the first output", HOLDER)?,
    ];
    two.remove()?;
    Ok(rows)
}

struct Two {
    servers: [Server; 2],
    archive: PathBuf,
}

impl Two {
    fn start(binary: &Path) -> Result<Self> {
        let archive = root().join("target/bench-handoff-archive");
        std::fs::create_dir_all(&archive)?;
        let a = node(binary, "a", &archive)?;
        a.run(&["template", "prepare", "base"])?;
        let b = node(binary, "b", &archive)?;
        std::fs::copy(
            a.data_dir().join("admin.key"),
            b.data_dir().join("admin.key"),
        )?;
        b.run(&["template", "prepare", "base"])?;
        Ok(Self {
            servers: [a, b],
            archive,
        })
    }

    /// From the attach at one server, while the other has the sandbox, to the first output there.
    fn moves(&self, name: &str, prepare: &str) -> Result<Sample> {
        let first = json!({"enable_checkpoint": true, "enable_sandbox_handoff": true});
        let [a, _] = &self.servers;
        let mut socket = Socket::create(a.url(), KEY, &first)?;
        ensure!(socket.run("bash", prepare)? == 0, "{}", socket.last);
        let mut millis = Vec::new();
        for number in 1..=MOVES {
            let to = &self.servers[number % self.servers.len()];
            let begun = Instant::now();
            let mut there = Socket::attach(to.url(), &socket.id, &socket.token, false)?;
            there.say(&json!({"language": "bash", "code": "echo here"}))?;
            while there.stdout.is_empty() {
                there.read()?;
            }
            millis.push(begun.elapsed().as_secs_f64() * 1000.0);
            there.until("EXECUTION_DONE")?;
            socket.closed()?;
            socket = there;
        }
        socket.kill()?;
        let row = Sample::new(name, millis);
        println!("{row}");
        Ok(row)
    }

    fn remove(self) -> Result<()> {
        for server in self.servers {
            server.remove()?;
        }
        Ok(std::fs::remove_dir_all(self.archive)?)
    }
}

fn node(binary: &Path, name: &str, archive: &Path) -> Result<Server> {
    let url = Postgres::shared()?.socket_url();
    let archive = archive.display();
    let settings = format!(
        "[store]\nurl = \"{url}\"\nschema = \"bench_handoff\"\n\
         [archive]\nurl = \"file://{archive}\"\n[node]\nname = \"{name}\"\n"
    );
    let dir = root().join(format!("target/bench-handoff-{name}"));
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("bench.toml");
    std::fs::write(&config, settings)?;
    let config = config.to_str().context("the path of the settings")?;
    Server::start(binary, &dir, &["--dev", "--config", config])
}
