//! What every handler can reach.

use std::sync::Arc;

/// Options of the HTTP side. Immutable once the server runs.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The wildcard domain under which `{port}-{sandbox}.{domain}` and `api.{domain}` are served,
    /// with a port if it is not the scheme's own; `None`: header routing only.
    pub domain: Option<String>,
}

/// Shared by all handlers; a cheap clone.
#[derive(Clone)]
pub struct App {
    pub options: Arc<ServerOptions>,
}
