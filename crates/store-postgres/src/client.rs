//! Running statements, and rows as records need them.

use deadpool_postgres::{Client, GenericClient, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};
use woodfrog_store::{Result, StoreError};
use woodfrog_store_rows::{Columns, corrupt, count_column, get};

use crate::error::in_;
use crate::text::unescape;

/// A parameter.
pub(crate) type Arg<'a> = &'a (dyn ToSql + Sync);

/// A row.
pub(crate) struct Cells<'a>(pub(crate) &'a Row);

impl Cells<'_> {
    fn get<'r, T: FromSql<'r>>(&'r self, what: &'static str, column: &str) -> Result<T> {
        self.0.try_get(column).map_err(|error| corrupt(what, error))
    }
}

impl Columns for Cells<'_> {
    fn text(&self, what: &'static str, column: &str) -> Result<Option<String>> {
        let text: Option<&str> = self.get(what, column)?;
        Ok(text.map(unescape))
    }

    fn integer(&self, what: &'static str, column: &str) -> Result<Option<i64>> {
        self.get(what, column)
    }

    fn bytes(&self, what: &'static str, column: &str) -> Result<Option<Vec<u8>>> {
        self.get(what, column)
    }
}

pub(crate) async fn begin<'a>(
    client: &'a mut Client,
    what: &'static str,
) -> Result<Transaction<'a>> {
    client.transaction().await.map_err(in_(what))
}

pub(crate) async fn commit(transaction: Transaction<'_>, what: &'static str) -> Result<()> {
    transaction.commit().await.map_err(in_(what))
}

/// Runs a statement and returns how many rows it changed.
pub(crate) async fn change(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    args: &[Arg<'_>],
) -> Result<u64> {
    let statement = client.prepare_cached(sql).await.map_err(in_(what))?;
    client.execute(&statement, args).await.map_err(in_(what))
}

pub(crate) async fn rows(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    args: &[Arg<'_>],
) -> Result<Vec<Row>> {
    let statement = client.prepare_cached(sql).await.map_err(in_(what))?;
    client.query(&statement, args).await.map_err(in_(what))
}

/// Every row, converted. The first that cannot be ends it.
pub(crate) async fn all<T>(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    args: &[Arg<'_>],
    convert: fn(&dyn Columns) -> Result<T>,
) -> Result<Vec<T>> {
    let rows = rows(client, what, sql, args).await?;
    rows.iter().map(|row| convert(&Cells(row))).collect()
}

/// The first row, converted; `None` if there is none.
pub(crate) async fn first<T>(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    args: &[Arg<'_>],
    convert: fn(&dyn Columns) -> Result<T>,
) -> Result<Option<T>> {
    let rows = rows(client, what, sql, args).await?;
    rows.first().map(|row| convert(&Cells(row))).transpose()
}

/// Whether the query finds anything.
pub(crate) async fn finds(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    args: &[Arg<'_>],
) -> Result<bool> {
    Ok(!rows(client, what, sql, args).await?.is_empty())
}

/// The number `n` of a query's only row.
pub(crate) async fn count(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    args: &[Arg<'_>],
) -> Result<u64> {
    let rows = rows(client, what, sql, args).await?;
    let row = rows.first();
    row.map_or(Ok(0), |row| count_column(&Cells(row), what, "n"))
}

/// The generation as a column; 0 follows nothing, and none past `i64::MAX` was ever stored.
pub(crate) fn generation(what: &'static str, generation: u64) -> Result<i64> {
    match i64::try_from(generation) {
        Ok(generation) if generation > 0 => Ok(generation),
        _ => Err(StoreError::Conflict { what }),
    }
}

/// Why a change of the record with that generation met no row.
pub(crate) async fn refused(
    client: &impl GenericClient,
    what: &'static str,
    sql: &str,
    id: &str,
) -> StoreError {
    match finds(client, what, sql, &[&id]).await {
        Ok(true) => StoreError::Conflict { what },
        Ok(false) => StoreError::NotFound { what },
        Err(error) => error,
    }
}

/// Adds the row's id to a `Corrupt` error of a list.
pub(crate) fn name_culprit(row: &dyn Columns, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what, detail } => {
            let id: String = get(row, what, "id").unwrap_or_else(|_| "(id unreadable)".to_owned());
            corrupt(what, format!("{id}: {detail}"))
        }
        other => other,
    }
}
