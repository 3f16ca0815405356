//! A world of one host, one network and one port `vm` in group `g`, with rules as text.
//!
//! `in tcp 22 any`, `out any any`, `in6 icmp 128 2001:db8::/64`, `in udp 53-54 group web`,
//! `out 47 addresses office`; rules are named r0, r1, ... in their order.

use model::{
    AddressGroup, AddressGroupId, Capabilities, DeviceMatch, Direction, Elision, Family, Flows,
    FrozenSet, GroupId, Host, HostId, IcmpKind, Inventory, L4Match, L4PortRange, MacAddr,
    NdOptions, Network, NetworkId, PassReason, Peer, PeerTrust, Port, PortId, PortedProtocol,
    PortlessProtocol, Rule, RuleId, ScopeId, SecurityGroup, Settings, Verdict,
};
use portcullis_oracle::{Decision, Oracle};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use wire::build::{self, Builder, Content, Ip};

pub(crate) const VM_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
pub(crate) const VM: &str = "10.0.0.1";
pub(crate) const VM6: &str = "2001:db8::1";
/// In no group; there is no port with this address.
pub(crate) const PEER: &str = "10.0.0.9";
pub(crate) const PEER6: &str = "2001:db8::9";

pub(crate) const SYN: u8 = 2;
pub(crate) const SYN_ACK: u8 = 0x12;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN_ACK: u8 = 0x11;
pub(crate) const RST: u8 = 4;

/// Open vSwitch with its userspace datapath.
pub(crate) const OPEN_VSWITCH: Capabilities = Capabilities {
    flows: Flows::Userspace,
    quote_match: false,
    fragment_verdict: false,
    per_end_start: true,
    nd_options: NdOptions::Fields,
    igmp_types: false,
    link_local_list: false,
    whole_headers: false,
    lenient_ip: false,
    ipv4_options: false,
    extension_chain: false,
    udplite_ports: false,
    dccp_ports: false,
};

pub(crate) struct World {
    pub(crate) inventory: Inventory,
    pub(crate) oracle: Oracle,
    pub(crate) now: Duration,
}

impl World {
    /// In mode on.
    pub(crate) fn new(rules: &[&str]) -> Self {
        Self::with(Capabilities::ALL, Elision::On, rules)
    }

    pub(crate) fn in_mode(elision: Elision, rules: &[&str]) -> Self {
        Self::with(Capabilities::ALL, elision, rules)
    }

    pub(crate) fn with(capabilities: Capabilities, elision: Elision, rules: &[&str]) -> Self {
        let host = HostId::new("h");
        let mut inventory = Inventory::default();
        let settings = Settings {
            elision,
            ..Settings::default()
        };
        inventory.hosts.insert(
            host.clone(),
            Host {
                id: host.clone(),
                tunnel_address: None,
                peer_trust: PeerTrust::Address,
                settings,
            },
        );
        inventory.networks.insert("net".into(), network("net", "s"));
        let vm = port("vm", VM_MAC, &[VM, VM6], &["g"]);
        inventory.ports.insert(vm.id.clone(), vm);
        let mut world = Self {
            inventory,
            oracle: Oracle::new(host, capabilities),
            now: Duration::from_secs(1_000_000),
        };
        world.rules(rules);
        world
    }

    /// Changes the inventory, and applies it.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Inventory)) {
        change(&mut self.inventory);
        self.oracle.apply(&self.inventory, self.now);
    }

    pub(crate) fn edit_port(&mut self, change: impl FnOnce(&mut Port)) {
        self.edit(|i| change(i.ports.get_mut("vm").expect("there is a port vm")));
    }

    pub(crate) fn edit_network(&mut self, change: impl FnOnce(&mut Network)) {
        self.edit(|i| change(i.networks.get_mut("net").expect("there is a network net")));
    }

    pub(crate) fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        self.edit(|i| change(&mut i.hosts.get_mut("h").expect("there is a host h").settings));
    }

    /// Group `g` has these rules, and no others.
    pub(crate) fn rules(&mut self, rules: &[&str]) {
        self.edit(|i| put_group(i, "g", true, rules));
    }

    /// The port is also in the stateless group `u`, with these rules.
    pub(crate) fn stateless(&mut self, rules: &[&str]) {
        self.edit(|i| put_group(i, "u", false, rules));
        self.edit_port(|p| p.groups.extend(["u".into()]));
    }

    pub(crate) fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(crate) fn decide(&mut self, direction: Direction, frame: &[u8]) -> Decision {
        self.oracle.decide(&"vm".into(), direction, frame, self.now)
    }

    #[track_caller]
    pub(crate) fn sends<C: Content>(&mut self, frame: Builder<C>, expected: &str) {
        self.check(Direction::Egress, &frame.bytes(), expected);
    }

    #[track_caller]
    pub(crate) fn gets<C: Content>(&mut self, frame: Builder<C>, expected: &str) {
        self.check(Direction::Ingress, &frame.bytes(), expected);
    }

    #[track_caller]
    pub(crate) fn check(&mut self, direction: Direction, frame: &[u8], expected: &str) {
        let explained = self
            .oracle
            .explain(&"vm".into(), direction, frame, self.now);
        let seen = self.decide(direction, frame);
        let trace = &explained.trace;
        assert_eq!(text(&seen.verdict), expected, "{direction} {trace:#?}");
        assert_eq!(explained.verdict, seen.verdict, "explain answers as decide");
    }

    /// What is said, as `expected` has it, and how far it is open.
    #[track_caller]
    pub(crate) fn leaves(
        &mut self,
        direction: Direction,
        frame: &[u8],
        expected: &str,
        open: portcullis_oracle::Open,
    ) {
        let seen = self.decide(direction, frame);
        assert_eq!(
            (text(&seen.verdict).as_str(), seen.open),
            (expected, open),
            "{direction} {}",
            wire::words::describe(frame)
        );
    }

    pub(crate) fn flows(&mut self) -> usize {
        self.oracle.flows(&"vm".into(), self.now).len()
    }
}

pub(crate) fn text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Drop(reason) => reason.to_string(),
        Verdict::Pass(PassReason::Rule(rule)) => format!("rule {rule}"),
        Verdict::Pass(PassReason::Live(rule)) => format!("live {rule}"),
        Verdict::Pass(PassReason::ElidedError) => "elided-error".to_owned(),
        Verdict::Pass(PassReason::Fragment) => "fragment".to_owned(),
        Verdict::Pass(PassReason::Infrastructure) => "infrastructure".to_owned(),
        Verdict::Pass(PassReason::Unguarded) => "unguarded".to_owned(),
    }
}

/// From the VM to this address, by way of its own MAC.
pub(crate) fn out(dst: &str) -> Builder<Ip> {
    let dst = address(dst);
    build::ip(vm_address(dst), dst).macs(VM_MAC, PEER_MAC)
}

/// To the VM from this address.
pub(crate) fn into_vm(src: &str) -> Builder<Ip> {
    let src = address(src);
    build::ip(src, vm_address(src)).macs(PEER_MAC, VM_MAC)
}

/// From one address to another, sent by the VM.
pub(crate) fn sent(src: &str, dst: &str) -> Builder<Ip> {
    build::ip(address(src), address(dst)).macs(VM_MAC, PEER_MAC)
}

/// From one address to another, on its way to the VM.
pub(crate) fn received(src: &str, dst: &str) -> Builder<Ip> {
    build::ip(address(src), address(dst)).macs(PEER_MAC, VM_MAC)
}

fn vm_address(other: IpAddr) -> IpAddr {
    match other {
        IpAddr::V4(_) => address(VM),
        IpAddr::V6(_) => address(VM6),
    }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

pub(crate) fn network(id: &str, scope: &str) -> Network {
    let subnets = ["10.0.0.0/24", "2001:db8::/64"].map(|s| s.parse().expect("a prefix"));
    Network {
        id: NetworkId::new(id),
        scope: ScopeId::new(scope),
        vni: None,
        mtu: None,
        subnets: BTreeSet::from(subnets),
        dhcp_servers: BTreeSet::new(),
        routers: BTreeSet::new(),
        eui64_only: false,
    }
}

/// A port of network `net` on host `h`.
pub(crate) fn port(id: &str, mac: MacAddr, addresses: &[&str], groups: &[&str]) -> Port {
    Port {
        id: PortId::new(id),
        network: "net".into(),
        host: Some("h".into()),
        device: DeviceMatch::Name(format!("tap-{id}")),
        moving: None,
        mac,
        fixed_addresses: addresses.iter().map(|a| address(a)).collect(),
        address_pairs: FrozenSet::new(),
        groups: groups.iter().map(|g| GroupId::new(*g)).collect(),
        port_security: true,
        dhcp_server: false,
        router: false,
    }
}

pub(crate) fn put_port(inventory: &mut Inventory, port: Port) {
    inventory.ports.insert(port.id.clone(), port);
}

pub(crate) fn put_group(inventory: &mut Inventory, id: &str, stateful: bool, rules: &[&str]) {
    let rules = rules.iter().enumerate().map(|(i, text)| {
        let rule = rule(RuleId::new(format!("r{i}")), text);
        (rule.id.clone(), rule)
    });
    let group = SecurityGroup {
        id: GroupId::new(id),
        project: None,
        name: id.to_owned(),
        stateful,
        tag: None,
        rules: rules.collect(),
    };
    inventory.groups.insert(group.id.clone(), group);
}

pub(crate) fn put_addresses(inventory: &mut Inventory, id: &str, prefixes: &[&str]) {
    let id = AddressGroupId::new(id);
    let prefixes = prefixes.iter().map(|p| p.parse().expect("a prefix"));
    let group = AddressGroup {
        id: id.clone(),
        prefixes: prefixes.collect(),
    };
    inventory.address_groups.insert(id, group);
}

fn rule(id: RuleId, text: &str) -> Rule {
    let words: Vec<&str> = text.split(' ').collect();
    let (direction, family) = match words[0] {
        "in" => (Direction::Ingress, Family::V4),
        "in6" => (Direction::Ingress, Family::V6),
        "out" => (Direction::Egress, Family::V4),
        "out6" => (Direction::Egress, Family::V6),
        other => panic!("no direction: {other}"),
    };
    let (l4, rest) = l4(&words[1..]);
    let peer = match rest {
        ["any"] => Peer::Any,
        ["group", id] => Peer::Group(GroupId::new(*id)),
        ["addresses", id] => Peer::AddressGroup(AddressGroupId::new(*id)),
        [prefix] => Peer::Prefix(prefix.parse().expect("a prefix")),
        other => panic!("no remote: {other:?}"),
    };
    Rule {
        id,
        direction,
        family,
        l4,
        peer,
    }
}

fn l4<'a>(words: &'a [&'a str]) -> (L4Match, &'a [&'a str]) {
    let ported = match words[0] {
        "any" => return (L4Match::Any, &words[1..]),
        "icmp" if words[1] == "any" => return (L4Match::Icmp { kind: None }, &words[2..]),
        "icmp" => return (icmp(words[1]), &words[2..]),
        "tcp" => PortedProtocol::Tcp,
        "udp" => PortedProtocol::Udp,
        "sctp" => PortedProtocol::Sctp,
        "udplite" => PortedProtocol::UdpLite,
        "dccp" => PortedProtocol::Dccp,
        number => {
            let number = number.parse().ok().and_then(PortlessProtocol::new);
            return (L4Match::Other(number.expect("a protocol")), &words[1..]);
        }
    };
    let dst = match words[1].split_once('-') {
        _ if words[1] == "any" => Some(L4PortRange::ALL),
        Some((first, last)) => L4PortRange::new(number(first), number(last)),
        None => L4PortRange::new(number(words[1]), number(words[1])),
    };
    let protocol = ported;
    let dst = dst.expect("a range");
    (L4Match::Ported { protocol, dst }, &words[2..])
}

/// `8` or `3/4`.
fn icmp(text: &str) -> L4Match {
    let (icmp_type, code) = text.split_once('/').unzip();
    let kind = IcmpKind {
        icmp_type: icmp_type.unwrap_or(text).parse().expect("an ICMP type"),
        code: code.map(|c| c.parse().expect("an ICMP code")),
    };
    L4Match::Icmp { kind: Some(kind) }
}

fn number(text: &str) -> u16 {
    text.parse().expect("a transport port")
}
