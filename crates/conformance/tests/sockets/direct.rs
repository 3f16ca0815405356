//! What goes straight from port to port, and what does not.
//!
//! The hooks' clock stands still, so that a path lasts for as long as a test wants, and the receiver's
//! device is taken off its bridge: what arrives then went straight.

use super::staged::{BRIDGED, DIRECT, NEVER, SOON, Stage, Way, staged};
use dataplane::DataPlane;
use dataplane_ebpf::{DropSample, EbpfConfig, EbpfPlane};
use model::{DropReason, MacAddr, PortId};
use portcullis_conformance::lab::PacketSocket;
use portcullis_conformance::lab::load::pin;
use std::process::Command;
use std::time::Duration;
use wire::build;

const NOW: Duration = Duration::from_secs(1_000);

/// Frames from `app` to `web`.
struct Wire<'a> {
    stage: &'a mut Stage,
    sender: PacketSocket,
    receiver: PacketSocket,
    source_port: u16,
}

fn wired(name: &str, way: Way, check: impl FnOnce(Wire<'_>) + Send) {
    staged(name, way, |stage| {
        // What a processor has seen, it alone knows.
        pin(0).expect("a processor");
        stage.plane.set_fixed_clock(NOW).expect("a clock");
        check(Wire {
            sender: stage.app.open_packets().expect("a socket"),
            receiver: stage.web.open_packets().expect("a socket"),
            source_port: 40_000,
            stage,
        });
    });
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split_whitespace())
        .status();
    assert!(status.expect("iproute2").success(), "ip {arguments}");
}

impl Wire<'_> {
    /// Does the start of a TCP connection to this port arrive, in a frame to this MAC of this length?
    fn frame_arrives(&mut self, to: MacAddr, l4_port: u16, payload: usize, expected: bool) -> bool {
        self.source_port += 1;
        let (app, web) = (self.stage.app.addresses()[0], self.stage.web.addresses()[0]);
        let frame = build::ip(app, web)
            .tcp(self.source_port, l4_port, 2)
            .payload(&vec![0; payload])
            .macs(self.stage.app.mac(), to)
            .bytes();
        self.sender.send(&frame).expect("it is sent");
        let time = if expected { SOON } else { NEVER };
        let seen = self.receiver.wait_for(time, |seen| seen == frame);
        seen.expect("a socket").is_some()
    }

    fn expect(&mut self, what: &str, l4_port: u16, expected: bool) {
        let web = self.stage.web.mac();
        let seen = self.frame_arrives(web, l4_port, 0, expected);
        assert_eq!(seen, expected, "{what}");
    }

    fn unplug(&self) {
        ip(&format!("link set {} nomaster", self.stage.web.device()));
    }

    fn plug(&self) {
        ip(&format!("link set {} master br0", self.stage.web.device()));
    }
}

#[test]
fn what_the_bridge_was_seen_to_take_there_goes_straight_for_a_moment() {
    wired("direct-moment", DIRECT, |mut wire| {
        wire.expect("by the bridge", 80, true);
        wire.unplug();
        wire.expect("straight", 80, true);
        let later = NOW + Duration::from_secs(1);
        wire.stage.plane.set_fixed_clock(later).expect("a clock");
        wire.expect("a second later, with no bridge", 80, false);
        wire.plug();
        wire.expect("by the bridge again", 80, true);
        wire.unplug();
        wire.expect("straight again", 80, true);
    });
}

#[test]
fn who_does_not_ask_for_it_has_the_bridge_alone() {
    wired("direct-not", BRIDGED, |mut wire| {
        wire.expect("by the bridge", 80, true);
        wire.unplug();
        wire.expect("no other way", 80, false);
    });
}

#[test]
fn both_gates_judge_and_count_each_packet_once() {
    wired("direct-count", DIRECT, |mut wire| {
        for vm in [&wire.stage.app, &wire.stage.web] {
            // So that nobody answers.
            vm.run(|| ip("addr flush dev eth0"));
        }
        wire.expect("by the bridge", 80, true);
        for _ in 0..3 {
            wire.expect("straight", 80, true);
        }
        let web = PortId::from("web");
        wire.expect("what web's rules forbid", 81, false);
        let after = wire.stage.plane.counters().expect("counters");
        let packets = |group: &str| -> u64 {
            let rules = after.rules.iter();
            let of_group = rules.filter(|(rule, _)| rule.group.as_str() == group);
            of_group.map(|(_, count)| count.packets).sum()
        };
        assert_eq!((packets("app"), packets("web")), (5, 4));
        let samples = wire.stage.plane.events().expect("samples");
        let of_ours = |s: &&DropSample| wire::words::describe(&s.frame).contains(":81");
        let dropped: Vec<_> = samples.iter().filter(of_ours).collect();
        assert_eq!(dropped.len(), 1, "{samples:?}");
        assert_eq!(dropped[0].port.as_ref(), Some(&web));
        assert_eq!(dropped[0].reason, DropReason::NoRule);
        assert_eq!(after.ports[&web].half_open, 4);
    });
}

#[test]
fn a_flooded_frame_shows_no_path() {
    wired("direct-flood", DIRECT, |mut wire| {
        let nobody = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
        assert!(wire.frame_arrives(nobody, 80, 0, true), "it is flooded");
        wire.unplug();
        assert!(
            !wire.frame_arrives(nobody, 80, 0, false),
            "nothing leads there"
        );
        wire.expect("nor to web", 80, false);
    });
}

#[test]
fn what_is_too_long_for_the_device_does_not_go_straight() {
    wired("direct-long", DIRECT, |mut wire| {
        ip(&format!("link set {} mtu 1000", wire.stage.web.device()));
        wire.expect("by the bridge", 80, true);
        let web = wire.stage.web.mac();
        assert!(wire.frame_arrives(web, 80, 900, true));
        assert!(!wire.frame_arrives(web, 80, 1_000, false));
    });
}

#[test]
fn the_next_process_may_end_it_and_begin_it() {
    wired("direct-next", DIRECT, |mut wire| {
        wire.expect("by the bridge", 80, true);
        wire.unplug();
        for direct in [false, true] {
            let config = EbpfConfig {
                direct,
                ..EbpfConfig::small(wire.stage.plane.instance())
            };
            drop(EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}")));
            wire.expect("as the last process said", 80, direct);
        }
    });
}
