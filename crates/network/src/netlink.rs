//! Raw rtnetlink: one short-lived socket per operation, synchronous (a request takes tens of
//! microseconds). The socket belongs to the namespace of the thread that opened it.

mod message;
mod query;
mod sockets;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use message::{Message, Reply, attr, flag, kind};
pub(crate) use sockets::end_outbound;

/// What a netlink socket speaks of.
#[derive(Clone, Copy)]
enum Protocol {
    /// Interfaces, addresses and routes.
    Route,
    /// Sockets.
    SockDiag,
}

impl Protocol {
    fn number(self) -> Option<net::Protocol> {
        match self {
            // Zero, the default of the address family.
            Self::Route => None,
            Self::SockDiag => Some(net::netlink::SOCK_DIAG),
        }
    }
}

/// The kernel answers at once; a longer silence means the protocol is misunderstood.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel never sends more in one datagram.
const REPLY_BUFFER: usize = 32 * 1024;

/// An rtnetlink request failed.
#[derive(Debug, thiserror::Error)]
#[error("netlink: {action}")]
pub struct NetlinkError {
    /// What was being done.
    pub action: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

impl NetlinkError {
    fn is(&self, errno: rustix::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }

    /// Whether the named thing was not there.
    pub fn is_absent(&self) -> bool {
        self.is(rustix::io::Errno::NODEV)
    }

    /// Whether the thing was there already.
    pub fn is_present(&self) -> bool {
        self.is(rustix::io::Errno::EXIST)
    }
}

/// A network interface as listed.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Interface index.
    pub(crate) index: u32,
    /// Interface name.
    pub(crate) name: String,
    /// Largest packet.
    pub(crate) mtu: u32,
}

/// A route as listed.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Where it leads.
    pub(crate) dst: crate::cidr::Cidr,
    /// The interfaces it goes through.
    pub(crate) interfaces: Vec<u32>,
}

/// One end of a veth pair.
pub(crate) struct VethEnd<'a> {
    /// Interface name.
    pub(crate) name: &'a str,
    /// Hardware address.
    pub(crate) mac: [u8; 6],
}

/// What an end of the pair gets once it exists.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// Forwards what the sandbox sends, and checks its source address.
    Host,
    /// The sandbox's `eth0`.
    Guest,
}

/// An rtnetlink socket of one network namespace.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A socket of the calling thread's namespace.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Self::open_for(Protocol::Route)
    }

    fn open_for(protocol: Protocol) -> Result<Self, NetlinkError> {
        let open = || -> rustix::io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC;
            let socket = net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                flags,
                protocol.number(),
            )?;
            let timeout = Some(REPLY_TIMEOUT);
            net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, timeout)?;
            Ok(socket)
        };
        let socket = open().map_err(|e| failed("open a socket", e.into()))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; REPLY_BUFFER],
        })
    }

    /// A socket of another namespace. A thread of its own enters it and ends, so that no
    /// failure can leave one of ours in the wrong place.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub(crate) fn open_in(netns: BorrowedFd<'_>) -> Result<Self, NetlinkError> {
        Self::open_in_for(netns, Protocol::Route)
    }

    fn open_in_for(netns: BorrowedFd<'_>, protocol: Protocol) -> Result<Self, NetlinkError> {
        let enter = || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                .map_err(|e| failed("enter the network namespace", e.into()))?;
            Self::open_for(protocol)
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, enter);
            let thread = thread.map_err(|e| failed("start a thread", e))?;
            thread.join().unwrap_or_else(|_| {
                Err(failed(
                    "enter the network namespace",
                    io::Error::other("the thread panicked"),
                ))
            })
        })
    }

    /// Makes a veth pair with the peer directly in `netns`.
    ///
    /// # Errors
    /// `is_present` when either name is taken.
    pub(crate) fn add_veth(
        &mut self,
        host: &VethEnd<'_>,
        peer: &VethEnd<'_>,
        netns: BorrowedFd<'_>,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let mut m = Message::new(kind::NEW_LINK, flag::CREATE | flag::EXCLUSIVE);
        m.link_header(0, 0);
        m.text(attr::LINK_NAME, host.name);
        m.bytes(attr::LINK_ADDRESS, &host.mac);
        m.u32(attr::LINK_MTU, mtu);
        m.nest(attr::LINK_INFO, |m| {
            m.text(attr::INFO_KIND, "veth");
            m.nest(attr::INFO_DATA, |m| {
                m.nest(attr::VETH_PEER, |m| {
                    m.link_header(0, 0);
                    m.text(attr::LINK_NAME, peer.name);
                    m.bytes(attr::LINK_ADDRESS, &peer.mac);
                    m.u32(attr::LINK_MTU, mtu);
                    m.u32(attr::LINK_NETNS_FD, netns.as_fd().as_raw_fd() as u32);
                });
            });
        });
        self.command("make the veth pair", m)
    }

    /// Index of the interface with this name.
    ///
    /// # Errors
    /// `is_absent` when there is none.
    pub(crate) fn index_of(&mut self, name: &str) -> Result<u32, NetlinkError> {
        let mut m = Message::new(kind::GET_LINK, 0);
        m.link_header(0, 0);
        m.text(attr::LINK_NAME, name);
        let mut found = None;
        self.request("look up an interface", m, |reply| {
            found = found.or(query::link(reply).map(|link| link.index));
        })?;
        let missing = || failed("look up an interface", rustix::io::Errno::NODEV.into());
        found.ok_or_else(missing)
    }

    /// Brings an interface up. The ends of a pair never get an IPv6 address; the host end
    /// forwards and filters by reverse path from its first packet on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn set_up(&mut self, index: u32, side: Option<Side>) -> Result<(), NetlinkError> {
        let mut m = Message::new(kind::SET_LINK, 0);
        m.link_header(index, message::LINK_UP);
        if let Some(side) = side {
            m.nest(attr::LINK_AF_SPEC, |m| {
                if matches!(side, Side::Host) {
                    m.nest(message::AF_INET, |m| {
                        m.nest(attr::INET_CONF, |m| {
                            m.u32(attr::CONF_FORWARDING, 1);
                            m.u32(attr::CONF_RP_FILTER, 1);
                        });
                    });
                }
                if std::path::Path::new("/proc/sys/net/ipv6").exists() {
                    m.nest(message::AF_INET6, |m| {
                        m.bytes(attr::INET6_ADDR_GEN_MODE, &[message::ADDR_GEN_NONE]);
                    });
                }
            });
        }
        self.command("bring an interface up", m)
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// `is_present` when it has it.
    pub(crate) fn add_address(
        &mut self,
        index: u32,
        ip: Ipv4Addr,
        len: u8,
    ) -> Result<(), NetlinkError> {
        let m = address(
            kind::NEW_ADDRESS,
            flag::CREATE | flag::EXCLUSIVE,
            index,
            ip,
            len,
        );
        self.command("add an address", m)
    }

    /// Takes an address away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn delete_address(
        &mut self,
        index: u32,
        ip: Ipv4Addr,
        len: u8,
    ) -> Result<(), NetlinkError> {
        self.command(
            "delete an address",
            address(kind::DELETE_ADDRESS, 0, index, ip, len),
        )
    }

    /// Sends everything without a better route to `gateway`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn add_default_route(
        &mut self,
        index: u32,
        gateway: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let mut m = Message::new(kind::NEW_ROUTE, flag::CREATE | flag::EXCLUSIVE);
        m.route_header();
        m.bytes(attr::ROUTE_GATEWAY, &gateway.octets());
        m.u32(attr::ROUTE_INTERFACE, index);
        self.command("add the default route", m)
    }

    /// Fixes a neighbour's hardware address, which saves the first packet an ARP round.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn add_neighbour(
        &mut self,
        index: u32,
        ip: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<(), NetlinkError> {
        let mut m = Message::new(kind::NEW_NEIGHBOUR, flag::CREATE | flag::REPLACE);
        m.neighbour_header(index);
        m.bytes(attr::NEIGHBOUR_ADDRESS, &ip.octets());
        m.bytes(attr::NEIGHBOUR_MAC, &mac);
        self.command("add a neighbour", m)
    }

    /// Deletes an interface. Slow (tens of milliseconds): the kernel waits for readers.
    ///
    /// # Errors
    /// `is_absent` when there is none.
    pub(crate) fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut m = Message::new(kind::DELETE_LINK, 0);
        m.link_header(0, 0);
        m.text(attr::LINK_NAME, name);
        self.command("delete an interface", m)
    }

    fn command(&mut self, action: &'static str, message: Message) -> Result<(), NetlinkError> {
        self.request(action, message, |_| {})
    }

    /// Sends one request and feeds what comes back to `each` until it is acknowledged.
    fn request(
        &mut self,
        action: &'static str,
        message: Message,
        each: impl FnMut(&Reply<'_>),
    ) -> Result<(), NetlinkError> {
        self.exchange(message, each)
            .map_err(|source| failed(action, source))
    }

    fn exchange(&mut self, message: Message, mut each: impl FnMut(&Reply<'_>)) -> io::Result<()> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        net::sendto(
            &self.socket,
            &bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        loop {
            let (_, len) = net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)?;
            let data = self
                .buffer
                .get(..len)
                .ok_or_else(|| io::Error::other("answer too long"))?;
            for reply in message::replies(data) {
                if reply.sequence != self.sequence {
                    continue;
                }
                match reply.outcome() {
                    Some(outcome) => return outcome,
                    None => each(&reply),
                }
            }
        }
    }
}

fn address(kind: u16, flags: u16, index: u32, ip: Ipv4Addr, len: u8) -> Message {
    let mut m = Message::new(kind, flags);
    m.address_header(index, len);
    m.bytes(attr::ADDRESS_LOCAL, &ip.octets());
    m.bytes(attr::ADDRESS, &ip.octets());
    m
}

fn failed(action: &'static str, source: io::Error) -> NetlinkError {
    NetlinkError { action, source }
}
