use super::*;

const ONE: Migration = Migration {
    version: 1,
    name: "one",
    sql: "CREATE TABLE a (x INTEGER) STRICT;",
};
const TWO: Migration = Migration {
    version: 2,
    name: "two",
    sql: "ALTER TABLE a ADD COLUMN y INTEGER; INSERT INTO a VALUES (1, 2);",
};

fn memory() -> Connection {
    Connection::open_in_memory().unwrap()
}

fn versions(conn: &Connection) -> Vec<i64> {
    let applied = applied(conn).unwrap();
    applied.into_iter().map(|(version, ..)| version).collect()
}

#[test]
fn applies_from_scratch_and_only_once() {
    let mut conn = memory();
    run(&mut conn, &[ONE, TWO]).unwrap();
    run(&mut conn, &[ONE, TWO]).unwrap();
    assert_eq!(versions(&conn), [1, 2]);
    let rows: i64 = conn
        .query_row("SELECT count(*) FROM a", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn applies_only_what_is_missing() {
    let mut conn = memory();
    run(&mut conn, &[ONE]).unwrap();
    assert_eq!(versions(&conn), [1]);
    run(&mut conn, &[ONE, TWO]).unwrap();
    assert_eq!(versions(&conn), [1, 2]);
}

#[test]
fn refuses_a_future_version_and_leaves_it_alone() {
    let mut conn = memory();
    run(&mut conn, &[ONE, TWO]).unwrap();
    let error = run(&mut conn, &[ONE]).unwrap_err();
    assert!(
        matches!(error, OpenError::FutureVersion { found: 2, known: 1 }),
        "{error}"
    );
    assert!(error.to_string().contains("newer build"), "{error}");
    assert_eq!(versions(&conn), [1, 2]);
}

#[test]
fn refuses_a_changed_migration() {
    let mut conn = memory();
    run(&mut conn, &[ONE]).unwrap();
    let changed = Migration {
        sql: "CREATE TABLE a (x TEXT) STRICT;",
        ..ONE
    };
    let error = run(&mut conn, &[changed, TWO]).unwrap_err();
    assert!(
        matches!(&error, OpenError::ChangedMigration { version: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("0001_one"), "{error}");
    assert_eq!(versions(&conn), [1]);
}

#[test]
fn a_failed_migration_leaves_nothing() {
    let mut conn = memory();
    let broken = Migration {
        sql: "CREATE TABLE b (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);",
        ..TWO
    };
    let error = run(&mut conn, &[ONE, broken]).unwrap_err();
    assert!(
        matches!(error, OpenError::Migration { version: 2, .. }),
        "{error}"
    );
    assert!(!conn.table_exists(None, "b").unwrap());
    assert_eq!(versions(&conn), [1]);
    run(&mut conn, &[ONE, TWO]).unwrap();
}

#[test]
fn every_file_is_embedded_under_its_number() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let embedded: Vec<String> = MIGRATIONS
        .iter()
        .map(|migration| format!("{:04}_{}.sql", migration.version, migration.name))
        .collect();
    assert_eq!(files, embedded);
    for (index, migration) in MIGRATIONS.iter().enumerate() {
        assert_eq!(usize::try_from(migration.version).unwrap(), index + 1);
    }
}
