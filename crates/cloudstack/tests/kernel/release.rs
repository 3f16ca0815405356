//! What is built for a state is, on a kernel, what the script's objects are printed as.

use crate::built::{Built, Made, Texts, sample};
use crate::host::{Host, Objects, check_same, dumps, everywhere, foreign, objects};
use crate::removal::is_kept;
use portcullis_cloudstack::change::{self, Facts, Interface};
use portcullis_cloudstack::log_files::LogLine;
use portcullis_cloudstack::original::build::{self, BuildDoubt, BuildFacts, Ebtables, build};
use portcullis_cloudstack::original::{Link, Version, recover};
use portcullis_cloudstack::removal::removal;
use portcullis_cloudstack::{DeviceName, State, arguments};
use std::collections::BTreeMap;

/// The state that the host's commands would have made here.
fn told(built: &Built) -> State {
    let mut state = State::default();
    let mut apply = |line: &str, interfaces| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = arguments::parse(&words).expect("a command");
        let facts = Facts {
            interfaces,
            ..Facts::default()
        };
        change::apply(&mut state, &command, &facts).expect("done");
    };
    for line in built.commands() {
        apply(&line, vec![]);
    }
    let links = built.links();
    for (name, nics) in &built.system_vms {
        let interface = |(vif, bridge): &(&str, &str)| Interface {
            vif: DeviceName::new(vif).expect("a name"),
            bridge: DeviceName::new(bridge).expect("a name"),
            mac: (links.iter().find(|(device, ..)| device == vif))
                .map(|(.., mac)| mac.parse().expect("a MAC"))
                .expect("every device is listed"),
        };
        apply(
            &format!("default_network_rules_systemvm --vmname {name} --localbrname cloud0"),
            nics.iter().map(interface).collect(),
        );
    }
    state
}

/// Each bridge with its uplink.
fn uplinks(built: &Built) -> Vec<Link> {
    let link = |(_, bridge, _): (_, &str, _)| Link {
        device: format!("up-{bridge}@if7"),
        bridge: Some(bridge.to_owned()),
        mac: None,
    };
    built.links().into_iter().map(link).collect()
}

fn version(made: Made) -> Version {
    match made {
        Made::Before => Version::Before,
        Made::After => Version::After,
        Made::Main => Version::Main,
    }
}

/// Everything as its caller does it.
fn release(host: &Host, state: &State, version: Version, links: &[Link]) -> build::Built {
    let found = host.texts();
    let facts = BuildFacts {
        dumps: dumps(&found),
        links,
        domains: &BTreeMap::new(),
        ebtables: Ebtables::NfTables,
        in_front: "ours",
    };
    let built = build(state, version, &facts);
    host.do_it("ipset", &["restore"], &built.ipset);
    host.restore("iptables", &built.iptables);
    host.restore("ip6tables", &built.ip6tables);
    let link_layer = built.ebtables.script();
    host.do_it("ebtables-nft-restore", &["--noflush"], &link_layer);
    host.do_it("ipset", &["restore"], &built.untracked);
    for set in &built.former_sets {
        host.do_it("ipset", &["destroy", set], "");
    }
    built
}

/// A host with what others have, and their objects.
fn host_of_others(backend: &'static str) -> (Host, Objects) {
    let host = Host::new(backend);
    host.add(&foreign());
    let others = objects(&host.texts());
    (host, others)
}

/// What the witness has made, beside what others have: in FORWARD the script comes first, elsewhere last.
fn expected(others: &Objects, built: &Built) -> Objects {
    let mut expected = others.clone();
    for (object, rules) in objects(&built.texts()) {
        let all = expected.entry(object.clone()).or_default();
        let at = match object.ends_with("tables filter FORWARD") {
            true => 0,
            false => all.len(),
        };
        all.splice(at..at, rules);
    }
    expected
}

#[test]
fn what_is_built_is_what_the_script_builds() {
    everywhere(|host, built| {
        host.add(&foreign());
        let others = objects(&host.texts());
        let expected = expected(&others, built);
        let (state, links) = (told(built), uplinks(built));
        // The second time over itself.
        for _ in 0..2 {
            let released = release(host, &state, version(built.made), &links);
            check_same(&objects(&host.texts()), &expected, host.backend);
            let told = |doubt: &&BuildDoubt| match doubt {
                BuildDoubt::NoIpv4 { .. } => false,
                BuildDoubt::SendersAlone { .. } | BuildDoubt::Untracked { .. } => {
                    built.made == Made::Before
                }
                _ => true,
            };
            assert_eq!(released.doubts.iter().find(told), None);
            check_read_back(host, built, &released.logs, &state);
        }
        host.remove(&removal(&dumps(&host.texts())));
        let mut left = objects(&host.texts());
        left.retain(|object, _| !is_kept(object));
        check_same(&left, &others, host.backend);
    });
}

/// What takes over from the script finds the VMs that were given back.
fn check_read_back(host: &Host, built: &Built, logs: &[LogLine], state: &State) {
    let link = |(device, bridge, mac): (&str, &str, String)| Link {
        device: device.to_owned(),
        bridge: Some(bridge.to_owned()),
        mac: Some(mac.parse().expect("a MAC")),
    };
    let links: Vec<Link> = built.links().into_iter().map(link).collect();
    let printed = host.texts();
    let recovered = recover(&dumps(&printed), logs, &links);
    assert_eq!(recovered.state, *state);
    assert_eq!(recovered.version(), Some(version(built.made)));
}

/// Of whichever version, of VMs that are there or gone, doubled or emptied.
#[test]
fn what_the_script_has_left_before_is_no_matter() {
    for (backend, left) in [
        ("nft", Made::Before),
        ("legacy", Made::Main),
        ("nft", Made::After),
    ] {
        for made in Made::ALL {
            let built = sample::host(made, made);
            let (host, others) = host_of_others(backend);
            let mut former = sample::host(left, left);
            former.vms.push(sample::routed_vm());
            former.vms.remove(2);
            former.vms[0].nics[0].ipv4 = Some("10.9.9.9");
            host.add(&former.texts());
            host.restore(
                "iptables",
                "*filter\n-F i-2-11-VM-eg\n-F BF-cloudbr0\n\
                -I FORWARD -i cloudbr0 -m physdev --physdev-is-bridged -j BF-cloudbr0\nCOMMIT\n",
            );
            host.do_it("ipset", &["add", "i-2-11-VM", "192.0.2.1"], "");
            release(&host, &told(&built), version(made), &uplinks(&built));
            let mut seen = objects(&host.texts());
            let mut expected = expected(&others, &built);
            if made == Made::Before {
                // It doesn't know of them.
                seen.retain(|object, _| !is_kept(object));
                expected.retain(|object, _| !is_kept(object));
            }
            check_same(&seen, &expected, &format!("{backend} {left:?} {made:?}"));
        }
    }
}

/// Whoever enforces until now is asked first at each moment.
#[test]
fn what_enforces_until_now_stays_in_front() {
    let built = sample::host(Made::Before, Made::Before);
    for backend in ["nft", "legacy"] {
        let (host, others) = host_of_others(backend);
        let ours = [
            "-m mark --mark 0x1/0x1 -m comment --comment ours -j ACCEPT",
            "-s 192.0.2.1/32 -m comment --comment ours -j DROP",
        ];
        let rules = ours.map(|rule| format!("-A FORWARD {rule}\n")).concat();
        let script = format!("*filter\n{rules}COMMIT\n");
        host.restore("iptables", &script);
        for _ in 0..2 {
            release(&host, &told(&built), Version::Before, &uplinks(&built));
            let forward = "iptables filter FORWARD";
            let expected = [
                &ours.map(str::to_owned)[..],
                &expected(&others, &built)[forward],
            ];
            assert_eq!(
                objects(&host.texts())[forward],
                expected.concat(),
                "{backend}"
            );
        }
    }
}

/// One command for each step does the same as the script.
#[test]
fn the_link_layer_can_be_built_step_by_step() {
    let built = sample::host(Made::After, Made::After);
    let (host, others) = host_of_others("nft");
    let links = uplinks(&built);
    let of_it = |objects: &mut Objects| objects.retain(|name, _| name.starts_with("ebtables "));
    let mut expected = expected(&others, &built);
    of_it(&mut expected);
    for _ in 0..2 {
        let found = host.texts();
        let facts = BuildFacts {
            dumps: dumps(&found),
            links: &links,
            domains: &BTreeMap::new(),
            ebtables: Ebtables::NfTables,
            in_front: "ours",
        };
        let ebtables = build(&told(&built), Version::After, &facts).ebtables;
        for command in ebtables.commands() {
            host.do_it("ebtables-nft", &command, "");
        }
        let mut seen = objects(&host.texts());
        of_it(&mut seen);
        check_same(&seen, &expected, "step by step");
    }
}

/// Our plane's sets have room for more, and the script fails on sets that it wouldn't have made so.
#[test]
fn the_sets_of_untracked_addresses_are_as_the_script_makes_them() {
    let built = sample::host(Made::After, Made::After);
    let host = Host::new("nft");
    let ours = "create cs_notrack hash:ip family inet hashsize 64 maxelem 4194304\n\
        add cs_notrack 10.7.7.7\ncreate cs_notrack6 hash:ip family inet6 maxelem 4194304\n";
    host.do_it("ipset", &["restore"], ours);
    host.restore(
        "iptables",
        "*raw\n:ours - [0:0]\n-A ours -m set --match-set cs_notrack src -j NOTRACK\nCOMMIT\n",
    );
    release(&host, &told(&built), Version::After, &uplinks(&built));
    for (set, kind) in [("cs_notrack", "inet"), ("cs_notrack6", "inet6")] {
        let create = ["-!", "create", set, "hash:ip", "family", kind];
        host.do_it("ipset", &create, "");
    }
    let set = |texts: &Texts| objects(texts)["set cs_notrack"].clone();
    assert_eq!(set(&host.texts()), set(&built.texts()));
}
