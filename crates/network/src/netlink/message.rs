//! Layout of rtnetlink messages.

use std::io;

pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;
pub(super) const LINK_UP: u32 = 1;
/// `IN6_ADDR_GEN_MODE_NONE`.
pub(super) const ADDR_GEN_NONE: u8 = 1;

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Message types.
pub(super) mod kind {
    pub(crate) const NEW_LINK: u16 = 16;
    pub(crate) const DELETE_LINK: u16 = 17;
    pub(crate) const GET_LINK: u16 = 18;
    pub(crate) const SET_LINK: u16 = 19;
    pub(crate) const NEW_ADDRESS: u16 = 20;
    pub(crate) const DELETE_ADDRESS: u16 = 21;
    pub(crate) const GET_ADDRESS: u16 = 22;
    pub(crate) const NEW_ROUTE: u16 = 24;
    pub(crate) const GET_ROUTE: u16 = 26;
    pub(crate) const NEW_NEIGHBOUR: u16 = 28;
}

/// Header flags besides `REQUEST` and `ACK`.
pub(super) mod flag {
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCLUSIVE: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const DUMP: u16 = 0x300;
}

/// Attribute types.
pub(super) mod attr {
    pub(crate) const LINK_ADDRESS: u16 = 1;
    pub(crate) const LINK_NAME: u16 = 3;
    pub(crate) const LINK_MTU: u16 = 4;
    pub(crate) const LINK_INFO: u16 = 18;
    pub(crate) const LINK_AF_SPEC: u16 = 26;
    pub(crate) const LINK_NETNS_FD: u16 = 28;
    pub(crate) const INFO_KIND: u16 = 1;
    pub(crate) const INFO_DATA: u16 = 2;
    pub(crate) const VETH_PEER: u16 = 1;
    pub(crate) const INET_CONF: u16 = 1;
    pub(crate) const CONF_FORWARDING: u16 = 1;
    pub(crate) const CONF_RP_FILTER: u16 = 8;
    pub(crate) const INET6_ADDR_GEN_MODE: u16 = 8;
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const ADDRESS_LOCAL: u16 = 2;
    pub(crate) const ROUTE_DST: u16 = 1;
    pub(crate) const ROUTE_INTERFACE: u16 = 4;
    pub(crate) const ROUTE_GATEWAY: u16 = 5;
    pub(crate) const ROUTE_MULTIPATH: u16 = 9;
    pub(crate) const NEIGHBOUR_ADDRESS: u16 = 1;
    pub(crate) const NEIGHBOUR_MAC: u16 = 2;
}

/// A request under construction.
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        const REQUEST_AND_ACK: u16 = 1 | 4;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST_AND_ACK).to_ne_bytes());
        Self(bytes)
    }

    /// `struct ifinfomsg`; `up` is both the flags to set and their mask.
    pub(super) fn link_header(&mut self, index: u32, up: u32) {
        self.0.extend([0; 4]);
        for word in [index, up, up] {
            self.0.extend(word.to_ne_bytes());
        }
    }

    /// `struct ifaddrmsg`, global scope.
    pub(super) fn address_header(&mut self, index: u32, len: u8) {
        self.0.extend([AF_INET as u8, len, 0, 0]);
        self.0.extend(index.to_ne_bytes());
    }

    /// `struct rtmsg` of a static unicast default route in the main table.
    pub(super) fn route_header(&mut self) {
        const MAIN_TABLE: u8 = 254;
        const PROTOCOL_STATIC: u8 = 4;
        const UNICAST: u8 = 1;
        self.0.extend([
            AF_INET as u8,
            0,
            0,
            0,
            MAIN_TABLE,
            PROTOCOL_STATIC,
            0,
            UNICAST,
        ]);
        self.0.extend([0; 4]);
    }

    /// `struct ndmsg` of a permanent entry.
    pub(super) fn neighbour_header(&mut self, index: u32) {
        const PERMANENT: u16 = 0x80;
        self.0.extend([AF_INET as u8, 0, 0, 0]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(PERMANENT.to_ne_bytes());
        self.0.extend([0; 2]);
    }

    /// The header of a dump of IPv4 addresses or routes.
    pub(super) fn dump_header(&mut self) {
        self.0.extend([AF_INET as u8, 0, 0, 0]);
        self.0.extend([0; 8]);
    }

    /// A part of a header of another kind.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |m| m.0.extend(value));
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A text with its final zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |m| {
            m.0.extend(value.as_bytes());
            m.0.push(0);
        });
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// One message of an answer.
pub(super) struct Reply<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

impl Reply<'_> {
    /// How the request ended, when this message says so.
    pub(super) fn outcome(&self) -> Option<io::Result<()>> {
        match self.kind {
            DONE => Some(Ok(())),
            ERROR => Some(match read_u32(self.body, 0).unwrap_or(0) as i32 {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            }),
            _ => None,
        }
    }
}

/// Splits a datagram into its messages; stops at the first malformed one.
pub(super) fn replies(mut data: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let len = read_u32(data, 0)? as usize;
        let reply = Reply {
            kind: read_u16(data, 4)?,
            sequence: read_u32(data, 8)?,
            body: data.get(HEADER..len)?,
        };
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

/// The attributes in `data`; stops at the first malformed one.
pub(super) fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let len = usize::from(read_u16(data, 0)?);
        let item = (read_u16(data, 2)? & KIND_MASK, data.get(4..len)?);
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(item)
    })
}

pub(super) fn read_u16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}
