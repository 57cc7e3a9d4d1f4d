//! A schema of its own for each test, in one server per test program.

use std::sync::atomic::{AtomicUsize, Ordering};

use woodfrog_store_postgres::{PostgresStore, Settings};
use woodfrog_testkit::postgres::Postgres;

/// An empty store, and how it was opened.
pub(crate) async fn fresh() -> (PostgresStore, Settings) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let server = tokio::task::spawn_blocking(Postgres::shared);
    let mut settings = Settings::new(server.await.unwrap().unwrap().url());
    settings.schema = format!("test_{number}");
    settings.connections = 8;
    (PostgresStore::open(&settings).await.unwrap(), settings)
}
