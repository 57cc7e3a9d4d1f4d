//! Whole days that were counted before.
//!
//! A report over a month of a busy workspace is a pass over a million facts, of which nearly all are
//! what they were a minute ago. What a day came to is kept in memory with the day's version, which a
//! trigger raises whenever a fact of the day changes: a day whose version is the same need not be
//! read again. Reports with conditions read an index, and are not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use woodfrog_types::analytics::{GroupBy, RunQuery, RunTally};
use woodfrog_types::{Timestamp, WorkspaceId};

/// Milliseconds of a day; days begin at midnight UTC.
const DAY: i64 = 86_400_000;
/// Bytes of all the days that are kept, about.
const BYTES_MAX: usize = 64 << 20;
/// Days that are kept.
const DAYS_MAX: usize = 4_096;

/// A part of the time that a query asks for.
pub(super) enum Part {
    /// A whole day without conditions: its number since the epoch, and the query for it alone.
    Day(i64, RunQuery),
    /// Anything else.
    Some(RunQuery),
}

/// The time of a query in parts, of which none overlap.
pub(super) fn parts(query: &RunQuery) -> Vec<Part> {
    let (from, until) = (query.from.as_millis(), query.until.as_millis());
    let between = |from: i64, until: i64| RunQuery {
        from: Timestamp::from_millis(from),
        until: Timestamp::from_millis(until),
        ..query.clone()
    };
    let RunQuery {
        from: _,
        until: _,
        bucket: _,
        thread,
        agent,
        model,
        user,
        by: _,
    } = query;
    let has_conditions = [thread, agent, model, user]
        .iter()
        .any(|name| name.is_some());
    let first = from.div_euclid(DAY) + i64::from(from.rem_euclid(DAY) > 0);
    let end = until.div_euclid(DAY);
    let days = usize::try_from(end.saturating_sub(first)).unwrap_or(0);
    if has_conditions || !(1..=DAYS_MAX / 2).contains(&days) {
        return vec![Part::Some(query.clone())];
    }
    let mut parts = vec![Part::Some(between(from, first * DAY))];
    parts.extend((first..end).map(|day| Part::Day(day, between(day * DAY, (day + 1) * DAY))));
    parts.push(Part::Some(between(end * DAY, until)));
    parts.retain(|part| match part {
        Part::Day(..) => true,
        Part::Some(query) => query.from < query.until,
    });
    parts
}

/// How often facts of this day were changed.
pub(super) fn version(
    conn: &Connection,
    workspace: &WorkspaceId,
    day: i64,
) -> rusqlite::Result<i64> {
    let sql = "SELECT version FROM run_days WHERE workspace = ?1 AND day = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let version = statement.query_row(params![workspace.as_str(), day], |row| row.get(0));
    Ok(version.optional()?.unwrap_or(0))
}

/// What a day was counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    workspace: WorkspaceId,
    bucket: i64,
    by: Option<GroupBy>,
    day: i64,
}

impl Key {
    pub(super) fn new(workspace: &WorkspaceId, query: &RunQuery, day: i64) -> Self {
        Self {
            workspace: workspace.clone(),
            bucket: query.bucket,
            by: query.by,
            day,
        }
    }
}

/// Days that were counted.
#[derive(Debug, Default)]
pub(crate) struct Days(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    days: HashMap<Key, (i64, Arc<RunTally>)>,
    /// The one that was put longest ago comes first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl Days {
    /// What the day came to, if it is still of this version.
    pub(super) fn get(&self, key: &Key, version: i64) -> Option<Arc<RunTally>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, tally) = known.days.get(key)?;
        (*of == version).then(|| Arc::clone(tally))
    }

    /// Keeps it, and drops those that were counted longest ago where it is too much.
    pub(super) fn put(&self, key: Key, version: i64, tally: Arc<RunTally>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.drop_day(&key);
        known.bytes += tally.bytes();
        known.order.push_back(key.clone());
        known.days.insert(key, (version, tally));
        while known.bytes > BYTES_MAX || known.days.len() > DAYS_MAX {
            let Some(oldest) = known.order.front().cloned() else {
                return;
            };
            known.drop_day(&oldest);
        }
    }
}

impl Known {
    fn drop_day(&mut self, key: &Key) {
        if let Some((_, tally)) = self.days.remove(key) {
            self.bytes -= tally.bytes();
            self.order.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(from: i64, until: i64) -> RunQuery {
        RunQuery {
            from: Timestamp::from_millis(from),
            until: Timestamp::from_millis(until),
            bucket: 3_600_000,
            thread: None,
            agent: None,
            model: None,
            user: None,
            by: None,
        }
    }

    fn spans(query: &RunQuery) -> Vec<(bool, i64, i64)> {
        let span = |query: &RunQuery| (query.from.as_millis(), query.until.as_millis());
        let parts = parts(query).into_iter().map(|part| match part {
            Part::Day(day, query) => {
                assert_eq!(span(&query), (day * DAY, (day + 1) * DAY));
                (true, span(&query).0, span(&query).1)
            }
            Part::Some(query) => (false, span(&query).0, span(&query).1),
        });
        parts.collect()
    }

    #[test]
    fn the_parts_are_the_whole() {
        assert_eq!(spans(&query(DAY, 2 * DAY)), [(true, DAY, 2 * DAY)]);
        assert_eq!(
            spans(&query(DAY - 1, 3 * DAY + 1)),
            [
                (false, DAY - 1, DAY),
                (true, DAY, 2 * DAY),
                (true, 2 * DAY, 3 * DAY),
                (false, 3 * DAY, 3 * DAY + 1),
            ]
        );
        assert_eq!(spans(&query(-1, DAY)), [(false, -1, 0), (true, 0, DAY)]);
        for (from, until) in [(1, DAY), (5, 5), (7, 3), (0, i64::MAX), (i64::MIN, 0)] {
            assert_eq!(spans(&query(from, until)), [(false, from, until)]);
        }
    }

    #[test]
    fn conditions_are_asked_of_an_index() {
        let narrow = RunQuery {
            user: Some("ann".to_owned()),
            ..query(0, 2 * DAY)
        };
        assert_eq!(spans(&narrow), [(false, 0, 2 * DAY)]);
    }

    #[test]
    fn an_old_version_is_not_used_and_the_oldest_goes() {
        let days = Days::default();
        let workspace = WorkspaceId::generate();
        let key = |day| Key::new(&workspace, &query(0, DAY), day);
        let tally = || Arc::new(RunTally::new(&query(0, DAY)));
        days.put(key(0), 3, tally());
        assert!(days.get(&key(0), 3).is_some());
        assert!(days.get(&key(0), 4).is_none());
        assert!(days.get(&key(1), 3).is_none());
        for day in 1..=i64::try_from(DAYS_MAX).unwrap() {
            days.put(key(day), 1, tally());
        }
        assert!(days.get(&key(0), 3).is_none());
        assert!(days.get(&key(1), 1).is_some());
    }
}
