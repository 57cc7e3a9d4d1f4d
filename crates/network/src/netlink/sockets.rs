//! TCP connections of a namespace: which there are, and ending them (`sock_diag`).

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use super::message::{AF_INET, AF_INET6, Message, Reply, flag};
use super::{Netlink, NetlinkError, Protocol};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`
const DESTROY: u16 = 21;
const TCP: u8 = 6;
/// Bits of the states in which there is somebody at the other end: established, opening, closing.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const ID: usize = 48;
const ADDRESS: usize = 16;

/// A connection, as the kernel names it.
pub(crate) struct Connection {
    family: u8,
    id: [u8; ID],
}

impl Connection {
    fn read(reply: &Reply<'_>) -> Option<Self> {
        // `struct inet_diag_msg`: family, state, timer, retransmissions, then the id.
        const AT: usize = 4;
        if reply.kind != BY_FAMILY {
            return None;
        }
        let id = reply.body.get(AT..AT + ID)?;
        Some(Self {
            family: *reply.body.first()?,
            id: id.try_into().ok()?,
        })
    }

    fn address(&self, at: usize) -> IpAddr {
        let bytes: &[u8] = &self.id[at..at + ADDRESS];
        if u16::from(self.family) == AF_INET {
            return IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let mut all = [0; ADDRESS];
        all.copy_from_slice(bytes);
        Ipv6Addr::from(all).to_canonical()
    }

    /// Whether it leads out of the namespace: neither over loopback nor to its own address.
    fn is_outbound(&self) -> bool {
        let (local, remote) = (self.address(4), self.address(4 + ADDRESS));
        !remote.is_loopback() && !local.is_loopback() && remote != local
    }

    /// `struct inet_diag_req_v2`
    fn request(family: u8, kind: u16, flags: u16, states: u32, id: &[u8; ID]) -> Message {
        let mut message = Message::new(kind, flags);
        message.raw(&[family, TCP, 0, 0]);
        message.raw(&states.to_ne_bytes());
        message.raw(id);
        message
    }
}

/// Ends the TCP connections of a namespace that lead out of it; those who hold them are told at
/// once. Returns how many there were.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel cannot do this.
pub(crate) fn end_outbound(netns: BorrowedFd<'_>) -> Result<usize, NetlinkError> {
    let mut diag = Netlink::open_in_for(netns, Protocol::SockDiag)?;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let all = Connection::request(family as u8, BY_FAMILY, flag::DUMP, CONNECTED, &[0; ID]);
        diag.request("list connections", all, |reply| {
            found.extend(Connection::read(reply));
        })?;
    }
    found.retain(Connection::is_outbound);
    let (mut ended, mut refused) = (0, None);
    for connection in &found {
        let family = connection.family;
        let end = Connection::request(family, DESTROY, 0, CONNECTED, &connection.id);
        match diag.request("end a connection", end, |_| {}) {
            Ok(()) => ended += 1,
            // It ended by itself meanwhile.
            Err(error) if error.is(rustix::io::Errno::NOENT) => {}
            // The others are not left for its sake.
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        None => Ok(ended),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(local: [u8; 4], remote: [u8; 4]) -> Connection {
        let mut id = [0; ID];
        id[4..8].copy_from_slice(&local);
        id[20..24].copy_from_slice(&remote);
        Connection {
            family: AF_INET as u8,
            id,
        }
    }

    #[test]
    fn what_stays_inside_is_told_from_what_leads_out() {
        let own = [10, 0, 0, 1];
        assert!(connection(own, [1, 2, 3, 4]).is_outbound());
        assert!(!connection(own, own).is_outbound());
        assert!(!connection([127, 0, 0, 1], [127, 0, 0, 1]).is_outbound());
    }
}
