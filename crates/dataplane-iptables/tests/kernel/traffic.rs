//! Packets while the policy changes under them: what the old and the new one permit passes, what neither does
//! doesn't, at every moment.
//!
//! `CHANGES=10000` makes a soak of it.

use crate::bed::Bed;
use crate::with_each_backend;
use conformance::lab::PacketSocket;
use model::MacAddr;
use portcullis_dataplane_iptables::Backend;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

with_each_backend!(no_change_touches_what_it_doesnt_concern);

/// Of the two that are sent, one stays permitted throughout, by one rule or another.
const PERMITTED: u16 = 1_000;
const FORBIDDEN: u16 = 2_000;

fn no_change_touches_what_it_doesnt_concern(backend: Backend) {
    let changes = std::env::var("CHANGES").ok().and_then(|n| n.parse().ok());
    let mut bed = Bed::new(backend);
    bed.add_bridge("br0");
    bed.add_vm("web", 1, &["10.0.0.1"], "br0");
    bed.add_vm("db", 2, &["10.0.0.2"], "br0");
    bed.add_vm("out", 9, &["10.0.0.9"], "br0");
    bed.apply(&policy(0));
    let traffic = Traffic::begin(&bed);
    for number in 1..=changes.unwrap_or(60) {
        if number % 10 == 7 {
            // The next process knows nothing, and writes all of it anew.
            std::fs::remove_file(bed.directory.path().join("iptables.json")).expect("it is there");
            bed.reopen();
        }
        bed.apply(&policy(number));
    }
    let passed = traffic.end();
    println!("{passed} packets passed that should, none that shouldn't");
    assert!(passed > 100);
}

/// Each is another than the one before in rules, in members, in what needs tracking, in ports' groups, or in
/// several of these at once.
fn policy(number: usize) -> String {
    let way = [
        "{ name: one, from: any, protocol: udp, ports: 1000 }",
        "{ name: two, from: 10.0.0.0/24, protocol: udp, ports: 900-1100 }",
        "{ name: one, from: any, protocol: udp, ports: 1000 }, { name: three, from: friends, protocol: tcp }",
        "{ name: two, from: any, protocol: udp, ports: [999, 1000] }, { name: out, to: any }",
        "{ name: two, from: any, protocol: udp, ports: [999, 1000] }, { name: out, to: any }, \
         { name: ping, from: any, protocol: icmp }",
        "{ name: four, from: any, protocol: udp, ports: 1-1500 }, { name: other, from: 10.9.0.0/16 }",
    ][number % 6];
    // The sender may be a friend, and friends may send what is forbidden; never both in one policy.
    let (rule, sender) = match number % 5 {
        0 => (
            ", { name: friends, from: friends, protocol: udp, ports: 1500-2500 }",
            "others",
        ),
        1 | 3 => ("", "friends"),
        _ => ("", "others"),
    };
    let db = ["10.0.0.2", "10.0.0.3"][number / 6 % 2];
    let more = ["", ", extra"][number / 12 % 2];
    format!(
        "
version: 1
networks: {{ lan: {{ subnets: [10.0.0.0/24] }} }}
groups:
  web: {{ rules: [{way}{rule}] }}
  extra: {{ rules: [{{ name: n{number}, from: any, protocol: tcp, ports: {port} }}] }}
  friends: {{ rules: [{{ name: all, to: any }}] }}
  others: {{ rules: [{{ name: all, to: 0.0.0.0/0 }}] }}
ports:
  web: {{ device: web, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: [web{more}] }}
  db: {{ device: db, mac: 52:54:00:00:00:02, addresses: {db}, groups: [friends, extra] }}
  out: {{ device: out, mac: 52:54:00:00:00:09, addresses: 10.0.0.9, groups: [{sender}] }}
",
        port = 3_000 + number % 1_000,
    )
}

struct Traffic {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Traffic {
    /// One by one: whatever is sent has arrived, or never will, before the next.
    fn begin(bed: &Bed) -> Self {
        let from = bed.vm("out").open_packets().expect("a socket");
        let to = bed.vm("web").open_packets().expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let run = move || {
            let mut passed = 0;
            while !stopping.load(Ordering::Relaxed) {
                from.send(&frame(FORBIDDEN)).expect("sent");
                from.send(&frame(PERMITTED)).expect("sent");
                assert_eq!(next(&to), Some(PERMITTED), "after {passed} packets");
                passed += 1;
            }
            passed
        };
        Self {
            stop,
            thread: thread::spawn(run),
        }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it found nothing wrong")
    }
}

fn frame(l4_port: u16) -> Vec<u8> {
    let [src, dst] = [9, 1].map(|last| Ipv4Addr::new(10, 0, 0, last).into());
    let [from, to] = [9, 1].map(|last| MacAddr([0x52, 0x54, 0, 0, 0, last]));
    wire::build::ip(src, dst)
        .udp(5_000, l4_port)
        .macs(from, to)
        .bytes()
}

/// The port of the next datagram to arrive; `None`: none does.
fn next(socket: &PacketSocket) -> Option<u16> {
    let is_ours = |frame: &[u8]| frame.get(34..36) == Some(&5_000u16.to_be_bytes());
    let arrived = socket.wait_for(Duration::from_secs(2), is_ours);
    let frame = arrived.expect("a socket")?;
    Some(u16::from_be_bytes([frame[36], frame[37]]))
}
