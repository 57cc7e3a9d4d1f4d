//! Names and addresses that belong to one server instance: pure arithmetic.

use std::net::Ipv4Addr;

use crate::cidr::Cidr;

/// Length of an instance's subnet: 4096 addresses, two of them per sandbox.
pub const SUBNET_LEN: u8 = 20;
/// Sandboxes one subnet has room for; the first pair belongs to the server itself.
pub const MAX_SLOTS: u32 = (1 << (32 - SUBNET_LEN - 1)) - 1;
/// Where subnets are looked for.
const POOL: Cidr = Cidr::v4(Ipv4Addr::new(10, 200, 0, 0), 13);
/// Base-36 digits of a slot in an interface name.
const SLOT_DIGITS: usize = 4;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Names derived from the instance id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    instance: String,
}

/// The instance id is not six lower-case hexadecimal characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("instance id `{0}` is not six lower-case hexadecimal characters")]
pub struct InstanceError(pub String);

impl Names {
    /// # Errors
    /// The id must be six lower-case hexadecimal characters: it becomes part of nft scripts.
    pub fn new(instance: &str) -> Result<Self, InstanceError> {
        let ok = instance.len() == 6
            && instance
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if ok {
            Ok(Self {
                instance: instance.to_owned(),
            })
        } else {
            Err(InstanceError(instance.chars().take(32).collect()))
        }
    }

    /// The nft table.
    pub fn table(&self) -> String {
        format!("woodfrog_{}", self.instance)
    }

    /// What all host interfaces of the instance start with.
    pub fn prefix(&self) -> String {
        format!("wf{}", self.instance)
    }

    /// The host end of the slot's veth pair.
    pub fn interface(&self, slot: u32) -> String {
        let mut digits = [b'0'; SLOT_DIGITS];
        let mut rest = slot as usize;
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[rest % 36];
            rest /= 36;
        }
        let digits: String = digits.iter().map(|d| *d as char).collect();
        format!("{}{digits}", self.prefix())
    }

    /// The slot an interface name stands for, when it is one of ours.
    pub fn slot_of(&self, interface: &str) -> Option<u32> {
        let digits = interface.strip_prefix(&self.prefix())?;
        let valid = digits.bytes().all(|b| DIGITS.contains(&b));
        if digits.len() != SLOT_DIGITS || !valid {
            return None;
        }
        u32::from_str_radix(digits, 36).ok()
    }
}

/// The instance's own range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet(Cidr);

/// Addresses of one sandbox's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The host end, the sandbox's gateway.
    pub host: Ipv4Addr,
    /// The sandbox.
    pub guest: Ipv4Addr,
}

impl Subnet {
    /// The range as a subnet of an instance; `None` unless it is an IPv4 `/20`.
    pub fn new(range: Cidr) -> Option<Self> {
        matches!(range.as_v4(), Some((_, SUBNET_LEN))).then_some(Self(range))
    }

    /// The first subnet of the pool that overlaps none of `taken`.
    pub fn pick(taken: &[Cidr]) -> Option<Self> {
        let (base, len) = POOL.as_v4()?;
        (0..1u32 << (SUBNET_LEN - len))
            .map(|n| {
                Cidr::v4(
                    (base.to_bits() + (n << (32 - SUBNET_LEN))).into(),
                    SUBNET_LEN,
                )
            })
            .find(|candidate| !taken.iter().any(|t| t.overlaps(*candidate)))
            .map(Self)
    }

    /// The range.
    pub const fn range(self) -> Cidr {
        self.0
    }

    /// Where the DNS forwarder and the egress proxy listen.
    pub fn service(self) -> Ipv4Addr {
        (self.base() + 1).into()
    }

    /// Addresses of a slot; `None` from [`MAX_SLOTS`] on.
    pub fn pair(self, slot: u32) -> Option<Pair> {
        (slot < MAX_SLOTS).then(|| {
            let host = self.base() + (slot + 1) * 2;
            Pair {
                host: host.into(),
                guest: (host + 1).into(),
            }
        })
    }

    /// The slot whose sandbox has this address.
    pub fn slot_of(self, guest: Ipv4Addr) -> Option<u32> {
        let offset = guest.to_bits().checked_sub(self.base())?;
        let slot = (offset / 2).checked_sub(1)?;
        (offset % 2 == 1 && slot < MAX_SLOTS).then_some(slot)
    }

    fn base(self) -> u32 {
        self.0.as_v4().map_or(0, |(addr, _)| addr.to_bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_go_back() {
        let names = Names::new("0a1b2c").unwrap();
        for slot in [0, 35, 36, MAX_SLOTS - 1] {
            let name = names.interface(slot);
            assert!(name.len() <= 15);
            assert_eq!(names.slot_of(&name), Some(slot));
        }
        for other in [
            "wf0a1b2c",
            "wf0a1b2c000Z",
            "wf0a1b2d0001",
            "eth0",
            "wf0a1b2c+001",
        ] {
            assert_eq!(names.slot_of(other), None, "{other}");
        }
        assert!(Names::new("0a1b2c; drop").is_err() && Names::new("ABCDEF").is_err());
    }

    #[test]
    fn pairs_are_disjoint_and_inside() {
        let subnet = Subnet::pick(&[]).unwrap();
        let mut seen = std::collections::HashSet::from([subnet.service()]);
        for slot in 0..MAX_SLOTS {
            let pair = subnet.pair(slot).unwrap();
            assert!(seen.insert(pair.host) && seen.insert(pair.guest));
            assert!(subnet.range().contains(pair.guest.into()));
            assert_eq!(subnet.slot_of(pair.guest), Some(slot));
            assert_eq!(subnet.slot_of(pair.host), None);
        }
        assert_eq!(subnet.pair(MAX_SLOTS), None);
    }

    #[test]
    fn picks_the_first_free_one() {
        let taken = ["10.200.5.0/24", "10.200.16.0/20"].map(|t| t.parse().unwrap());
        assert_eq!(
            Subnet::pick(&taken).unwrap().range().to_string(),
            "10.200.32.0/20"
        );
        assert_eq!(Subnet::pick(&["10.0.0.0/8".parse().unwrap()]), None);
    }
}
