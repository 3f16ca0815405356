//! What a kernel prints of the script's objects is read back; they are removed, with nothing of anybody
//! else's.

use crate::built::{Made, Texts, sample};
use crate::host::{Host, dumps, everywhere, foreign, objects};
use portcullis_cloudstack::change::{self, Facts};
use portcullis_cloudstack::log_files::LogLine;
use portcullis_cloudstack::original::{Doubt, Dump, Link, recover};
use portcullis_cloudstack::removal::{Removal, removal};
use portcullis_cloudstack::{State, VmKind, arguments};
use std::collections::BTreeSet;

/// Kept, as our plane has them, too.
pub(crate) fn is_kept(object: &str) -> bool {
    object.starts_with("set cs_notrack")
}

#[test]
fn it_is_printed_as_it_is_built() {
    everywhere(|host, built| {
        host.add(&built.texts());
        assert_eq!(objects(&host.texts()), objects(&built.texts()));
    });
}

#[test]
fn what_a_kernel_prints_is_read_back() {
    everywhere(|host, built| {
        host.add(&foreign());
        host.add(&built.texts());
        let printed = host.texts();
        let logs: Vec<LogLine> = built
            .logs()
            .iter()
            .map(|l| LogLine::parse(l).expect("a line"))
            .collect();
        let link = |(device, bridge, mac): (&str, &str, String)| Link {
            device: device.to_owned(),
            bridge: Some(bridge.to_owned()),
            mac: Some(mac.parse().expect("a MAC")),
        };
        let links: Vec<Link> = built.links().into_iter().map(link).collect();
        let of_kernel = recover(&dumps(&printed), &logs, &links);
        let mut told = State::default();
        for line in built.commands() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let command = arguments::parse(&words).expect("a command");
            change::apply(&mut told, &command, &Facts::default()).expect("done");
        }
        let mut read = of_kernel.state;
        for vm in read.vms.values_mut() {
            vm.domain = None;
        }
        // Their devices are libvirt's to tell.
        let system_vms = read.vms.extract_if(.., |_, vm| vm.kind == VmKind::System);
        assert_eq!(system_vms.count(), built.system_vms.len());
        assert_eq!(read, told);
        assert_eq!(of_kernel.doubts, []);
    });
}

#[test]
fn what_the_script_built_goes_and_all_else_stays() {
    everywhere(|host, built| {
        host.add(&foreign());
        let before = objects(&host.texts());
        host.add(&built.texts());
        let removal = removal(&dumps(&host.texts()));
        assert_eq!(removal.doubts, []);
        host.remove(&removal);
        let mut after = objects(&host.texts());
        after.retain(|object, _| !is_kept(object));
        assert_eq!(after, before, "{}", host.backend);
        // And nothing is left to do.
        let again = self::removal(&dumps(&host.texts()));
        assert_eq!(again, Removal::default());
    });
}

/// One command for each step does the same as the script.
#[test]
fn the_link_layer_can_be_removed_step_by_step() {
    let built = sample::host(Made::After, Made::After);
    let host = Host::new("nft");
    host.add(&foreign());
    let before = objects(&host.texts());
    let ebtables = built.texts().ebtables;
    host.do_it("ebtables-nft-restore", &["--noflush"], &ebtables);
    let removal = removal(&dumps(&host.texts()));
    for command in removal.ebtables.commands() {
        host.do_it("ebtables-nft", &command, "");
    }
    assert_eq!(objects(&host.texts()), before);
}

#[test]
fn what_somebody_else_leads_to_stays_as_it_is() {
    everywhere(|host, built| {
        host.add(&foreign());
        host.add(&built.texts());
        host.add(&Texts {
            iptables: "*filter\n:mine - [0:0]\n\
                -A mine -s 192.0.2.7/32 -j i-2-11-VM\n\
                -A mine -m set --match-set i-2-13-VM src -j DROP\nCOMMIT\n"
                .to_owned(),
            ip6tables: "*filter\n-A FORWARD -s 2001:db8::/32 -g i-2-10-def\nCOMMIT\n".to_owned(),
            ipset: "create list list:set\nadd list i-3-14-VM-6\n\
                create i-9-9-VM hash:net family inet\n"
                .to_owned(),
            ebtables: "*nat\n-A PREROUTING -i eth9 -p ARP -j i-2-11-VM-in\n".to_owned(),
        });
        let before = objects(&host.texts());
        let removal = removal(&dumps(&host.texts()));
        host.remove(&removal);
        let mut after = objects(&host.texts());
        after.retain(|object, _| !is_kept(object));
        let mut expected = before.clone();
        let its = objects(&built.texts());
        for (object, rules) in &its {
            let name = object.rsplit(' ').next().expect("a name");
            let stays = match object.split(' ').next() {
                Some("iptables") => name == "i-2-11-VM",
                // The guard leads to the rules.
                Some("ip6tables") => ["i-2-10-def", "i-2-10-VM", "i-2-10-VM-eg"].contains(&name),
                Some("ebtables") => {
                    ["i-2-11-VM-in", "i-2-11-VM-in-ips", "i-2-11-VM-in-src"].contains(&name)
                }
                _ => ["i-2-13-VM", "i-2-10-VM-6", "i-3-14-VM-6"].contains(&name),
            };
            let is_builtin = name.bytes().all(|b| b.is_ascii_uppercase());
            if is_builtin {
                let left = expected.get_mut(object).expect("it is there");
                left.retain(|rule| !rules.contains(rule));
                if left.is_empty() {
                    expected.remove(object);
                }
            } else if !stays {
                expected.remove(object);
            }
        }
        assert_eq!(after, expected, "{}", host.backend);
        let jump = |dump, from: &str, rule: &str, chain: &str| Doubt::ForeignJump {
            dump,
            from: from.to_owned(),
            rule: rule.to_owned(),
            chain: chain.to_owned(),
        };
        let in_use = |set: &str| {
            let of_it =
                |doubt: &&Doubt| matches!(doubt, Doubt::SetInUse { set: s, .. } if s == set);
            assert_eq!(removal.doubts.iter().filter(of_it).count(), 1, "{set}");
        };
        for set in ["i-2-13-VM", "i-2-10-VM-6", "i-3-14-VM-6"] {
            in_use(set);
        }
        let set = "i-9-9-VM".to_owned();
        let mut told: BTreeSet<Doubt> = removal.doubts.iter().cloned().collect();
        told.retain(|doubt| !matches!(doubt, Doubt::SetInUse { .. }));
        assert_eq!(
            told,
            BTreeSet::from([
                jump(
                    Dump::Iptables,
                    "mine",
                    "-s 192.0.2.7/32 -j i-2-11-VM",
                    "i-2-11-VM"
                ),
                jump(
                    Dump::Ip6tables,
                    "FORWARD",
                    "-s 2001:db8::/32 -g i-2-10-def",
                    "i-2-10-def"
                ),
                jump(
                    Dump::Ebtables,
                    "PREROUTING",
                    "-p ARP -i eth9 -j i-2-11-VM-in",
                    "i-2-11-VM-in"
                ),
                Doubt::OtherSet { set },
            ])
        );
    });
}
