//! Rows of any database, as records need them.

use woodfrog_store::{Result, StoreError};

use crate::corrupt;

/// A row of a query's result. `what` names the record for messages; a value of another type than
/// the one that is asked for is `Corrupt`.
pub trait Columns {
    fn text(&self, what: &'static str, column: &str) -> Result<Option<String>>;
    fn integer(&self, what: &'static str, column: &str) -> Result<Option<i64>>;
    fn bytes(&self, what: &'static str, column: &str) -> Result<Option<Vec<u8>>>;
}

/// What a column can hold.
pub trait Cell: Sized {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self>;
}

/// A column.
pub fn get<T: Cell>(row: &dyn Columns, what: &'static str, column: &str) -> Result<T> {
    T::read(row, what, column)
}

fn missing(what: &'static str, column: &str) -> StoreError {
    corrupt(what, format!("{column} is not there"))
}

impl Cell for Option<String> {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self> {
        row.text(what, column)
    }
}

impl Cell for Option<i64> {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self> {
        row.integer(what, column)
    }
}

impl Cell for String {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self> {
        row.text(what, column)?.ok_or_else(|| missing(what, column))
    }
}

impl Cell for i64 {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self> {
        row.integer(what, column)?
            .ok_or_else(|| missing(what, column))
    }
}

/// Kept as 0 or 1.
impl Cell for bool {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self> {
        i64::read(row, what, column).map(|value| value != 0)
    }
}

impl Cell for Vec<u8> {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self> {
        row.bytes(what, column)?
            .ok_or_else(|| missing(what, column))
    }
}

impl<const N: usize> Cell for [u8; N] {
    fn read(row: &dyn Columns, what: &'static str, column: &str) -> Result<Self> {
        let bytes = Vec::read(row, what, column)?;
        let length = bytes.len();
        Self::try_from(bytes).map_err(|_| corrupt(what, format!("{column} has {length} bytes")))
    }
}
