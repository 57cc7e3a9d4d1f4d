//! Timings and how they are shown.

use std::fmt;
use std::time::Instant;

use anyhow::Result;

/// One row of the table.
#[derive(Debug, Clone)]
pub(crate) enum Sample {
    /// Milliseconds, sorted.
    Times { name: String, millis: Vec<f64> },
    /// One figure with its unit.
    Figure { name: String, text: String },
    /// Could not be measured, and why.
    Missing { name: String, why: String },
}

impl Sample {
    pub(crate) fn new(name: &str, mut millis: Vec<f64>) -> Self {
        millis.sort_by(f64::total_cmp);
        Self::Times {
            name: name.into(),
            millis,
        }
    }

    pub(crate) fn figure(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Figure {
            name: name.into(),
            text: text.into(),
        }
    }

    pub(crate) fn missing(name: &str, why: impl Into<String>) -> Self {
        Self::Missing {
            name: name.into(),
            why: why.into(),
        }
    }
}

impl Sample {
    /// The middle of the times; `None` if there are none.
    pub(crate) fn median(&self) -> Option<f64> {
        match self {
            Self::Times { millis, .. } => Some(percentile(millis, 50)),
            Self::Figure { .. } | Self::Missing { .. } => None,
        }
    }
}

/// Times `work` `count` times.
pub(crate) fn measure(
    name: &str,
    count: usize,
    mut work: impl FnMut() -> Result<()>,
) -> Result<Sample> {
    let mut millis = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        work()?;
        millis.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let sample = Sample::new(name, millis);
    println!("{sample}");
    Ok(sample)
}

/// The value below which `percent` of the sorted samples lie.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((sorted.len() * percent / 100).min(last))
        .copied()
        .unwrap_or(f64::NAN)
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times { name, millis } => write!(
                f,
                "| {name} | p50 {:.2} ms, p99 {:.2} ms | {} |",
                percentile(millis, 50),
                percentile(millis, 99),
                millis.len()
            ),
            Self::Figure { name, text } => write!(f, "| {name} | {text} | 1 |"),
            Self::Missing { name, why } => write!(f, "| {name} | not measured: {why} | 0 |"),
        }
    }
}
