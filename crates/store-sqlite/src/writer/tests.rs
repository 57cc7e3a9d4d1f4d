use super::*;

fn writer() -> Writer {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
    Writer::start(conn, Logs::default(), None).unwrap()
}

async fn put(writer: &Writer, bytes: usize) -> Result<usize> {
    let sql = "INSERT INTO t VALUES (zeroblob(?1))";
    let bytes = i64::try_from(bytes).unwrap();
    writer
        .write(move |conn| change(conn, "row", sql, [bytes]))
        .await
}

async fn count(writer: &Writer) -> i64 {
    let sql = "SELECT count(*) FROM t";
    let counted = writer.write(move |conn| {
        conn.query_row(sql, [], |row| row.get(0))
            .map_err(in_("row"))
    });
    counted.await.unwrap()
}

async fn limit_pages(writer: &Writer, pages: i64) {
    let limited = writer.write(move |conn| {
        conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .map_err(in_("limit"))
    });
    limited.await.unwrap();
}

/// What was written in the same transaction may be lost with it, but is then never acknowledged.
#[tokio::test]
async fn a_full_disk_is_an_error_and_not_the_end() {
    let writer = writer();
    limit_pages(&writer, 10).await;
    let (small, large, after) =
        tokio::join!(put(&writer, 10), put(&writer, 1_000_000), put(&writer, 10));
    assert!(
        matches!(large, Err(StoreError::Unavailable(_))),
        "{large:?}"
    );
    let acknowledged = i64::from(small.is_ok()) + i64::from(after.is_ok());
    assert_eq!(count(&writer).await, acknowledged);
    limit_pages(&writer, 10_000).await;
    put(&writer, 1_000_000).await.unwrap();
    assert_eq!(count(&writer).await, acknowledged + 1);
}

#[tokio::test]
async fn a_panic_takes_only_its_own_write_back() {
    let writer = writer();
    let panicking = writer.write(|conn| -> Result<()> {
        change(conn, "row", "INSERT INTO t VALUES (1)", [])?;
        panic!("a defect");
    });
    let (before, panicked, after) = tokio::join!(put(&writer, 1), panicking, put(&writer, 1));
    before.unwrap();
    after.unwrap();
    assert!(matches!(panicked, Err(StoreError::Unavailable(_))));
    assert_eq!(count(&writer).await, 2);
}
