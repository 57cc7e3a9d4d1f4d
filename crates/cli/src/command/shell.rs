//! `woodfrog sandbox shell`: a terminal in a sandbox on our own.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt;
use rustix::termios::{self, OptionalActions, Termios};
use tokio::signal::unix::{SignalKind, signal};
use woodfrog_wire::native::exec::{End, OutputEvent, PtyControl, Size};

use super::{Outcome, stdin};
use crate::args::Target;
use crate::client::{Client, Message, Socket};
use crate::output;

/// The size where ours is not known.
const SIZE: Size = Size { cols: 80, rows: 24 };

pub(super) async fn run(
    id: &str,
    user: Option<String>,
    cwd: Option<String>,
    target: &Target,
) -> Outcome {
    let client = Client::new(target)?;
    let size = size();
    let mut url = client.route(&["sandboxes", id, "pty"]);
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("cols", &size.cols.to_string());
        query.append_pair("rows", &size.rows.to_string());
        if let Some(user) = &user {
            query.append_pair("user", user);
        }
        if let Some(cwd) = &cwd {
            query.append_pair("cwd", cwd);
        }
    }
    let request = client.request(reqwest::Method::GET, url);
    let socket = client.socket(request).await?;
    let raw = Raw::enter()?;
    let ended = converse(socket).await;
    drop(raw);
    match ended? {
        Some(end) => Ok(super::exec::code(end.exit_code, end.signal)),
        None => anyhow::bail!("the terminal was cut off"),
    }
}

/// Moves bytes until the shell ends.
async fn converse(mut socket: Socket) -> anyhow::Result<Option<End>> {
    let mut input = std::pin::pin!(stdin::chunks());
    let mut input_open = true;
    let mut resized = signal(SignalKind::window_change())?;
    let mut end = None;
    loop {
        tokio::select! {
            message = socket.next() => match message? {
                None => return Ok(end),
                Some(Message::Close(reason)) => {
                    if end.is_none() {
                        output::note(&format!("\r\n{reason}\r"));
                    }
                    return Ok(end);
                }
                Some(Message::Binary(bytes)) => show(&bytes)?,
                Some(Message::Text(text)) => {
                    if let Some(known) = event(&text)? {
                        end = Some(known);
                    }
                }
            },
            chunk = input.next(), if input_open => match chunk {
                Some(chunk) => socket.send(Message::Binary(chunk?)).await?,
                None => {
                    input_open = false;
                    // What a terminal says at the end of its input.
                    socket.send(Message::Binary(Bytes::from_static(b"\x04"))).await?;
                }
            },
            _ = resized.recv() => {
                let control = serde_json::to_string(&PtyControl::Resize(size()))?;
                socket.send(Message::Text(control)).await?;
            }
        }
    }
}

fn event(text: &str) -> anyhow::Result<Option<End>> {
    match serde_json::from_str(text).context("read the server's message")? {
        OutputEvent::End(end) => return Ok(Some(end)),
        OutputEvent::Error { code, message } => anyhow::bail!("{message} ({code})"),
        OutputEvent::Stdout { data, .. }
        | OutputEvent::Stderr { data, .. }
        | OutputEvent::Pty { data, .. } => {
            show(&base64::engine::general_purpose::STANDARD.decode(data)?)?;
        }
        OutputEvent::Started { .. } | OutputEvent::Gap { .. } => {}
    }
    Ok(None)
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn size() -> Size {
    match termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            cols: size.ws_col,
            rows: size.ws_row,
        },
        _ => SIZE,
    }
}

/// Our terminal passes every key on; it is as before when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> io::Result<Self> {
        let terminal = io::stdin();
        if !terminal.is_terminal() {
            return Ok(Self(None));
        }
        let before = termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // The terminal may be gone, and then there is nothing to restore.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
