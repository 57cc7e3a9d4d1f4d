//! Programs that are run to their end.

use woodfrog_guest_client::proto::{Channel, ErrorCode, Exit, StartRequest};
use woodfrog_guest_client::{GuestError, ProcessEvent, ProcessStream};
use woodfrog_types::{Code, Fault};

use crate::machine::Machine;

/// Bytes of output that are looked at.
const OUTPUT_MAX: usize = 256 << 10;
/// Bytes and lines of stderr that are shown.
const TAIL_BYTES: usize = 4 << 10;
const TAIL_LINES: usize = 16;

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code was 0.
    pub(crate) well: bool,
    /// `exit status 3`, `signal: killed`.
    pub(crate) how: String,
    /// It took too long.
    pub(crate) timed_out: bool,
    /// The beginning of its output.
    pub(crate) stdout: String,
    /// The last lines of its errors.
    pub(crate) stderr: String,
}

impl Machine {
    /// Runs a program to its end; the request's timeout bounds it.
    pub(crate) async fn run(&self, request: StartRequest) -> Result<Ran, Fault> {
        let stream = self.client.start(request).await.map_err(fault)?;
        collect(stream).await
    }
}

/// Everything up to the end, within limits.
pub(crate) async fn collect(mut stream: ProcessStream) -> Result<Ran, Fault> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(event) = stream.next().await.map_err(fault)? {
        match event {
            ProcessEvent::Started(_) | ProcessEvent::Gap(_) => {}
            ProcessEvent::Output { stream, bytes, .. } => match stream {
                Channel::Stderr => {
                    stderr.extend_from_slice(&bytes);
                    let surplus = stderr.len().saturating_sub(TAIL_BYTES);
                    stderr.drain(..surplus);
                }
                _ => {
                    let room = OUTPUT_MAX.saturating_sub(stdout.len());
                    stdout
                        .extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
                }
            },
            ProcessEvent::End(end) => {
                return Ok(Ran {
                    well: end.exit == Exit::Exited { code: 0 },
                    how: end.status,
                    timed_out: end.timed_out,
                    stdout: String::from_utf8_lossy(&stdout).into_owned(),
                    stderr: last_lines(&String::from_utf8_lossy(&stderr)),
                });
            }
        }
    }
    Err(Fault::new(
        Code::GuestUnresponsive,
        "the machine lost a process",
    ))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// What the caller learns of a guest's refusal or silence.
pub(crate) fn fault(error: GuestError) -> Fault {
    let code = match error.code() {
        Some(ErrorCode::NotFound) => Code::FileNotFound,
        Some(ErrorCode::PermissionDenied) => Code::PermissionDenied,
        Some(ErrorCode::UnknownUser | ErrorCode::InvalidArgument) => Code::InvalidArgument,
        Some(ErrorCode::NoSpace) => Code::NoSpace,
        Some(ErrorCode::TooLarge) => Code::TooLarge,
        Some(ErrorCode::Busy) => Code::Unavailable,
        Some(_) => return Fault::internal(error),
        None => match error {
            GuestError::Timeout => Code::DeadlineExceeded,
            _ => Code::GuestUnresponsive,
        },
    };
    let message = match error.code() {
        Some(_) => error.to_string(),
        None => "the machine does not answer".to_owned(),
    };
    Fault::new(code, message).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let text: Vec<String> = (1..=40).map(|n| format!("line {n}")).collect();
        let kept = last_lines(&text.join("\n"));
        assert_eq!(kept.lines().count(), TAIL_LINES);
        assert!(kept.starts_with("line 25") && kept.ends_with("line 40"));
    }
}
