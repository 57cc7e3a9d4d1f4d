//! `woodfrog agent-server`, the built binary, for somebody who is not root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use woodfrog_testkit::http::Client;

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who runs the server if the test is run by root.
const NOBODY: u32 = 65534;

struct Server {
    child: Child,
    url: String,
    dir: TempDir,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    fn start_with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let binary = binary(dir.path());
        let mut command = Command::new(binary);
        command
            .args(["agent-server", "--port", "0", "--no-telemetry"])
            .args(flags)
            .env("HOME", &home)
            .env("MARK", "of the server")
            .env_remove("TMPDIR")
            .envs(env.iter().copied())
            .current_dir(&home)
            .stderr(Stdio::piped());
        if geteuid().is_root() {
            chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().unwrap();
        let url = address(&mut child);
        Self { child, url, dir }
    }

    fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join("home").join(name)
    }

    fn client(&self) -> Client {
        Client::connect(&self.url).unwrap()
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let head = "Authorization: Bearer T\r\nContent-Type: application/json\r\n";
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let answer = self.client().exchange(method, path, head, text.as_bytes());
        let (status, bytes) = answer.unwrap();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    /// Starts a process that does not end, and returns its pid.
    fn endless(&self) -> (String, Pid) {
        let body = json!({"command": "sleep", "args": ["100000"]});
        let (status, process) = self.call("POST", "/v1/processes", &body);
        assert_eq!(status, 200, "{process}");
        let pid = i32::try_from(process["pid"].as_i64().unwrap()).unwrap();
        let id = process["id"].as_str().unwrap().to_owned();
        (id, Pid::from_raw(pid).unwrap())
    }

    /// The child that does the work.
    fn driver(&self) -> Pid {
        let server = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{server}/task")).unwrap();
        let children: String = tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap())
            .collect();
        let pids: Vec<i32> = children
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        assert_eq!(pids.len(), 1, "{children}");
        Pid::from_raw(pids[0]).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it still runs");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it started ends with it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The binary where everybody may run it.
fn binary(dir: &Path) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_woodfrog"));
    if !geteuid().is_root() {
        return built.to_owned();
    }
    let copy = dir.join("woodfrog");
    woodfrog_testkit::program::copy(built, &copy).unwrap();
    copy
}

/// Reads what the server says until it says where it listens; the rest is read and forgotten.
fn address(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut isolation, mut url) = (false, None);
    for line in lines.by_ref() {
        let line = line.unwrap();
        isolation |= line.contains("NO ISOLATION");
        if let Some((_, rest)) = line.split_once("listening on ") {
            url = Some(rest.trim().to_owned());
            break;
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
    assert!(isolation, "the lack of isolation is not said");
    url.expect("it says where it listens")
}

fn gone(pid: Pid) {
    let began = Instant::now();
    while test_kill_process(pid).is_ok() {
        assert!(began.elapsed() < PATIENCE, "{pid:?} lives on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_api_of_the_machine_itself() {
    let mut server = Server::start(&["--token", "T"]);
    let (status, _) = server
        .client()
        .exchange("GET", "/v1/health", "", b"")
        .unwrap();
    assert_eq!(status, 401);
    let (status, health) = server.call("GET", "/v1/health", &Value::Null);
    assert_eq!((status, health), (200, json!({"status": "ok"})));

    let content: Vec<u8> = (0..50_000_000_u32).map(|n| (n % 253) as u8).collect();
    let head = "Authorization: Bearer T\r\nContent-Type: application/octet-stream\r\n";
    let path = "/v1/fs/file?path=big/file";
    let (status, written) = server
        .client()
        .exchange("PUT", path, head, &content)
        .unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&written));
    let (status, read) = server.client().exchange("GET", path, head, b"").unwrap();
    assert_eq!(status, 200);
    assert!(read == content, "what comes back is something else");
    let kept = std::fs::read(server.home("big/file")).unwrap();
    assert!(kept == content, "what is kept is something else");

    let script = "echo $MARK; echo $HOME; pwd; id -u";
    let body = json!({"command": "sh", "args": ["-c", script]});
    let (status, ran) = server.call("POST", "/v1/processes/run", &body);
    let home = server.home("").display().to_string();
    let home = home.trim_end_matches('/');
    let user = match geteuid().is_root() {
        true => NOBODY,
        false => geteuid().as_raw(),
    };
    let wanted = format!("of the server\n{home}\n{home}\n{user}\n");
    assert_eq!((status, &ran["stdout"]), (200, &json!(wanted)), "{ran}");

    // A terminal, too, although nobody here may give it to anybody.
    let body = json!({"command": "tty", "tty": true});
    let (status, process) = server.call("POST", "/v1/processes", &body);
    assert_eq!(status, 200, "{process}");

    let (id, pid) = server.endless();
    // Somebody is reading when the end comes.
    let mut reader = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let request = format!(
        "GET /v1/processes/{id}/logs?follow=true HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer T\r\n\r\n"
    );
    reader.write_all(request.as_bytes()).unwrap();
    reader.read_exact(&mut [0; 12]).unwrap();
    server.signal(Signal::TERM);
    let status = server.ended();
    assert!(status.success(), "{status}");
    gone(pid);
}

#[test]
fn nothing_outlives_a_server_that_is_killed() {
    let mut server = Server::start(&["--no-token"]);
    let (_, pid) = server.endless();
    server.signal(Signal::KILL);
    server.ended();
    gone(pid);
}

#[test]
fn a_process_driver_that_does_not_answer_is_started_anew() {
    let health = [("WOODFROG_AGENT_SERVER_HEALTH_MS", "100")];
    let server = Server::start_with(&["--no-token"], &health);
    let before = server.driver();
    let (_, started) = server.endless();
    kill_process(before, Signal::STOP).unwrap();
    gone(before);
    // What it had started ends with it.
    gone(started);
    let began = Instant::now();
    let body = json!({"command": "echo", "args": ["back"]});
    loop {
        let (status, ran) = server.call("POST", "/v1/processes/run", &body);
        if status == 200 {
            assert_eq!(ran["stdout"], "back\n", "{ran}");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{ran}");
    }
    assert_ne!(server.driver(), before);
}

#[test]
fn files_of_others_stay_theirs() {
    let server = Server::start(&["--no-token"]);
    let file = server.home("shared");
    std::fs::write(&file, "before").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (status, _) = server
        .client()
        .exchange("PUT", "/v1/fs/file?path=shared", "", b"after")
        .unwrap();
    assert_eq!(status, 200);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "after");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), geteuid().as_raw());
}

#[test]
fn the_flags_of_the_token_exclude_each_other() {
    for flags in [&[][..], &["--token", "T", "--no-token"], &["--token", ""]] {
        let output = Command::new(env!("CARGO_BIN_EXE_woodfrog"))
            .args(["agent-server", "--port", "0"])
            .args(flags)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{flags:?}");
    }
}
