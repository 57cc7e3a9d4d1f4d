//! The egress proxy: TCP 80 and 443 of sandboxes whose rules name domains.

mod http;
mod serve;
mod tls;

pub(crate) use serve::{Protocol, Proxy};

/// What the first bytes of a connection say about the host it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peek {
    /// More bytes are needed.
    Incomplete,
    /// The name, as sent.
    Host(String),
    /// No name is given, or this is another protocol.
    Nameless,
}
