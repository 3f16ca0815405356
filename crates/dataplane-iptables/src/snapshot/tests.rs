//! What is loaded from a snapshot is what was read, to the last instruction. Needs root.

use super::*;
use crate::plane::{IptablesConfig, IptablesPlane};
use crate::tools::Backend;
use conformance::lab::{Attach, BRIDGE_MAC, Lab, Namespace};
use dataplane::DataPlane;
use model::{Family, HostId};
use netfilter::conntrack::{State, Status, Tcp, TcpOptions, Tuple, TupleL4};
use std::collections::BTreeMap;
use std::net::IpAddr;
use wire::words::Words;

const TABLE: &str = "portcullis.plane.copied";

/// Something in every kind of set.
const POLICY: &str = "
version: 1
settings: { elision: strict, ethertypes: [0x88cc] }
networks:
  lan: { subnets: [10.9.0.0/24, 'fd00:9::/64'], dhcp-servers: [10.9.0.2, 'fd00:9::2'], routers: ['fe80::1'] }
address-groups: { office: [192.0.2.0/24, '2001:db8::/32'] }
groups:
  web:
    rules:
      - { name: in, from: any, protocol: tcp, ports: [80, 1000-2000] }
      - { name: odd, from: 10.0.0.0/8, protocol: [icmp echo-request, gre, 0], family: ipv4 }
      - { name: wide, from: 10.0.0.0/8, protocol: udp, ports: 1-999 }
      - { name: peers, from: [web, office], protocol: udp }
  served: { rules: [{ from: any, protocol: icmp }, { from: any, protocol: tcp, ports: 443 }, { to: any }] }
  open: { rules: [{ from: any }, { to: any }] }
ports:
  a: { device: DEV-a, mac: '52:54:00:00:09:01', addresses: [10.9.0.1, 'fd00:9::1'], groups: [web],
       pairs: [10.9.1.0/24, { prefix: 'fd00:a::/64', mac: '00:00:5e:00:01:01' }], dhcp-server: on }
  b: { device: DEV-b, mac: '52:54:00:00:09:03', addresses: [10.9.0.3, 'fd00:9::3'], groups: [served], router: on }
  c: { device: DEV-c, mac: '52:54:00:00:09:04', addresses: [10.9.0.4, 'fd00:9::4'], groups: [open] }
";

/// All that a kernel has of us, as programs show it.
#[derive(Debug, PartialEq)]
struct Shown {
    chains: Found,
    sets: BTreeMap<String, elements::SetElements>,
    /// As the kernel executes them.
    instructions: Vec<String>,
    sysctls: Vec<(&'static str, String)>,
    tracked: Vec<Entry>,
}

fn shown(tools: &Tools, settings: &Settings) -> Shown {
    let listed = tools.nft(&["--debug=netlink", "list", "table", "bridge", TABLE]);
    let listed = listed.expect("the table is there");
    let instructions = listed.lines().filter(|line| line.starts_with("  ["));
    let mut tracked = Vec::new();
    let list = conntrack::dump(&Filter::default(), |entry| {
        tracked.push(Entry {
            id: None,
            timeout_s: 0,
            ..entry
        });
    });
    list.expect("the tracker can be asked");
    Shown {
        chains: Found::read_chains(tools).expect("chains can be read"),
        sets: elements::parse(&tools.ipset(&["save"]).expect("sets can be read")),
        instructions: instructions.map(str::to_owned).collect(),
        sysctls: sysctl::read(settings),
        tracked,
    }
}

/// Of link.nft, what can be about one device.
fn elements_for(link: &Link, device: &str) -> BTreeMap<String, BTreeSet<String>> {
    let counting: BTreeSet<String> = skeleton::counting_sets().collect();
    let sets = link.elements.iter();
    let sets = sets.filter(|(set, _)| !counting.contains(*set));
    let own = |set: &String, key: &str| {
        !link.by_device.contains(set) || key.split(' ').next() == Some(device)
    };
    sets.map(|(set, elements)| {
        let elements = elements.iter().filter(|(key, _)| own(set, key));
        let elements = elements.map(|(key, leads_to)| element(key, leads_to.as_deref()));
        (set.clone(), elements.collect())
    })
    .collect()
}

/// Three ports on a bridge.
fn target(lab: &mut Lab) -> Target {
    lab.add_bridge("pc-br").expect("a bridge");
    let mut devices = BTreeMap::new();
    for (port, last) in [("a", 1), ("b", 3), ("c", 4)] {
        let mac = MacAddr([0x52, 0x54, 0, 0, 9, last]);
        let vm = lab.add_vm(port, mac, &[], Attach::Bridge("pc-br"));
        let name = vm.expect("a VM").device().to_owned();
        let ifindex = lab.host().ifindex(&name).expect("it is there");
        devices.insert(PortId::new(port), Device { name, ifindex });
    }
    let bridge = Device {
        name: "pc-br".to_owned(),
        ifindex: lab.host().ifindex("pc-br").expect("it is there"),
    };
    let host = HostId::new("h");
    let policy = policyfile::parse_bytes(POLICY.as_bytes(), "policy", &host);
    let policy = policy.unwrap_or_else(|error| panic!("{error}"));
    Target {
        view: policy::compile(&policy.inventory, &host).0,
        closed: BTreeSet::new(),
        bridges: BTreeMap::from([(
            bridge,
            Bridge {
                macs: BTreeSet::from([BRIDGE_MAC]),
                members: devices.values().cloned().collect(),
            },
        )]),
        devices,
    }
}

/// A connection that is open, from 10.9.0.9.
fn connection() -> Entry {
    let [client, server] = [9, 1].map(|last| IpAddr::from([10, 9, 0, last]));
    let l4 = |src, dst| TupleL4::Ports { src, dst };
    Entry {
        protocol: 6,
        original: Tuple {
            src: client,
            dst: server,
            l4: l4(40_000, 80),
        },
        reply: Tuple {
            src: server,
            dst: client,
            l4: l4(80, 40_000),
        },
        zone: crate::books::zone(1),
        zone_only: None,
        mark: crate::mark::STARTED_IN,
        status: Status::SEEN_REPLY.with(Status::ASSURED),
        timeout_s: 100,
        state: State::Tcp(Tcp {
            state: Tcp::ESTABLISHED,
            original: TcpOptions::default(),
            reply: TcpOptions::default(),
        }),
        id: None,
    }
}

fn check_copy(plane: &IptablesPlane, tools: &Tools, target: &Target) {
    let settings = &target.view.settings;
    let port = PortId::new("a");
    let words = "tcp 10.9.0.9:40000 -> 10.9.0.1:80 [ack]".parse::<Words>();
    let words = words.expect("a packet");
    let frame = words.frame(BRIDGE_MAC, MacAddr([0x52, 0x54, 0, 0, 9, 1]));
    let before = shown(tools, settings);
    assert_eq!(before.tracked.len(), 1);
    let snapshot = plane.snapshot(&port, Direction::Ingress, &frame);
    let snapshot = snapshot.unwrap_or_else(|error| panic!("{error}"));
    let twin = Namespace::new().expect("a namespace");
    let (copied, link) = twin.run(|| {
        snapshot.load().unwrap_or_else(|error| panic!("{error}"));
        let link = Link::read(tools, TABLE).expect("it can be read");
        (shown(tools, settings), link.expect("there is a table"))
    });
    assert_eq!(copied, before);
    let device = snapshot.device().ifindex.to_string();
    let elements = elements_for(&snapshot.loaded.link, &device);
    assert_eq!(elements_for(&link, &device), elements);
    let kinds = elements.iter().filter(|(_, elements)| !elements.is_empty());
    assert!(kinds.count() > 30, "few sets have anything in them");
    let other = snapshot.other_ifindex().to_string();
    assert!(!snapshot.loaded.link.elements["members"].contains_key(&other));
    let [bridges, members] = ["bridge_of", "members"].map(|set| &link.elements[set]);
    assert_eq!(bridges[&other], bridges[&device]);
    assert_eq!(members.len(), 2);
}

fn check(backend: Backend) {
    let mut lab = Lab::new("snapshot").expect("a lab; it needs root");
    let target = target(&mut lab);
    lab.host().run(|| {
        let config = IptablesConfig {
            instance: "copied".to_owned(),
            directory: None,
            backend: Some(backend),
        };
        let mut plane = IptablesPlane::open(config).expect("the programs are here");
        let report = plane
            .apply(&target)
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        conntrack::create(&connection()).expect("it can be created");
        let tools = Tools::find(Some(backend)).expect("the programs are here");
        check_copy(&plane, &tools, &target);
        // Not as it should be: that is copied, too.
        let rule = "insert rule bridge portcullis.plane.copied from_port ether type 0x1234 drop";
        let words: Vec<&str> = rule.split(' ').collect();
        tools.nft(&words).expect("a rule more");
        let rule = "-I pc-in -p tcp -j RETURN";
        let step = |family| Step {
            work: Work::Iptables(family, format!("*mangle\n{rule}\nCOMMIT\n")),
            writes: 1,
        };
        tools.execute(&Family::BOTH.map(step)).expect("a rule more");
        check_copy(&plane, &tools, &target);
    });
}

#[test]
fn a_copy_is_the_same_by_nft() {
    check(Backend::Nft);
}

#[test]
fn a_copy_is_the_same_by_legacy() {
    check(Backend::Legacy);
}
