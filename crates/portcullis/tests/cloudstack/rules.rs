//! Rules as the server sends them, with the traffic that they mean; the cases of CloudStack's change for
//! connections that need no tracking, and of what was wrong with it.

use crate::bed::{Bed, On};
use crate::calls::with_vm;
use crate::on_each_plane;
use conformance::lab::Asked;
use model::Family;

on_each_plane!(
    all_egress_and_no_ingress_has_the_internet,
    all_ingress_and_little_egress_answers,
    only_specific_rules,
    one_family_only,
    an_open_and_a_restricted_vm_side_by_side,
    dns_under_a_denying_egress,
    entries_of_the_tracker_come_and_go_with_the_rules,
);

const VM: &str = "i-2-10-VM";
const ALL_IN: &str = "I:all;0;0;0.0.0.0/0,::/0,NEXT;";
const ALL_OUT: &str = "E:all;0;0;0.0.0.0/0,::/0,NEXT;";
const NOWHERE: &str = "E:tcp;1;1;198.51.100.1/32,2001:db8::1/128,NEXT;";

/// apache/cloudstack issue 14099.
fn all_egress_and_no_ingress_has_the_internet(on: On) {
    let bed = with_vm(on);
    bed.start(VM, "v1", ALL_OUT);
    bed.check(&[
        ("v1", "out", Asked::Ping, true),
        ("v1", "out", Asked::Tcp(80), true),
        ("v1", "out", Asked::Udp(123), true),
        ("out", "v1", Asked::Ping, false),
        ("out", "v1", Asked::Tcp(22), false),
    ]);
}

fn all_ingress_and_little_egress_answers(on: On) {
    let bed = with_vm(on);
    bed.start(VM, "v1", &format!("{ALL_IN}{NOWHERE}"));
    bed.check(&[
        ("out", "v1", Asked::Ping, true),
        ("out", "v1", Asked::Tcp(22), true),
        ("out", "v1", Asked::Udp(123), true),
        ("v1", "out", Asked::Ping, false),
        ("v1", "out", Asked::Tcp(80), false),
    ]);
}

fn only_specific_rules(on: On) {
    let bed = with_vm(on);
    bed.start(
        VM,
        "v1",
        "I:tcp;80;89;10.1.0.250/32,fd00:1::250/128,NEXT;I:icmp;8;0;0.0.0.0/0,NEXT;I:icmp;128;0;::/0,NEXT;\
         E:udp;123;123;0.0.0.0/0,::/0,NEXT;",
    );
    bed.check(&[
        ("out", "v1", Asked::Tcp(80), true),
        ("out", "v1", Asked::Tcp(89), true),
        ("out", "v1", Asked::Tcp(90), false),
        ("out", "v1", Asked::Ping, true),
        ("v1", "out", Asked::Udp(123), true),
        ("v1", "out", Asked::Udp(124), false),
        ("v1", "out", Asked::Ping, false),
    ]);
}

fn one_family_only(on: On) {
    let bed = with_vm(on);
    bed.start(VM, "v1", "I:tcp;22;22;::/0,NEXT;E:tcp;443;443;::/0,NEXT;");
    for (family, ingress, egress) in [(Family::V4, false, true), (Family::V6, true, false)] {
        let answers = |from, to, asked| bed.answers(from, to, family, asked);
        assert_eq!(answers("out", "v1", Asked::Tcp(22)), ingress, "{family}");
        // No egress rule of the family: all may go out.
        assert_eq!(answers("v1", "out", Asked::Tcp(80)), egress, "{family}");
        assert!(answers("v1", "out", Asked::Tcp(443)), "{family}");
    }
}

fn an_open_and_a_restricted_vm_side_by_side(on: On) {
    let mut bed = with_vm(on);
    bed.plug("v2", "cloudbr0", 11, &["10.1.0.11", "fd00:1::11"]);
    bed.start(VM, "v1", &format!("{ALL_IN}{ALL_OUT}"));
    bed.start(
        "i-2-11-VM",
        "v2",
        "I:tcp;22;22;10.1.0.10/32,fd00:1::10/128,NEXT;E:udp;123;123;0.0.0.0/0,::/0,NEXT;",
    );
    bed.check(&[
        ("out", "v1", Asked::Tcp(80), true),
        ("v1", "out", Asked::Tcp(80), true),
        ("v1", "v2", Asked::Tcp(22), true),
        ("v1", "v2", Asked::Tcp(23), false),
        ("v2", "v1", Asked::Udp(123), true),
        ("v2", "v1", Asked::Tcp(80), false),
        ("out", "v2", Asked::Tcp(22), false),
        ("v2", "out", Asked::Udp(123), true),
        ("v2", "out", Asked::Ping, false),
    ]);
}

fn dns_under_a_denying_egress(on: On) {
    let bed = with_vm(on);
    bed.start(VM, "v1", NOWHERE);
    bed.check(&[
        ("v1", "out", Asked::Udp(53), true),
        ("v1", "out", Asked::Tcp(53), true),
        ("v1", "out", Asked::Udp(54), false),
        ("out", "v1", Asked::Udp(53), false),
    ]);
    let without = Bed::with(on, "dns = no\n");
    let mut without = without;
    without.plug("v1", "cloudbr0", 10, &["10.1.0.10", "fd00:1::10"]);
    without.start(VM, "v1", NOWHERE);
    without.check(&[("v1", "out", Asked::Udp(53), false)]);
}

/// The tracker of the kernel: the eBPF plane doesn't use it at all.
fn entries_of_the_tracker_come_and_go_with_the_rules(on: On) {
    let bed = with_vm(on);
    let busy = || {
        for family in Family::BOTH {
            for l4_port in 8_000..8_010 {
                assert!(bed.answers("out", "v1", family, Asked::Tcp(l4_port)));
                assert!(bed.answers("v1", "out", family, Asked::Udp(l4_port)));
            }
        }
    };
    // Without an egress rule all may go out: that is open both ways.
    bed.start(VM, "v1", ALL_IN);
    busy();
    assert_eq!(bed.entries(), []);
    let narrow = "I:tcp;8000;8010;0.0.0.0/0,::/0,NEXT;";
    bed.pushed(VM, "v1", 2, narrow);
    busy();
    assert_eq!(bed.entries().is_empty(), on == On::Ebpf);
    bed.pushed(VM, "v1", 3, &format!("{ALL_IN}{ALL_OUT}"));
    assert_eq!(bed.entries(), []);
    busy();
    assert_eq!(bed.entries(), []);
}
