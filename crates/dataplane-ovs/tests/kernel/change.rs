//! That a change touches nothing that it doesn't concern.
//!
//! `CHANGES=10000` makes a soak of it.

use crate::bed::{Bed, datagram};
use conformance::lab::PacketSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Of the two that are sent, one stays permitted throughout, by one rule or another.
const PERMITTED: u16 = 1_000;
const FORBIDDEN: u16 = 2_000;

#[test]
fn no_change_touches_what_it_doesnt_concern() {
    let changes = std::env::var("CHANGES").ok().and_then(|n| n.parse().ok());
    let mut bed = Bed::new(&[("br0", true)]);
    bed.add_vm("web", 1, &[], "br0");
    bed.add_vm("db", 2, &[], "br0");
    bed.add_vm("out", 3, &[], "br0");
    bed.apply(&changing(0));
    let traffic = [("out", "web", 3, 1), ("db", "web", 2, 1)];
    let traffic = traffic.map(|(from, to, a, b)| Traffic::begin(&bed, from, to, a, b));
    let began = Instant::now();
    let mut took = Vec::new();
    let changes = changes.unwrap_or(300);
    for number in 1..=changes {
        if number % 100 == 57 {
            // The next process knows nothing.
            bed.reopen();
        }
        took.push(bed.apply(&changing(number)).took);
    }
    let passed = traffic.map(Traffic::end);
    took.sort();
    println!(
        "{changes} changes in {:?}, half of them within {:?}, all within {:?}; {passed:?} packets passed \
         that should, none that shouldn't, none was lost",
        began.elapsed(),
        took[took.len() / 2],
        took[took.len() - 1],
    );
    assert!(passed.iter().all(|passed| *passed > 100));
    assert_eq!(bed.audit(), []);
}

/// Each is another than the one before in rules, in members, in what needs tracking, in ports' groups, or in
/// several of these at once.
fn changing(number: usize) -> String {
    let way = [
        "{ name: one, from: any, protocol: udp, ports: 1000 }",
        "{ name: two, from: 10.0.0.0/24, protocol: udp, ports: 900-1100 }",
        "{ name: one, from: any, protocol: udp, ports: 1000 }, { name: three, from: friends, protocol: tcp }",
        "{ name: two, from: any, protocol: udp, ports: [999, 1000] }, { name: out, to: any }",
        "{ name: two, from: any, protocol: udp, ports: [999, 1000] }, { name: out, to: any }, \
         { name: ping, from: any, protocol: icmp }",
        "{ name: four, from: any, protocol: udp, ports: 1-1500 }, { name: other, from: 10.9.0.0/16 }",
    ][number % 6];
    // A sender may be a friend, and friends may send what is forbidden; never both in one policy.
    let (rule, sender) = match number % 5 {
        0 => (
            ", { name: friends, from: friends, protocol: udp, ports: 1500-2500 }",
            "others",
        ),
        1 | 3 => ("", "friends"),
        _ => ("", "others"),
    };
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
  db: {{ device: db, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: [{sender}, extra] }}
  out: {{ device: out, mac: 52:54:00:00:00:03, addresses: 10.0.0.3, groups: [{sender}] }}
",
        port = 3_000 + number % 1_000,
    )
}

struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Traffic {
    /// One by one: whatever is sent has arrived, or never will, before the next.
    fn begin(bed: &Bed, from: &str, to: &str, a: u8, b: u8) -> Self {
        let (from, to) = (bed.packets(from), bed.packets(to));
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let source = 5_000 + u16::from(a);
        let run = move || {
            let mut passed = 0;
            while !stopping.load(Ordering::Relaxed) {
                for l4_port in [FORBIDDEN, PERMITTED] {
                    let frame = datagram(a, b, source, l4_port);
                    from.send(&frame).expect("sent");
                }
                assert_eq!(next(&to, source), Some(PERMITTED), "after {passed} packets");
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

/// The port of the next datagram to arrive; `None`: none does.
fn next(socket: &PacketSocket, source: u16) -> Option<u16> {
    let is_ours = |frame: &[u8]| frame.get(34..36) == Some(&source.to_be_bytes());
    let arrived = socket.wait_for(Duration::from_secs(5), is_ours);
    let frame = arrived.expect("a socket")?;
    Some(u16::from_be_bytes([frame[36], frame[37]]))
}
