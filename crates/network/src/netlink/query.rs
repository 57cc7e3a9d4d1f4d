//! Lists of what exists.

use std::net::Ipv4Addr;

use super::message::{Message, Reply, attr, attributes, flag, kind, read_u16, read_u32};
use super::{Link, Netlink, NetlinkError, Route};
use crate::cidr::Cidr;

impl Netlink {
    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut m = Message::new(kind::GET_LINK, flag::DUMP);
        m.link_header(0, 0);
        let mut found = Vec::new();
        self.request("list interfaces", m, |reply| found.extend(link(reply)))?;
        Ok(found)
    }

    /// All IPv4 routes of all tables, but those of the kernel's own `local` table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut m = Message::new(kind::GET_ROUTE, flag::DUMP);
        m.dump_header();
        let mut found = Vec::new();
        self.request("list routes", m, |reply| found.extend(route(reply)))?;
        Ok(found)
    }

    /// The ranges of all IPv4 addresses of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn address_ranges(&mut self) -> Result<Vec<Cidr>, NetlinkError> {
        let mut m = Message::new(kind::GET_ADDRESS, flag::DUMP);
        m.address_header(0, 0);
        let mut found = Vec::new();
        self.request("list addresses", m, |reply| found.extend(range(reply)))?;
        Ok(found)
    }
}

pub(super) fn link(reply: &Reply<'_>) -> Option<Link> {
    const BODY: usize = 16;
    if reply.kind != kind::NEW_LINK {
        return None;
    }
    let mut link = Link {
        index: read_u32(reply.body, 4)?,
        name: String::new(),
        mtu: 0,
    };
    for (kind, value) in attributes(reply.body.get(BODY..)?) {
        match kind {
            attr::LINK_NAME => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                link.name = String::from_utf8_lossy(text).into_owned();
            }
            attr::LINK_MTU => link.mtu = read_u32(value, 0)?,
            _ => {}
        }
    }
    Some(link)
}

fn route(reply: &Reply<'_>) -> Option<Route> {
    const BODY: usize = 12;
    const LOCAL_TABLE: u8 = 255;
    if reply.kind != kind::NEW_ROUTE || *reply.body.get(4)? == LOCAL_TABLE {
        return None;
    }
    let (mut dst, len) = (Ipv4Addr::UNSPECIFIED, *reply.body.get(1)?);
    let mut interfaces = Vec::new();
    for (kind, value) in attributes(reply.body.get(BODY..)?) {
        match kind {
            attr::ROUTE_DST => dst = ipv4(value)?,
            attr::ROUTE_INTERFACE => interfaces.push(read_u32(value, 0)?),
            attr::ROUTE_MULTIPATH => interfaces.extend(next_hops(value)),
            _ => {}
        }
    }
    Some(Route {
        dst: Cidr::v4(dst, len),
        interfaces,
    })
}

/// Interfaces of `struct rtnexthop` entries.
fn next_hops(mut data: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    while let (Some(len), Some(index)) = (read_u16(data, 0), read_u32(data, 4)) {
        found.push(index);
        let next = usize::from(len).next_multiple_of(4).max(8);
        data = data.get(next..).unwrap_or_default();
    }
    found
}

fn range(reply: &Reply<'_>) -> Option<Cidr> {
    const BODY: usize = 8;
    if reply.kind != kind::NEW_ADDRESS {
        return None;
    }
    let len = *reply.body.get(1)?;
    let (_, value) = attributes(reply.body.get(BODY..)?).find(|(k, _)| *k == attr::ADDRESS)?;
    Some(Cidr::v4(ipv4(value)?, len))
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}
