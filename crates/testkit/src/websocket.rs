//! A client of the WebSocket sandbox: one socket, read when something is waited for.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// A client that is attached to a sandbox.
pub struct Socket {
    socket: WebSocket<TcpStream>,
    /// The sandbox's id and what opens it.
    pub id: String,
    pub token: String,
    /// Statuses so far, without their prefix.
    pub statuses: Vec<String>,
    /// Output of what runs.
    pub stdout: String,
    pub stderr: String,
    /// Behind the last output, if the client asked for cursors.
    pub cursor: Option<String>,
    /// Only count output: its bytes, while `stdout` stays empty.
    pub count: Option<u64>,
    /// What the last status had besides.
    pub last: Value,
}

impl Socket {
    fn open(url: &str, path: &str, key: Option<&str>) -> Result<Self> {
        let host = url.strip_prefix("http://").context("a plain URL")?;
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut request = format!("ws://{host}/ws{path}").into_client_request()?;
        if let Some(key) = key {
            request.headers_mut().insert("x-api-key", key.parse()?);
        }
        let (socket, _) = tungstenite::client(request, stream)
            .map_err(|error| anyhow::anyhow!("the socket was not opened: {error}"))?;
        Ok(Self {
            socket,
            id: String::new(),
            token: String::new(),
            statuses: Vec::new(),
            stdout: String::new(),
            stderr: String::new(),
            cursor: None,
            count: None,
            last: Value::Null,
        })
    }

    /// Makes a sandbox; `first` is the first frame.
    ///
    /// # Errors
    /// What the server said instead.
    pub fn create(url: &str, key: &str, first: &Value) -> Result<Self> {
        let mut client = Self::open(url, "/create", Some(key))?;
        client.say(first)?;
        client.until("RUNNING")?;
        Ok(client)
    }

    /// Attaches to a sandbox.
    ///
    /// # Errors
    /// What the server said instead.
    pub fn attach(url: &str, id: &str, token: &str, cursors: bool) -> Result<Self> {
        let cursors = if cursors { "&cursors=1" } else { "" };
        let path = format!("/attach/{id}?sandbox_token={token}{cursors}");
        let mut client = Self::open(url, &path, None)?;
        (client.id, client.token) = (id.to_owned(), token.to_owned());
        client.until("RUNNING")?;
        Ok(client)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection is over.
    pub fn say(&mut self, frame: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(frame.to_string()))?)
    }

    /// Runs code to its end and gives its exit code.
    ///
    /// # Errors
    /// What the server said instead.
    pub fn run(&mut self, language: &str, code: &str) -> Result<i64> {
        self.stdout.clear();
        self.stderr.clear();
        self.say(&json!({ "language": language, "code": code }))?;
        self.until("EXECUTION_DONE")?;
        self.last["exit_code"].as_i64().context("an exit code")
    }

    /// Reads until this status.
    ///
    /// # Errors
    /// The connection ended before.
    pub fn until(&mut self, status: &str) -> Result<()> {
        while self.read()?.as_deref() != Some(status) {}
        Ok(())
    }

    /// Reads one message; gives the status if it is one.
    ///
    /// # Errors
    /// The connection is over; how is in the text.
    pub fn read(&mut self) -> Result<Option<String>> {
        let text = match self.socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(frame)) => {
                let code = frame.map_or(1005, |frame| frame.code.into());
                bail!(
                    "closed with {code} after {:?}; {}",
                    self.statuses,
                    self.last
                );
            }
            Ok(_) => return Ok(None),
            // Nothing is broken: a read that has a time limit is not begun anew by the kernel.
            Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => return Ok(None),
            Err(error) => bail!("broken after {:?}: {error}", self.statuses),
        };
        if self.count.is_some() && text.as_str().starts_with("{\"event\":\"stdout\"") {
            // What is around the data is small.
            *self.count.get_or_insert(0) += text.len() as u64;
            return Ok(None);
        }
        let frame: Value = serde_json::from_str(&text)?;
        match frame["event"].as_str() {
            Some("stdout") => self.stdout += frame["data"].as_str().unwrap_or_default(),
            Some("stderr") => self.stderr += frame["data"].as_str().unwrap_or_default(),
            Some("sandbox_id") => {
                self.id = frame["sandbox_id"].as_str().context("id")?.to_owned();
                self.token = frame["sandbox_token"].as_str().context("token")?.to_owned();
            }
            Some("status_update") => {
                let status = frame["status"].as_str().context("a status")?;
                let status = status.trim_start_matches("SANDBOX_").to_owned();
                self.statuses.push(status.clone());
                self.last = frame;
                return Ok(Some(status));
            }
            Some("error") => {}
            _ => bail!("an unknown event: {frame}"),
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        Ok(None)
    }

    /// Reads to the close; its code.
    ///
    /// # Errors
    /// The connection broke.
    pub fn closed(&mut self) -> Result<u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return Ok(frame.map_or(1005, |it| it.code.into())),
                Ok(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text)?;
                    if let Some(status) = frame["status"].as_str() {
                        let status = status.trim_start_matches("SANDBOX_");
                        self.statuses.push(status.to_owned());
                    }
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => bail!("broken after {:?}: {error}", self.statuses),
            }
        }
    }

    /// Ends the sandbox.
    ///
    /// # Errors
    /// It did not.
    pub fn kill(mut self) -> Result<()> {
        self.say(&json!({"action": "kill_sandbox"}))?;
        self.until("KILLED")?;
        let code = self.closed()?;
        ensure!(code == 1000, "closed with {code}");
        Ok(())
    }
}
