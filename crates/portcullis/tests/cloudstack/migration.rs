//! A VM comes from another host in the middle of its connections, and goes to another. What enforces there doesn't
//! matter: nothing is handed over but the VM.

use crate::bed::{Bed, On, SILENCE};
use crate::calls::with_vm;
use crate::on_each_plane;
use conformance::lab::{Asked, PacketSocket};
use model::Family;
use wire::TcpFlags;
use wire::build;

on_each_plane!(
    a_vm_comes_with_its_connections,
    a_vm_that_goes_leaves_nothing,
);

const VM: &str = "i-2-10-VM";
const RULES: &str = "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;E:tcp;80;80;0.0.0.0/0,::/0,NEXT;";

/// O11: from their middle on.
fn a_vm_comes_with_its_connections(on: On) {
    let mut bed = with_vm(on);
    // To a host on which no VM has been so far.
    bed.unplug("v1");
    bed.plug("v1", "cloudbr0", 10, &["10.1.0.10", "fd00:1::10"]);
    for name in ["out", "v1"] {
        // The kernels there know nothing of these connections, and are not to end them.
        let namespace = bed.vm(name).namespace().clone();
        namespace.ip("addr flush dev eth0").expect("eth0 is there");
    }
    let [out, v1] = ["out", "v1"].map(|name| bed.vm(name).open_packets().expect("a socket"));
    let wire = Wire { bed: &bed, out, v1 };
    for family in Family::BOTH {
        assert!(
            !wire.reaches(family, "out", 50_000, 22),
            "before it is told of"
        );
    }
    bed.start(VM, "v1", RULES);
    for family in Family::BOTH {
        // Somebody's connection to it, and its own.
        assert!(!wire.reaches(family, "v1", 22, 50_000), "nobody has asked");
        assert!(wire.reaches(family, "out", 50_000, 22));
        assert!(wire.reaches(family, "v1", 22, 50_000));
        assert!(!wire.reaches(family, "out", 80, 50_001), "it hasn't asked");
        assert!(wire.reaches(family, "v1", 50_001, 80));
        assert!(wire.reaches(family, "out", 80, 50_001));
    }
}

/// One frame of an open connection.
struct Wire<'a> {
    bed: &'a Bed,
    out: PacketSocket,
    v1: PacketSocket,
}

impl Wire<'_> {
    fn reaches(&self, family: Family, from: &str, src: u16, dst: u16) -> bool {
        let to = if from == "out" { "v1" } else { "out" };
        let [sender, receiver] = [from, to].map(|name| self.bed.vm(name));
        let [src_address, dst_address] =
            [&sender, &receiver].map(|vm| vm.address(family).expect("one of each family"));
        let frame = build::ip(src_address, dst_address)
            .tcp(src, dst, TcpFlags::ACK)
            .macs(sender.mac(), receiver.mac())
            .bytes();
        let [sends, receives] = match from {
            "out" => [&self.out, &self.v1],
            _ => [&self.v1, &self.out],
        };
        sends.send(&frame).expect("it is sent");
        let arrived = receives.wait_for(SILENCE, |seen| seen == frame);
        arrived.expect("a socket").is_some()
    }
}

/// O12: whoever gets its address next inherits nothing.
fn a_vm_that_goes_leaves_nothing(on: On) {
    let mut bed = with_vm(on);
    bed.start(VM, "v1", RULES);
    bed.check(&[("out", "v1", Asked::Tcp(22), true)]);
    bed.done(&[
        "destroy_network_rules_for_vm",
        "--vmname",
        VM,
        "--vif",
        bed.vm("v1").device(),
    ]);
    bed.unplug("v1");
    bed.undefine(VM);
    assert_eq!(bed.log_of(VM), None);
    assert_eq!(bed.done(&["get_rule_logs_for_vms"]), "\n");
    let tracked = bed.entries();
    let of_vm = |entry: &&netfilter::conntrack::Entry| format!("{entry:?}").contains("10.1.0.10");
    assert_eq!(tracked.iter().find(of_vm), None);
    bed.plug("v1", "cloudbr0", 10, &["10.1.0.10", "fd00:1::10"]);
    bed.start("i-7-30-VM", "v1", "I:tcp;23;23;0.0.0.0/0,::/0,NEXT;");
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), false),
        ("out", "v1", Asked::Tcp(23), true),
        ("v1", "out", Asked::Tcp(81), true),
    ]);
}
