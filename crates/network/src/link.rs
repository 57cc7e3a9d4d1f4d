//! A sandbox's link: blocking calls, to be made off the async threads.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use crate::names::{Names, Pair};
use crate::netlink::{Netlink, NetlinkError, Side, VethEnd};

/// The sandbox's end.
const GUEST_INTERFACE: &str = "eth0";
/// Index of `lo` in every namespace.
const LOOPBACK: u32 = 1;
/// Two addresses and nothing else.
const PAIR_LEN: u8 = 31;

/// A sandbox's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The host end's interface name.
    pub host_if: String,
    /// The sandbox's address on `eth0`.
    pub addr: Ipv4Addr,
    /// Its default gateway, the host end.
    pub gateway: Ipv4Addr,
}

/// Brings `lo` up.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub(crate) fn loopback_up(netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    let mut inside = Netlink::open_in(netns)?;
    inside.set_up(LOOPBACK, None)
}

/// Gives `lo` an address.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub(crate) fn keep_address(netns: BorrowedFd<'_>, address: Ipv4Addr) -> Result<(), NetlinkError> {
    let mut inside = Netlink::open_in(netns)?;
    inside.add_address(LOOPBACK, address, u32::BITS as u8)
}

/// Connects `netns`. A stale interface of the same name is replaced.
///
/// # Errors
/// Nothing is left behind on the host.
pub(crate) fn connect(
    names: &Names,
    slot: u32,
    pair: Pair,
    mtu: u32,
    netns: BorrowedFd<'_>,
) -> Result<Attachment, NetlinkError> {
    let host_if = names.interface(slot);
    let mut outside = Netlink::open()?;
    let host = VethEnd {
        name: &host_if,
        mac: mac(slot, 0),
    };
    let guest = VethEnd {
        name: GUEST_INTERFACE,
        mac: mac(slot, 1),
    };
    match outside.add_veth(&host, &guest, netns, mtu) {
        Err(error) if error.is_present() => {
            remove(&host_if)?;
            outside.add_veth(&host, &guest, netns, mtu)?;
        }
        other => other?,
    }
    let configured = configure(&mut outside, &host, &guest, pair, netns);
    if configured.is_err() {
        // The first error is the one to report.
        let _ = remove(&host_if);
    }
    configured?;
    Ok(Attachment {
        host_if,
        addr: pair.guest,
        gateway: pair.host,
    })
}

fn configure(
    outside: &mut Netlink,
    host: &VethEnd<'_>,
    guest: &VethEnd<'_>,
    pair: Pair,
    netns: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let index = outside.index_of(host.name)?;
    outside.add_address(index, pair.host, PAIR_LEN)?;
    outside.set_up(index, Some(Side::Host))?;
    outside.add_neighbour(index, pair.guest, guest.mac)?;

    let mut inside = Netlink::open_in(netns)?;
    inside.set_up(LOOPBACK, None)?;
    let index = inside.index_of(guest.name)?;
    inside.add_address(index, pair.guest, PAIR_LEN)?;
    inside.set_up(index, Some(Side::Guest))?;
    inside.add_default_route(index, pair.host)?;
    inside.add_neighbour(index, pair.host, host.mac)
}

/// Deletes a host interface; one that is gone already is fine.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn remove(host_if: &str) -> Result<(), NetlinkError> {
    match Netlink::open()?.delete_link(host_if) {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// A locally administered address; it only has to differ from that of the other end.
fn mac(slot: u32, end: u8) -> [u8; 6] {
    let [_, high, mid, low] = slot.to_be_bytes();
    [0x02, 0x77, high, mid, low, end]
}
