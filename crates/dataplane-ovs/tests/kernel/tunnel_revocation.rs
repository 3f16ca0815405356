//! What a change of policy at one host does to what comes from the other, where tags say who is who.

use crate::bed::datagram;
use crate::hosts::Hosts;
use crate::stream::Stream;
use crate::tunnels::PATIENCE;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Groups of the client, and rules of the server's group.
fn revocable(rules: &str, peers: &str) -> String {
    format!(
        "
version: 1
hosts:
  a: {{ tunnel-address: 192.0.2.1, peer-trust: tag }}
  b: {{ tunnel-address: 192.0.2.2, peer-trust: tag }}
networks: {{ red: {{ subnets: [10.0.0.0/24], scope: red, vni: 100, mtu: 1400 }} }}
groups:
  web: {{ tag: 10, rules: [{{ name: out, to: any, protocol: icmp }}, {rules}] }}
  friends: {{ tag: 11, rules: [{{ name: out, to: any }}] }}
  others: {{ tag: 12, rules: [{{ name: out, to: any }}] }}
ports:
  web: {{ host: a, network: red, device: web, mac: '52:54:00:00:00:01', addresses: 10.0.0.1, groups: web }}
  friend: {{ host: b, network: red, device: friend, mac: '52:54:00:00:00:02', addresses: 10.0.0.2, groups: {peers} }}
"
    )
}

const UDP: &str = "{ name: udp, from: friends, protocol: udp, ports: 53 }";
const TCP: &str = "{ name: tcp, from: friends, protocol: tcp, ports: 80 }";

/// The client has asked once; from then on only the server sends.
fn replies(hosts: &Hosts) -> Stream {
    let asked = hosts.a.packets("web");
    let question = datagram(2, 1, 4000, 53);
    hosts.b.packets("friend").send(&question).expect("sent");
    let arrived = asked.wait_for(PATIENCE, |frame| frame == question);
    arrived.expect("a socket").expect("it is permitted");
    Stream::between(
        hosts.a.packets("web"),
        hosts.b.packets("friend"),
        datagram(1, 2, 53, 4000),
        Duration::from_millis(1),
    )
}

/// Two hosts, and replies that flow under this policy. The last one keeps the client's kernel quiet.
fn streaming(policy: &str) -> (Hosts, Stream, UdpSocket) {
    let mut hosts = Hosts::new();
    hosts.apply(policy);
    hosts.find_each_other();
    let mute = hosts.b.vm("friend").udp(4000).expect("a free port");
    let stream = replies(&hosts);
    assert!(stream.flows());
    (hosts, stream, mute)
}

/// Nothing comes any more once apply has returned at the server's host.
fn cut(hosts: &mut Hosts, stream: &Stream, policy: &str, on_both: bool) {
    let before = Instant::now();
    let report = hosts.a.apply(policy);
    assert!(stream.is_silent(), "it goes on");
    let last = stream.last().expect("it flowed before");
    println!(
        "apply {:?} of {} flows, on both: {on_both}; the last packet {:?} after the call",
        report.took,
        report.writes,
        last.saturating_duration_since(before)
    );
    if on_both {
        hosts.b.apply(policy);
    }
}

#[test]
fn what_is_revoked_at_one_host_ends_what_comes_from_the_other() {
    let good = revocable(&format!("{UDP}, {TCP}"), "friends");
    let (mut hosts, stream, _mute) = streaming(&good);
    for on_both in [false, true, false] {
        cut(&mut hosts, &stream, &revocable(TCP, "friends"), on_both);
        hosts.apply(&good);
        assert!(stream.flows(), "putting it back revives it");
        let left = revocable(&format!("{UDP}, {TCP}"), "others");
        cut(&mut hosts, &stream, &left, on_both);
        hosts.apply(&good);
        assert!(stream.flows(), "coming back revives it");
    }
}

#[test]
fn what_a_client_goes_on_to_send_ends_as_well() {
    let good = revocable(&format!("{UDP}, {TCP}"), "friends");
    let mut hosts = Hosts::new();
    hosts.apply(&good);
    hosts.find_each_other();
    let _mute = hosts.a.vm("web").udp(53).expect("a free port");
    let stream = Stream::between(
        hosts.b.packets("friend"),
        hosts.a.packets("web"),
        datagram(2, 1, 4000, 53),
        Duration::from_millis(1),
    );
    assert!(stream.flows());
    cut(&mut hosts, &stream, &revocable(TCP, "friends"), false);
    hosts.apply(&good);
    assert!(stream.flows(), "putting it back revives it");
    // Who its client is says the client's host.
    hosts
        .b
        .apply(&revocable(&format!("{UDP}, {TCP}"), "others"));
    assert!(stream.is_silent());
    hosts.b.apply(&good);
    assert!(stream.flows(), "coming back revives it");
}

#[test]
fn a_host_remembers_who_has_left_a_group_as_long_as_a_flow_may() {
    let good = revocable(&format!("{UDP}, {TCP}"), "friends");
    let left = revocable(&format!("{UDP}, {TCP}"), "others");
    let (mut hosts, stream, _mute) = streaming(&good);
    let lost = |hosts: &Hosts| {
        let written = hosts.a.vsctl("get bridge br-int external_ids");
        let flows = hosts.a.flows("br-int", true).into_iter();
        // Members of other hosts stand in no flow of a tagged network.
        let flows = flows.filter(|flow| flow.contains("reg7=0xa000002")).count();
        (written.contains("portcullis-lost-red/10.0.0.2"), flows)
    };
    assert_eq!(lost(&hosts), (false, 0));
    hosts.a.apply(&left);
    assert!(stream.is_silent());
    assert_eq!(lost(&hosts), (true, 1));
    hosts.a.reopen();
    assert_eq!(hosts.a.apply(&left).writes, 0);
    assert!(stream.is_silent(), "another process knows it too");
    assert_eq!(lost(&hosts), (true, 1));
    // As long as a flow of TCP may be there.
    let day = Duration::from_secs(86_400);
    hosts.a.with(|plane| plane.advance(day)).expect("told");
    assert_eq!(lost(&hosts), (true, 1));
    let more = Duration::from_secs(31);
    hosts.a.with(|plane| plane.advance(more)).expect("told");
    assert_eq!(lost(&hosts), (false, 0));
    assert!(stream.is_silent());
}

#[test]
fn who_leaves_while_no_agent_looks_is_found_out() {
    let good = revocable(&format!("{UDP}, {TCP}"), "friends");
    let (mut hosts, stream, _mute) = streaming(&good);
    // A new process doesn't know which policy there was.
    hosts.a.reopen();
    hosts.a.apply(&good);
    assert!(stream.flows(), "nothing has changed");
    hosts.a.reopen();
    let left = revocable(&format!("{UDP}, {TCP}"), "others");
    hosts.a.apply(&left);
    assert!(stream.is_silent());
    hosts.a.apply(&good);
    assert!(stream.flows(), "coming back revives it");
}

#[test]
fn who_leaves_a_group_while_no_rule_names_it_is_found_out() {
    let good = revocable(UDP, "friends");
    let (mut hosts, stream, _mute) = streaming(&good);
    let other = "{ name: dns, from: any, protocol: tcp, ports: 53 }";
    for groups in ["friends", "others"] {
        hosts.a.apply(&revocable(other, groups));
        assert!(stream.is_silent());
    }
    hosts.a.apply(&revocable(UDP, "others"));
    assert!(stream.is_silent(), "it is in the group no more");
    hosts.a.apply(&good);
    assert!(stream.flows());
}
