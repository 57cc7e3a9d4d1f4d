//! The agent on real streams.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::action::{Action, Job};
use crate::mock::Mock;

/// Bytes of a line from the client.
const LINE_MAX: u64 = 64 << 20;
/// Lines read ahead.
const AHEAD: usize = 64;
/// Bytes of filling written at once.
const FILL: usize = 64 << 10;

/// What the process around the agent can do.
pub struct Host {
    /// Where histories are kept; unset: nowhere.
    pub store: Option<PathBuf>,
    /// What it does to the process.
    pub process: Process,
}

/// What a script may have done to the process. This crate has no system calls of its own.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Makes it ignore SIGHUP, SIGINT and SIGTERM.
    pub ignore_signals: fn() -> io::Result<()>,
    /// Closes its stdout, for whoever reads at the other end.
    pub close_stdout: fn() -> io::Result<()>,
}

enum Input {
    Line(String),
    Unreadable(&'static str),
    End,
}

/// Serves until stdin ends or a script ends the process; the exit code.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(
    mut mock: Mock,
    host: &Host,
    stdin: impl Read + Send + 'static,
    stdout: impl Write,
    stderr: impl Write,
) -> io::Result<u8> {
    let (sender, inputs) = sync_channel(AHEAD);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read_lines(stdin, &sender))?;
    let mut world = World {
        host,
        stdout: Some(stdout),
        stderr,
        wakes: BTreeSet::new(),
        stubborn: false,
        pending: Vec::new(),
    };
    loop {
        let actions = match world.wait(&inputs) {
            Event::Input(Input::Line(line)) => mock.line(&line),
            Event::Input(Input::Unreadable(why)) => mock.unreadable(why),
            Event::Input(Input::End) if world.stubborn => loop {
                // Nothing but SIGKILL ends it.
                std::thread::park();
            },
            Event::Input(Input::End) => return Ok(0),
            Event::Wake(ticket) => mock.wake(ticket),
        };
        if let Some(code) = world.perform(&mut mock, actions)? {
            return Ok(code);
        }
    }
}

enum Event {
    Input(Input),
    Wake(u64),
}

struct World<'a, O, E> {
    host: &'a Host,
    stdout: Option<O>,
    stderr: E,
    wakes: BTreeSet<(Instant, u64)>,
    stubborn: bool,
    /// Output of the actions being carried out.
    pending: Vec<u8>,
}

impl<O: Write, E: Write> World<'_, O, E> {
    /// Input first: a wake that is due must not hide a cancellation.
    fn wait(&mut self, inputs: &Receiver<Input>) -> Event {
        let Some(&(due, ticket)) = self.wakes.first() else {
            return Event::Input(inputs.recv().unwrap_or(Input::End));
        };
        let left = due.saturating_duration_since(Instant::now());
        let input = match left.is_zero() {
            true => inputs.try_recv().ok(),
            false => match inputs.recv_timeout(left) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Input::End),
            },
        };
        if let Some(input) = input {
            return Event::Input(input);
        }
        self.wakes.remove(&(due, ticket));
        Event::Wake(ticket)
    }

    /// Carries out actions and what follows from them; an exit code ends the process.
    fn perform(&mut self, mock: &mut Mock, actions: Vec<Action>) -> io::Result<Option<u8>> {
        let mut queue: std::collections::VecDeque<Action> = actions.into();
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Send(line) => {
                    self.pending.extend_from_slice(line.as_bytes());
                    self.pending.push(b'\n');
                }
                Action::Raw(bytes) => self.pending.extend_from_slice(&bytes),
                Action::Long { head, fill, tail } => self.long(&head, fill, &tail)?,
                Action::Stderr(line) => {
                    self.flush()?;
                    let _ = writeln!(self.stderr, "{line}");
                }
                Action::Wake { ticket, after_ms } => {
                    let due = Instant::now() + Duration::from_millis(after_ms);
                    self.wakes.insert((due, ticket));
                }
                Action::Perform { ticket, job } => {
                    self.flush()?;
                    let result = self.job(&job).map_err(|e| e.to_string());
                    queue.extend(mock.performed(ticket, result));
                }
                Action::Record { session, entry } => {
                    if let Err(error) = self.record(&session, &entry) {
                        let _ = writeln!(self.stderr, "cannot record the session: {error}");
                    }
                }
                Action::IgnoreSignals => {
                    (self.host.process.ignore_signals)()?;
                    self.stubborn = true;
                }
                Action::CloseStdout => {
                    self.flush()?;
                    self.stdout = None;
                    (self.host.process.close_stdout)()?;
                }
                Action::Exit(code) => {
                    self.flush()?;
                    return Ok(Some(code));
                }
            }
            if self.pending.len() > FILL {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok(None)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(stdout) = &mut self.stdout {
            stdout.write_all(&self.pending)?;
            stdout.flush()?;
        }
        self.pending.clear();
        Ok(())
    }

    fn long(&mut self, head: &str, fill: u64, tail: &str) -> io::Result<()> {
        self.pending.extend_from_slice(head.as_bytes());
        let mut left = fill;
        while left > 0 {
            let piece = left.min(FILL as u64);
            self.pending.extend(std::iter::repeat_n(
                b'x',
                usize::try_from(piece).unwrap_or(FILL),
            ));
            self.flush()?;
            left -= piece;
        }
        self.pending.extend_from_slice(tail.as_bytes());
        self.pending.push(b'\n');
        Ok(())
    }

    fn job(&self, job: &Job) -> io::Result<String> {
        match job {
            Job::Write { path, text } => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(path, text)?;
                Ok(String::new())
            }
            Job::Read { path } => read_text(path),
            Job::Env { name } => std::env::var(name).map_err(io::Error::other),
            Job::Recall { session } => read_text(&self.history(session)?),
        }
    }

    fn record(&self, session: &str, entry: &str) -> io::Result<()> {
        let path = self.history(session)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(format!("{entry}\n").as_bytes())
    }

    fn history(&self, session: &str) -> io::Result<PathBuf> {
        let dir = self.host.store.as_deref();
        let dir = dir.ok_or_else(|| io::Error::other("no history is kept"))?;
        Ok(dir.join(format!("{session}.jsonl")))
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(Job::READ_MAX + 1)
        .read_to_string(&mut text)?;
    if read as u64 > Job::READ_MAX {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(text)
}

/// Reads lines until the end, or until nobody wants them.
fn read_lines(stdin: impl Read, sender: &SyncSender<Input>) {
    let mut reader = BufReader::new(stdin);
    loop {
        let input = read_line(&mut reader).unwrap_or(Input::End);
        let ended = matches!(input, Input::End);
        if sender.send(input).is_err() || ended {
            return;
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Input> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.take(LINE_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(Input::End);
        }
        if line.last() != Some(&b'\n') && read as u64 == LINE_MAX {
            skip_line(reader)?;
            return Ok(Input::Unreadable("the line is too long"));
        }
        if !line.trim_ascii().is_empty() {
            break;
        }
    }
    Ok(match String::from_utf8(line) {
        Ok(text) => Input::Line(text),
        Err(_) => Input::Unreadable("the line is not UTF-8"),
    })
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let (used, ended) = match reader.fill_buf()? {
            [] => return Ok(()),
            bytes => match bytes.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), false),
            },
        };
        reader.consume(used);
        if ended {
            return Ok(());
        }
    }
}
