//! VMs that share a host: what one may has no bearing on the other.

use crate::bed::Bed;
use crate::with_each_backend;
use conformance::lab::Asked;
use dataplane::DataPlane;
use model::{Direction, Family};
use netfilter::conntrack::Status;
use portcullis_dataplane_iptables::Backend;
use std::time::Duration;

with_each_backend!(
    an_open_and_a_restricted_vm_in_all_directions,
    between_two_local_vms_a_flow_starts_when_both_gates_pass,
    the_host_itself_is_judged_as_anybody,
    a_removed_permission_ends_the_flow_at_once,
    rules_that_cant_be_matched_are_told_once,
);

const POLICY: &str = "
version: 1
networks: { lan: { subnets: [10.0.0.0/24, 'fd00::/64'] } }
groups:
  open: { rules: [{ name: in, from: any }, { name: out, to: any }] }
  shut:
    rules:
      - { name: ssh, from: 10.0.0.1/32, protocol: tcp, ports: 22 }
      - { name: ssh6, from: 'fd00::1/128', protocol: tcp, ports: 22 }
      - { name: dns, to: 10.0.0.9/32, protocol: udp, ports: 53 }
      - { name: dns6, to: 'fd00::9/128', protocol: udp, ports: 53 }
ports:
  open: { device: open, mac: 52:54:00:00:00:01, addresses: [10.0.0.1, 'fd00::1'], groups: open }
  shut: { device: shut, mac: 52:54:00:00:00:02, addresses: [10.0.0.2, 'fd00::2'], groups: shut }
";

/// The capabilities `udplite-ports` and `dccp-ports`.
fn rules_that_cant_be_matched_are_told_once(backend: Backend) {
    let mut bed = three(backend);
    let policy = POLICY.replace(
        "open: { rules: [",
        "open: { rules: [{ name: media, from: any, protocol: udplite, ports: 5004 }, \
         { name: all, from: any, protocol: dccp }, ",
    );
    let target = bed.target(&policy);
    let mut remarks = || {
        let report = bed.with(|plane| plane.apply(&target));
        report.unwrap_or_else(|error| panic!("{error}")).remarks
    };
    let first = remarks();
    assert_eq!(first.len(), 1);
    assert!(first[0].starts_with("group open: "), "{first:?}");
    assert!(
        first[0].contains("media") && !first[0].contains("all"),
        "{first:?}"
    );
    assert_eq!(remarks(), [""; 0]);
}

/// Two ports, and somebody who is none.
pub(crate) fn three(backend: Backend) -> Bed {
    let mut bed = Bed::new(backend);
    bed.add_bridge("br0");
    bed.add_vm("open", 1, &["10.0.0.1", "fd00::1"], "br0");
    bed.add_vm("shut", 2, &["10.0.0.2", "fd00::2"], "br0");
    bed.add_vm("out", 9, &["10.0.0.9", "fd00::9"], "br0");
    bed
}

fn an_open_and_a_restricted_vm_in_all_directions(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(POLICY);
    for family in Family::BOTH {
        for (from, to, asked, expected) in [
            ("out", "open", Asked::Ping, true),
            ("out", "open", Asked::Tcp(80), true),
            ("open", "out", Asked::Udp(53), true),
            ("open", "out", Asked::Ping, true),
            ("open", "shut", Asked::Tcp(22), true),
            ("open", "shut", Asked::Tcp(23), false),
            ("open", "shut", Asked::Ping, false),
            ("shut", "open", Asked::Tcp(80), false),
            ("shut", "open", Asked::Udp(53), false),
            ("out", "shut", Asked::Tcp(22), false),
            ("shut", "out", Asked::Udp(53), true),
            ("shut", "out", Asked::Tcp(53), false),
            ("shut", "out", Asked::Ping, false),
        ] {
            let answered = bed.answers(from, to, family, asked);
            assert_eq!(answered, expected, "{from} asks {to} {asked:?} by {family}");
        }
    }
    // What the open VM does with the world leaves nothing; with its neighbour, whose replies need it, it does.
    let with_world = bed.entries().into_iter().filter(|entry| {
        let ends = [entry.original.src, entry.original.dst].map(|end| end.to_string());
        ends.iter()
            .all(|end| !end.ends_with(".2") && !end.ends_with("::2"))
    });
    assert_eq!(with_world.collect::<Vec<_>>(), []);
    let of_shut = bed
        .with(|plane| plane.flows(Some(&"shut".into())))
        .expect("flows");
    assert!(
        of_shut
            .iter()
            .any(|flow| flow.key.local_l4 == 22 && flow.replied)
    );
    let counters = bed.with(dataplane::DataPlane::counters).expect("counters");
    assert!(counters.ports["open"].drops.is_empty());
    assert!(counters.ports["shut"].drops.len() == 1, "{counters:?}");
}

/// `joint-start`: what the receiver's gate drops starts nothing at the sender's, so what looks like an answer is
/// a stranger's packet.
fn between_two_local_vms_a_flow_starts_when_both_gates_pass(backend: Backend) {
    let mut bed = three(backend);
    let policy = |admits: &str| {
        format!(
            "
version: 1
networks: {{ lan: {{ subnets: [10.0.0.0/24] }} }}
groups:
  asks: {{ rules: [{{ name: out, to: any, protocol: udp }}] }}
  tells: {{ rules: [{{ name: out, to: any, protocol: udp }}{admits}] }}
ports:
  open: {{ device: open, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: asks }}
  shut: {{ device: shut, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: tells }}
"
        )
    };
    bed.apply(&policy(""));
    let asks = bed.vm("open").udp(4_000).expect("a free port");
    let tells = bed.vm("shut").udp(5_000).expect("a free port");
    let wait = Some(Duration::from_millis(200));
    asks.set_read_timeout(wait).expect("a timeout");
    tells.set_read_timeout(wait).expect("a timeout");
    let mut buffer = [0; 8];
    asks.send_to(b"?", "10.0.0.2:5000").expect("sent");
    assert!(tells.recv(&mut buffer).is_err(), "nothing admits it");
    tells.send_to(b"!", "10.0.0.1:4000").expect("sent");
    assert!(asks.recv(&mut buffer).is_err(), "it answers nothing");
    bed.apply(&policy(", { name: in, from: any, protocol: udp }"));
    asks.send_to(b"?", "10.0.0.2:5000").expect("sent");
    assert_eq!(tells.recv(&mut buffer).expect("it is admitted"), 1);
    tells.send_to(b"!", "10.0.0.1:4000").expect("sent");
    assert_eq!(asks.recv(&mut buffer).expect("it is an answer"), 1);
}

/// What the host sends to a port, and gets from it, by the bridge's own address.
fn the_host_itself_is_judged_as_anybody(backend: Backend) {
    let mut bed = three(backend);
    bed.run("ip addr add 10.0.0.254/24 dev br0");
    bed.apply(&POLICY.replace("from: 10.0.0.1/32", "from: 10.0.0.254/32"));
    let host = bed.lab.host().clone();
    let connects = |to: &str, l4_port: u16| {
        let to = std::net::SocketAddr::new(to.parse().expect("an address"), l4_port);
        host.run(|| std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok())
    };
    let _shut = [22, 23].map(|l4_port| bed.vm("shut").serve_tcp(l4_port).expect("a free port"));
    let _open = bed.vm("open").serve_tcp(80).expect("a free port");
    assert!(connects("10.0.0.2", 22), "a rule permits it");
    assert!(!connects("10.0.0.2", 23), "no rule does");
    assert!(connects("10.0.0.1", 80));
    // From a port to the host.
    let listener = host
        .run(|| std::net::TcpListener::bind("0.0.0.0:8080"))
        .expect("a port");
    let at = "10.0.0.254:8080".parse().expect("an address");
    assert!(
        bed.vm("open")
            .tcp_connect(at, Duration::from_secs(2))
            .is_ok()
    );
    assert!(
        bed.vm("shut")
            .tcp_connect(at, Duration::from_millis(300))
            .is_err()
    );
    drop(listener);
}

fn a_removed_permission_ends_the_flow_at_once(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(POLICY);
    let _serving = bed.vm("shut").serve_tcp(22).expect("a free port");
    let at = "10.0.0.2:22".parse().expect("an address");
    let mut stream = bed
        .vm("open")
        .tcp_connect(at, Duration::from_secs(2))
        .expect("permitted");
    let mut echoes = || {
        use std::io::{Read, Write};
        let wait = Some(Duration::from_millis(300));
        stream.set_read_timeout(wait).expect("a timeout");
        stream.write_all(b"x").expect("the socket takes it");
        stream.read_exact(&mut [0]).is_ok()
    };
    assert!(echoes());
    let flows = |bed: &mut Bed| {
        bed.with(|plane| plane.flows(Some(&"shut".into())))
            .expect("flows")
    };
    assert_eq!(flows(&mut bed)[0].original, Direction::Ingress);
    bed.apply(&POLICY.replace(
        "{ name: ssh, from: 10.0.0.1/32",
        "{ name: ssh, from: 10.0.0.3/32",
    ));
    assert!(!echoes());
    let flow = flows(&mut bed).remove(0);
    assert_eq!(flow.standing, dataplane::Standing::Revoked);
    let replied = |bed: &Bed| bed.entries()[0].status.has(Status::SEEN_REPLY);
    assert!(replied(&bed), "the entry itself is still there");
    // And it goes on where it was, when it is permitted again.
    bed.apply(POLICY);
    let again = flows(&mut bed).remove(0);
    assert!(
        matches!(again.standing, dataplane::Standing::Rule(_)),
        "{again:?}"
    );
}
