//! A bridge that forwards by itself, with VLANs and others on it: no frame gets past a gate, and what is others' stays.

use crate::bed::{Bed, datagram, is_same, mac};
use conformance::lab::Asked;
use dataplane::{DataPlane, Drift};
use model::{Family, MacAddr};
use std::net::Ipv4Addr;
use std::time::Duration;

/// web and friend in VLAN 10, other in VLAN 20, bare in none.
const POLICY: &str = "
version: 1
networks:
  ten: { subnets: [10.0.0.0/24, 'fd00::/64'], scope: ten }
  twenty: { subnets: [10.0.0.0/24], scope: twenty }
groups:
  web:
    rules:
      - { name: http, from: friends, protocol: tcp, ports: 80 }
      - { name: many, from: any, protocol: udp, ports: 5000 }
      - { name: out, to: friends }
      - { name: say, to: any, protocol: udp }
  friends: { rules: [{ name: ping, from: any, protocol: icmp }, { name: out, to: any }] }
ports:
  web: { network: ten, device: web, mac: 52:54:00:00:00:01, addresses: [10.0.0.1, 'fd00::1'], groups: web }
  friend: { network: ten, device: friend, mac: 52:54:00:00:00:02, addresses: [10.0.0.2, 'fd00::2'], groups: friends }
  other: { network: twenty, device: other, mac: 52:54:00:00:00:03, addresses: 10.0.0.3, groups: web }
  bare: { network: twenty, device: bare, mac: 52:54:00:00:00:04, addresses: 10.0.0.4, groups: web }
";

fn vlans() -> Bed {
    let mut bed = Bed::new(&[("br0", false)]);
    bed.add_vm("web", 1, &["10.0.0.1", "fd00::1"], "br0");
    bed.add_vm("friend", 2, &["10.0.0.2", "fd00::2"], "br0");
    bed.add_vm("other", 3, &["10.0.0.3"], "br0");
    bed.add_vm("bare", 4, &["10.0.0.4"], "br0");
    // All VLANs, tagged.
    bed.add_vm("uplink", 8, &["10.0.0.8"], "br0");
    // Somebody's, in VLAN 10.
    bed.add_vm("theirs", 9, &["10.0.0.9", "fd00::9"], "br0");
    for (name, tag) in [("web", 10), ("friend", 10), ("other", 20), ("theirs", 10)] {
        bed.vsctl(&format!("set port {} tag={tag}", bed.device(name)));
    }
    bed
}

/// The tag, and a copy of the frame with it.
fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let tag = [[0x81, 0], vlan.to_be_bytes()].concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

/// Which of them get the frame, and with which tag.
fn receivers(bed: &Bed, from: &str, frame: &[u8]) -> Vec<(String, Option<u16>)> {
    let names = ["web", "friend", "other", "bare", "uplink", "theirs"];
    let names = names.into_iter().filter(|name| *name != from);
    let sockets: Vec<_> = names.map(|name| (name, bed.packets(name))).collect();
    bed.packets(from).send(frame).expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    let mut receivers = Vec::new();
    for (name, socket) in sockets {
        while let Some(seen) = socket.receive(Duration::ZERO).expect("a socket") {
            if is_same(frame, &seen) {
                let is_tagged = seen[12..14] == [0x81, 0];
                let tag = is_tagged.then(|| u16::from_be_bytes([seen[14], seen[15]]));
                receivers.push((name.to_owned(), tag));
            }
        }
    }
    receivers
}

fn check(bed: &Bed, from: &str, frame: &[u8], expected: &[(&str, Option<u16>)], why: &str) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(n, t)| ((*n).to_owned(), *t))
        .collect();
    assert_eq!(receivers(bed, from, frame), expected, "{why}");
}

const BROADCAST: MacAddr = MacAddr([0xff; 6]);

fn to_many(from: u8, to: [u8; 4], l4_port: u16) -> Vec<u8> {
    let group = match to {
        [255, ..] => BROADCAST,
        [_, b, c, d] => MacAddr([1, 0, 0x5e, b & 0x7f, c, d]),
    };
    let [src, dst] = [[10, 0, 0, from], to].map(|a| Ipv4Addr::from(a).into());
    let datagram = wire::build::ip(src, dst).udp(5_000, l4_port);
    datagram.macs(mac(from), group).bytes()
}

#[test]
fn neighbours_of_a_vlan_meet_at_both_gates() {
    let mut bed = vlans();
    bed.apply(POLICY);
    for family in Family::BOTH {
        let answers = |from, to, asked| bed.answers(from, to, family, asked);
        assert!(answers("friend", "web", Asked::Tcp(80)), "{family}");
        assert!(!answers("friend", "web", Asked::Tcp(81)), "{family}");
        assert!(answers("web", "friend", Asked::Ping), "{family}");
        assert!(!answers("friend", "web", Asked::Ping), "{family}");
        // Of the same VLAN, and nobody's port.
        assert!(answers("theirs", "friend", Asked::Ping), "{family}");
        assert!(!answers("theirs", "friend", Asked::Udp(53)), "{family}");
        assert!(!answers("theirs", "web", Asked::Tcp(80)), "{family}");
        assert!(answers("friend", "theirs", Asked::Tcp(22)), "{family}");
    }
    assert_eq!(bed.audit(), []);
}

#[test]
fn what_an_uplink_brings_is_judged_by_its_tag() {
    let mut bed = vlans();
    bed.apply(POLICY);
    // Where everybody is.
    for (name, last) in [("web", 1), ("friend", 2), ("other", 3), ("bare", 4)] {
        let said = to_many(last, [255; 4], 6_000);
        bed.packets(name).send(&said).expect("sent");
    }
    for (to, name, vlan) in [(1, "web", 10), (3, "other", 20)] {
        let good = tagged(&datagram(8, to, 1, 5_000), vlan);
        let bad = tagged(&datagram(8, to, 1, 5_001), vlan);
        check(&bed, "uplink", &good, &[(name, None)], "a rule permits it");
        check(&bed, "uplink", &bad, &[], "no rule does");
    }
    let bare = datagram(8, 4, 1, 5_000);
    check(&bed, "uplink", &bare, &[("bare", None)], "without any tag");
    check(
        &bed,
        "uplink",
        &datagram(8, 4, 1, 5_001),
        &[],
        "no rule does",
    );
    check(&bed, "uplink", &tagged(&bare, 0), &[], "a tag is a tag");
    let crossed = tagged(&datagram(8, 3, 1, 5_000), 10);
    check(
        &bed,
        "uplink",
        &crossed,
        &[("theirs", None)],
        "nobody has that MAC in VLAN 10",
    );

    let out = datagram(1, 8, 1, 7_000);
    bed.packets("uplink")
        .send(&tagged(&to_many(8, [255; 4], 6_000), 10))
        .expect("sent");
    check(
        &bed,
        "web",
        &out,
        &[("uplink", Some(10))],
        "the bridge has learned where it is",
    );
}

#[test]
fn each_receiver_of_a_flood_is_judged_for_itself() {
    let mut bed = vlans();
    bed.apply(POLICY);
    let up = ("uplink", Some(10));
    for to in [[255; 4], [224, 0, 0, 251], [239, 1, 2, 3]] {
        let (good, bad) = (to_many(8, to, 5_000), to_many(8, to, 5_001));
        let arrives = [("web", None), ("theirs", None)];
        check(
            &bed,
            "uplink",
            &tagged(&good, 10),
            &arrives,
            "web has a rule, friend none",
        );
        check(
            &bed,
            "uplink",
            &tagged(&bad, 10),
            &[("theirs", None)],
            "no guarded port",
        );
        check(
            &bed,
            "uplink",
            &tagged(&good, 20),
            &[("other", None)],
            "another VLAN",
        );
        check(&bed, "uplink", &good, &[("bare", None)], "no VLAN");
        check(
            &bed,
            "uplink",
            &tagged(&good, 0),
            &[],
            "no guarded port takes tags",
        );
        let good = to_many(2, to, 5_000);
        let arrives = [("web", None), up, ("theirs", None)];
        check(&bed, "friend", &good, &arrives, "from a VM");
        let good = to_many(9, to, 5_000);
        check(
            &bed,
            "theirs",
            &good,
            &[("web", None), up],
            "from an access port",
        );
    }
    let mut unknown = datagram(8, 7, 1, 5_000);
    let arrives = [("theirs", None)];
    check(
        &bed,
        "uplink",
        &tagged(&unknown, 10),
        &arrives,
        "floods of unicast don't reach a gate",
    );
    unknown[6..12].copy_from_slice(&mac(2).0);
    let spoofed = unknown;
    check(&bed, "web", &spoofed, &[], "not its MAC");
}

#[test]
fn what_the_bridge_had_learned_before_leads_past_no_gate() {
    let mut bed = vlans();
    for (name, last) in [
        ("web", 1),
        ("friend", 2),
        ("other", 3),
        ("bare", 4),
        ("theirs", 9),
    ] {
        let said = to_many(last, [255; 4], 6_000);
        bed.packets(name).send(&said).expect("sent");
    }
    let bad = |from, to| datagram(from, to, 1, 5_001);
    check(
        &bed,
        "theirs",
        &bad(9, 1),
        &[("web", None)],
        "there is no policy yet",
    );
    bed.apply(POLICY);
    check(&bed, "theirs", &bad(9, 1), &[], "no rule");
    check(&bed, "uplink", &tagged(&bad(8, 1), 10), &[], "no rule");
    check(&bed, "friend", &bad(2, 1), &[], "no rule");
    // Learned again, since VMs have spoken again.
    for (name, last) in [("web", 1), ("friend", 2), ("other", 3), ("bare", 4)] {
        let said = to_many(last, [255; 4], 6_000);
        bed.packets(name).send(&said).expect("sent");
    }
    std::thread::sleep(Duration::from_millis(50));
    check(&bed, "theirs", &bad(9, 1), &[], "no rule");
    check(
        &bed,
        "theirs",
        &datagram(9, 1, 1, 5_000),
        &[("web", None)],
        "a rule",
    );
    let flooded = [("uplink", Some(10))];
    check(&bed, "theirs", &bad(9, 4), &flooded, "in another VLAN");
    check(
        &bed,
        "theirs",
        &datagram(9, 4, 1, 5_000),
        &flooded,
        "in another VLAN",
    );
    let hop = tagged(&datagram(9, 3, 1, 5_000), 20);
    check(
        &bed,
        "theirs",
        &hop,
        &[],
        "an access port has no other VLAN",
    );
    let hop = tagged(&to_many(9, [255; 4], 5_000), 20);
    check(
        &bed,
        "theirs",
        &hop,
        &[],
        "an access port has no other VLAN",
    );
    let own = tagged(&bad(9, 1), 10);
    check(&bed, "theirs", &own, &[], "its own neither");
    check(
        &bed,
        "theirs",
        &tagged(&bad(9, 1), 0),
        &[],
        "this is as if untagged",
    );
    check(&bed, "uplink", &tagged(&bad(8, 4), 0), &[], "and this");
}

/// What others have told the bridge, by hand.
const THEIRS: [&str; 5] = [
    "table=0,priority=7,ip,nw_src=10.9.9.9,actions=drop",
    "table=0,priority=65535,cookie=0x1234,dl_type=0x88b5,actions=ALL",
    "table=3,priority=1,udp,tp_dst=53,actions=ct(commit,zone=5),resubmit(,4)",
    "table=4,idle_timeout=0,actions=learn(table=5,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0x5->NXM_NX_REG1[]),NORMAL",
    "table=6,priority=3,tcp,actions=dec_ttl,move:NXM_OF_TCP_SRC[]->NXM_NX_REG3[0..15],resubmit(,7)",
];

#[test]
fn the_bridge_forwards_by_our_flow_while_it_is_guarded_and_as_before_afterwards() {
    let mut bed = vlans();
    for flow in THEIRS {
        bed.ofctl(&format!("add-flow br0 {flow}"));
    }
    let state = |bed: &Bed| {
        let ports = ["web", "theirs", "uplink"].map(|name| {
            let told = bed.ofctl("show br0");
            let line = told.lines().skip_while(|l| !l.contains(bed.device(name)));
            line.take(2)
                .map(|l| l.split("state").next().unwrap_or_default().to_owned())
                .collect::<String>()
        });
        (
            bed.flows("br0", false),
            bed.flows("br0", true),
            bed.vsctl("get bridge br0 fail_mode external_ids"),
            ports,
        )
    };
    let before = state(&bed);
    let theirs = before.0.clone();
    assert_eq!(theirs.len(), THEIRS.len() + 1);
    bed.apply(POLICY);
    let told = bed.vsctl("get bridge br0 fail_mode external_ids:portcullis-forwarding external_ids:portcullis-fail-mode");
    assert_eq!(told, "secure\nnormal\nstandalone\n");
    let without_normal = |flows: std::collections::BTreeSet<String>| -> Vec<String> {
        let normal = |flow: &String| flow.as_str() != "priority=0 actions=NORMAL";
        flows.into_iter().filter(normal).collect()
    };
    assert_eq!(
        without_normal(bed.flows("br0", false)),
        without_normal(theirs)
    );
    assert_eq!(bed.apply(POLICY).writes, 0);
    assert_eq!(bed.audit(), []);
    bed.reopen();
    assert_eq!(bed.apply(POLICY).writes, 0);
    // A port more or less is no change of how the bridge forwards.
    let none = "version: 1\n";
    bed.apply(none);
    check(
        &bed,
        "theirs",
        &datagram(9, 7, 1, 1),
        &[
            ("web", None),
            ("friend", None),
            ("bare", Some(10)),
            ("uplink", Some(10)),
        ],
        "nobody is guarded",
    );
    bed.apply(POLICY);
    bed.with(DataPlane::detach).expect("it is there");
    assert_eq!(state(&bed), before);
    assert!(bed.answers("theirs", "web", Family::V4, Asked::Tcp(81)));
}

#[test]
fn a_last_flow_of_somebody_else_stays() {
    let mut bed = vlans();
    bed.ofctl("mod-flows br0 priority=0,actions=drop");
    bed.ofctl("add-flow br0 priority=0,actions=drop");
    bed.apply(POLICY);
    let theirs = bed.flows("br0", false);
    assert!(theirs.contains("priority=0 actions=drop"), "{theirs:?}");
    assert_eq!(bed.audit(), []);
    assert_eq!(bed.apply(POLICY).writes, 0);
    bed.ofctl("--strict del-flows br0 priority=0");
    assert_ne!(bed.audit(), []);
    bed.apply(POLICY);
    assert!(bed.answers("friend", "theirs", Family::V4, Asked::Ping));
}

#[test]
fn flows_that_refer_to_groups_keep_the_mode() {
    let mut bed = vlans();
    bed.ofctl("-O OpenFlow14 add-group br0 group_id=1,type=all,bucket=actions=NORMAL");
    bed.ofctl("-O OpenFlow14 add-flow br0 priority=3,ip,nw_dst=10.7.7.7,actions=group:1");
    let target = bed.target(POLICY);
    let report = bed.with(|plane| plane.apply(&target)).expect("it applies");
    assert_eq!(report.remarks.len(), 1);
    assert!(report.remarks[0].contains("br0"), "{:?}", report.remarks);
    assert_eq!(bed.vsctl("get bridge br0 fail_mode"), "standalone\n");
    assert!(bed.answers("friend", "web", Family::V4, Asked::Tcp(80)));
    assert!(!bed.answers("friend", "web", Family::V4, Asked::Ping));
    assert_eq!(bed.audit(), []);
    bed.with(DataPlane::detach).expect("it is there");
    let theirs = bed.flows("br0", false);
    assert!(theirs.contains("priority=0 actions=NORMAL"), "{theirs:?}");
}

#[test]
fn others_hands_in_the_mode_and_the_floods_are_noticed() {
    let mut bed = vlans();
    bed.apply(POLICY);
    let said = |drift: Vec<Drift>| format!("{drift:?}");
    bed.vsctl("set bridge br0 fail_mode=standalone");
    assert!(said(bed.audit()).contains("fail_mode"));
    bed.apply(POLICY);
    assert_eq!(bed.vsctl("get bridge br0 fail_mode"), "secure\n");
    assert_eq!(bed.audit(), []);
    bed.ofctl(&format!("mod-port br0 {} flood", bed.of_port("web")));
    assert!(said(bed.audit()).contains("floods"));
    bed.apply(POLICY);
    assert_eq!(bed.audit(), []);
}
