//! Processes come and go; what is in force stays.

use crate::bed::Bed;
use crate::sharing::three;
use crate::with_each_backend;
use conformance::lab::Asked;
use dataplane::DataPlane;
use model::Family;
use portcullis_dataplane_iptables::{Backend, Difference};
use std::io::{Read, Write};
use std::time::Duration;

with_each_backend!(
    the_next_process_has_nothing_to_write,
    lost_books_cost_no_connection,
    another_policy_takes_the_place_of_an_unknown_one,
    detaching_leaves_nothing,
);

const POLICY: &str = "
version: 1
networks: { lan: { subnets: [10.0.0.0/24] } }
groups:
  web: { rules: [{ name: http, from: 10.0.0.9/32, protocol: tcp, ports: 80 }] }
  peers: { rules: [{ name: each, from: peers, protocol: udp }, { name: other, to: peers }] }
ports:
  open: { device: open, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: [web, peers] }
  shut: { device: shut, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: peers }
";

fn the_next_process_has_nothing_to_write(backend: Backend) {
    let mut bed = three(backend);
    assert!(bed.apply(POLICY).writes > 0);
    assert_eq!(bed.apply(POLICY).writes, 0);
    bed.reopen();
    assert_eq!(bed.apply(POLICY).writes, 0);
    bed.reopen();
    // A rule more, from a process that is told the old policy: what is not new isn't written.
    let old = bed.target(POLICY).view;
    assert!(bed.with(|plane| plane.recognize(&old)));
    let more = POLICY.replace("ports: 80", "ports: [80, 81]");
    let writes = bed.apply(&more).writes;
    assert!((1..=3).contains(&writes), "{writes}");
    assert_eq!(verified(&mut bed), []);
}

/// The numbers under which a bridge's connections are tracked are found again in the kernel.
fn lost_books_cost_no_connection(backend: Backend) {
    let mut bed = three(backend);
    // So that the bridge's number isn't the first one.
    bed.add_bridge("br1");
    bed.add_vm("gone", 4, &["10.0.0.4"], "br1");
    bed.apply(POLICY);
    let _serving = bed.vm("open").serve_tcp(80).expect("a free port");
    let at = "10.0.0.1:80".parse().expect("an address");
    let mut stream = bed
        .vm("out")
        .tcp_connect(at, Duration::from_secs(2))
        .expect("permitted");
    let mut echoes = || {
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("a timeout");
        stream.write_all(b"x").expect("the socket takes it");
        stream.read_exact(&mut [0]).is_ok()
    };
    assert!(echoes());
    for file in std::fs::read_dir(bed.directory.path()).expect("a directory") {
        std::fs::remove_file(file.expect("an entry").path()).expect("it is there");
    }
    bed.reopen();
    assert!(bed.apply(POLICY).writes > 0);
    assert!(echoes());
    assert_eq!(verified(&mut bed), []);
}

/// O2: nobody knows what the last process left, and it was something else.
fn another_policy_takes_the_place_of_an_unknown_one(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(POLICY);
    std::fs::remove_file(bed.directory.path().join("iptables.json")).expect("it is there");
    bed.reopen();
    let other = POLICY
        .replace("groups: [web, peers]", "groups: peers")
        .replace("protocol: udp", "protocol: tcp, ports: 22");
    bed.apply(&other);
    assert_eq!(verified(&mut bed), []);
    let asks = |asked| bed.answers("shut", "open", Family::V4, asked);
    assert!(asks(Asked::Tcp(22)));
    assert!(!asks(Asked::Udp(53)));
    assert!(!bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
}

fn detaching_leaves_nothing(backend: Backend) {
    let mut bed = three(backend);
    let state = |bed: &Bed| {
        let tables = [bed.iptables_save(), bed.ip6tables_save()];
        (
            tables,
            bed.run("ipset save"),
            bed.run("nft list tables bridge"),
        )
    };
    // The tables of iptables, once they are set up, stay.
    bed.apply(POLICY);
    bed.with(DataPlane::detach).expect("it is there");
    let before = state(&bed);
    bed.apply(POLICY);
    assert_ne!(state(&bed), before);
    bed.with(DataPlane::detach).expect("it is there");
    assert_eq!(state(&bed), before);
    assert!(bed.answers("out", "shut", Family::V4, Asked::Tcp(23)));
    assert_eq!(
        std::fs::read_dir(bed.directory.path())
            .expect("a directory")
            .count(),
        0
    );
}

pub(crate) fn verified(bed: &mut Bed) -> Vec<Difference> {
    bed.with(|plane| plane.verify())
        .expect("it can be read back")
}
