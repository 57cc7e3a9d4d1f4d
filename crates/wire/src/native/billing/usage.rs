//! What was used.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::usage::{Quantity, UsageEntry as Entry, UsageTotals};
use woodfrog_types::{RunId, SandboxId};

/// One entry of the books, flat: a line of an export.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageEntry {
    pub at: i64,
    pub key: String,
    pub workspace: String,
    pub user: String,
    pub run: Option<String>,
    pub thread: Option<String>,
    pub agent: Option<String>,
    pub sandbox: Option<String>,
    /// Of tokens.
    pub model: Option<String>,
    /// Of compute: `running`, `paused`, `hibernated` or `archived`.
    pub rung: Option<String>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    /// Thousandths of a CPU, times milliseconds.
    pub cpu_millis_ms: u64,
    /// MiB of memory, times milliseconds.
    pub memory_mib_ms: u64,
    /// MiB of disk, times milliseconds.
    pub disk_mib_ms: u64,
    pub model_cost_micros: u64,
    pub compute_cost_micros: u64,
    /// Tokens of a model without a price are in it: the cost is less than it was.
    pub unpriced: bool,
    pub price_version: u64,
}

/// Which part of the books, and in which form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// A month, UTC: `2026-11`; this one if neither it nor times are given.
    pub month: Option<String>,
    /// Milliseconds since the epoch, inclusive; with `until`, instead of `month`.
    pub from: Option<i64>,
    /// Exclusive.
    pub until: Option<i64>,
    /// `day`, `model`, `user`, `thread` or `agent`; `day` if absent.
    pub by: Option<String>,
    /// Of an export: `jsonl` or `csv`; `jsonl` if absent.
    pub format: Option<String>,
}

/// Sums of the entries that have one thing in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageRow {
    /// The day (`2026-11-21`), the model, the user, the thread or the agent; null: entries without.
    pub name: Option<String>,
    pub entries: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    pub cpu_millis_ms: u64,
    pub memory_mib_ms: u64,
    pub disk_mib_ms: u64,
    pub model_cost_micros: u64,
    pub compute_cost_micros: u64,
    pub total_cost_micros: u64,
    pub unpriced: bool,
}

/// What a workspace used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageShow {
    pub workspace: String,
    pub from: i64,
    pub until: i64,
    pub by: String,
    /// By name.
    pub rows: Vec<UsageRow>,
    pub total: UsageRow,
}

impl UsageRow {
    /// The reply for sums of that name.
    pub fn new(name: Option<String>, totals: &UsageTotals) -> Self {
        Self {
            name,
            entries: totals.entries,
            input_tokens: totals.tokens.input,
            output_tokens: totals.tokens.output,
            cache_read_tokens: totals.tokens.cache_read,
            cache_write_tokens: totals.tokens.cache_write,
            cpu_millis_ms: totals.cpu_millis_ms,
            memory_mib_ms: totals.memory_mib_ms,
            disk_mib_ms: totals.disk_mib_ms,
            model_cost_micros: totals.cost.model,
            compute_cost_micros: totals.cost.compute,
            total_cost_micros: totals.cost.total(),
            unpriced: totals.cost.unpriced,
        }
    }
}

impl From<&Entry> for UsageEntry {
    fn from(entry: &Entry) -> Self {
        let mut flat = Self {
            at: entry.at.as_millis(),
            key: entry.key.clone(),
            workspace: entry.workspace.to_string(),
            user: entry.user.to_string(),
            run: entry.run.as_ref().map(RunId::to_string),
            thread: entry.thread.clone(),
            agent: entry.agent.clone(),
            sandbox: entry.sandbox.as_ref().map(SandboxId::to_string),
            model_cost_micros: entry.cost.model,
            compute_cost_micros: entry.cost.compute,
            unpriced: entry.cost.unpriced,
            price_version: entry.price_version,
            ..Self::default()
        };
        match &entry.quantity {
            Quantity::Tokens { model, tokens } => {
                flat.model = Some(model.clone());
                flat.input_tokens = tokens.input;
                flat.output_tokens = tokens.output;
                flat.cache_read_tokens = tokens.cache_read;
                flat.cache_write_tokens = tokens.cache_write;
            }
            Quantity::Compute {
                rung,
                cpu_millis_ms,
                memory_mib_ms,
                disk_mib_ms,
            } => {
                flat.rung = Some(rung.as_str().to_owned());
                flat.cpu_millis_ms = *cpu_millis_ms;
                flat.memory_mib_ms = *memory_mib_ms;
                flat.disk_mib_ms = *disk_mib_ms;
            }
        }
        flat
    }
}

impl UsageEntry {
    /// The headings of [`UsageEntry::csv`].
    pub const CSV_HEAD: &'static str = "at,key,workspace,user,run,thread,agent,sandbox,model,rung,\
        input_tokens,output_tokens,cache_read_tokens,cache_write_tokens,cpu_millis_ms,\
        memory_mib_ms,disk_mib_ms,model_cost_micros,compute_cost_micros,unpriced,price_version\r\n";

    /// A line of CSV (RFC 4180). A text that a spreadsheet would take for a formula begins with an
    /// apostrophe.
    pub fn csv(&self) -> String {
        let texts = [
            Some(&self.key),
            Some(&self.workspace),
            Some(&self.user),
            self.run.as_ref(),
            self.thread.as_ref(),
            self.agent.as_ref(),
            self.sandbox.as_ref(),
            self.model.as_ref(),
            self.rung.as_ref(),
        ];
        let numbers = [
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cpu_millis_ms,
            self.memory_mib_ms,
            self.disk_mib_ms,
            self.model_cost_micros,
            self.compute_cost_micros,
        ];
        let mut line = self.at.to_string();
        for text in texts {
            line.push(',');
            push_cell(&mut line, text.map_or("", String::as_str));
        }
        for number in numbers {
            line.push(',');
            line.push_str(&number.to_string());
        }
        line.push_str(&format!(",{},{}\r\n", self.unpriced, self.price_version));
        line
    }
}

fn push_cell(line: &mut String, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !formula && !text.contains([',', '"', '\r', '\n']) {
        line.push_str(text);
        return;
    }
    line.push('"');
    if formula {
        line.push('\'');
    }
    line.push_str(&text.replace('"', "\"\""));
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formulas() {
        let cell = |text| {
            let mut line = String::new();
            push_cell(&mut line, text);
            line
        };
        assert_eq!(cell("plain ü"), "plain ü");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("a\"b\n"), "\"a\"\"b\n\"");
        assert_eq!(cell("=1+1"), "\"'=1+1\"");
    }

    #[test]
    fn a_line_has_as_many_cells_as_the_head() {
        let cells = |line: &str| line.matches(',').count();
        assert_eq!(
            cells(&UsageEntry::default().csv()),
            cells(UsageEntry::CSV_HEAD)
        );
    }
}
