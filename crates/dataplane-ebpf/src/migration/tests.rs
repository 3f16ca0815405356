//! Two instances of the plane in one kernel are as two hosts: they share nothing. Need root.

use crate::object::Object;
use crate::{EbpfConfig, EbpfPlane};
use dataplane::{DataPlane, Imported, LeftOut, MovedFlow, PortFlows, Target};
use model::{Direction, FlowKey, FlowState, MacAddr, PortId, Verdict};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use wire::words::Words;

const CLIENT: &str = "groups: { g: { rules: [{ name: out, to: any }] } }";
const OPEN: &str = "groups: { g: { rules: [{ name: out, to: any }, { name: in, from: any }] } }";
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x0a]);
const NOW: Duration = Duration::from_secs(1_000_000);

struct Host(EbpfPlane);

impl Host {
    fn new(policy: &str) -> Self {
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let instance = format!("pc-move-{}-{number}", std::process::id());
        let plane = EbpfPlane::open(EbpfConfig::small(instance));
        let mut host = Self(plane.unwrap_or_else(|error| panic!("{error}")));
        host.0.set_fixed_clock(NOW).expect("a clock");
        host.apply(policy);
        host
    }

    /// Of a port `a`; how many writes it took.
    fn apply(&mut self, policy: &str) -> u64 {
        let report = self.0.apply(&target(policy)).expect("it applies");
        assert_eq!(report.refused, [].into());
        report.writes
    }

    fn shows(&mut self, direction: Direction, words: &str) -> bool {
        let words: Words = words.parse().expect("words");
        let other = MacAddr([0x52, 0x54, 0, 0, 0, 0xff]);
        let frame = match direction {
            Direction::Egress => words.frame(MAC, other),
            Direction::Ingress => words.frame(other, MAC),
        };
        let verdict = self.0.judge(&port(), direction, &frame);
        matches!(verdict.expect("the program can be asked"), Verdict::Pass(_))
    }

    /// Queries from these ports; some of them answered.
    fn ask(&mut self, l4_ports: std::ops::Range<u16>, answered: bool) {
        for l4_port in l4_ports {
            assert!(self.shows(
                Direction::Egress,
                &format!("udp 10.0.0.10:{l4_port} -> 192.0.2.1:53")
            ));
            if answered {
                assert!(self.is_answered(l4_port));
            }
        }
    }

    fn is_answered(&mut self, l4_port: u16) -> bool {
        self.shows(
            Direction::Ingress,
            &format!("udp 192.0.2.1:53 -> 10.0.0.10:{l4_port}"),
        )
    }

    fn export(&mut self) -> PortFlows {
        self.0.export_flows(&port()).expect("the port is here")
    }

    fn import(&mut self, flows: &PortFlows) -> Imported {
        self.0
            .import_flows(&port(), flows)
            .expect("the port is here")
    }

    /// The maps, as another process finds them.
    fn object(&self) -> Object {
        let object = Object::open_pinned(self.0.instance());
        object.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Established flows, half-open ones, and the host's, as they are counted.
    fn counted(&mut self) -> (u32, u32, u64) {
        let counters = self.0.counters().expect("counters");
        let of_port = &counters.ports[&port()];
        let host = self.object().tables.host_state.get(&0).expect("a read");
        (
            of_port.flows,
            of_port.half_open,
            host.unwrap_or_default().flows,
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.detach();
    }
}

fn port() -> PortId {
    PortId::from("a")
}

fn target(policy: &str) -> Target {
    let text = format!(
        "version: 1\nnetworks: {{ lan: {{ subnets: [10.0.0.0/24] }} }}\n{policy}\n\
         ports: {{ a: {{ mac: {MAC}, addresses: 10.0.0.10, groups: g }} }}\n"
    );
    let host = "here".into();
    let file = policyfile::parse(&text, "policy", &host).unwrap_or_else(|e| panic!("{e}"));
    Target {
        view: policy::compile(&file.inventory, &host).0,
        ..Target::default()
    }
}

fn query(l4_port: u16) -> FlowKey {
    FlowKey {
        protocol: 17,
        local: [10, 0, 0, 10].into(),
        remote: [192, 0, 2, 1].into(),
        local_l4: l4_port,
        remote_l4: 53,
        icmp: None,
    }
}

const ANSWERED: MovedFlow = MovedFlow {
    original: Direction::Egress,
    state: FlowState::Established,
    replied: true,
    fin_local: false,
    fin_remote: false,
    turn: None,
    idle: Duration::ZERO,
};

fn half_open(turn: u16) -> MovedFlow {
    MovedFlow {
        state: FlowState::Opening,
        replied: false,
        turn: Some(turn),
        ..ANSWERED
    }
}

fn of(flows: impl IntoIterator<Item = (FlowKey, MovedFlow)>) -> PortFlows {
    PortFlows {
        flows: flows.into_iter().collect(),
        hold: None,
    }
}

#[test]
fn what_the_old_host_clears_away_is_not_the_new_ones() {
    let (mut old, mut new) = (Host::new(CLIENT), Host::new(CLIENT));
    let secrets = [&old, &new].map(|host| {
        let config = host.object().tables.config.get(&0).expect("a read");
        config.expect("there is one").hash_key
    });
    assert_ne!(secrets[0], secrets[1]);
    old.ask(40_000..40_010, true);
    old.ask(40_010..40_020, false);
    let flows = old.export();
    assert_eq!(new.import(&flows).taken, 20);
    assert_eq!(new.counted(), (10, 10, 20));
    // It arrives as it was sent.
    assert_eq!(new.export(), flows);
    old.0.apply(&Target::default()).expect("it applies");
    old.0.sweep().expect("swept");
    old.0.forget_state().expect("forgotten");
    old.0.detach().expect("detached");
    assert!((40_000..40_020).all(|l4_port| new.is_answered(l4_port)));
    assert!(!new.is_answered(40_020));
    assert_eq!(new.counted(), (20, 0, 20));
}

#[test]
fn what_has_begun_here_stays_as_it_is() {
    let mut new = Host::new(CLIENT);
    new.ask(40_000..40_001, true);
    let before = new.0.flows(None).expect("flows");
    let other_way = MovedFlow {
        original: Direction::Ingress,
        ..half_open(0)
    };
    let imported = new.import(&of([(query(40_000), other_way), (query(40_001), ANSWERED)]));
    assert_eq!(
        (imported.taken, imported.left_out),
        (1, [(LeftOut::Known, 1)].into())
    );
    let after = new.0.flows(None).expect("flows");
    assert!(before.iter().all(|flow| after.contains(flow)));
    assert_eq!(new.counted(), (2, 0, 2));
}

fn check_left_out(policy: &str, flows: PortFlows, taken: usize, left_out: &[(LeftOut, usize)]) {
    let mut host = Host::new(policy);
    let imported = host.import(&flows);
    let left_out: BTreeMap<_, _> = left_out.iter().copied().collect();
    assert_eq!((imported.taken, &imported.left_out), (taken, &left_out));
    let places: Vec<u32> = {
        let flows = host.object().tables.flows.entries().expect("a read");
        let places = flows.iter().map(|(_, flow)| flow.place);
        places.filter(|place| *place != 0).collect()
    };
    let half_open = places.len() as u32;
    let established = taken as u32 - half_open;
    assert_eq!(host.counted(), (established, half_open, taken as u64));
    let different: std::collections::BTreeSet<u32> = places.iter().copied().collect();
    assert_eq!(different.len(), places.len(), "each has a place of its own");
    // What came in is as the hooks' own: when its time is over nothing is left of it.
    host.0
        .set_fixed_clock(NOW + Duration::from_secs(200_000))
        .expect("a clock");
    host.0.sweep().expect("swept");
    assert_eq!(host.counted(), (0, 0, 0));
}

#[test]
fn what_is_not_taken_in_is_told_with_the_reason() {
    let idle = |idle| MovedFlow {
        idle: Duration::from_secs(idle),
        ..ANSWERED
    };
    let foreign = FlowKey {
        local: [10, 0, 0, 11].into(),
        ..query(1)
    };
    let six = FlowKey {
        local: "fd00::a".parse().expect("an address"),
        remote: "fd00::b".parse().expect("an address"),
        ..query(1)
    };
    check_left_out(
        CLIENT,
        of([
            (query(1), idle(100)),
            (query(2), idle(200)),
            (
                query(3),
                MovedFlow {
                    idle: Duration::MAX,
                    ..ANSWERED
                },
            ),
            (foreign, ANSWERED),
            (six, ANSWERED),
        ]),
        1,
        &[(LeftOut::Expired, 2), (LeftOut::NotThePorts, 2)],
    );
    check_left_out(
        OPEN,
        of([(query(1), ANSWERED)]),
        0,
        &[(LeftOut::Elidable, 1)],
    );
}

#[test]
fn budgets_hold_for_what_comes_in() {
    let flows = || {
        let established = (0..5).map(|n| (query(n), ANSWERED));
        let half_open = (5..10).map(|n| (query(n), half_open(n - 5)));
        of(established.chain(half_open))
    };
    let with = |budgets: &str| format!("settings: {{ budgets: {{ {budgets} }} }}\n{CLIENT}");
    check_left_out(CLIENT, flows(), 10, &[]);
    let of_port = with("flows-per-port: 2, half-open-per-port: 3");
    check_left_out(&of_port, flows(), 5, &[(LeftOut::Budget, 5)]);
    // A reserve of 2, and 2 that are shared.
    let of_host = with("flows-per-host: 4, reserve-per-port: 2");
    check_left_out(&of_host, flows(), 2, &[(LeftOut::Budget, 8)]);
}

#[test]
fn a_half_open_flow_finds_another_place_where_its_own_is_taken() {
    let policy = format!("settings: {{ budgets: {{ half-open-per-port: 4 }} }}\n{CLIENT}");
    let mut host = Host::new(&policy);
    host.ask(40_000..40_002, false);
    let flows = (0..4).map(|n| (query(n), half_open(n)));
    let imported = host.import(&of(flows));
    assert_eq!(
        (imported.taken, imported.left_out),
        (2, [(LeftOut::Budget, 2)].into())
    );
    assert_eq!(host.counted(), (0, 4, 4));
    assert!(host.is_answered(40_000) && host.is_answered(40_001));
}

#[test]
fn of_a_port_that_is_not_here_nothing_leaves_or_comes_in() {
    let mut host = Host::new(CLIENT);
    check_not_here(&mut host, PortId::from("b"));
    host.0.apply(&Target::default()).expect("it applies");
    check_not_here(&mut host, port());
    host.apply(CLIENT);
    host.0.detach().expect("detached");
    check_not_here(&mut host, port());
}

fn check_not_here(host: &mut Host, other: PortId) {
    let exported = host
        .0
        .export_flows(&other)
        .expect_err("there is no such port");
    let imported = host.0.import_flows(&other, &of([(query(1), ANSWERED)]));
    let imported = imported.expect_err("there is no such port");
    assert_eq!(
        [exported, imported].map(|e| e.source.kind()),
        [ErrorKind::NotFound; 2]
    );
}

#[test]
fn who_only_looks_takes_nothing_in() {
    let mut host = Host::new(CLIENT);
    host.ask(40_000..40_001, false);
    let looks = EbpfPlane::open_existing(host.0.instance());
    let mut looks = looks.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(looks.export_flows(&port()).expect("a read"), host.export());
    let refused = looks.import_flows(&port(), &of([(query(1), ANSWERED)]));
    refused.expect_err("it holds no programs");
    assert_eq!(host.counted(), (0, 1, 1));
}

#[test]
fn the_longer_hold_counts_and_is_kept() {
    let mut host = Host::new(CLIENT);
    let held = |seconds| PortFlows {
        hold: Some(Duration::from_secs(seconds)),
        ..PortFlows::default()
    };
    let left = |host: &mut Host| host.export().hold.map(|hold| hold.as_secs());
    assert_eq!(left(&mut host), None);
    for (seconds, expected) in [(100, 99), (50, 99), (1_000, 999)] {
        host.import(&held(seconds));
        assert_eq!(left(&mut host), Some(expected));
        assert_eq!(host.0.audit().expect("an audit"), []);
        assert_eq!(host.apply(CLIENT), 0, "the policy is in force as it was");
    }
    // Another process takes over.
    let config = EbpfConfig::small(host.0.instance());
    host.0 = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(left(&mut host), Some(999));
    assert!(host.shows(Direction::Egress, "tcp 10.0.0.10:1 -> 192.0.2.1:80 [ack]"));
    assert_eq!(host.counted(), (0, 0, 0), "nothing begins in mid-stream");
    assert!(host.shows(Direction::Egress, "tcp 10.0.0.10:1 -> 192.0.2.1:80 [syn]"));
    assert_eq!(host.counted(), (0, 1, 1));
}
