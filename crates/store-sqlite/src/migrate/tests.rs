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

/// A file of the time before sleep: its sandboxes are read, never sleep by themselves, and end
/// at their deadline as before.
#[tokio::test]
async fn sandboxes_of_the_first_schema_are_still_read() {
    use woodfrog_store::SandboxStore;
    use woodfrog_types::sandbox::SandboxState;
    use woodfrog_types::sleep::SleepPolicy;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let common = r#""template_alias":"base","build":"0190a1b2-0000-7000-8000-000000000000",
        "created_at":1,"timeout_ms":5,"on_timeout":"pause","auto_resume":false,
        "resources":{"cpu_count":1,"memory_bytes":2,"disk_bytes":3,"pids":4},"env":{},
        "network":{"internet":true,"allow_out":[],"deny_out":[],"dns_servers":["1.1.1.1"],
        "allow_public_traffic":true,"mask_request_host":null,"header_rules":{}},"secure":true"#;
    let mut conn = Connection::open(&path).unwrap();
    run(&mut conn, &MIGRATIONS[..1]).unwrap();
    let body = "0".repeat(25);
    for (id, state, data) in [
        ("1", "creating", ""),
        ("2", "running", r#""instance":"note","#),
        ("3", "deleting", r#""end_reason":"lost","#),
    ] {
        conn.execute(
            "INSERT INTO sandboxes (id, workspace, template, state, generation, started_at, \
             deadline, metadata, body) VALUES (?1, ?2, ?3, ?4, 7, 8, 9, '{}', ?5)",
            params![
                format!("sb{id}{body}"),
                format!("ws0{body}"),
                format!("tp0{body}"),
                state,
                format!(r#"{{"v":"1",{data}{common}}}"#),
            ],
        )
        .unwrap();
    }
    drop(conn);
    let store = crate::SqliteStore::open(&path).unwrap();
    let all = store.sandbox_all().await.unwrap();
    let states: Vec<_> = all.iter().map(|sandbox| sandbox.state.as_str()).collect();
    assert_eq!(states, ["creating", "running", "deleting"]);
    let SandboxState::Running { instance } = &all[1].state else {
        panic!("{:?}", all[1]);
    };
    assert_eq!(instance.0, "note");
    for sandbox in &all {
        assert_eq!(sandbox.sleep, SleepPolicy::NEVER);
        assert_eq!((sandbox.sleep_due, &sandbox.last_snapshot), (None, &None));
    }
    let due = store.sandbox_due(Timestamp::from_millis(9), 10).await;
    assert_eq!(due.unwrap(), [all[1].id.clone()]);
    // The next change writes the new form.
    let mut next = all[1].clone();
    next.generation += 1;
    next.sleep = SleepPolicy::default();
    store.sandbox_update(&next, vec![]).await.unwrap();
    assert_eq!(store.sandbox_fetch(&next.id).await.unwrap(), Some(next));
}
