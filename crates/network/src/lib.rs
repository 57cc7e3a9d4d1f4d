//! Networking of native sandboxes: one veth pair per sandbox, one nft table per server
//! instance, a DNS forwarder and an egress proxy for rules that name domains, set headers or name a
//! proxy to go through.
//!
//! [`Network`] is the way in. [`EgressPolicy::parse`] and everything in [`cidr`],
//! [`domain`] and [`names`] is pure.
#![forbid(unsafe_code)]

pub mod authority;
pub mod cidr;
mod dns;
pub mod domain;
mod link;
pub mod names;
mod netlink;
mod network;
mod nft;
mod policy;
mod proxy;
mod quota;
mod registry;
mod route;
mod rules;
mod services;
mod trust;
mod uplink;

pub use authority::{Authority, AuthorityError};
pub use cidr::Cidr;
pub use domain::DomainPattern;
pub use link::Attachment;
pub use names::{Names, Pair, Subnet};
pub use netlink::NetlinkError;
pub use network::{
    AttachError, Live, Network, NetworkConfig, ReconcileError, SetupError, UpdateError,
    choose_subnet, default_denied,
};
pub use nft::NftError;
pub use policy::{
    AllowRule, DNS_ADDRESS, EgressPolicy, MAX_DNS_SERVERS, MAX_RULES, NetworkMode, PolicyError,
    PolicyInput,
};
pub use route::{ProxyTls, Route, SocksProxy};
pub use rules::HeaderRule;
pub use rustls::pki_types::CertificateDer;
pub use trust::{TrustError, certificates};
