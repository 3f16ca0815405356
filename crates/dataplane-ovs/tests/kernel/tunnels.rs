//! What is on the cable between two hosts, and what a change of policy does to it.

use crate::bed::{Bed, SILENCE, datagram, mac};
use crate::hosts::{Hosts, policy};
use crate::stream::Stream;
use conformance::lab::{Asked, PacketSocket};
use model::Family;
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

    /// Between the bridges of the cable.
    pub(crate) fn around(&self, inner: &[u8], from_phy: &Bed, to_phy: &Bed) -> Vec<u8> {
        let mut payload = vec![(self.options.len() / 4) as u8, 0, 0x65, 0x58];
        payload.extend(&(self.vni << 8).to_be_bytes());
        payload.extend(&self.options);
        payload.extend(inner);
        let [src, dst] = [from_phy, to_phy].map(phy_mac);
        let packet = wire::build::ip(self.from.into(), self.to.into());
        let packet = packet.udp(40_000, GENEVE).payload(&payload);
        packet.macs(src, dst).bytes()
    }
}

fn phy_mac(bed: &Bed) -> model::MacAddr {
    let told = bed.vsctl("get interface br-phy mac_in_use");
    let told = told.trim().trim_matches('"').parse();
    told.expect("a MAC")
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
    hosts.find_each_other();
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
        hosts.find_each_other();
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

#[test]
fn with_inspection_at_the_source_replies_and_pieces_pass() {
    for inspection in ["destination", "source", "both"] {
        let mut hosts = Hosts::new();
        hosts.apply(&policy("tag", inspection));
        hosts.find_each_other();
        // Which end began a flow is known where the other is, too.
        for family in Family::BOTH {
            for asked in [Asked::Udp(53), Asked::Tcp(80)] {
                assert!(
                    hosts.answers("friend", "web", family, asked),
                    "{asked:?} {family}"
                );
            }
            assert!(
                hosts.answers("web", "friend", family, Asked::Ping),
                "{family}"
            );
            assert!(
                hosts.answers("stranger", "friend", family, Asked::Ping),
                "{family}"
            );
        }
        // Of all pieces but the first a switch shows no ports, so by rules without.
        let large = wire::build::ip(v4(1), v4(2)).icmp(8, 0, [0, 9, 0, 1]);
        let large = large.payload(&[7; 3000]).macs(mac(1), mac(2));
        let [asked, answered] = [hosts.b.packets("friend"), hosts.a.packets("web")];
        let asks = hosts.a.packets("web");
        for piece in large.fragments(7, 1000) {
            asks.send(&piece.bytes()).expect("sent");
        }
        // The answer comes in pieces as large as they can be.
        for (at, from, pieces) in [(&asked, mac(1), 3), (&answered, mac(2), 2)] {
            for number in 0..pieces {
                let is_piece = |frame: &[u8]| frame[6..12] == from.0 && frame.len() > 900;
                let piece = at.wait_for(PATIENCE, is_piece).expect("a socket");
                assert!(piece.is_some(), "{inspection}: piece {number} from {from}");
            }
        }
        let socket = hosts.b.packets("stranger");
        // Each receiver for itself: web hears port 53 alone, its mate nothing.
        let [web, mate] = ["web", "mate"].map(|name| hosts.a.packets(name));
        let friend = hosts.b.packets("friend");
        for (l4_port, hears) in [(53, true), (54, false)] {
            let many = wire::build::ip(v4(6), "224.0.0.77".parse().expect("an address"));
            let many = many.udp(4001, l4_port);
            let many = many.src_mac(mac(6)).bytes();
            socket.send(&many).expect("sent");
            let heard = |at: &PacketSocket, patience| {
                at.wait_for(patience, |frame| frame == many)
                    .expect("a socket")
                    .is_some()
            };
            let patience = if hears { PATIENCE } else { SILENCE };
            assert_eq!(heard(&web, patience), hears, "{l4_port}");
            assert!(!heard(&mate, SILENCE));
            assert!(!heard(&friend, SILENCE));
        }
    }
}

#[test]
fn a_reply_is_inspected_by_what_the_receiver_may_begin() {
    // The web server may be asked by anyone, and may ask its friends; then only the former.
    let text = |inspection: &str, out: &str| {
        format!(
            "
version: 1
settings: {{ inspection: {inspection} }}
hosts:
  a: {{ tunnel-address: 192.0.2.1, peer-trust: tag }}
  b: {{ tunnel-address: 192.0.2.2, peer-trust: tag }}
networks: {{ red: {{ subnets: [10.0.0.0/24], scope: red, vni: 100, mtu: 1400 }} }}
groups:
  web: {{ tag: 10, rules: [{{ name: in, from: any, protocol: udp, ports: 53 }}, {out}] }}
  friends: {{ tag: 11, rules: [{{ name: in, from: any, protocol: udp, ports: 53 }}] }}
ports:
  web: {{ host: a, network: red, device: web, mac: '52:54:00:00:00:01', addresses: 10.0.0.1, groups: web }}
  friend: {{ host: b, network: red, device: friend, mac: '52:54:00:00:00:02', addresses: 10.0.0.2, groups: friends }}
"
        )
    };
    let out = "{ name: out, to: friends, protocol: udp, ports: 53 }";
    for inspection in ["both", "source"] {
        let mut hosts = Hosts::new();
        hosts.apply(&text(inspection, out));
        let asks = || hosts.answers("web", "friend", Family::V4, Asked::Udp(53));
        assert!((0..20).any(|_| asks()), "no way from host to host");
        let _mute = hosts.a.vm("web").udp(4000).expect("a free port");
        let asked = hosts.b.packets("friend");
        let question = datagram(1, 2, 4000, 53);
        hosts.a.packets("web").send(&question).expect("sent");
        let arrived = asked.wait_for(PATIENCE, |frame| frame == question);
        arrived.expect("a socket").expect("it is permitted");
        let stream = Stream::between(
            hosts.b.packets("friend"),
            hosts.a.packets("web"),
            datagram(2, 1, 53, 4000),
            Duration::from_millis(1),
        );
        assert!(stream.flows(), "{inspection}");
        hosts.b.apply(&text(inspection, ""));
        assert!(stream.is_silent(), "{inspection}");
        hosts.b.apply(&text(inspection, out));
        assert!(stream.flows(), "{inspection}");
    }
}
