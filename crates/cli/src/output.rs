//! Printing: tables for people, JSON for programs. Data goes to standard output, the rest to
//! standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::Target;

/// Between two pictures of a spinner.
const TICK: Duration = Duration::from_millis(100);

/// Prints one JSON document.
///
/// # Errors
/// Standard output is closed.
pub fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// Prints rows under headings, columns aligned by two spaces.
///
/// # Errors
/// Standard output is closed.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = io::stdout().lock();
    let heading_row: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&heading_row).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let pad = (width + 2).saturating_sub(cell.chars().count());
            line.extend(std::iter::repeat_n(' ', pad));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints `name: value` lines.
///
/// # Errors
/// Standard output is closed.
pub fn fields(pairs: &[(&str, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let mut out = io::stdout().lock();
    for (name, value) in pairs {
        writeln!(out, "{:width$} {value}", format!("{name}:"))?;
    }
    Ok(())
}

/// Prints text as it is.
///
/// # Errors
/// Standard output is closed.
pub fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// A piece of text on standard output, as it comes.
pub fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A sign of life on standard error while something takes its time; gone when it is dropped.
pub struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Shows that `doing` goes on, and for how long, where a person sees it.
pub fn spinner(target: &Target, doing: String) -> Spinner {
    let seen = !target.json && io::stderr().is_terminal();
    let bar = match seen {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(doing);
    if seen {
        bar.enable_steady_tick(TICK);
    }
    Spinner(bar)
}

/// Tells the person, on standard error.
pub fn note(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints an error with its causes, on standard error.
pub fn error(error: &dyn std::error::Error) {
    note(&format!("error: {error}"));
    let mut source = error.source();
    while let Some(cause) = source {
        note(&format!("  caused by: {cause}"));
        source = cause.source();
    }
}

/// A length of time in its largest unit: `12s`, `5m`, `3h`, `2d`.
pub fn span(time: std::time::Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

/// Bytes in the largest binary unit that fits: `512MiB`.
pub fn bytes(count: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| count >> shift > 0);
    let Some((shift, unit)) = unit else {
        return format!("{count}B");
    };
    let tenths = u128::from(count) * 10 / (1 << shift);
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(512 << 20), "512MiB");
        assert_eq!(bytes(1536), "1.5KiB");
        assert_eq!(bytes(7), "7B");
        assert_eq!(span(Duration::from_secs(90)), "90s");
        assert_eq!(span(Duration::from_secs(7200)), "2h");
    }
}
