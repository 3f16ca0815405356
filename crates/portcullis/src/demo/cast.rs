//! Who plays: six machines, what they offer, and who is meant to reach what.
//!
//! What is meant stands here by hand, so that no code of ours says what to expect of our code.
//! Knows nothing of: the policy that should bring it about.

use model::{Family, MacAddr};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Web1,
    Web2,
    App1,
    Db1,
    Admin,
    /// On the bridge like the others; no policy is about it.
    Outsider,
}

/// What is asked of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Ssh,
    Https,
    App,
    Db,
    Ping,
}

/// By row from whom, by column to whom, in the order of [`Role::ALL`]; services by their letters.
const MAY_REACH: [[&str; 6]; 6] = [
    ["", "w", "a", "", "", "swadp"],
    ["w", "", "a", "", "", "swadp"],
    ["", "", "", "d", "", ""],
    ["", "", "", "", "", ""],
    ["swp", "swp", "sp", "sp", "", "swadp"],
    ["w", "w", "", "", "", ""],
];

pub(crate) fn may_reach(from: Role, to: Role, service: Service) -> bool {
    MAY_REACH[from as usize][to as usize].contains(service.letter())
}

impl Role {
    pub(crate) const ALL: [Role; 6] = [
        Role::Web1,
        Role::Web2,
        Role::App1,
        Role::Db1,
        Role::Admin,
        Role::Outsider,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Web1 => "web1",
            Role::Web2 => "web2",
            Role::App1 => "app1",
            Role::Db1 => "db1",
            Role::Admin => "admin",
            Role::Outsider => "outsider",
        }
    }

    /// The policy has a port of this name.
    pub(crate) fn is_protected(self) -> bool {
        self != Role::Outsider
    }

    pub(crate) fn mac(self) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0, 0, self.number()])
    }

    pub(crate) fn v4(self) -> Ipv4Addr {
        // The number's digits are the same in both families.
        Ipv4Addr::new(10, 0, 0, self.number() / 16 * 10 + self.number() % 16)
    }

    pub(crate) fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0xd, 0, 0, 0, 0, 0, self.number().into())
    }

    pub(crate) fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }

    fn number(self) -> u8 {
        match self {
            Role::Web1 => 0x11,
            Role::Web2 => 0x12,
            Role::App1 => 0x21,
            Role::Db1 => 0x31,
            Role::Admin => 0x41,
            Role::Outsider => 0x51,
        }
    }
}

impl Service {
    pub(crate) const ALL: [Service; 5] = [
        Service::Ssh,
        Service::Https,
        Service::App,
        Service::Db,
        Service::Ping,
    ];

    pub(crate) const LEGEND: &str =
        "s ssh 22   w https 443   a app 8080   d database 5432   p ping";

    pub(crate) fn letter(self) -> char {
        match self {
            Service::Ssh => 's',
            Service::Https => 'w',
            Service::App => 'a',
            Service::Db => 'd',
            Service::Ping => 'p',
        }
    }

    /// `None`: it has no port.
    pub(crate) fn l4_port(self) -> Option<u16> {
        match self {
            Service::Ssh => Some(22),
            Service::Https => Some(443),
            Service::App => Some(8080),
            Service::Db => Some(5432),
            Service::Ping => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.l4_port() {
            Some(port) => write!(f, "TCP {port}"),
            None => f.write_str("ping"),
        }
    }
}
