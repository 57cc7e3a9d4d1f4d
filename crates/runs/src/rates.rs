//! How many runs may be started.

use std::time::Duration;

use woodfrog_store::{RunStore, StartRate, Whose};
use woodfrog_types::run::Run;
use woodfrog_types::workspace::WorkspaceLimits;
use woodfrog_types::{Code, Fault, Timestamp};

/// The window that starts are counted in.
const WINDOW: Duration = Duration::from_secs(60);
/// In so many windows a burst comes back.
const BURST_WINDOWS: u32 = 10;

/// The rates that a start at `now` is held against. A burst is lent: it may be used within one
/// window, and in ten of them there are no more starts than the rate and one burst allow.
pub(crate) fn of(limits: &WorkspaceLimits, now: Timestamp) -> Vec<StartRate> {
    let burst = u64::from(limits.run_burst);
    let mut rates = Vec::new();
    for (whose, per_minute) in [
        (Whose::User, limits.user_runs_per_minute),
        (Whose::Workspace, limits.runs_per_minute),
    ] {
        let Some(per_minute) = per_minute.map(u64::from) else {
            continue;
        };
        let rate = |windows: u32| StartRate {
            whose,
            max: per_minute * u64::from(windows) + burst,
            after: before(now, WINDOW * windows),
        };
        rates.push(rate(1));
        if burst > 0 {
            rates.push(rate(BURST_WINDOWS));
        }
    }
    rates
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(by))
}

/// The rates, less the starts that another ledger has counted.
pub(crate) async fn less(
    mut rates: Vec<StartRate>,
    run: &Run,
    ledger: &dyn RunStore,
) -> woodfrog_store::Result<Vec<StartRate>> {
    for rate in &mut rates {
        let (others, _) = ledger.run_starts(run, rate.whose, rate.after).await?;
        rate.max = rate.max.saturating_sub(others);
    }
    Ok(rates)
}

/// A start that is one too many.
pub(crate) fn refused(whose: Whose, limits: &WorkspaceLimits) -> Fault {
    let (max, who) = match whose {
        Whose::User => (limits.user_runs_per_minute, ""),
        Whose::Workspace => (limits.runs_per_minute, " in this workspace"),
    };
    let max = max.unwrap_or_default();
    let text = format!("Rate limit exceeded: maximum {max} sandbox runs per minute{who}");
    Fault::new(Code::RateLimited, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(user: Option<u32>, workspace: Option<u32>, burst: u32) -> WorkspaceLimits {
        WorkspaceLimits {
            user_runs_per_minute: user,
            runs_per_minute: workspace,
            run_burst: burst,
            ..WorkspaceLimits::default()
        }
    }

    #[test]
    fn a_burst_is_lent_for_ten_windows() {
        let now = Timestamp::from_millis(1_000_000);
        let rate = |whose, max, after| StartRate {
            whose,
            max,
            after: Timestamp::from_millis(after),
        };
        assert_eq!(of(&limits(None, None, 5), now), []);
        let plain = [rate(Whose::User, 10, 940_000)];
        assert_eq!(of(&limits(Some(10), None, 0), now), plain);
        let lent = [
            rate(Whose::User, 15, 940_000),
            rate(Whose::User, 105, 400_000),
            rate(Whose::Workspace, 25, 940_000),
            rate(Whose::Workspace, 205, 400_000),
        ];
        assert_eq!(of(&limits(Some(10), Some(20), 5), now), lent);
    }

    #[test]
    fn a_refusal_names_what_was_exceeded() {
        let limits = limits(Some(10), Some(20), 5);
        let user = "Rate limit exceeded: maximum 10 sandbox runs per minute";
        assert_eq!(refused(Whose::User, &limits).message, user);
        let workspace = refused(Whose::Workspace, &limits).message;
        assert!(workspace.contains("maximum 20"), "{workspace}");
    }
}
