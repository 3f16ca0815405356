//! The agent's calls, one by one.

use crate::bed::{Bed, On};
use crate::on_each_plane;
use conformance::lab::Asked;
use model::Family;
use std::thread;

on_each_plane!(
    a_vm_from_its_start_to_its_end,
    a_vm_of_which_nobody_has_told_passes_nothing,
    nics_come_and_go,
    wrong_input_leaves_the_former_policy,
    calls_at_once_queue,
    flushed_rules_are_told_and_pushed_anew,
    a_system_vm_passes,
    whoever_looks_sees_the_vms,
);

const VM: &str = "i-2-10-VM";
const SSH: &str = "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;";

/// One VM's NIC on `cloudbr0`, without anything said about it.
pub(crate) fn with_vm(on: On) -> Bed {
    let mut bed = Bed::new(on);
    bed.plug("v1", "cloudbr0", 10, &["10.1.0.10", "fd00:1::10"]);
    bed.done(&["can_bridge_firewall", "--privnic", "eth0"]);
    bed
}

fn a_vm_from_its_start_to_its_end(on: On) {
    let bed = with_vm(on);
    bed.define(VM, &["v1"]);
    bed.default_rules(VM, "v1", &["--isFirstNic"]);
    let initial = format!("{VM},10,10.1.0.10,7,_initial_,-1\n");
    assert_eq!(bed.log_of(VM), Some(initial.clone()));
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), false),
        ("v1", "out", Asked::Tcp(80), false),
        ("v1", "out", Asked::Udp(53), true),
    ]);
    bed.pushed(VM, "v1", 3, SSH);
    let pushed = format!("{VM},10,10.1.0.10,7,9a03,3");
    assert_eq!(bed.log_of(VM), Some(format!("{pushed}\n")));
    assert_eq!(bed.done(&["get_rule_logs_for_vms"]), format!("{pushed}\n"));
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), true),
        ("out", "v1", Asked::Tcp(23), false),
        ("out", "v1", Asked::Ping, false),
        ("v1", "out", Asked::Tcp(80), true),
        ("v1", "out", Asked::Ping, true),
    ]);
    // What is known isn't begun anew.
    bed.default_rules(VM, "v1", &["--check"]);
    assert!(bed.answers("out", "v1", Family::V4, Asked::Tcp(22)));
    bed.done(&[
        "destroy_network_rules_for_vm",
        "--vmname",
        VM,
        "--vif",
        bed.vm("v1").device(),
    ]);
    assert_eq!(bed.log_of(VM), None);
    assert_eq!(bed.done(&["get_rule_logs_for_vms"]), "\n");
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), false),
        ("v1", "out", Asked::Tcp(80), false),
    ]);
}

/// From the moment that its device is there.
fn a_vm_of_which_nobody_has_told_passes_nothing(on: On) {
    let mut bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    bed.plug("v2", "cloudbr0", 11, &["10.1.0.11", "fd00:1::11"]);
    let nothing = [
        ("out", "v2", Asked::Ping, false),
        ("v2", "out", Asked::Udp(53), false),
        ("v2", "v1", Asked::Tcp(22), false),
    ];
    bed.check(&nothing);
    // Another call doesn't change that.
    bed.pushed(VM, "v1", 2, SSH);
    bed.check(&nothing);
    bed.start("i-2-11-VM", "v2", "");
    bed.check(&[
        ("v2", "v1", Asked::Tcp(22), true),
        ("out", "v2", Asked::Ping, false),
    ]);
}

fn nics_come_and_go(on: On) {
    let mut bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    bed.lab.add_bridge("brbond0-304").expect("a bridge");
    bed.plug("v2", "brbond0-304", 11, &["10.2.0.11", "fd00:2::11"]);
    bed.plug("other", "brbond0-304", 251, &["10.2.0.251", "fd00:2::251"]);
    bed.define(VM, &["v1", "v2"]);
    bed.default_rules(VM, "v2", &[]);
    bed.check(&[
        ("other", "v2", Asked::Tcp(22), true),
        ("other", "v2", Asked::Tcp(23), false),
        ("out", "v1", Asked::Tcp(22), true),
    ]);
    // A secondary address, while the VM runs.
    let mac = bed.vm("v1").mac().to_string();
    bed.vm("v1")
        .namespace()
        .ip("addr add 10.1.0.99/16 dev eth0")
        .expect("an address");
    let reached = |bed: &Bed| {
        let _serving = bed.vm("v1").serve_tcp(22).expect("a free port");
        let at = "10.1.0.99:22".parse().expect("an address");
        bed.vm("out")
            .namespace()
            .ip("neigh flush dev eth0")
            .expect("eth0 is there");
        bed.vm("out").tcp_echo(at, crate::bed::SILENCE)
    };
    assert!(!reached(&bed));
    let secondary = |action: &str| {
        let action = format!("--action={action}");
        let words = [
            "network_rules_vmSecondaryIp",
            "--vmname",
            VM,
            "--vmmac",
            &mac,
        ];
        bed.done(&[&words[..], &["--nicsecips", "10.1.0.99;", &action]].concat());
    };
    secondary("-A");
    secondary("-A");
    assert!(reached(&bed));
    secondary("-D");
    assert!(!reached(&bed));
    // The first NIC goes; the other stays.
    let vif = bed.vm("v1").device().to_owned();
    let gone = [
        "destroy_network_rules_for_vm",
        "--vmname",
        VM,
        "--vmip",
        "10.1.0.10",
    ];
    bed.done(
        &[
            &gone[..],
            &["--vmmac", &mac, "--vif", &vif, "--nicsecips", "0;"],
        ]
        .concat(),
    );
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), false),
        ("other", "v2", Asked::Tcp(22), true),
    ]);
}

fn wrong_input_leaves_the_former_policy(on: On) {
    let bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    let log = bed.log_of(VM);
    for rules in [
        "I:tcp;22;22;0.0.0.0/0",
        "I:tcp;99999;22;0.0.0.0/0,NEXT;",
        "E:tcp;80;80;1.2.3/24,NEXT;",
        "X:tcp;80;80;0.0.0.0/0,NEXT;",
        "E:all;0;0;0.0.0.0/0,NEXT;I:tcp;80;80;nowhere,NEXT;",
        "I:tcp;80;80;0.0.0.0/0 -j ACCEPT,NEXT;",
    ] {
        let output = bed.push(VM, "v1", 2, rules);
        assert!(!output.status.success(), "{rules}");
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(
            (said.lines().count(), output.stdout.len()),
            (1, 0),
            "{said}"
        );
        assert_eq!(bed.log_of(VM), log, "{rules}");
    }
    for words in [
        &[
            "add_network_rules",
            "--vmname",
            "../../etc/passwd",
            "--vmid",
            "1",
        ][..],
        &["default_network_rules", "--vmname", VM],
        &["default_network_rules", "--nonsense"],
        &["no_such_command"],
        &[],
        &[
            "default_network_rules_systemvm",
            "--vmname",
            "r-4-VM",
            "--localbrname",
            "cloud0",
        ],
    ] {
        let output = bed.call(words);
        assert!(!output.status.success(), "{words:?}");
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), true),
        ("out", "v1", Asked::Tcp(80), false),
        ("v1", "out", Asked::Tcp(80), true),
    ]);
}

fn calls_at_once_queue(on: On) {
    let mut bed = with_vm(on);
    let names: Vec<String> = (2..8).map(|number| format!("v{number}")).collect();
    for (last, name) in (20..).zip(&names) {
        let address = format!("10.1.0.{last}");
        bed.plug(
            name,
            "cloudbr0",
            last,
            &[&address, &format!("fd00:1::{last}")],
        );
    }
    let commands = names.iter().map(|name| {
        let vm = bed.vm(name);
        let (mac, address) = (vm.mac().to_string(), vm.addresses()[0].to_string());
        let domain = format!("i-2-{name}-VM");
        let words = [
            "add_network_rules",
            "--vmname",
            &domain,
            "--vmid",
            "10",
            "--vmip",
            &address,
        ];
        let more = [
            "--vmmac",
            &mac,
            "--vif",
            vm.device(),
            "--brname",
            "cloudbr0",
        ];
        bed.command(
            &[
                &words[..],
                &more,
                &["--sig", "1", "--seq", "1", "--rules", SSH],
            ]
            .concat(),
        )
    });
    let host = bed.lab.host();
    let calls: Vec<_> = commands
        .map(|mut command| {
            let host = host.clone();
            thread::spawn(move || host.run(move || command.output()))
        })
        .collect();
    for call in calls {
        let output = call.join().expect("no panic").expect("the program runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    for name in &names {
        assert!(
            bed.answers("out", name, Family::V4, Asked::Tcp(22)),
            "{name}"
        );
        assert!(
            !bed.answers("out", name, Family::V4, Asked::Tcp(23)),
            "{name}"
        );
    }
}

/// A host whose rules were taken away doesn't say that it is in sync.
fn flushed_rules_are_told_and_pushed_anew(on: On) {
    let bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    let line = |sequence| format!("{VM},10,10.1.0.10,7,{sequence}\n");
    let verify = || {
        let mac = bed.vm("v1").mac().to_string();
        let words = [
            "verify_network_rules",
            "--vmname",
            VM,
            "--vmip",
            "10.1.0.10",
        ];
        bed.call(&[&words[..], &["--vmmac", &mac]].concat())
            .status
            .code()
    };
    assert_eq!(
        (bed.done(&["get_rule_logs_for_vms"]), verify()),
        (line("9a03,1"), Some(0))
    );
    let breaks: &[(&str, i32)] = match on {
        On::Nft => &[
            ("iptables-nft -t mangle -F", 3),
            ("ip6tables-nft -t mangle -F pc-in", 4),
            ("nft delete table bridge portcullis.plane.INSTANCE", 5),
            ("sysctl -qw net.bridge.bridge-nf-call-iptables=0", 3),
        ],
        On::Legacy => &[("iptables-legacy -t mangle -F", 3), ("ipset flush", 4)],
        // Its programs and maps can't be taken away by the way.
        On::Ebpf => &[],
    };
    for (command, code) in breaks {
        bed.run(&command.replace("INSTANCE", bed.instance()));
        let told = (bed.done(&["get_rule_logs_for_vms"]), verify());
        assert_eq!(told, (line("_initial_,-1"), Some(*code)), "{command}");
        // The same rules again.
        bed.pushed(VM, "v1", 1, SSH);
        let told = (bed.done(&["get_rule_logs_for_vms"]), verify());
        assert_eq!(told, (line("9a03,1"), Some(0)), "{command}");
        bed.check(&[
            ("out", "v1", Asked::Tcp(22), true),
            ("out", "v1", Asked::Tcp(23), false),
        ]);
    }
}

fn a_system_vm_passes(on: On) {
    let mut bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    bed.plug("v4", "cloudbr0", 14, &["10.1.0.14", "fd00:1::14"]);
    bed.define("r-4-VM", &["v4"]);
    assert!(!bed.answers("out", "v4", Family::V4, Asked::Ping));
    let words = ["default_network_rules_systemvm", "--vmname", "r-4-VM"];
    bed.done(&[&words[..], &["--localbrname", "cloud0"]].concat());
    assert_eq!(
        bed.log_of("r-4-VM"),
        Some("r-4-VM,-1,_ignore_,7,_initial_,-1\n".to_owned())
    );
    bed.check(&[
        ("out", "v4", Asked::Ping, true),
        ("v4", "out", Asked::Tcp(80), true),
        ("v4", "v1", Asked::Tcp(22), true),
        ("v1", "v4", Asked::Udp(53), true),
        ("v4", "v1", Asked::Tcp(23), false),
    ]);
    // It ends without a call; the next clean-up forgets it.
    bed.undefine("r-4-VM");
    bed.done(&["cleanup_rules"]);
    assert_eq!(bed.log_of("r-4-VM"), None);
    assert!(bed.log_of(VM).is_some());
}

fn whoever_looks_sees_the_vms(on: On) {
    let bed = with_vm(on);
    // Its answers need a flow.
    bed.start(VM, "v1", &format!("{SSH}E:udp;123;123;0.0.0.0/0,NEXT;"));
    assert!(bed.answers("out", "v1", Family::V4, Asked::Tcp(22)));
    let ask = |words: &[&str]| {
        let output = bed.portcullis(&[words, on.arguments(), &["-o", "json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("it is JSON")
    };
    let port = format!("{VM}/{}", bed.vm("v1").mac());
    let status = ask(&["status"]);
    assert_eq!(status["ports"][0]["port"], port.as_str(), "{status}");
    let flows = ask(&["flows"]);
    assert_eq!(
        flows[0]["rule"],
        format!("{VM}/in-tcp-22-22-any4"),
        "{flows}"
    );
    for (l4_port, reason) in [(22, "rule"), (23, "no-rule")] {
        let packet = format!("tcp 10.1.0.250:9 -> 10.1.0.10:{l4_port}");
        let explained = ask(&["explain", "--port", &port, "--ingress", &packet]);
        assert_eq!(explained["plane"]["reason"], reason, "{explained}");
        assert_eq!(explained["differ"], false, "{explained}");
    }
    let imported = bed.portcullis(&["import", "cloudstack"]);
    let text = String::from_utf8(imported.stdout).expect("it is text");
    let file = policyfile::parse(&text, "imported", &"here".into()).expect("it is a policy file");
    assert_eq!(file.inventory.ports.len(), 1);
}
