//! The egress proxy: connections of sandboxes whose rules name domains, set headers or name a
//! proxy to go through.

mod decide;
mod dial;
mod exchange;
mod forward;
mod http;
mod serve;
mod socks;
mod tls;

pub(crate) use dial::Dialer;
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
