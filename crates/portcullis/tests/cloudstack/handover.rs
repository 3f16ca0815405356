//! A host goes to CloudStack's script and back, under running VMs. The script's objects are those that giving back
//! builds.

use crate::bed::{Bed, On};
use crate::calls::with_vm;
use crate::live::{Connection, Passed, Traffic};
use crate::on_each_plane;
use conformance::lab::Asked;
use std::fs;
use std::time::Duration;

on_each_plane!(
    to_and_from_the_script_of_4_22,
    to_and_from_the_script_of_4_23,
    to_and_from_a_later_script,
    a_revoked_connection_does_not_come_back,
    killed_while_it_builds,
    killed_when_it_has_switched,
    killed_while_it_takes_over,
    what_cannot_be_built_is_taken_away,
    without_a_version_nothing_is_done,
);

const VM: &str = "i-2-10-VM";
const OPEN: &str = "i-2-11-VM";
const RULES: &str = "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;I:udp;500;500;0.0.0.0/0,::/0,NEXT;\
                     E:tcp;80;80;0.0.0.0/0,::/0,NEXT;E:udp;123;123;0.0.0.0/0,::/0,NEXT;";
/// Whoever started the program.
const KILL: &str = "kill -9 $PPID";
const ALL: &str = "I:all;0;0;0.0.0.0/0,::/0,NEXT;E:all;0;0;0.0.0.0/0,::/0,NEXT;";

/// A restricted VM, one that needs no tracking, and a system VM.
fn host(on: On) -> Bed {
    let mut bed = with_vm(on);
    bed.plug("v2", "cloudbr0", 11, &["10.1.0.11", "fd00:1::11"]);
    bed.plug("v4", "cloudbr0", 14, &["10.1.0.14", "fd00:1::14"]);
    bed.start(VM, "v1", RULES);
    bed.start(OPEN, "v2", ALL);
    bed.define("r-4-VM", &["v4"]);
    let words = ["default_network_rules_systemvm", "--vmname", "r-4-VM"];
    bed.done(&[&words[..], &["--localbrname", "cloud0"]].concat());
    bed
}

/// `judge`: a version of the script, or ours.
fn check(bed: &Bed, judge: &str) {
    // Of a VM with a rule for everything the later ones track nothing, so restricted VMs can't answer it.
    let answered = matches!(judge, "ours" | "before");
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), true),
        ("out", "v1", Asked::Tcp(23), false),
        ("v1", "out", Asked::Tcp(80), true),
        ("v1", "out", Asked::Tcp(81), false),
        ("v1", "out", Asked::Udp(53), true),
        ("out", "v2", Asked::Tcp(23), true),
        ("v2", "out", Asked::Tcp(81), true),
        ("v2", "v1", Asked::Tcp(22), answered),
    ]);
}

/// Which must succeed.
fn command(bed: &Bed, words: &[&str]) -> String {
    let output = bed.portcullis(&[&["cloudstack"], words].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).expect("it is text")
}

fn chains(bed: &Bed) -> String {
    bed.run("iptables-save") + &bed.run("ip6tables-save") + &bed.run("ebtables-nft-save")
}

fn assert_given_back(bed: &Bed) {
    let chains = chains(bed);
    for of_script in [
        "BF-cloudbr0-IN",
        "i-2-10-def",
        "i-2-11-VM-eg",
        "i-2-10-VM-in-ips",
    ] {
        assert!(chains.contains(of_script), "{of_script}: {chains}");
    }
    assert!(!chains.contains("pc-"), "{chains}");
    let tables = bed.run("nft list tables");
    assert!(!tables.contains("portcullis"), "{tables}");
    let sets = bed.run("ipset list -name");
    assert!(!sets.contains("pc-"), "{sets}");
    let line = format!("{VM},10,10.1.0.10,7,9a03,1\n");
    assert_eq!(bed.log_of(VM), Some(line));
    let left = fs::read_dir(bed.root.path().join("run").join(bed.instance())).expect("it is there");
    let left: Vec<_> = left
        .map(|file| file.expect("an entry").file_name())
        .collect();
    assert!(!left.iter().any(|file| file == "vms.json"), "{left:?}");
}

fn assert_ours(bed: &Bed) {
    let chains = chains(bed);
    assert!(!chains.contains("BF-"), "{chains}");
    assert!(!chains.contains("i-2-"), "{chains}");
    let sets = bed.run("ipset list -name");
    assert!(!sets.contains("i-2-"), "{sets}");
}

/// New flows, of which few may be lost.
const ENOUGH: u64 = 60;

/// Everything goes on while the host changes hands by these.
fn under_traffic(bed: &Bed, version: &str, change: impl FnOnce()) -> Passed {
    let mut quiet = Connection::open(bed, "v1", "out", 80, true);
    quiet.extend(Connection::open(bed, "out", "v1", 22, true));
    quiet.extend(Connection::open(bed, "out", "v2", 9_000, false));
    let mut traffic = Traffic::new();
    traffic.talk(Connection::open(bed, "out", "v1", 22, false));
    traffic.talk(Connection::open(bed, "v1", "out", 80, false));
    traffic.talk(Connection::open(bed, "v1", "out", 80, true));
    traffic.talk(Connection::open(bed, "v2", "out", 9_001, true));
    let ntp = bed.vm("out").serve_udp(123).expect("a free port");
    let ike = bed.vm("v1").serve_udp(500).expect("a free port");
    traffic.ask(bed, "v1", "out", 123);
    traffic.ask(bed, "out", "v1", 500);
    traffic.forbid(bed, "out", "v1", 9_999);
    if version == "before" {
        // The later ones accept for good what the sender's own rules permit.
        traffic.forbid(bed, "v2", "v1", 9_998);
    }
    traffic.forbid(bed, "v1", "out", 9_997);
    traffic.forbid_spoofed(bed, "v1", "out", 53);
    change();
    traffic.go_on(ENOUGH);
    let passed = traffic.end();
    drop((ntp, ike));
    for connection in &mut quiet {
        connection.say();
    }
    passed
}

fn to_and_from(on: On, version: &str) {
    let bed = host(on);
    check(&bed, "ours");
    for round in 0..2 {
        // The second time it knows by itself.
        let named = ["release", "--as", version];
        let words = if round == 0 { &named[..] } else { &named[..1] };
        let passed = under_traffic(&bed, version, || {
            let said = command(&bed, words);
            assert!(said.contains("given back: 3 VMs with 3 NICs"), "{said}");
        });
        assert_small(&passed, "release");
        assert_given_back(&bed);
        check(&bed, version);
        let again = command(&bed, &["release"]);
        assert!(again.contains("already"), "{again}");
        let refused = bed.push(VM, "v1", 2, ALL);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("given back"),
            "{said}"
        );
        assert_given_back(&bed);
        let passed = under_traffic(&bed, version, || {
            let said = command(&bed, &["adopt"]);
            assert!(said.contains("taken over: 3 VMs with 3 NICs"), "{said}");
        });
        assert_small(&passed, "adopt");
        assert_ours(&bed);
        check(&bed, "ours");
        assert_eq!(
            bed.done(&["get_rule_logs_for_vms"])
                .matches("9a03,1")
                .count(),
            2
        );
    }
}

/// What is on its way when hands are changed may be lost: TCP sends it again, and of flows that begin in just that
/// moment few have to be begun again.
fn assert_small(passed: &Passed, of: &str) {
    assert!(
        passed.longest < Duration::from_millis(1_000),
        "{of}: {passed:?}"
    );
    assert!(passed.lost <= 5, "{of}: {passed:?}");
}

fn to_and_from_the_script_of_4_22(on: On) {
    to_and_from(on, "before");
}

fn to_and_from_the_script_of_4_23(on: On) {
    to_and_from(on, "after");
}

fn to_and_from_a_later_script(on: On) {
    to_and_from(on, "main");
}

/// Up to 4.22 the script lets pass what the kernel tracks, whatever the rules are by now.
fn a_revoked_connection_does_not_come_back(on: On) {
    let bed = host(on);
    let mut connections = Connection::open(&bed, "out", "v1", 22, false);
    command(&bed, &["release", "--as", "before"]);
    for connection in &mut connections {
        connection.say();
    }
    command(&bed, &["adopt"]);
    bed.pushed(VM, "v1", 2, "I:tcp;23;23;0.0.0.0/0,::/0,NEXT;");
    command(&bed, &["release"]);
    for connection in connections {
        connection.assert_cut();
    }
}

fn killed_while_it_builds(on: On) {
    let bed = host(on);
    for then in ["a call", "release"] {
        let words = ["cloudstack", "release", "--as", "after"];
        bed.set_trap("ip6tables-restore", "BF-cloudbr0", KILL);
        under_traffic(&bed, "before", || {
            let output = bed.portcullis(&words);
            assert_eq!(output.status.code(), None, "{output:?}");
        });
        bed.remove_trap("ip6tables-restore");
        assert!(chains(&bed).contains("BF-cloudbr0-IN"));
        check(&bed, "ours");
        if then == "a call" {
            bed.pushed(VM, "v1", 1, RULES);
            assert_ours(&bed);
            check(&bed, "ours");
        }
    }
    let release = || drop(command(&bed, &["release", "--as", "before"]));
    under_traffic(&bed, "before", release);
    assert_given_back(&bed);
    check(&bed, "before");
}

fn killed_when_it_has_switched(on: On) {
    let bed = host(on);
    // The table that guards new devices goes right after the plane.
    let table = format!("delete table bridge portcullis-{}", bed.instance());
    bed.set_trap("nft", &table, KILL);
    let passed = under_traffic(&bed, "after", || {
        let output = bed.portcullis(&["cloudstack", "release", "--as", "after"]);
        assert_eq!(output.status.code(), None, "{output:?}");
        bed.remove_trap("nft");
        bed.check(&[
            ("out", "v1", Asked::Tcp(22), true),
            ("out", "v1", Asked::Tcp(23), false),
        ]);
        let refused = bed.push(VM, "v1", 2, ALL);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("being given back"),
            "{said}"
        );
        let said = command(&bed, &["release"]);
        assert!(said.contains("going on"), "{said}");
    });
    assert_small(&passed, "release");
    assert_given_back(&bed);
    check(&bed, "after");
}

fn without_a_version_nothing_is_done(on: On) {
    let bed = host(on);
    let output = bed.portcullis(&["cloudstack", "release"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--as before"), "{said}");
    assert_ours(&bed);
    check(&bed, "ours");
}

/// The script's sets go last.
fn killed_while_it_takes_over(on: On) {
    let bed = host(on);
    command(&bed, &["release", "--as", "before"]);
    bed.set_trap("ipset", "destroy i-2-10-VM", KILL);
    under_traffic(&bed, "before", || {
        let output = bed.portcullis(&["cloudstack", "adopt"]);
        assert_eq!(output.status.code(), None, "{output:?}");
    });
    bed.remove_trap("ipset");
    check(&bed, "ours");
    bed.pushed(VM, "v1", 1, RULES);
    assert_ours(&bed);
    check(&bed, "ours");
}

fn what_cannot_be_built_is_taken_away(on: On) {
    let bed = host(on);
    bed.set_trap("ip6tables-restore", "BF-cloudbr0", "echo no room >&2");
    let output = bed.portcullis(&["cloudstack", "release", "--as", "after"]);
    bed.remove_trap("ip6tables-restore");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("no room; ours is in force"), "{said}");
    assert!(said.contains("taken away again"), "{said}");
    assert_ours(&bed);
    check(&bed, "ours");
}
