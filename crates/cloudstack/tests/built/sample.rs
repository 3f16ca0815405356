//! A host with a VM of each kind.

use super::{Built, BuiltNic, BuiltPush, BuiltVm, Made};

/// The guards made by one version, the rules pushed by another or by the same.
pub(crate) fn host(made: Made, pushed: Made) -> Built {
    let push = |signature, sequence, rules| {
        Some(BuiltPush {
            made: pushed,
            signature,
            sequence,
            rules,
        })
    };
    let vm = |name, id, nics, push| BuiltVm {
        name,
        id,
        nics,
        push,
    };
    let nic = |vif, mac| BuiltNic {
        vif,
        bridge: "cloudbr0",
        mac,
        ipv4: None,
        ipv6: None,
        secondary: &[],
        routed: false,
    };
    let plain = BuiltNic {
        ipv4: Some("10.1.1.10"),
        ..nic("vnet0", "02:00:4c:5f:00:01")
    };
    let both_families = BuiltNic {
        ipv4: Some("10.1.1.11"),
        ipv6: Some("fd00:1::11"),
        secondary: &["10.1.1.111", "10.1.1.112", "fd00:1::111"],
        ..nic("vnet1", "1e:00:b4:00:00:05")
    };
    let first_of_two = BuiltNic {
        ipv4: Some("10.1.1.12"),
        ..nic("vnet12", "02:00:4c:5f:00:03")
    };
    let second_of_two = BuiltNic {
        bridge: "brbond0-304",
        ipv4: Some("10.4.0.12"),
        ipv6: Some("fd00:4::1:4cff:fe5f:13"),
        secondary: &["10.4.0.112"],
        ..nic("vnet3", "02:01:4c:5f:00:13")
    };
    let six_alone = BuiltNic {
        ipv6: Some("fd00:1::14"),
        ..nic("vnet9", "02:00:4c:5f:00:14")
    };
    let unpushed = BuiltNic {
        ipv4: Some("10.1.1.13"),
        ..nic("vnet6", "02:00:4c:5f:00:06")
    };
    Built {
        made,
        vms: vec![
            vm(
                "i-2-10-VM",
                10,
                vec![plain],
                push("9a0364b9e99bb480dd25e1f0284c8555", 1, MANY_RULES),
            ),
            vm(
                "i-2-11-VM",
                11,
                vec![both_families],
                push("11111111111111111111111111111111", 7, EVERYTHING_IN),
            ),
            vm(
                "i-2-12-web-eg",
                12,
                vec![first_of_two, second_of_two],
                push("22222222222222222222222222222222", 3, EGRESS_OF_BOTH),
            ),
            vm("i-2-13-VM", 13, vec![unpushed], None),
            vm("i-3-14-VM", 14, vec![six_alone], push("s14", 2, "")),
        ],
        system_vms: vec![(
            "r-4-VM",
            vec![("vnet5", "cloudbr0"), ("vnet7", "brbond0-304")],
        )],
    }
}

/// On a bridge whose network the host routes. It comes behind the sample's, by name, too.
pub(crate) fn routed_vm() -> BuiltVm {
    BuiltVm {
        name: "i-4-7-VM",
        id: 7,
        nics: vec![BuiltNic {
            vif: "vnet8",
            bridge: "brdr-42",
            mac: "02:00:4c:5f:00:08",
            ipv4: Some("10.1.1.55"),
            ipv6: Some("fd00::55"),
            secondary: &[],
            routed: true,
        }],
        push: Some(BuiltPush {
            made: Made::Main,
            signature: "s7",
            sequence: 7,
            rules: "I:tcp;22;22;10.0.0.0/8,NEXT;E:tcp;80;80;0.0.0.0/0,NEXT;",
        }),
    }
}

/// In the form and order in which they are read back.
const MANY_RULES: &str = "I:tcp;22;22;192.0.2.0/24,0.0.0.0/0,::/0,NEXT;\
    I:tcp;8000;8099;10.0.0.0/8,NEXT;\
    I:icmp;-1;-1;0.0.0.0/0,::/0,NEXT;\
    I:icmp;8;0;10.2.0.0/16,fd00::/8,NEXT;\
    I:47;0;0;10.3.0.0/16,fd00:3::/32,NEXT;\
    E:udp;123;123;0.0.0.0/0,NEXT;\
    E:tcp;1;65535;198.51.100.0/24,NEXT;";
const EVERYTHING_IN: &str = "I:all;0;0;0.0.0.0/0,::/0,NEXT;";
const EGRESS_OF_BOTH: &str = "I:udp;0;0;10.5.0.0/16,NEXT;\
    I:tcp;443;443;0.0.0.0/0,NEXT;\
    E:all;0;0;0.0.0.0/0,NEXT;\
    E:icmp;-1;-1;fd00::1/128,NEXT;";
