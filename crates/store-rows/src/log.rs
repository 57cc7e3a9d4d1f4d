//! Rows about the logs of sessions.

use woodfrog_store::Result;
use woodfrog_types::session::{LogEnd, Position, Turn};

use crate::{Columns, count_column, get, parse, time_column, time_column_opt};

const SESSION: &str = "session";
const TURN: &str = "turn";

/// A session's number in the database, and where its logs stand.
#[derive(Debug, Clone, Copy)]
pub struct LogRow {
    pub log: i64,
    pub end: LogEnd,
}

pub fn log_row_from_row(row: &dyn Columns) -> Result<LogRow> {
    let count = |column| count_column(row, SESSION, column);
    let end = LogEnd {
        log: count("last")?,
        universal: count("universal_last")?,
        log_first: count("first")?,
        universal_first: count("universal_first")?,
        position: Position {
            input: count("input")?,
            output: count("output")?,
        },
        epoch: count("epoch")?,
    };
    let log = get(row, SESSION, "log")?;
    Ok(LogRow { log, end })
}

pub fn turn_from_row(row: &dyn Columns) -> Result<Turn> {
    let last: Option<i64> = get(row, TURN, "last")?;
    let snapshot: Option<String> = get(row, TURN, "snapshot")?;
    Ok(Turn {
        number: count_column(row, TURN, "number")?,
        binding: get(row, TURN, "binding")?,
        author: get(row, TURN, "author")?,
        first: count_column(row, TURN, "first")?,
        last: last.and_then(|last| u64::try_from(last).ok()),
        outcome: get(row, TURN, "outcome")?,
        started_at: time_column(row, TURN, "started_at")?,
        ended_at: time_column_opt(row, TURN, "ended_at")?,
        snapshot: snapshot.map(|id| parse(TURN, &id)).transpose()?,
    })
}
