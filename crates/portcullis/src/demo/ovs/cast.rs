//! Who plays: the machines of two tenants on two hosts, what they offer, and who is meant to reach what.
//!
//! What is meant stands here by hand, as in the other demo.
//! Knows nothing of: the policy that should bring it about.

use model::{Family, MacAddr};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tenant {
    Red,
    Blue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Web,
    Mate,
    Friend,
    Stranger,
    /// In red's network, and in no policy: a router's place.
    Outside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostName {
    A,
    B,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Machine {
    pub(crate) tenant: Tenant,
    pub(crate) role: Role,
}

/// What is asked of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Http,
    Dns,
    Syslog,
    Ping,
}

/// By row from whom, by column to whom, in the order of [`Role::ALL`]; services by their letters. The same in
/// either tenant, whatever the solution and the host.
const MAY_REACH: [[&str; 5]; 5] = [
    ["", "p", "p", "", ""],
    ["hdl", "", "p", "", "hdlp"],
    ["hdl", "p", "", "", "hdlp"],
    ["d", "p", "p", "", "hdlp"],
    ["d", "p", "p", "", ""],
];

pub(crate) fn may_reach(from: Role, to: Role, service: Service) -> bool {
    MAY_REACH[from as usize][to as usize].contains(service.letter())
}

impl Tenant {
    pub(crate) const ALL: [Tenant; 2] = [Tenant::Red, Tenant::Blue];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Tenant::Red => "red",
            Tenant::Blue => "blue",
        }
    }
}

impl Role {
    pub(crate) const ALL: [Role; 5] = [
        Role::Web,
        Role::Mate,
        Role::Friend,
        Role::Stranger,
        Role::Outside,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Web => "web",
            Role::Mate => "mate",
            Role::Friend => "friend",
            Role::Stranger => "stranger",
            Role::Outside => "outside",
        }
    }

    pub(crate) fn host(self) -> HostName {
        match self {
            Role::Web | Role::Mate | Role::Outside => HostName::A,
            Role::Friend | Role::Stranger => HostName::B,
        }
    }
}

impl HostName {
    pub(crate) const ALL: [HostName; 2] = [HostName::A, HostName::B];

    pub(crate) fn name(self) -> &'static str {
        match self {
            HostName::A => "a",
            HostName::B => "b",
        }
    }

    /// On the cable.
    pub(crate) fn address(self) -> Ipv4Addr {
        match self {
            HostName::A => Ipv4Addr::new(192, 0, 2, 1),
            HostName::B => Ipv4Addr::new(192, 0, 2, 2),
        }
    }
}

impl Machine {
    pub(crate) fn new(tenant: Tenant, role: Role) -> Self {
        Self { tenant, role }
    }

    pub(crate) fn all() -> Vec<Machine> {
        let of_tenant = |tenant| Role::ALL.map(|role| Machine { tenant, role });
        let all = Tenant::ALL.into_iter().flat_map(of_tenant);
        all.filter(|machine| *machine != Machine::new(Tenant::Blue, Role::Outside))
            .collect()
    }

    /// The policy has a port of this name.
    pub(crate) fn is_protected(self) -> bool {
        self.role != Role::Outside
    }

    pub(crate) fn host(self) -> HostName {
        self.role.host()
    }

    /// What policies and switches call it.
    pub(crate) fn port(self) -> String {
        format!("{}-{}", self.tenant.name(), self.role.name())
    }

    pub(crate) fn mac(self) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0, self.tenant as u8, self.number()])
    }

    /// The same in either tenant.
    pub(crate) fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.number())
    }

    pub(crate) fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.number().into())
    }

    pub(crate) fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }

    fn number(self) -> u8 {
        self.role as u8 + 1
    }
}

impl Service {
    pub(crate) const ALL: [Service; 4] =
        [Service::Http, Service::Dns, Service::Syslog, Service::Ping];

    pub(crate) const LEGEND: &str = "h TCP 80   d UDP 53   l UDP 514   p ping";

    pub(crate) fn letter(self) -> char {
        match self {
            Service::Http => 'h',
            Service::Dns => 'd',
            Service::Syslog => 'l',
            Service::Ping => 'p',
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant.name(), self.role.name())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Http => "TCP 80",
            Service::Dns => "UDP 53",
            Service::Syslog => "UDP 514",
            Service::Ping => "ping",
        })
    }
}
