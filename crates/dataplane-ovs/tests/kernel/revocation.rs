//! A permission that is taken away ends what it let through, at once and in both directions; whatever else permits
//! it goes on.

use crate::bed::{Bed, datagram};
use crate::stream::Stream;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// `rules`: of the server's group. `peers`: the groups of the client.
fn policy(rules: &str, peers: &str) -> String {
    format!(
        "
version: 1
networks: {{ lan: {{ subnets: [10.0.0.0/24] }} }}
groups:
  web: {{ rules: [{{ name: out, to: any, protocol: icmp }}, {rules}] }}
  friends: {{ rules: [{{ name: out, to: any }}] }}
  others: {{ rules: [{{ name: out, to: any }}] }}
ports:
  web: {{ device: web, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: web }}
  friend: {{ device: friend, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: [{peers}] }}
"
    )
}

const TCP: &str = "{ name: tcp, from: friends, protocol: tcp, ports: 80 }";
const TCP_TOO: &str = "{ name: too, from: 10.0.0.0/24, protocol: tcp, ports: 1-100 }";
const UDP: &str = "{ name: udp, from: friends, protocol: udp, ports: 53 }";
const UDP_TOO: &str = "{ name: also, from: 10.0.0.0/24, protocol: udp, ports: 53-60 }";

fn both() -> Bed {
    let mut bed = Bed::new(&[("br0", true)]);
    bed.add_vm("web", 1, &["10.0.0.1"], "br0");
    bed.add_vm("friend", 2, &["10.0.0.2"], "br0");
    bed.apply(&policy(&format!("{TCP}, {UDP}"), "friends"));
    bed
}

/// The client has asked once; from then on only the server sends.
fn replies(bed: &Bed, client_port: u16) -> Stream {
    let asked = bed.packets("web");
    let question = datagram(2, 1, client_port, 53);
    bed.packets("friend").send(&question).expect("sent");
    let arrived = asked.wait_for(Duration::from_secs(5), |frame| frame == question);
    arrived.expect("a socket").expect("it is permitted");
    let reply = datagram(1, 2, 53, client_port);
    Stream::begin(bed, "web", "friend", reply, Duration::from_millis(1))
}

#[test]
fn a_removed_rule_ends_a_stream_that_only_the_server_sends() {
    let mut bed = both();
    let _mute = bed.vm("friend").udp(4_000).expect("a free port");
    let stream = replies(&bed, 4_000);
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        assert!(stream.flows(), "round {round}");
        slowest = slowest.max(cut(&mut bed, &stream, TCP, "friends"));
        bed.apply(&policy(&format!("{TCP}, {UDP}"), "friends"));
        assert!(stream.flows(), "putting it back revives it");
        // The peer leaves its group, and the rule stays.
        let rules = format!("{TCP}, {UDP}");
        slowest = slowest.max(cut(&mut bed, &stream, &rules, "others"));
        bed.apply(&policy(&rules, "friends"));
    }
    println!("the last packet after the call of apply: at most {slowest:?}");
    // The goal is 100 ms; the machine may be busy.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// How long after the call the last packet passed.
fn cut(bed: &mut Bed, stream: &Stream, rules: &str, peers: &str) -> Duration {
    let policy = policy(rules, peers);
    let called = Instant::now();
    let report = bed.apply(&policy);
    let returned = Instant::now();
    assert!(stream.is_silent(), "it goes on");
    let last = stream.last().expect("it flowed before");
    println!(
        "apply {:?} of {} flows; the last packet {:?} after the call, {:?} after the return",
        report.took,
        report.writes,
        last.saturating_duration_since(called),
        last.saturating_duration_since(returned),
    );
    last.saturating_duration_since(called)
}

#[test]
fn a_rule_that_covers_it_too_keeps_it() {
    let mut bed = both();
    let _mute = bed.vm("friend").udp(4_000).expect("a free port");
    let stream = replies(&bed, 4_000);
    bed.apply(&policy(&format!("{TCP}, {UDP}, {UDP_TOO}"), "friends"));
    for rules in [UDP_TOO, UDP] {
        bed.apply(&policy(rules, "friends"));
        assert!(stream.flows(), "{rules}");
    }
    // And so does it with the peer in another group.
    bed.apply(&policy(UDP_TOO, "others"));
    assert!(stream.flows());
    bed.apply(&policy(UDP, "others"));
    assert!(stream.is_silent());
}

/// Both ends write all the time.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn open(bed: &Bed) -> Self {
        let listener = bed.vm("web").tcp_listen(80).expect("a free port");
        let to = "10.0.0.1:80".parse().expect("an address");
        let client = bed.vm("friend").tcp_connect(to, Duration::from_secs(5));
        let client = client.expect("permitted");
        let (server, _) = listener.accept().expect("it is connected");
        for end in [&client, &server] {
            end.set_nodelay(true).expect("set");
            end.set_read_timeout(Some(Duration::from_secs(5)))
                .expect("set");
        }
        Self { client, server }
    }

    /// A byte each way within the time.
    fn passes(&mut self, patience: Duration) -> [bool; 2] {
        let pass = |from: &mut TcpStream, to: &mut TcpStream| {
            from.write_all(b"x").expect("the socket takes it");
            to.set_read_timeout(Some(patience)).expect("set");
            to.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0)
        };
        let up = pass(&mut self.client, &mut self.server);
        let down = pass(&mut self.server, &mut self.client);
        [up, down]
    }
}

#[test]
fn a_removed_rule_ends_a_connection_in_both_directions() {
    let mut bed = both();
    let mut talk = Talk::open(&bed);
    let soon = Duration::from_secs(5);
    let silence = Duration::from_millis(400);
    assert_eq!(talk.passes(soon), [true, true]);
    bed.apply(&policy(&format!("{TCP}, {TCP_TOO}"), "friends"));
    assert_eq!(talk.passes(soon), [true, true]);
    bed.apply(&policy(TCP_TOO, "friends"));
    assert_eq!(talk.passes(soon), [true, true], "another rule covers it");
    bed.apply(&policy(UDP, "friends"));
    assert_eq!(talk.passes(silence), [false, false]);
    // What was written meanwhile comes by itself, once it may.
    bed.apply(&policy(TCP, "friends"));
    thread::sleep(silence);
    assert_eq!(
        talk.passes(soon),
        [true, true],
        "putting it back revives it"
    );
    bed.apply(&policy(TCP, "others"));
    let mut talk_again = || talk.passes(silence);
    // Bytes that were under way are read first.
    talk_again();
    assert_eq!(talk_again(), [false, false], "the peer left its group");
}
