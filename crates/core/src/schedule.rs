//! Times that recur, written as cron does.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use croner::Cron;
use woodfrog_types::Timestamp;

/// A cron line of five fields (minute, hour, day of the month, month, day of the week), or six
/// with seconds first. In UTC.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// The first time after this one; `None` if there is none.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = DateTime::<Utc>::from_timestamp_millis(after.as_millis())?;
        let next = self.0.find_next_occurrence(&after, false).ok()?;
        Some(Timestamp::from_millis(next.timestamp_millis()))
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let cron = Cron::from_str(line).map_err(|error| error.to_string())?;
        Ok(Self(cron))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_recur_in_utc() {
        let nightly: Schedule = "0 2 * * *".parse().unwrap();
        // 1970-01-01, a Thursday.
        let hour = |hours: i64| Timestamp::from_millis(hours * 3_600_000);
        assert_eq!(nightly.next(hour(0)), Some(hour(2)));
        assert_eq!(nightly.next(hour(2)), Some(hour(26)));
        let weekly: Schedule = "30 18 * * FRI".parse().unwrap();
        let friday = Timestamp::from_millis((24 + 18) * 3_600_000 + 30 * 60_000);
        assert_eq!(weekly.next(hour(3)), Some(friday));
        let second = Timestamp::from_millis(1_000);
        let often: Schedule = "*/2 * * * * *".parse().unwrap();
        assert_eq!(often.next(second), Some(Timestamp::from_millis(2_000)));
        for bad in ["", "* * *", "61 * * * *", "every night"] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }
}
