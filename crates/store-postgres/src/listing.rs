//! Pages of lists that go by a time, then by id.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use woodfrog_store::Result;
use woodfrog_store::cursor::{self, List};
use woodfrog_store_rows::{Columns, get, to_sql_int};
use woodfrog_types::page::{Page, PageRequest};

use crate::client::{Arg, Cells, name_culprit, rows};
use crate::text::TextBuf;

/// Rows that are asked for at least: a filter may throw most of them away.
const CHUNK_MIN: usize = 64;

type Owned = Box<dyn ToSql + Sync + Send>;

/// Which rows of a table, and in what order.
pub(crate) struct Listing {
    what: &'static str,
    list: List,
    time: &'static str,
    newest: bool,
    sql: String,
    args: Vec<Owned>,
}

impl Listing {
    /// Of all rows of `table`, by the column `time`.
    pub(crate) fn new(
        what: &'static str,
        list: List,
        table: &'static str,
        time: &'static str,
        newest: bool,
    ) -> Self {
        Self {
            what,
            list,
            time,
            newest,
            sql: format!("SELECT * FROM {table} WHERE true"),
            args: Vec::new(),
        }
    }

    /// Only those for which a condition holds.
    pub(crate) fn when(mut self, condition: &str) -> Self {
        self.sql.push_str(&format!(" AND {condition}"));
        self
    }

    /// Only those whose column compares so with the value.
    pub(crate) fn with(mut self, column_and_sign: &str, value: Owned) -> Self {
        self.args.push(value);
        let place = self.args.len();
        self.when(&format!("{column_and_sign} ${place}"))
    }

    /// Only those with this text in the column.
    pub(crate) fn text(self, column: &str, value: &str) -> Self {
        self.with(&format!("{column} ="), Box::new(TextBuf(value.to_owned())))
    }

    /// A page of what `convert` makes of the rows; it passes over a row with `None`. A damaged
    /// row costs itself and not the list.
    pub(crate) async fn page<T: Send>(
        &self,
        client: &impl GenericClient,
        page: &PageRequest,
        convert: impl Fn(&dyn Columns) -> Result<Option<T>> + Send + Sync,
        key: fn(&T) -> (i64, String),
    ) -> Result<Page<T>> {
        let limit = cursor::page_items(page);
        let chunk = (limit + 1).max(CHUNK_MIN);
        let after = page.cursor.as_deref();
        let after = after.map(|cursor| cursor::decode_time(self.list, cursor));
        let mut after = after.transpose()?;
        let mut items = Vec::new();
        loop {
            let rows = self.chunk(client, after.as_ref(), chunk).await?;
            for row in &rows {
                let row = &Cells(row);
                match convert(row) {
                    Ok(Some(item)) if items.len() < limit => items.push(item),
                    Ok(Some(_)) => {
                        let last = items.last().map(key);
                        let next =
                            last.map(|(at, id)| cursor::encode(self.list, &at.to_string(), &id));
                        return Ok(Page { items, next });
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let error = name_culprit(row, error);
                        tracing::error!(%error, "a {} is left out of a list", self.what);
                    }
                }
            }
            let Some(last) = rows.last().filter(|_| rows.len() == chunk) else {
                return Ok(Page { items, next: None });
            };
            let last = &Cells(last);
            after = Some((
                get(last, self.what, self.time)?,
                get(last, self.what, "id")?,
            ));
        }
    }

    async fn chunk(
        &self,
        client: &impl GenericClient,
        after: Option<&(i64, String)>,
        chunk: usize,
    ) -> Result<Vec<tokio_postgres::Row>> {
        let (sign, direction) = match self.newest {
            true => ("<", "DESC"),
            false => (">", "ASC"),
        };
        let (time, mut sql) = (self.time, self.sql.clone());
        let chunk = to_sql_int(chunk);
        let after = after.map(|(at, id)| (*at, TextBuf(id.clone())));
        let mut args: Vec<Arg<'_>> = Vec::new();
        args.extend(self.args.iter().map(|arg| -> Arg<'_> { arg.as_ref() }));
        if let Some((at, id)) = &after {
            let place = args.len();
            sql.push_str(&format!(
                " AND ({time}, id) {sign} (${}, ${})",
                place + 1,
                place + 2
            ));
            args.extend([at as Arg<'_>, id as Arg<'_>]);
        }
        args.push(&chunk);
        sql.push_str(&format!(
            " ORDER BY {time} {direction}, id {direction} LIMIT ${}",
            args.len()
        ));
        rows(client, self.what, &sql, &args).await
    }
}
