//! What is on the cable between two hosts, and what a change of policy does to it.

use crate::bed::{Bed, SILENCE, datagram, mac};
use crate::hosts::{Hosts, policy};
use conformance::lab::PacketSocket;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// What certainly comes does so within this on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const GENEVE: u16 = 6081;
const OPTIONS_AT: usize = 50;

/// What is around a frame on the cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) vni: u32,
    /// With class, type and length.
    pub(crate) options: Vec<u8>,
}

impl Outer {
    /// `None`: it is no Geneve.
    pub(crate) fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let is_geneve = frame.get(12..14)? == [8, 0]
            && *frame.get(23)? == 17
            && frame.get(36..38)? == GENEVE.to_be_bytes();
        if !is_geneve {
            return None;
        }
        let address = |at: usize| <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok();
        let options_end = OPTIONS_AT + 4 * usize::from(frame.get(42)? & 0x3f);
        let [a, b, c, _] = address(46)?;
        let outer = Self {
            from: address(26)?.into(),
            to: address(30)?.into(),
            vni: u32::from_be_bytes([0, a, b, c]),
            options: frame.get(OPTIONS_AT..options_end)?.to_vec(),
        };
        Some((outer, &frame[options_end..]))
    }
}

/// As it is on the wire, with its header.
pub(crate) fn option(form: u8, flags: u8, tags: &[u16]) -> Vec<u8> {
    let mut option = vec![0xff, 0x70, 0x81, 5, form, flags, 0, 0];
    let places = (0..8).rev();
    option.extend(places.flat_map(|place| tags.get(place).copied().unwrap_or(0).to_be_bytes()));
    option
}

/// On the host's end of the cable: sees what comes from the other host, and sends to it.
pub(crate) fn phy(bed: &Bed) -> PacketSocket {
    let ports = bed.vsctl("list-ports br-phy");
    let device = ports.trim().to_owned();
    let socket = bed.lab.host().run(|| PacketSocket::open(&device));
    socket.expect("a socket")
}

/// Whether this frame came over the cable, in whatever.
pub(crate) fn on_cable(cable: &PacketSocket, frame: &[u8], patience: Duration) -> Option<Outer> {
    let is_it = |seen: &[u8]| Outer::parse(seen).is_some_and(|(_, inner)| inner == frame);
    let found = cable.wait_for(patience, is_it).expect("a socket")?;
    Outer::parse(&found).map(|(outer, _)| outer)
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

#[test]
fn the_option_says_the_groups_of_the_source() {
    let mut hosts = Hosts::new();
    hosts.apply(&policy("tag", "destination"));
    // The frame, and the VNI and the tag that it goes out with.
    let blue = wire::build::ip(v4(2), v4(1)).udp(4000, 53);
    let six = wire::build::ip(
        "fd00::6".parse().expect("an address"),
        "fd00::1".parse().expect("an address"),
    );
    let sent = [
        ("friend", datagram(2, 1, 4000, 53), 100, 11),
        ("stranger", datagram(6, 1, 4000, 53), 100, 12),
        ("friend-b", blue.macs(mac(4), mac(3)).bytes(), 200, 11),
        (
            "stranger",
            six.udp(4000, 53).macs(mac(6), mac(1)).bytes(),
            100,
            12,
        ),
    ];
    for (from, frame, vni, tag) in sent {
        let cable = phy(&hosts.a);
        hosts.b.packets(from).send(&frame).expect("sent");
        let outer = on_cable(&cable, &frame, PATIENCE).expect("it goes to the other host");
        assert_eq!(
            outer,
            Outer {
                from: Ipv4Addr::new(192, 0, 2, 2),
                to: Ipv4Addr::new(192, 0, 2, 1),
                vni,
                options: option(1, 0, &[tag]),
            },
            "{from}"
        );
    }
}

#[test]
fn what_the_destination_would_drop_is_on_the_cable_only_without_inspection() {
    let mut hosts = Hosts::new();
    for (inspection, is_sent) in [("destination", true), ("source", false), ("both", false)] {
        hosts.apply(&policy("tag", inspection));
        let cable = phy(&hosts.a);
        let permitted = datagram(6, 1, 4000, 53);
        let denied = datagram(6, 1, 4000, 54);
        let socket = hosts.b.packets("stranger");
        socket.send(&permitted).expect("sent");
        let outer = on_cable(&cable, &permitted, PATIENCE).expect("permitted");
        let flags = u8::from(inspection == "source");
        assert_eq!(outer.options, option(1, flags, &[12]), "{inspection}");
        socket.send(&denied).expect("sent");
        let found = on_cable(&cable, &denied, SILENCE);
        assert_eq!(found.is_some(), is_sent, "{inspection}");
    }
}
