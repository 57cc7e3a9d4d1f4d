//! The DNS forwarder and the resolver of the egress proxy.

mod forwarder;
mod message;
mod upstream;

pub(crate) use forwarder::Forwarder;
pub(crate) use upstream::Upstreams;
