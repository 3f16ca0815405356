//! What a change of policy costs a host, from the event to enforced: `cargo bench -p portcullis-dataplane-ebpf`, as
//! root.
//!
//! 50 local ports in a group whose rules name a group of ports elsewhere, which gets one member more. CPU time of
//! the agent's thread, and by the clock: to compile all anew, by the change alone; what the agent does (compiling
//! included), the plane, and these two together.

use agent::{Agent, Config, Effect, Event, Link};
use dataplane::DataPlane;
use model::{
    DeviceMatch, Direction, Family, FrozenSet, Host, HostId, Inventory, InventoryChange, L4Match,
    L4PortRange, MacAddr, Network, Peer, PeerTrust, Port, PortedProtocol, Revision, Rule, RuleId,
    SecurityGroup,
};
use policy::Compiler;
use portcullis_dataplane_ebpf::{EbpfConfig, EbpfPlane};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const LOCAL: u32 = 50;
const ROUNDS: u32 = 31;
/// Of devices that aren't there: what the agent and the plane know of devices is known, and nothing is attached.
const FIRST_IFINDEX: u32 = 1 << 30;

fn main() {
    println!("of one member more: least, median and most; CPU ms (and the median by the clock)");
    for (members, rules) in [(1_000, 100), (1_000, 1_000), (10_000, 100), (10_000, 1_000)] {
        println!("{LOCAL} local ports, {members} members, {rules} rules");
        bench(members, rules);
    }
}

fn bench(members: u32, rules: u32) {
    let host = HostId::from("here");
    let inventory = inventory(members, rules);
    let mut compiler = Compiler::new(inventory.clone(), host.clone());
    let mut plane = Scratch::open();
    let mut agent = Agent::new(Config {
        host: host.clone(),
        ours: BTreeSet::new(),
        confirm: None,
        guard_names: BTreeSet::new(),
        audit_every: Duration::from_secs(10),
        encode: None,
    });
    agent.step(Duration::ZERO, Event::DevicesListed(links()));
    let mut anew = Times::new("anew");
    let mut compile = Times::new("compile");
    let mut step = Times::new("agent");
    let mut apply = Times::new("plane");
    let mut whole = Times::new("all");
    for round in 0..=ROUNDS {
        let port = member(members + round);
        let change = InventoryChange {
            revision: Revision {
                epoch: 1,
                commit: 2 + u64::from(round),
            },
            ports: [(port.id.clone(), Some(port))].into(),
            ..InventoryChange::default()
        };
        let event = match round {
            0 => Event::InventoryReplaced(inventory.clone()),
            _ => Event::InventoryChanged(change.clone()),
        };
        compile.time(|| compiler.change(change));
        whole.begin();
        let effects = step.time(|| agent.step(Duration::ZERO, event));
        let target = effects.into_iter().find_map(|effect| match effect {
            Effect::Apply(target) => Some(target),
            _ => None,
        });
        let target = target.expect("there is something to apply");
        let report = apply.time(|| plane.0.apply(&target));
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        step.go_on(|| agent.step(Duration::ZERO, Event::Applied(report)));
        whole.end();
    }
    for _ in 0..=ROUNDS {
        anew.time(|| policy::compile(compiler.inventory(), &host));
    }
    for times in [anew, compile, step, apply, whole] {
        times.print();
    }
}

fn inventory(members: u32, rules: u32) -> Inventory {
    let rules = (0..rules).map(|n| {
        rule(
            n,
            if n % 2 == 0 {
                Peer::Group("clients".into())
            } else {
                Peer::Any
            },
        )
    });
    let mut inventory = Inventory {
        revision: Revision {
            epoch: 1,
            commit: 1,
        },
        ..Inventory::default()
    };
    for id in ["here", "there"] {
        let host = Host {
            id: id.into(),
            tunnel_address: None,
            peer_trust: PeerTrust::default(),
            settings: Default::default(),
        };
        inventory.hosts.insert(host.id.clone(), host);
    }
    let network = Network {
        id: "net".into(),
        scope: "scope".into(),
        vni: None,
        mtu: None,
        subnets: ["10.0.0.0/8".parse().expect("a prefix")].into(),
        dhcp_servers: BTreeSet::new(),
        routers: BTreeSet::new(),
        eui64_only: false,
    };
    inventory.networks.insert(network.id.clone(), network);
    let egress = Rule {
        id: "out".into(),
        direction: Direction::Egress,
        family: Family::V4,
        l4: L4Match::Any,
        peer: Peer::Any,
    };
    for (id, rules) in [
        ("servers", rules.chain([egress]).collect::<Vec<_>>()),
        ("clients", Vec::new()),
    ] {
        let group = SecurityGroup {
            id: id.into(),
            project: None,
            name: id.to_owned(),
            stateful: true,
            tag: None,
            rules: rules
                .into_iter()
                .map(|rule| (rule.id.clone(), rule))
                .collect(),
        };
        inventory.groups.insert(group.id.clone(), group);
    }
    let servers = (0..LOCAL).map(|n| Port {
        host: Some("here".into()),
        groups: ["servers".into()].into(),
        ..port(&format!("server{n}"), n, 1)
    });
    let ports = servers.chain((0..members).map(member));
    inventory.ports = ports.map(|port| (port.id.clone(), port)).collect();
    inventory
}

fn rule(n: u32, peer: Peer) -> Rule {
    let first = 1 + 50 * (n as u16);
    Rule {
        id: RuleId::new(format!("in{n}")),
        direction: Direction::Ingress,
        family: Family::V4,
        l4: L4Match::Ported {
            protocol: PortedProtocol::Tcp,
            dst: L4PortRange::new(first, first + 9).expect("in order"),
        },
        peer,
    }
}

fn member(n: u32) -> Port {
    Port {
        host: Some("there".into()),
        groups: ["clients".into()].into(),
        ..port(&format!("client{n}"), n, 2)
    }
}

fn port(id: &str, n: u32, kind: u8) -> Port {
    let [_, a, b, c] = n.to_be_bytes();
    Port {
        id: id.into(),
        network: "net".into(),
        host: None,
        device: DeviceMatch::Name(format!("tap-{id}")),
        moving: None,
        mac: MacAddr([2, 0, kind, a, b, c]),
        fixed_addresses: [IpAddr::V4(Ipv4Addr::new(10, kind, a * 16 + b, c))].into(),
        address_pairs: FrozenSet::new(),
        groups: FrozenSet::new(),
        port_security: true,
        dhcp_server: false,
        router: false,
    }
}

fn links() -> Vec<Link> {
    let link = |n| Link {
        ifindex: FIRST_IFINDEX + n,
        name: format!("tap-server{n}"),
        mac: Some(MacAddr([0xfe, 0, 1, 0, 0, n as u8])),
        kind: Some("tun".to_owned()),
        up: true,
        master: None,
        interface_id: None,
    };
    (0..LOCAL).map(link).collect()
}

/// A plane whose pins go with it, also after a failure.
struct Scratch(EbpfPlane);

impl Scratch {
    fn open() -> Self {
        let config = EbpfConfig {
            max_ports: 64,
            ..EbpfConfig::small(format!("pc-change-{}", std::process::id()))
        };
        Self(EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}")))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.detach();
    }
}

/// CPU time of this thread, and by the clock, of each round.
struct Times {
    what: &'static str,
    began: (Duration, Instant),
    spent: Vec<(Duration, Duration)>,
}

impl Times {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            began: (Duration::ZERO, Instant::now()),
            spent: Vec::new(),
        }
    }

    fn begin(&mut self) {
        self.began = (cpu(), Instant::now());
    }

    fn end(&mut self) {
        self.spent
            .push((cpu() - self.began.0, self.began.1.elapsed()));
    }

    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.begin();
        let result = std::hint::black_box(work());
        self.end();
        result
    }

    /// What belongs to the round before.
    fn go_on<T>(&mut self, work: impl FnOnce() -> T) {
        let before = self.spent.pop().expect("it was timed");
        self.time(work);
        let last = self.spent.last_mut().expect("it was timed");
        *last = (last.0 + before.0, last.1 + before.1);
    }

    /// The first round isn't a change.
    fn print(mut self) {
        let mut changes = self.spent.split_off(1);
        changes.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (least, most) = (changes[0].0, changes[changes.len() - 1].0);
        let (cpu, clock) = changes[changes.len() / 2];
        println!(
            "  {:8} {:8.3} {:8.3} {:8.3}  ({:.3})",
            self.what,
            ms(least),
            ms(cpu),
            ms(most),
            ms(clock)
        );
    }
}

fn cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Sound: the kernel writes the one struct that it is given.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
