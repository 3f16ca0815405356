//! What is written without nft is what nft writes. Needs root.

use super::*;
use crate::found::link::Link;
use crate::skeleton;
use crate::tools::Tools;
use conformance::lab::Lab;
use model::MacAddr;
use std::io::Write as _;
use std::process::{Command, Stdio};

const OURS: &str = "portcullis.plane.ours";
const NFTS: &str = "portcullis.plane.nfts";

/// Sets by what their keys consist of, with some keys.
fn samples() -> Vec<(&'static str, Vec<Vec<Field>>)> {
    let [device, bridge] = [Field::Device(0x01_0203), Field::Mark(0x1000)];
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
    let (mac, raw_mac) = (Field::Mac(mac), Field::RawMac(mac));
    let four = Field::Address([10, 1, 2, 3].into());
    let v6 = "fd00:1::203".parse().expect("an address");
    let (six, raw_six) = (Field::Address(IpAddr::V6(v6)), Field::RawAddress(v6));
    let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
    let fours = ["0.0.0.0/0", "10.1.2.0/23", "10.1.2.3/32"].map(prefix);
    let sixes = ["::/0", "fd00:1::/33", "fd00:1::203/128"].map(prefix);
    // Ranges that meet can't be in one set: the last field of each has its own device or bridge.
    let many = |nets: [Prefix; 3], range: fn(Prefix) -> Field, others: &[Field]| -> Vec<_> {
        let numbered = nets.into_iter().zip(1..);
        numbered
            .map(|(net, number)| {
                let mut key = others.to_vec();
                key[0] = match others[0] {
                    Field::Device(_) => Field::Device(number),
                    _ => Field::Mark(number << 12),
                };
                key.push(range(net));
                key
            })
            .collect()
    };
    let one = |fields: &[Field]| vec![fields.to_vec()];
    vec![
        (
            "from4 from6 to4 to6 bridge_of members network_of ports closed routers dhcp_servers \
             listed_only held full dhcp4_anywhere dhcp6_anywhere dhcp6_any open4_from open6_from",
            vec![vec![device], vec![Field::Device(1)]],
        ),
        ("host_macs", one(&[mac])),
        ("ethertypes", one(&[Field::Ethertype(0x88cc)])),
        ("reserved_somewhere", one(&[six])),
        ("plain4_from own4", one(&[device, mac, four])),
        ("plain6_from own6", one(&[device, mac, six])),
        ("plain4_to to_own4 dhcp4 broadcasts", one(&[device, four])),
        ("plain6_to to_own6 dhcp6", one(&[device, six])),
        ("macs", one(&[device, mac])),
        ("arp_own", one(&[device, mac, mac, four])),
        ("nd_own", one(&[device, mac, raw_six])),
        ("same_mac", one(&[device, mac, raw_mac])),
        ("rarp_own", one(&[device, raw_mac])),
        ("reserved_ll open6 tracked6 serving6", one(&[bridge, six])),
        ("reserved_nd", one(&[bridge, raw_six])),
        ("open4 tracked4 serving4", one(&[bridge, four])),
        (
            "served4",
            one(&[bridge, four, Field::Protocol(6), Field::L4Port(443)]),
        ),
        (
            "served6",
            one(&[bridge, six, Field::Protocol(58), Field::L4Port(0)]),
        ),
        ("own4_nets", many(fours, Field::Range, &[device, mac])),
        ("own6_nets", many(sixes, Field::Range, &[device, mac])),
        (
            "arp_own_nets",
            many(fours, Field::Range, &[device, mac, mac]),
        ),
        ("nd_own_nets", many(sixes, Field::RawRange, &[device, mac])),
        (
            "to_own4_nets dhcp4_nets",
            many(fours, Field::Range, &[device]),
        ),
        (
            "to_own6_nets dhcp6_nets",
            many(sixes, Field::Range, &[device]),
        ),
        ("tracked4_nets", many(fours, Field::Range, &[bridge])),
        ("tracked6_nets", many(sixes, Field::Range, &[bridge])),
        (RANGES, Vec::new()),
    ]
}

fn elements() -> BTreeSet<Element> {
    let text = skeleton::link(OURS);
    let maps = skeleton::sets(&text).filter(|set| set.kind == "map");
    let maps: BTreeSet<&str> = maps.map(|set| set.name).collect();
    let mut elements = BTreeSet::new();
    for (sets, keys) in samples() {
        for set in sets.split_whitespace() {
            elements.extend(keys.iter().map(|key| Element {
                set,
                key: key.clone(),
                value: maps.contains(set).then_some(0x0100_1006),
            }));
        }
    }
    elements
}

fn nft(script: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft is here");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(script.as_bytes()).expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("it ran").success(), "{script}");
}

/// What the two tables hold.
fn read() -> [BTreeMap<String, BTreeMap<String, Option<String>>>; 2] {
    let tools = Tools::find(None).expect("the programs are here");
    [OURS, NFTS].map(|table| {
        let link = Link::read(&tools, table).expect("nft lists it");
        link.expect("it is there").elements
    })
}

#[test]
fn the_samples_are_of_every_set_that_is_written() {
    let text = skeleton::link(OURS);
    let counting: BTreeSet<String> = skeleton::counting_sets().collect();
    let written = skeleton::sets(&text).map(|set| set.name);
    let written: BTreeSet<&str> = written.filter(|set| !counting.contains(*set)).collect();
    let samples = samples();
    let sampled = samples.iter().flat_map(|(sets, _)| sets.split_whitespace());
    assert_eq!(sampled.collect::<BTreeSet<_>>(), written);
}

#[test]
fn a_change_is_the_same_with_and_without_nft() {
    let lab = Lab::new("link").expect("root");
    lab.host().run(|| {
        nft(&skeleton::link(OURS));
        nft(&skeleton::link(NFTS));
        let empty = read();
        let elements = elements();
        let change = |table| LinkChange {
            come: elements.clone(),
            for_a_time: vec![ForATime {
                set: "held",
                device: 77,
                seconds: 100,
            }],
            ..LinkChange::of(table)
        };
        let ours = change(OURS);
        assert!(ours.is_for_kernel().expect("the kernel answers"));
        ours.commit().expect("the kernel takes it");
        nft(&change(NFTS).script());
        let [of_ours, of_nfts] = read();
        assert_eq!(of_ours, of_nfts);
        assert!(of_ours["held"].contains_key("77"));

        // What the one wrote, the other takes away.
        let gone = |table| LinkChange {
            gone: elements.clone(),
            ..LinkChange::of(table)
        };
        nft(&gone(OURS).script());
        gone(NFTS).commit().expect("the kernel takes it");
        let [mut of_ours, mut of_nfts] = read();
        for held in [&mut of_ours, &mut of_nfts] {
            let held = held.get_mut("held").expect("there is the set");
            assert!(held.remove("77").is_some());
        }
        assert_eq!([of_ours, of_nfts], empty);
    });
}

#[test]
fn where_nft_writes_ranges_otherwise_it_is_asked_to() {
    let lab = Lab::new("link").expect("root");
    lab.host().run(|| {
        nft(&skeleton::link(OURS));
        let script = |verb| format!("{verb} element bridge {OURS} {RANGES} {{ 1 . 0.0.0.0/32 }}\n");
        nft(&script("delete"));
        let change = LinkChange {
            come: elements(),
            ..LinkChange::of(OURS)
        };
        assert!(!change.is_for_kernel().expect("the kernel answers"));
        let without_ranges = LinkChange {
            come: elements().into_iter().filter(|e| !e.has_range()).collect(),
            ..LinkChange::of(OURS)
        };
        assert!(without_ranges.is_for_kernel().expect("the kernel answers"));
    });
}
