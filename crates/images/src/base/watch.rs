//! Turns mmdebstrap's, apt's and dpkg's talk into progress.

use crate::progress::{Phase, Progress};

/// Share of the whole at which each stage begins: index, essential packages, the rest, finishing.
const STAGES: [u64; 5] = [0, 5, 45, 90, 100];
const KEPT_LINES: usize = 30;

pub(super) struct Watch {
    progress: Progress,
    stage: usize,
    total: u64,
    fetched: u64,
    installed: u64,
    percent: u8,
    /// The last lines, for the error message.
    tail: std::collections::VecDeque<String>,
}

impl Watch {
    pub(super) fn new(progress: Progress) -> Self {
        let tail = std::collections::VecDeque::new();
        Self {
            progress,
            stage: 0,
            total: 0,
            fetched: 0,
            installed: 0,
            percent: 0,
            tail,
        }
    }

    pub(super) fn tail(&self) -> String {
        let errors: Vec<_> = self
            .tail
            .iter()
            .filter(|line| line.starts_with(['E', 'W']))
            .collect();
        let lines = if errors.is_empty() {
            self.tail.iter().collect()
        } else {
            errors
        };
        lines
            .into_iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ")
    }

    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim();
        if self.tail.len() == KEPT_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.chars().take(300).collect());
        if line.starts_with("I: cleaning package lists") {
            self.begin(3);
            self.emit(Phase::Finishing, None);
        } else if let Some((_, rest)) = line.split_once("upgraded, ") {
            if let Some(total) = rest.split(' ').next().and_then(|n| n.parse().ok()) {
                self.begin((self.stage + 1).min(2));
                self.total = total;
            }
        } else if line.starts_with("Get:") {
            let item = line.split(' ').nth(4).map(str::to_owned);
            if self.stage == 0 {
                self.emit(Phase::Resolving, None);
            } else {
                self.fetched += 1;
                self.emit(Phase::Downloading, item);
            }
        } else if let Some(rest) = line.strip_prefix("Setting up ") {
            self.installed += 1;
            self.emit(
                Phase::Installing,
                rest.split([' ', ':']).next().map(str::to_owned),
            );
        }
    }

    fn begin(&mut self, stage: usize) {
        self.stage = stage;
        (self.total, self.fetched, self.installed) = (0, 0, 0);
    }

    fn emit(&mut self, phase: Phase, item: Option<String>) {
        let (from, to) = (STAGES[self.stage], STAGES[self.stage + 1]);
        let done = (self.fetched + self.installed).min(2 * self.total);
        let share = ((to - from) * done)
            .checked_div(2 * self.total)
            .unwrap_or(0);
        self.percent = self.percent.max(u8::try_from(from + share).unwrap_or(100));
        self.progress.emit(phase, Some(self.percent), item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Event;
    use std::sync::{Arc, Mutex};

    #[test]
    fn percent_rises_and_packages_are_named() {
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = events.clone();
        let mut watch = Watch::new(Progress::new(move |event| sink.lock().unwrap().push(event)));
        for line in [
            "Get:1 http://m bookworm InRelease [151 kB]",
            "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
            "Get:1 http://m bookworm/main amd64 bash amd64 5 [1 kB]",
            "Get:2 http://m bookworm/main amd64 dpkg amd64 5 [1 kB]",
            "Setting up bash (5) ...",
            "Setting up libc6:amd64 (5) ...",
            "0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.",
            "Setting up git (5) ...",
            "I: cleaning package lists and apt cache...",
        ] {
            watch.line(line);
        }
        let events = events.lock().unwrap();
        let seen: Vec<_> = events
            .iter()
            .map(|e| (e.phase, e.percent.unwrap(), e.item.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                (Phase::Resolving, 0, None),
                (Phase::Downloading, 15, Some("bash")),
                (Phase::Downloading, 25, Some("dpkg")),
                (Phase::Installing, 35, Some("bash")),
                (Phase::Installing, 45, Some("libc6")),
                (Phase::Installing, 67, Some("git")),
                (Phase::Finishing, 90, None),
            ]
        );
    }
}
