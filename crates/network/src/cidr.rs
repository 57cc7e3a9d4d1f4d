//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 range. Host bits are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

/// Why a text is not a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IP address or CIDR range")]
pub struct CidrError(pub String);

impl Cidr {
    /// Every IPv4 address.
    pub const ANY_V4: Self = Self::v4(Ipv4Addr::UNSPECIFIED, 0);

    /// The range of `len` leading bits around `addr`; lengths above 32 count as 32.
    pub const fn v4(addr: Ipv4Addr, len: u8) -> Self {
        let len = if len > 32 { 32 } else { len };
        let bits = addr.to_bits() & mask32(len);
        Self {
            addr: IpAddr::V4(Ipv4Addr::from_bits(bits)),
            len,
        }
    }

    /// First address of the range.
    pub const fn first(self) -> IpAddr {
        self.addr
    }

    /// Number of leading bits that are fixed.
    pub const fn prefix_len(self) -> u8 {
        self.len
    }

    /// Whether this is the whole of one address family.
    pub const fn is_everything(self) -> bool {
        self.len == 0
    }

    /// First address and length, when this is an IPv4 range.
    pub const fn as_v4(self) -> Option<(Ipv4Addr, u8)> {
        match self.addr {
            IpAddr::V4(addr) => Some((addr, self.len)),
            IpAddr::V6(_) => None,
        }
    }

    /// Whether `other` lies inside this range.
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }

    /// Whether the two ranges share an address (ranges either nest or are disjoint).
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether `ip` lies in this range.
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.addr, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => ip.to_bits() & mask32(self.len) == net.to_bits(),
            (IpAddr::V6(net), IpAddr::V6(ip)) => ip.to_bits() & mask128(self.len) == net.to_bits(),
            _ => false,
        }
    }
}

const fn mask32(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len) }
}

const fn mask128(len: u8) -> u128 {
    if len == 0 {
        0
    } else {
        u128::MAX << (128 - len)
    }
}

/// Drops the ranges that another one covers, and sorts: what an interval set accepts.
pub fn minimal(ranges: &[Cidr]) -> Vec<Cidr> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|c| (c.len, c.addr));
    let mut kept: Vec<Cidr> = Vec::with_capacity(sorted.len());
    for range in sorted {
        if !kept.iter().any(|k| k.covers(range)) {
            kept.push(range);
        }
    }
    kept.sort_by_key(|c| c.addr);
    kept
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Accepts `1.2.3.4`, `1.2.3.0/24` and the IPv6 forms; host bits are cleared.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.chars().take(64).collect());
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| error())?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => max,
            Some(len) if len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit()) => {
                len.parse().map_err(|_| error())?
            }
            Some(_) => return Err(error()),
        };
        if len > max {
            return Err(error());
        }
        Ok(match addr {
            IpAddr::V4(addr) => Self::v4(addr, len),
            IpAddr::V6(addr) => {
                let bits = addr.to_bits() & mask128(len);
                Self {
                    addr: IpAddr::V6(bits.into()),
                    len,
                }
            }
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn c(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_clears_host_bits() {
        assert_eq!(c("10.1.2.3/8"), c("10.0.0.0/8"));
        assert_eq!(c("1.2.3.4").to_string(), "1.2.3.4/32");
        assert_eq!(c("2001:db8::1/32").to_string(), "2001:db8::/32");
        for bad in [
            "",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "x/8",
            "::1/129",
            "1.2.3.4/8/8",
        ] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn minimal_drops_what_is_covered() {
        let ranges = [
            c("10.1.0.0/16"),
            c("10.0.0.0/8"),
            c("9.9.9.9"),
            c("9.9.9.9/32"),
        ];
        assert_eq!(minimal(&ranges), vec![c("9.9.9.9"), c("10.0.0.0/8")]);
    }

    proptest! {
        #[test]
        fn minimal_keeps_the_same_addresses(
            raw in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20), probe: u32,
        ) {
            let ranges: Vec<_> = raw.iter().map(|(a, l)| Cidr::v4((*a).into(), *l)).collect();
            let ip = IpAddr::V4(probe.into());
            let before = ranges.iter().any(|r| r.contains(ip));
            prop_assert_eq!(before, minimal(&ranges).iter().any(|r| r.contains(ip)));
        }
    }
}
