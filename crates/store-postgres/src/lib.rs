//! The store in Postgres.
//!
//! Every call is a transaction of its own on a pooled connection, except appends to the logs of
//! sessions: those that wait at the same moment share one. See `docs/design/store.md`.
#![forbid(unsafe_code)]

mod analytics;
mod append;
mod audit;
mod billing;
mod builds;
mod client;
mod error;
mod events;
mod keys;
mod leases;
mod listing;
mod migrate;
mod persist;
mod runs;
mod sandbox_sessions;
mod sandboxes;
mod secrets;
mod session_log;
mod sessions;
mod settings;
mod sleep;
mod snapshots;
mod templates;
mod text;
mod workspaces;

use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;
use woodfrog_store::{Result, StoreError};
use woodfrog_types::NodeId;

pub use error::OpenError;

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `postgres://user:password@host/database`, or in the form `host=… dbname=…`. The connection
    /// is not encrypted: use a Unix socket or a network that you trust. A URL that demands TLS is
    /// refused.
    pub url: String,
    /// Where the tables are. It is made if it is missing.
    pub schema: String,
    /// Connections at the same time.
    pub connections: usize,
    /// How long a connection may take to be made, and how long a call waits for one.
    pub connect_timeout: Duration,
    /// How long the database may work on a statement.
    pub statement_timeout: Duration,
    /// Which of the servers that share the schema this is; `None`: nobody shares it.
    pub node: Option<NodeSettings>,
}

/// A server among others.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    pub id: NodeId,
    /// How long a lease lasts that is not renewed.
    pub lease: Duration,
}

impl Settings {
    /// The usual settings for a database.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: "woodfrog".to_owned(),
            connections: 16,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            node: None,
        }
    }
}

/// A database, opened for the server.
#[derive(Debug)]
pub struct PostgresStore {
    pool: Pool,
    appends: append::Appends,
    node: Option<NodeId>,
}

impl PostgresStore {
    /// Connects and brings the schema up to date.
    ///
    /// A database of a newer version, or one whose migrations were changed, is left as it is.
    pub async fn open(settings: &Settings) -> std::result::Result<Self, OpenError> {
        let pool = pool(settings)?;
        let mut client = pool.get().await?;
        migrate::run(&mut client, &settings.schema, migrate::MIGRATIONS).await?;
        warn_if_not_durable(&client).await?;
        drop(client);
        let appends = append::Appends::start(pool.clone());
        let node = settings.node.as_ref().map(|node| node.id.clone());
        Ok(Self {
            pool,
            appends,
            node,
        })
    }

    async fn client(&self) -> Result<Client> {
        let client = self.pool.get().await;
        client.map_err(|error| StoreError::Unavailable(Box::new(error)))
    }
}

fn pool(settings: &Settings) -> std::result::Result<Pool, OpenError> {
    let named = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let starts_well = !settings.schema.starts_with(|c: char| c.is_ascii_digit());
    let length = settings.schema.len();
    if !(1..=63).contains(&length) || !settings.schema.chars().all(named) || !starts_well {
        return Err(OpenError::Schema(settings.schema.clone()));
    }
    let mut config = tokio_postgres::Config::from_str(&settings.url)?;
    // Whatever the database's own defaults are, a commit is on disk when it is answered.
    let mut options = format!(
        "{} -c search_path={} -c statement_timeout={} -c synchronous_commit=on",
        config.get_options().unwrap_or_default(),
        settings.schema,
        settings.statement_timeout.as_millis(),
    );
    if let Some(node) = &settings.node {
        // Who was this node before is another process, and must not be taken for this one.
        options.push_str(&format!(
            " -c woodfrog.node={} -c woodfrog.process={} -c woodfrog.lease_ms={}",
            node.id,
            NodeId::generate(),
            node.lease.as_millis(),
        ));
    }
    config.options(options.trim());
    config.connect_timeout(settings.connect_timeout);
    if config.get_application_name().is_none() {
        config.application_name("woodfrog");
    }
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager)
        .max_size(settings.connections.max(2))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(settings.connect_timeout))
        .create_timeout(Some(settings.connect_timeout))
        .build();
    pool.map_err(OpenError::Pool)
}

async fn warn_if_not_durable(client: &Client) -> std::result::Result<(), OpenError> {
    let row = client.query_one("SHOW fsync", &[]).await?;
    let fsync: String = row.try_get(0)?;
    if fsync != "on" {
        tracing::warn!("the database runs with fsync off: a power failure loses what it was told");
    }
    Ok(())
}
