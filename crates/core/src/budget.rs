//! Budgets: what a workspace may spend in a calendar month, UTC.
//!
//! Admission asks what is booked and what is set aside, in the transaction that sets aside: many
//! starts at once let in no more than fit. What runs is asked again after each booking.

use woodfrog_types::usage::{Budget, Month, OverBudget, Spending};
use woodfrog_types::{Code, Fault, Timestamp};

/// Thresholds of one budget.
pub const THRESHOLDS_MAX: usize = 10;
/// Percent: alerts may come above the amount too.
pub const THRESHOLD_MAX: u16 = 1_000;
/// Micro-dollars: a billion dollars.
pub const AMOUNT_MAX: u64 = 1_000_000_000_000_000;

/// A day, in milliseconds.
const DAY: i64 = 86_400_000;

/// Refuses a budget that makes no sense.
pub fn validate(budget: &Budget) -> Result<(), Fault> {
    if budget.amount > AMOUNT_MAX {
        let text = format!("amount is at most {AMOUNT_MAX} micro-dollars");
        return Err(Fault::invalid("amount", text));
    }
    if budget.reserve > budget.amount {
        let text = "reserve is at most the amount: no run could ever start";
        return Err(Fault::invalid("reserve", text));
    }
    let thresholds = &budget.thresholds;
    let rising = thresholds.is_sorted_by(|one, two| one < two);
    let fit = thresholds
        .iter()
        .all(|percent| (1..=THRESHOLD_MAX).contains(percent));
    if thresholds.len() > THRESHOLDS_MAX || !rising || !fit {
        let text = format!(
            "thresholds are at most {THRESHOLDS_MAX} rising percentages from 1 to {THRESHOLD_MAX}"
        );
        return Err(Fault::invalid("thresholds", text));
    }
    Ok(())
}

/// Whether a run may start that sets `wanted` aside. A soft limit never refuses.
pub fn admit(budget: &Budget, spending: Spending, wanted: u64) -> Result<(), Refusal> {
    if !budget.hard {
        return Ok(());
    }
    let taken = spending.spent.saturating_add(spending.reserved);
    // What is used up has no room even for a run that sets nothing aside.
    if spending.spent >= budget.amount || taken.saturating_add(wanted) > budget.amount {
        return Err(Refusal {
            amount: budget.amount,
            spending,
            wanted,
        });
    }
    Ok(())
}

/// Why a run may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub amount: u64,
    pub spending: Spending,
    pub wanted: u64,
}

impl Refusal {
    /// For the caller.
    pub fn fault(self, month: Month) -> Fault {
        let end = starts(next(month));
        let Spending { spent, reserved } = self.spending;
        let text = format!(
            "the workspace's budget of {} for {} is used up: {} spent, {} set aside for runs that \
             go on, {} wanted; raise it or wait until {end}",
            dollars(self.amount),
            month,
            dollars(spent),
            dollars(reserved),
            dollars(self.wanted),
        );
        Fault::new(Code::BudgetExceeded, text)
    }
}

/// What becomes of a run that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// It stops where it is until this is asked again and the answer is another.
    Hold,
    End,
}

/// Whether runs may go on now that so much is spent.
pub fn judge(budget: Option<&Budget>, spent: u64) -> Verdict {
    match budget {
        Some(budget) if budget.hard && spent >= budget.amount => match budget.policy {
            OverBudget::Freeze => Verdict::Hold,
            OverBudget::End => Verdict::End,
        },
        Some(_) | None => Verdict::Go,
    }
}

/// The thresholds that are reached.
pub fn reached(budget: &Budget, spent: u64) -> impl Iterator<Item = u16> + '_ {
    let at = |percent: u16| u128::from(budget.amount) * u128::from(percent);
    let spent = u128::from(spent) * 100;
    let thresholds = budget.thresholds.iter().copied();
    thresholds.filter(move |percent| spent >= at(*percent))
}

/// When a month begins.
pub fn starts(month: Month) -> Timestamp {
    // Days to a civil date, in years that begin with March.
    let shifted = i64::from(month.index()) - 2;
    let (year, month) = (shifted.div_euclid(12), shifted.rem_euclid(12));
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5;
    Timestamp::from_millis((era * 146_097 + day - 719_468) * DAY)
}

/// The month after.
pub const fn next(month: Month) -> Month {
    Month::from_index(month.index().saturating_add(1))
}

/// The month of a name: `2026-11`.
pub fn parse_month(text: &str) -> Option<Month> {
    let (year, month) = text.split_once('-')?;
    let digits = |text: &str, count| {
        let fits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.parse::<i32>().ok()).flatten()
    };
    let (year, month) = (digits(year, 4)?, digits(month, 2)?);
    (1..=12)
        .contains(&month)
        .then(|| Month::from_index(year * 12 + month - 1))
}

/// Dollars with all six digits that count: `$1.500000`.
pub fn dollars(micros: u64) -> String {
    format!("${}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests;
