//! What a command costs on its way through the server, and what it costs without one.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use woodfrog_testkit::Server;

use super::sample::{Sample, measure};
use woodfrog_testkit::http::Client;

/// Commands that are timed, and those before them that are not.
const RUNS: usize = 300;
const WARM: usize = 20;

/// The SDK's request for a command: a stream of events, framed as in Connect.
struct Start {
    body: Vec<u8>,
    head: String,
}

/// Both commands, through the server and without it, and the differences.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut client = Client::connect(server.url())?;
    let (status, sandbox) = client.request("POST", "/v2/sandboxes", Some(&super::create_body()))?;
    ensure!(status == 201, "create: {status} {sandbox}");
    let id = sandbox["sandboxID"].as_str().context("its id")?.to_owned();
    let mut rows = Vec::new();
    for (name, words) in [
        ("/bin/true", &["/bin/true"][..]),
        (
            "/bin/bash -l -c true",
            &["/bin/bash", "-l", "-c", "true"][..],
        ),
    ] {
        rows.extend(command(server, &mut client, &sandbox, name, words)?);
    }
    super::delete(&mut client, &id)?;
    Ok(rows)
}

fn command(
    server: &Server,
    client: &mut Client,
    sandbox: &Value,
    name: &str,
    words: &[&str],
) -> Result<Vec<Sample>> {
    let start = Start::new(sandbox, words)?;
    for _ in 0..WARM {
        start.send(client)?;
    }
    let through = format!("`{name}`, raw request on a kept connection");
    let through = measure(&through, RUNS, || start.send(client))?;
    let id = sandbox["sandboxID"].as_str().context("its id")?;
    let inside = inside(server, id, name, words)?;
    println!("{inside}");
    let time = through.median().context("times")? - inside.median().context("times")?;
    let time = Sample::figure(
        format!("`{name}`, server time: the difference of the medians"),
        format!("{time:.2} ms"),
    );
    println!("{time}");
    Ok(vec![through, inside, time])
}

impl Start {
    fn new(sandbox: &Value, words: &[&str]) -> Result<Self> {
        let (cmd, args) = words.split_first().context("a program")?;
        let message = json!({ "process": { "cmd": cmd, "args": args }, "stdin": false });
        let message = message.to_string();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
        body.extend_from_slice(message.as_bytes());
        // `user:` in base64.
        let head = format!(
            "Content-Type: application/connect+json\r\nConnect-Protocol-Version: 1\r\n\
             E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: 49983\r\nX-Access-Token: {}\r\n\
             Authorization: Basic dXNlcjo=\r\n",
            sandbox["sandboxID"].as_str().context("its id")?,
            sandbox["envdAccessToken"].as_str().context("its token")?,
        );
        Ok(Self { body, head })
    }

    /// Runs the command; anything but exit code 0 is an error.
    fn send(&self, client: &mut Client) -> Result<()> {
        let (status, answer) =
            client.exchange("POST", "/process.Process/Start", &self.head, &self.body)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(
            status == 200 && answer.contains("exit status 0"),
            "{status} {answer}"
        );
        Ok(())
    }
}

/// The same command started by a shell inside, timed by that shell.
fn inside(server: &Server, id: &str, name: &str, words: &[&str]) -> Result<Sample> {
    let script = format!(
        "for i in $(seq {}); do a=$EPOCHREALTIME; {}; b=$EPOCHREALTIME; \
         echo $((${{b/[.,]/}} - ${{a/[.,]/}})); done",
        RUNS + WARM,
        words.join(" ")
    );
    let ran = server.exec(id, "user", &script)?;
    ensure!(ran.code == 0, "inside: {}", ran.stderr);
    let millis: Vec<f64> = ran
        .stdout
        .lines()
        .skip(WARM)
        .filter_map(|micros| micros.trim().parse::<f64>().ok())
        .map(|micros| micros / 1000.0)
        .collect();
    ensure!(millis.len() == RUNS, "inside: {} times", millis.len());
    let name = format!("limit: `{name}` started by a shell inside");
    Ok(Sample::new(&name, millis))
}
