//! What is tracked where and for how long, what isn't, and what is counted.

use crate::bed::Bed;
use conformance::lab::Asked;
use dataplane::DataPlane;
use model::Family;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// `rules`: of the group of the first VM.
fn policy(settings: &str, rules: &str) -> String {
    format!(
        "
version: 1
settings: {{ {settings} }}
networks: {{ lan: {{ subnets: [10.0.0.0/24] }} }}
groups:
  web: {{ rules: [{rules}] }}
  shut: {{ rules: [{{ name: out, to: any, protocol: tcp }}, {{ name: ask, to: any, protocol: udp }}] }}
ports:
  web: {{ device: web, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: web }}
  shut: {{ device: shut, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: shut }}
"
    )
}

const ALL: &str = "{ name: in, from: any }, { name: out, to: any }";
const HTTP: &str = "{ name: http, from: any, protocol: tcp, ports: 80 }";

fn three() -> Bed {
    let mut bed = Bed::new(&[("br0", false)]);
    for (name, last, address) in [
        ("web", 1, "10.0.0.1"),
        ("shut", 2, "10.0.0.2"),
        ("out", 9, "10.0.0.9"),
    ] {
        bed.add_vm(name, last, &[address], "br0");
    }
    bed
}

#[test]
fn a_port_keeps_its_zone_and_nobody_inherits_it() {
    let mut bed = three();
    bed.apply(&policy("", HTTP));
    let zones = |bed: &Bed| ["web", "shut"].map(|port| bed.zone("br0", port));
    let before = zones(&bed);
    assert!(before[0].is_some() && before[0] != before[1], "{before:?}");
    bed.reopen();
    bed.apply(&policy("", HTTP));
    assert_eq!(zones(&bed), before);

    assert!(bed.answers("out", "web", Family::V4, Asked::Tcp(80)));
    let zone = format!("zone={},", before[0].expect("it has one"));
    let entry = |bed: &Bed| {
        bed.connections("dport=80")
            .into_iter()
            .any(|e| format!("{e},").contains(&zone))
    };
    assert!(entry(&bed), "{:?}", bed.connections(""));
    let timeouts = bed.vsctl("--columns=timeouts list CT_Timeout_Policy");
    assert!(timeouts.contains("tcp_established=86400") && timeouts.contains("udp_multiple=180"));
    assert_eq!(timeouts.matches("timeouts").count(), 1, "one for all zones");

    let without = |name: &str| -> String {
        let policy = policy("", HTTP);
        let is_other = |line: &&str| !line.starts_with(&format!("  {name}: {{ device"));
        policy
            .lines()
            .filter(is_other)
            .collect::<Vec<_>>()
            .join("\n")
    };
    bed.apply(&without("web"));
    assert!(!entry(&bed), "its connections are gone");
    assert_eq!(bed.zone("br0", "web"), None);
    bed.apply(&policy("", HTTP));
    let after = zones(&bed);
    assert!(!before.contains(&after[0]), "{before:?} {after:?}");
    // Its device goes, and comes again: that is a new one.
    assert!(bed.answers("out", "web", Family::V4, Asked::Tcp(80)));
    bed.unplug("web");
    let target = bed.target(&policy("", HTTP));
    let report = bed.with(|plane| plane.apply(&target)).expect("it applies");
    assert_eq!(report.refused.len(), 1);
    assert_eq!(bed.connections("dport=80"), [""; 0]);
}

fn flows_with_ct(bed: &Bed) -> usize {
    let told = bed.appctl("dpctl/dump-flows");
    let udp = told
        .lines()
        .filter(|line| line.contains("eth_type(0x0800)"));
    udp.filter(|line| line.contains("ct(") || line.contains("recirc_id(0x"))
        .count()
}

#[test]
fn what_needs_no_state_meets_no_tracker() {
    let mut bed = three();
    bed.apply(&policy("", ALL));
    for asked in [Asked::Ping, Asked::Udp(53), Asked::Tcp(80)] {
        assert!(bed.answers("out", "web", Family::V4, asked), "{asked:?}");
        assert!(bed.answers("web", "out", Family::V4, asked), "{asked:?}");
    }
    assert_eq!(flows_with_ct(&bed), 0, "{}", bed.appctl("dpctl/dump-flows"));
    assert_eq!(bed.connections(""), [""; 0]);
    // The other end decides for itself.
    assert!(bed.answers("shut", "web", Family::V4, Asked::Tcp(80)));
    assert_ne!(flows_with_ct(&bed), 0);
    assert_ne!(bed.connections(""), [""; 0]);
}

struct Connection(TcpStream);

impl Connection {
    fn open(bed: &Bed, from: &str) -> Self {
        let to = "10.0.0.1:80".parse().expect("an address");
        let stream = bed.vm(from).tcp_connect(to, Duration::from_secs(2));
        Self(stream.expect("permitted"))
    }

    fn echoes(&mut self) -> bool {
        let wait = Some(Duration::from_millis(500));
        self.0.set_read_timeout(wait).expect("a timeout");
        self.0.write_all(b"x").expect("the socket takes it");
        self.0.read_exact(&mut [0]).is_ok()
    }
}

#[test]
fn entries_of_what_needs_no_state_any_more_go() {
    let mut bed = three();
    bed.apply(&policy("", HTTP));
    let _serving = bed.vm("web").serve_tcp(80).expect("a free port");
    let mut connection = Connection::open(&bed, "out");
    assert!(connection.echoes());
    assert_eq!(bed.connections("").len(), 1);
    bed.apply(&policy("", ALL));
    assert_eq!(bed.connections(""), [""; 0]);
    assert!(connection.echoes());
    assert_eq!(bed.connections(""), [""; 0]);
}

#[test]
fn narrowing_cuts_what_was_open() {
    let mut bed = three();
    bed.apply(&policy("narrowing: cut", ALL));
    let _serving = bed.vm("web").serve_tcp(80).expect("a free port");
    let mut connection = Connection::open(&bed, "out");
    assert!(connection.echoes());
    bed.apply(&policy("narrowing: cut", HTTP));
    assert!(!connection.echoes());
    assert!(Connection::open(&bed, "out").echoes());
    // The hold outlives the process.
    bed.reopen();
    assert_eq!(bed.apply(&policy("narrowing: cut", HTTP)).writes, 0);
    assert!(!connection.echoes());
    bed.with(|plane| plane.advance(Duration::from_secs(86_400)))
        .expect("the clock goes on");
    assert_eq!(bed.audit(), []);
    assert!(!bed.vsctl("get bridge br0 external_ids").contains("held"));
}

#[test]
fn another_process_cuts_what_the_last_one_had_open() {
    let mut bed = three();
    bed.apply(&policy("narrowing: cut", ALL));
    let _serving = bed.vm("web").serve_tcp(80).expect("a free port");
    let mut connection = Connection::open(&bed, "out");
    assert!(connection.echoes());
    bed.reopen();
    bed.apply(&policy("narrowing: cut", HTTP));
    assert!(!connection.echoes());
    assert!(Connection::open(&bed, "out").echoes());
}

#[test]
fn narrowing_keeps_what_was_open() {
    let mut bed = three();
    bed.apply(&policy("narrowing: keep", ALL));
    let _serving = bed.vm("web").serve_tcp(80).expect("a free port");
    let mut connection = Connection::open(&bed, "out");
    assert!(connection.echoes());
    bed.apply(&policy("narrowing: keep", HTTP));
    assert!(connection.echoes());
}
