//! One process: its output, our input and signals to it.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use woodfrog_wire::native::exec::{End, Exec, OutputEvent, Signal as SignalRequest};

use crate::args::Target;
use crate::client::{Client, ClientError, Lines};
use crate::output;

/// How long a broken stream is tried again: a server needs less to restart.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Bytes of each stream that `--json` keeps.
const CAPTURE_BYTES_MAX: usize = 64 << 20;
/// Interrupts after which we end ourselves, whatever the command does.
const INTERRUPTS_MAX: u32 = 3;

/// Where output goes.
pub(super) trait Sink {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// To our own streams, as it comes.
pub(super) struct Live;

impl Sink for Live {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(bytes)
    }
}

/// Into memory.
#[derive(Default)]
pub(super) struct Capture {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    truncated: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Report {
    exit_code: Option<i32>,
    signal: Option<i32>,
    status: String,
    timed_out: bool,
    stdout: String,
    stderr: String,
    /// Some output was left out.
    truncated: bool,
}

impl Capture {
    fn keep(into: &mut Vec<u8>, truncated: &mut bool, bytes: &[u8]) {
        let room = CAPTURE_BYTES_MAX - into.len();
        *truncated |= bytes.len() > room;
        into.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub(super) fn report(&self, end: &End) -> Report {
        Report {
            exit_code: end.exit_code,
            signal: end.signal,
            status: end.status.clone(),
            timed_out: end.timed_out,
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
            truncated: self.truncated,
        }
    }
}

impl Sink for Capture {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::keep(&mut self.stdout, &mut self.truncated, bytes);
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::keep(&mut self.stderr, &mut self.truncated, bytes);
        Ok(())
    }
}

/// A process that was started.
pub(super) struct Session {
    target: Target,
    sandbox: String,
    process: String,
    lines: Lines,
    /// Where reading goes on if the stream breaks.
    offset: u64,
    helpers: Vec<JoinHandle<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for helper in &self.helpers {
            helper.abort();
        }
    }
}

impl Session {
    pub(super) async fn start(
        client: Client,
        target: Target,
        sandbox: &str,
        exec: &Exec,
        stdin: bool,
    ) -> anyhow::Result<Self> {
        let request = client.post(&["sandboxes", sandbox, "exec"]).json(exec);
        let mut lines = Lines::new(client.send(request).await?);
        let (process, offset) = match lines.next().await? {
            Some(OutputEvent::Started {
                process, offset, ..
            }) => (process.to_string(), offset),
            Some(OutputEvent::Error { message, .. }) => anyhow::bail!(message),
            _ => anyhow::bail!("the server did not say which process it started"),
        };
        let mut session = Self {
            target,
            sandbox: sandbox.to_owned(),
            process,
            lines,
            offset,
            helpers: Vec::new(),
        };
        session.forward_signals(&client)?;
        if stdin {
            session.forward_stdin(client);
        }
        Ok(session)
    }

    /// Gives output to the sink until the process ends.
    pub(super) async fn follow(mut self, sink: &mut impl Sink) -> anyhow::Result<End> {
        loop {
            match self.lines.next().await {
                Ok(Some(event)) => {
                    if let Some(end) = self.take(event, sink)? {
                        return Ok(end);
                    }
                }
                Ok(None) => self.reconnect(None).await?,
                Err(error @ ClientError::Broken(_)) => self.reconnect(Some(error)).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, event: OutputEvent, sink: &mut impl Sink) -> anyhow::Result<Option<End>> {
        match event {
            OutputEvent::Started { .. } => {}
            OutputEvent::Stdout { offset, data } | OutputEvent::Pty { offset, data } => {
                let bytes = self.decode(offset, &data)?;
                sink.stdout(&bytes)?;
            }
            OutputEvent::Stderr { offset, data } => {
                let bytes = self.decode(offset, &data)?;
                sink.stderr(&bytes)?;
            }
            OutputEvent::Gap { from, to } => {
                self.offset = to;
                output::note(&format!(
                    "{} bytes of output are not kept any more",
                    to.saturating_sub(from)
                ));
            }
            OutputEvent::End(end) => return Ok(Some(end)),
            OutputEvent::Error { code, message } => anyhow::bail!("{message} ({code})"),
        }
        Ok(None)
    }

    fn decode(&mut self, offset: u64, data: &str) -> anyhow::Result<Vec<u8>> {
        let bytes = BASE64.decode(data).context("read the server's output")?;
        self.offset = offset + bytes.len() as u64;
        Ok(bytes)
    }

    /// The process goes on while the server is away, and its output is kept: reading continues
    /// where it stopped.
    async fn reconnect(&mut self, broken: Option<ClientError>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            match self.attach().await {
                Ok(lines) => {
                    self.lines = lines;
                    return Ok(());
                }
                Err(error @ ClientError::Refused(_)) => return Err(error.into()),
                Err(error) if began.elapsed() > RECONNECT_MAX => {
                    return Err(broken.unwrap_or(error).into());
                }
                Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        }
    }

    async fn attach(&self) -> Result<Lines, ClientError> {
        // Found again: a restarted server may listen elsewhere.
        let client = Client::new(&self.target)?;
        let route = [
            "sandboxes",
            &self.sandbox,
            "processes",
            &self.process,
            "output",
        ];
        let mut url = client.route(&route);
        url.query_pairs_mut()
            .append_pair("from", &self.offset.to_string());
        let request = client.request(reqwest::Method::GET, url);
        Ok(Lines::new(client.send(request).await?))
    }

    /// Our signals become the command's; at the third interrupt we end.
    fn forward_signals(&mut self, client: &Client) -> io::Result<()> {
        let kinds = [
            (SignalKind::interrupt(), "INT"),
            (SignalKind::terminate(), "TERM"),
            (SignalKind::hangup(), "HUP"),
            (SignalKind::quit(), "QUIT"),
        ];
        for (kind, name) in kinds {
            let (received, client) = (signal(kind)?, client.clone());
            let route = self.route("signal");
            self.helpers
                .push(tokio::spawn(forward(received, name, client, route)));
        }
        Ok(())
    }

    fn route(&self, what: &str) -> Vec<String> {
        ["sandboxes", &self.sandbox, "processes", &self.process, what]
            .map(str::to_owned)
            .to_vec()
    }

    /// Sends our standard input until its end, and closes the command's then.
    fn forward_stdin(&mut self, client: Client) {
        let route = self.route("stdin");
        self.helpers.push(tokio::spawn(async move {
            let route: Vec<&str> = route.iter().map(String::as_str).collect();
            let input = reqwest::Body::wrap_stream(crate::command::stdin::chunks());
            let sent = client.upload(client.post(&route).body(input)).await;
            let closed = client.send(client.delete(&route)).await;
            if let Err(error) = sent.and(closed)
                && !is_over(&error)
            {
                output::note(&format!("standard input was not taken: {error}"));
            }
        }));
    }
}

/// Whether the process has ended, or wants no more input.
fn is_over(error: &ClientError) -> bool {
    matches!(error.code(), Some("conflict" | "process_not_found"))
}

async fn forward(mut received: Signal, name: &'static str, client: Client, route: Vec<String>) {
    let route: Vec<&str> = route.iter().map(String::as_str).collect();
    let mut count = 0;
    while received.recv().await.is_some() {
        count += 1;
        if count >= INTERRUPTS_MAX {
            output::note("gave up waiting; the command may still be running");
            std::process::exit(130);
        }
        let request = SignalRequest {
            signal: name.to_owned(),
            group: true,
        };
        // Not awaited: a server that hangs must not keep the next interrupt from us.
        let (client, request) = (client.clone(), client.post(&route).json(&request));
        tokio::spawn(async move {
            if let Err(error) = client.send(request).await
                && !is_over(&error)
            {
                output::note(&format!("the signal was not delivered: {error}"));
            }
        });
    }
}
