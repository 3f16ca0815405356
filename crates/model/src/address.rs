//! MAC addresses, address families and prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Bits in an address of this family.
    pub fn width(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// An Ethernet address, in the order in which its bytes are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Broadcast or multicast: the least significant bit of the first byte.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The link-local address that stateless autoconfiguration derives from this MAC (RFC 4291 A).
    pub fn eui64_link_local(self) -> Ipv6Addr {
        let m = self.0;
        Ipv6Addr::from([
            0xfe,
            0x80,
            0,
            0,
            0,
            0,
            0,
            0,
            m[0] ^ 2,
            m[1],
            m[2],
            0xff,
            0xfe,
            m[3],
            m[4],
            m[5],
        ])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ();

    /// Six pairs of hexadecimal digits, separated by `:` or `-`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or(())?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        parts.next().is_none().then_some(MacAddr(bytes)).ok_or(())
    }
}

/// A network prefix without host bits; a single address is a prefix of full length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// Not an address, or not `ADDRESS/LENGTH`.
    Syntax,
    /// Longer than the family's addresses.
    TooLong { family: Family },
    /// Bits are set behind the prefix; the prefix that was probably meant.
    HostBits { meant: Prefix },
}

impl Prefix {
    pub fn new(network: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let family = Family::of(network);
        if length > family.width() {
            return Err(PrefixError::TooLong { family });
        }
        let cut = Self::containing(network, length);
        if cut.network == network {
            Ok(cut)
        } else {
            Err(PrefixError::HostBits { meant: cut })
        }
    }

    /// The prefix of this length that the address is in; a length beyond the family's is cut to it.
    pub fn containing(address: IpAddr, length: u8) -> Self {
        let length = length.min(Family::of(address).width());
        let network = match address {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask_v4(length))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask_v6(length))),
        };
        Self { network, length }
    }

    pub fn host(address: IpAddr) -> Self {
        Self::containing(address, Family::of(address).width())
    }

    pub fn whole(family: Family) -> Self {
        match family {
            Family::V4 => Self::containing(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Family::V6 => Self::containing(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        }
    }

    pub fn network(&self) -> IpAddr {
        self.network
    }

    pub fn length(&self) -> u8 {
        self.length
    }

    pub fn family(&self) -> Family {
        Family::of(self.network)
    }

    /// The only address in it, when there is only one.
    pub fn as_host(&self) -> Option<IpAddr> {
        (self.length == self.family().width()).then_some(self.network)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family()
            && Self::containing(address, self.length).network == self.network
    }

    pub fn covers(&self, other: &Prefix) -> bool {
        self.length <= other.length && self.contains(other.network)
    }

    /// The highest address in it; of an IPv4 subnet, its broadcast address.
    pub fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(u32::from(a) | !mask_v4(self.length))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(u128::from(a) | !mask_v6(self.length))),
        }
    }
}

fn mask_v4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask_v6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_host() {
            Some(address) => f.pad(&address.to_string()),
            None => f.pad(&format!("{}/{}", self.network, self.length)),
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, length)) = text.split_once('/') else {
            return text
                .parse()
                .map(Self::host)
                .map_err(|_| PrefixError::Syntax);
        };
        let address = address.parse().map_err(|_| PrefixError::Syntax)?;
        let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        match length.parse() {
            Ok(length) if plain => Self::new(address, length),
            Err(_) if plain => Err(PrefixError::TooLong {
                family: Family::of(address),
            }),
            _ => Err(PrefixError::Syntax),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, PrefixError>) {
        let seen = text.parse::<Prefix>().map(|p| p.to_string());
        assert_eq!(seen, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn prefixes_parse_to_one_canonical_form() {
        check("10.0.0.0/8", Ok("10.0.0.0/8"));
        check("10.0.0.5", Ok("10.0.0.5"));
        check("10.0.0.5/32", Ok("10.0.0.5"));
        check("0.0.0.0/0", Ok("0.0.0.0/0"));
        check("2001:DB8::/32", Ok("2001:db8::/32"));
        check(
            "10.0.0.0/33",
            Err(PrefixError::TooLong { family: Family::V4 }),
        );
        check(
            "10.0.0.0/999",
            Err(PrefixError::TooLong { family: Family::V4 }),
        );
        check("10.0.0.0/+8", Err(PrefixError::Syntax));
        check("10.0.0/8", Err(PrefixError::Syntax));
        let meant = "10.0.0.0/24".parse().expect("a prefix");
        check("10.0.0.5/24", Err(PrefixError::HostBits { meant }));
    }

    #[test]
    fn containment_stays_in_the_family() {
        let all = Prefix::whole(Family::V4);
        assert!(all.contains("255.255.255.255".parse().expect("an address")));
        assert!(!all.contains("::ffff:1.2.3.4".parse().expect("an address")));
        assert_eq!(all.last().to_string(), "255.255.255.255");
    }

    #[test]
    fn a_mac_derives_its_link_local_address() {
        let mac: MacAddr = "52:54:00:12:34:56".parse().expect("a MAC");
        assert_eq!(
            mac.eui64_link_local().to_string(),
            "fe80::5054:ff:fe12:3456"
        );
        assert!("52:54:0:12:34:56".parse::<MacAddr>().is_err());
    }
}
