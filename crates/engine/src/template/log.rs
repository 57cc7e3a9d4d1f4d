//! The log of a build, written in batches beside the build.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use woodfrog_store::Store;
use woodfrog_types::event::Level;
use woodfrog_types::template::BuildLogLine;
use woodfrog_types::{BuildId, Timestamp};

use crate::images::ProgressSink;

/// Lines that may wait to be written; what comes on top is dropped and counted.
const WAITING_MAX: usize = 4096;
/// Lines written in one go.
const BATCH: usize = 256;
/// Lines of one build.
const LINES_MAX: u64 = 50_000;
/// Characters of one line.
const LINE_CHARS_MAX: usize = 4096;

/// Takes lines. A cheap clone.
#[derive(Clone)]
pub(super) struct Log {
    lines: mpsc::Sender<BuildLogLine>,
    step: Option<String>,
    count: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

/// Ends the log.
pub(super) struct Writer {
    task: JoinHandle<()>,
    dropped: Arc<AtomicU64>,
    store: Arc<dyn Store>,
    build: BuildId,
}

impl Log {
    pub(super) fn open(store: &Arc<dyn Store>, build: BuildId) -> (Self, Writer) {
        let (lines, mut waiting) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = Self {
            lines,
            step: None,
            count: Arc::default(),
            dropped: Arc::clone(&dropped),
        };
        let sink = Arc::clone(store);
        let task = tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut batch, BATCH).await > 0 {
                let lines = std::mem::take(&mut batch);
                if let Err(error) = sink.build_log_append(&build, lines).await {
                    tracing::warn!(%build, %error, "lines of a build's log were lost");
                }
            }
        });
        let writer = Writer {
            task,
            dropped,
            store: Arc::clone(store),
            build,
        };
        (log, writer)
    }

    /// The same log, for lines of this step.
    pub(super) fn at(&self, step: &str) -> Self {
        Self {
            step: Some(step.to_owned()),
            ..self.clone()
        }
    }

    pub(super) fn line(&self, level: Level, message: impl Into<String>) {
        let mut message: String = message.into();
        if let Some((cut, _)) = message.char_indices().nth(LINE_CHARS_MAX) {
            message.truncate(cut);
        }
        let line = BuildLogLine {
            at: Timestamp::now(),
            level,
            step: self.step.clone(),
            message,
        };
        let over = self.count.fetch_add(1, Ordering::Relaxed) >= LINES_MAX;
        if over || self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn info(&self, message: impl Into<String>) {
        self.line(Level::Info, message);
    }

    /// For progress of image sources.
    pub(super) fn sink(&self) -> ProgressSink {
        let log = self.clone();
        Arc::new(move |line| log.info(line))
    }
}

impl Writer {
    /// Waits until everything is written. Every [`Log`] must have been dropped.
    pub(super) async fn finish(self) {
        if self.task.await.is_err() {
            tracing::error!(build = %self.build, "the writer of a build's log panicked");
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            let line = BuildLogLine {
                at: Timestamp::now(),
                level: Level::Warn,
                step: None,
                message: format!("{dropped} lines were left out of this log"),
            };
            if let Err(error) = self.store.build_log_append(&self.build, vec![line]).await {
                tracing::warn!(build = %self.build, %error, "a line of a build's log was lost");
            }
        }
    }
}

/// Cuts output, which comes in pieces, into lines.
#[derive(Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(String)) {
        for &byte in bytes {
            if byte == b'\n' || self.0.len() >= LINE_CHARS_MAX {
                self.flush(&mut each);
            }
            if byte != b'\n' {
                self.0.push(byte);
            }
        }
    }

    pub(super) fn flush(&mut self, mut each: impl FnMut(String)) {
        let line = std::mem::take(&mut self.0);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\r');
        if !text.is_empty() {
            each(text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_however_it_is_cut() {
        let text = "one\r\n\ntwo ä\nthree";
        for size in 1..text.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece, |line| seen.push(line));
            }
            lines.flush(|line| seen.push(line));
            assert_eq!(seen, ["one", "two ä", "three"]);
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let (mut lines, mut seen) = (Lines::default(), 0);
        lines.push(&[b'x'; 3 * LINE_CHARS_MAX], |_| seen += 1);
        assert_eq!(seen, 2);
    }
}
