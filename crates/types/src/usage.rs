//! What was used, and what it costs. Money is in whole micro-dollars: no fraction is ever lost
//! between a run, its workspace and an invoice.

use std::collections::BTreeMap;

use crate::workspace::UserId;
use crate::{RunId, SandboxId, Timestamp, WorkspaceId};

/// Micro-dollars in a dollar.
pub const MICROS_PER_DOLLAR: u64 = 1_000_000;

/// Tokens by kind. `input` has neither of the cached kinds in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
}

impl Tokens {
    /// All kinds together, as far as a number goes.
    pub const fn total(self) -> u64 {
        self.input
            .saturating_add(self.output)
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
    }

    /// Both together, kind by kind.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
        }
    }
}

/// What something cost, in micro-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    pub model: u64,
    pub compute: u64,
    /// Tokens were used of a model that has no price: `model` is less than it was.
    pub unpriced: bool,
}

impl Cost {
    /// Both parts together.
    pub const fn total(self) -> u64 {
        self.model.saturating_add(self.compute)
    }

    /// Both costs together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            model: self.model.saturating_add(other.model),
            compute: self.compute.saturating_add(other.compute),
            unpriced: self.unpriced || other.unpriced,
        }
    }
}

/// A calendar month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i32);

impl Month {
    /// The month of a point in time.
    pub fn of(at: Timestamp) -> Self {
        // Days since 1970 to a civil date, in years that begin with March.
        let days = at.as_secs().div_euclid(86_400) + 719_468;
        let era = days.div_euclid(146_097);
        let day = days.rem_euclid(146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let index = (era * 400 + year) * 12 + month + 2;
        Self(i32::try_from(index).unwrap_or(i32::MAX))
    }

    /// Months since January of the year 0.
    pub const fn index(self) -> i32 {
        self.0
    }

    /// The month of that index.
    pub const fn from_index(index: i32) -> Self {
        Self(index)
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:04}-{:02}",
            self.0.div_euclid(12),
            self.0.rem_euclid(12) + 1
        )
    }
}

/// What a workspace used in a month: the sum of its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageTotals {
    pub tokens: Tokens,
    pub cpu_millis_ms: u64,
    pub memory_mib_ms: u64,
    pub disk_mib_ms: u64,
    pub cost: Cost,
    pub entries: u64,
}

impl UsageTotals {
    /// With those of another part.
    pub fn plus(&mut self, other: &Self) {
        self.tokens = self.tokens.plus(other.tokens);
        self.cpu_millis_ms = self.cpu_millis_ms.saturating_add(other.cpu_millis_ms);
        self.memory_mib_ms = self.memory_mib_ms.saturating_add(other.memory_mib_ms);
        self.disk_mib_ms = self.disk_mib_ms.saturating_add(other.disk_mib_ms);
        self.cost = self.cost.plus(other.cost);
        self.entries += other.entries;
    }

    /// With one more entry.
    pub fn add(&mut self, entry: &UsageEntry) {
        match &entry.quantity {
            Quantity::Tokens { tokens, .. } => self.tokens = self.tokens.plus(*tokens),
            Quantity::Compute {
                cpu_millis_ms,
                memory_mib_ms,
                disk_mib_ms,
                ..
            } => {
                self.cpu_millis_ms = self.cpu_millis_ms.saturating_add(*cpu_millis_ms);
                self.memory_mib_ms = self.memory_mib_ms.saturating_add(*memory_mib_ms);
                self.disk_mib_ms = self.disk_mib_ms.saturating_add(*disk_mib_ms);
            }
        }
        self.cost = self.cost.plus(entry.cost);
        self.entries += 1;
    }
}

/// The rung of the ladder that compute was used on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    Running,
    Paused,
    Hibernated,
    Archived,
}

impl Rung {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Running,
        Self::Paused,
        Self::Hibernated,
        Self::Archived,
    ];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Hibernated => "hibernated",
            Self::Archived => "archived",
        }
    }
}

/// What was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantity {
    /// Tokens of one model.
    Tokens { model: String, tokens: Tokens },
    /// Time of a sandbox on one rung.
    Compute {
        rung: Rung,
        /// Thousandths of a CPU, times milliseconds.
        cpu_millis_ms: u64,
        /// MiB of memory, times milliseconds.
        memory_mib_ms: u64,
        /// MiB of disk, times milliseconds.
        disk_mib_ms: u64,
    },
}

/// One entry of the books. Entries are only ever added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEntry {
    /// Who reported it and which report it was: the same key is booked once.
    pub key: String,
    pub workspace: WorkspaceId,
    pub user: UserId,
    pub run: Option<RunId>,
    pub thread: Option<String>,
    pub agent: Option<String>,
    pub sandbox: Option<SandboxId>,
    pub at: Timestamp,
    pub quantity: Quantity,
    pub cost: Cost,
    /// The version of the price table that gave the cost.
    pub price_version: u64,
}

/// What a model's tokens cost: micro-dollars for a million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPrice {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    /// `None`: it is not known, and tokens that were written into a cache are unpriced.
    pub cache_write: Option<u64>,
}

/// What a sandbox costs on one rung: micro-dollars for a million seconds of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ComputePrice {
    /// A million seconds of one CPU.
    pub cpu: u64,
    /// A million seconds of a GiB of memory.
    pub memory: u64,
    /// A million seconds of a GiB of disk.
    pub disk: u64,
}

/// Every price that holds at a time. A table that was stored never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTable {
    /// From 1, without a gap; what was booked keeps the version that priced it.
    pub version: u64,
    pub created_at: Timestamp,
    /// Whoever made it; `None` for the one that is built in.
    pub created_by: Option<UserId>,
    /// By the model's exact name.
    pub models: BTreeMap<String, ModelPrice>,
    /// By [`Rung`], in the order of [`Rung::ALL`].
    pub compute: [ComputePrice; 4],
}

impl PriceTable {
    /// The prices of a rung.
    pub const fn rung(&self, rung: Rung) -> ComputePrice {
        match rung {
            Rung::Running => self.compute[0],
            Rung::Paused => self.compute[1],
            Rung::Hibernated => self.compute[2],
            Rung::Archived => self.compute[3],
        }
    }
}

/// What becomes of running runs once a hard limit is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverBudget {
    /// They stop where they are, their sandbox asleep, and go on when the limit is raised.
    #[default]
    Freeze,
    /// They end.
    End,
}

impl OverBudget {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::End => "end",
        }
    }
}

/// What a workspace may spend in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub workspace: WorkspaceId,
    /// Micro-dollars in a month.
    pub amount: u64,
    /// Percent of the amount, rising, each told once a month.
    pub thresholds: Vec<u16>,
    /// Whether nothing starts, and what runs is dealt with by `policy`, once it is spent.
    pub hard: bool,
    pub policy: OverBudget,
    /// Micro-dollars that are set aside for each run that goes on and has no cost limit of its own.
    pub reserve: u64,
    /// Rises by one with each stored change; a write names the one it saw.
    pub generation: u64,
    pub updated_at: Timestamp,
}

/// That a threshold of a budget was reached. There is one for each threshold, month and amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetAlert {
    pub workspace: WorkspaceId,
    pub month: Month,
    pub threshold: u16,
    /// The amount that it is a part of: another amount has alerts of its own.
    pub amount: u64,
    pub spent: u64,
    pub at: Timestamp,
}

/// What was spent and what is set aside in a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spending {
    /// Micro-dollars that are booked.
    pub spent: u64,
    /// Micro-dollars that runs may still use, those booked for them left out.
    pub reserved: u64,
}

/// How far the time of a sandbox is booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    pub sandbox: SandboxId,
    pub workspace: WorkspaceId,
    /// The last entry of its log that was looked at.
    pub seq: u64,
    /// The rung that it is on, and until when that is booked; `None` before the first and after
    /// the last.
    pub on: Option<(Rung, Timestamp)>,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    /// Micro-dollars that its sleep has saved so far, against running all the time.
    pub saved: u64,
}

/// Money that is set aside for a run until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub workspace: WorkspaceId,
    pub run: RunId,
    /// Micro-dollars.
    pub amount: u64,
    pub at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_and_end_in_utc() {
        for (at, month) in [
            ("1970-01-01T00:00:00Z", "1970-01"),
            ("1969-12-31T23:59:59.999Z", "1969-12"),
            ("2024-02-29T23:59:59.999Z", "2024-02"),
            ("2024-03-01T00:00:00Z", "2024-03"),
            ("2025-12-31T23:59:59.999Z", "2025-12"),
            ("2026-01-01T00:00:00Z", "2026-01"),
            ("2100-02-28T12:00:00Z", "2100-02"),
            ("2100-03-01T00:00:00Z", "2100-03"),
        ] {
            let of = Month::of(at.parse().unwrap());
            assert_eq!(of.to_string(), month, "{at}");
            assert_eq!(Month::from_index(of.index()), of);
        }
    }
}
