//! A host with many VMs on one bridge, each in a group of its own with ten rules: what an iptables plane
//! finds hardest, since nothing is shared.
//!
//! The VMs' devices are there, though nobody is behind them. The plane would take any index for a device;
//! but nft lists all devices of the host before it reads an index, so they are part of what a change costs.

use super::own_plane::{self, OwnPlane};
use super::policies::{HOST, group, nobody, port, rule};
use crate::plane::PlaneArgs;
use agent::Link;
use anyhow::ensure;
use conformance::lab::Lab;
use dataplane::Target;
use model::{
    Direction, Family, FrozenSet, HostId, IcmpKind, Inventory, L4Match, L4PortRange, MacAddr, Peer,
    Port, PortId, PortedProtocol, Prefix, Rule,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The host. Its plane enforces nothing yet.
pub(super) struct Crowd {
    pub(super) size: u32,
    lab: Lab,
    links: BTreeMap<u32, Link>,
    plane: Option<OwnPlane>,
}

/// What a change took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// From the call to the return.
    pub(super) time: Duration,
    /// That were started.
    pub(super) programs: u64,
}

impl Crowd {
    /// With devices for so many VMs, and for one more to come.
    pub(super) fn build(plane: PlaneArgs, size: u32) -> anyhow::Result<Self> {
        let name = format!("crowd{size}");
        let lab = Lab::new(&name)?;
        lab.add_bridge("br0")?;
        let mut script = tap("uplink", MacAddr([0x52, 0x54, 0, 0, 0, 1]));
        for i in 0..=size {
            let mac = MacAddr([0xfe, 0x54, 0, 1, (i >> 8) as u8, i as u8]);
            script += &tap(&device(i), mac);
        }
        lab.host().ip(&script)?;
        let (links, plane) = lab.host().run(|| -> anyhow::Result<_> {
            Ok((own_plane::links()?, OwnPlane::open(plane, &name, false)?))
        })?;
        Ok(Self {
            size,
            lab,
            links,
            plane: Some(plane),
        })
    }

    /// As an agent would put it; the device of a VM is there when the VM is.
    pub(super) fn target(&self, inventory: &Inventory) -> Target {
        let (view, _) = policy::compile(inventory, &HostId::from(HOST));
        let mut links = self.links.clone();
        links.retain(|_, link| match link.name.strip_prefix(DEVICE) {
            Some(_) => view.ports.contains_key(&PortId::new(&*link.name)),
            None => true,
        });
        own_plane::target(view, &links)
    }

    pub(super) fn apply(&mut self, target: &Target) -> anyhow::Result<Took> {
        self.run(|plane| {
            let before = plane.as_iptables()?.programs_started();
            let began = Instant::now();
            plane.enforce(target)?;
            let time = began.elapsed();
            let programs = plane.as_iptables()?.programs_started() - before;
            Ok(Took { time, programs })
        })
    }

    /// All of it is in the kernel, and nothing else of ours.
    pub(super) fn verify(&mut self) -> anyhow::Result<()> {
        self.run(|plane| {
            let differences = plane.as_iptables()?.verify()?;
            let told: Vec<&str> = differences.iter().map(|d| &*d.what).collect();
            ensure!(told.is_empty(), "{}", told.join("; "));
            Ok(())
        })
    }

    /// In the host's namespace.
    pub(super) fn run<T: Send>(
        &mut self,
        work: impl FnOnce(&mut OwnPlane) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let plane = self.plane.as_mut().expect("it is taken when all is over");
        self.lab.host().run(|| work(plane))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let plane = self.plane.take();
        self.lab.host().run(|| drop(plane));
    }
}

/// Taps are what VMs have, and what every kernel with VMs has.
fn tap(device: &str, mac: MacAddr) -> String {
    format!(
        "tuntap add {device} mode tap\n\
         link set {device} address {mac} master br0 up\n"
    )
}

/// Begins the names of VMs and of their devices, which are the same.
pub(super) const DEVICE: &str = "vm";

pub(super) fn device(i: u32) -> String {
    format!("{DEVICE}{i:04}")
}

/// The policy of that many VMs.
pub(super) fn inventory(size: u32) -> Inventory {
    let subnets = [
        Prefix::containing(Ipv4Addr::new(10, 0, 0, 0).into(), 8),
        Prefix::containing("fd00::".parse().expect("an address"), 64),
    ];
    let mut inventory = nobody(BTreeSet::from(subnets));
    for i in 0..size {
        let mut rules = default_rules(i);
        rules.extend(more_rules());
        add_vm(&mut inventory, i, rules);
    }
    let elsewhere = Port {
        host: None,
        groups: FrozenSet::new(),
        ..vm(ELSEWHERE)
    };
    inventory.ports.insert(elsewhere.id.clone(), elsewhere);
    inventory
}

/// The number of a VM of another host.
const ELSEWHERE: u32 = 0x8000;

/// Another VM, with the rules that a VM has by default.
pub(super) fn join(inventory: &mut Inventory, i: u32) {
    add_vm(inventory, i, default_rules(i));
}

/// More rules for the first VM: one port for one prefix each.
pub(super) fn permit(inventory: &mut Inventory, count: u8) {
    let rules = (0..count).map(|n| {
        let from = Prefix::containing(Ipv4Addr::new(10, 200, n, 0).into(), 24);
        let id = format!("more{n:03}");
        rule(&id, Direction::Ingress, tcp(9000, 9000), Peer::Prefix(from))
    });
    add_rules(inventory, rules);
}

/// A rule more for the first VM, of another kind than those that it has: so the rules that ask for sets
/// change, too.
pub(super) fn permit_range(inventory: &mut Inventory) {
    let from = Prefix::containing(Ipv4Addr::new(10, 200, 0, 0).into(), 24);
    let peer = Peer::Prefix(from);
    add_rules(
        inventory,
        [rule("wide", Direction::Ingress, tcp(9000, 9999), peer)],
    );
}

/// A VM of another host gets into the first VM's group.
pub(super) fn add_member(inventory: &mut Inventory) {
    let elsewhere = inventory.ports.get_mut(&vm(ELSEWHERE).id);
    let elsewhere = elsewhere.expect("it is in each inventory");
    elsewhere.groups.insert(device(0).as_str().into());
}

fn add_rules(inventory: &mut Inventory, rules: impl IntoIterator<Item = Rule>) {
    let group = inventory.groups.get_mut(device(0).as_str());
    let group = group.expect("the first VM has a group");
    group
        .rules
        .extend(rules.into_iter().map(|r| (r.id.clone(), r)));
}

fn add_vm(inventory: &mut Inventory, i: u32, rules: Vec<Rule>) {
    let (vm, group) = (vm(i), group(&device(i), rules));
    inventory.ports.insert(vm.id.clone(), vm);
    inventory.groups.insert(group.id.clone(), group);
}

/// In the group of its name.
fn vm(i: u32) -> Port {
    let name = device(i);
    let mac = MacAddr([0x52, 0x54, 0, 1, (i >> 8) as u8, i as u8]);
    let mut vm = port(&name, &name, mac, &[Ipv4Addr::from(0x0a00_0100 + i)]);
    let v6 = Ipv6Addr::from(0xfd00_0000_0000_0000_0000_0000_0000_0100 + u128::from(i));
    vm.fixed_addresses.insert(IpAddr::V6(v6));
    vm
}

/// Everything out, and in from the VM's own group.
fn default_rules(i: u32) -> Vec<Rule> {
    let own = || Peer::Group(device(i).as_str().into());
    let v6 = |rule| Rule {
        family: Family::V6,
        ..rule
    };
    let (any, egress, ingress) = (L4Match::Any, Direction::Egress, Direction::Ingress);
    vec![
        rule("out4", egress, any, Peer::Any),
        v6(rule("out6", egress, any, Peer::Any)),
        rule("own4", ingress, any, own()),
        v6(rule("own6", ingress, any, own())),
    ]
}

/// Six more.
fn more_rules() -> Vec<Rule> {
    let ingress = |id, l4, peer| rule(id, Direction::Ingress, l4, peer);
    let from = |a, b, length| {
        let network = Ipv4Addr::new(a, b, 0, 0);
        Peer::Prefix(Prefix::containing(network.into(), length))
    };
    let echo_request = IcmpKind {
        icmp_type: 8,
        code: None,
    };
    let ping = L4Match::Icmp {
        kind: Some(echo_request),
    };
    vec![
        ingress("ping", ping, Peer::Any),
        ingress("ssh", tcp(22, 22), from(192, 168, 24)),
        ingress("http", tcp(80, 80), Peer::Any),
        ingress("https", tcp(443, 443), Peer::Any),
        ingress("sql", tcp(3306, 3306), from(10, 1, 16)),
        ingress("range", tcp(8000, 8999), from(10, 2, 16)),
    ]
}

fn tcp(first: u16, last: u16) -> L4Match {
    L4Match::Ported {
        protocol: PortedProtocol::Tcp,
        dst: L4PortRange::new(first, last).expect("first is not above last"),
    }
}
