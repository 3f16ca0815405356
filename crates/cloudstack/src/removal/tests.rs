use super::*;
use crate::built::{Made, Texts, sample};

/// The steps in a table of iptables that has these chains and rules.
fn check(table: &str, lines: &[&str], expected: &[&str]) {
    let text = format!("*{table}\n{}\nCOMMIT\n", lines.join("\n"));
    let dumps = Dumps {
        iptables: &text,
        ..Dumps::default()
    };
    let removal = removal(&dumps);
    let script = match expected {
        [] => String::new(),
        steps => format!("*{table}\n{}\nCOMMIT\n", steps.join("\n")),
    };
    assert_eq!(removal.iptables, script, "{lines:?}");
    assert_eq!(
        (removal.ip6tables, removal.ebtables.script()),
        Default::default()
    );
}

fn built_dumps(texts: &Texts) -> Dumps<'_> {
    Dumps {
        iptables: &texts.iptables,
        ip6tables: &texts.ip6tables,
        ipset: &texts.ipset,
        ebtables: &texts.ebtables,
    }
}

#[test]
fn where_nothing_is_its_nothing_is_done() {
    assert_eq!(removal(&Dumps::default()), Removal::default());
    check("filter", &[], &[]);
    check(
        "filter",
        &[
            ":FORWARD DROP [0:0]",
            ":mine - [0:0]",
            "-A FORWARD -j mine",
            "-A FORWARD -o cloudbr0 -j DROP",
        ],
        &[],
    );
}

#[test]
fn chains_are_emptied_before_any_is_deleted() {
    check(
        "filter",
        &[
            ":FORWARD ACCEPT [0:0]",
            ":BF-br0 - [0:0]",
            ":BF-br0-IN - [0:0]",
            ":r-4-VM - [0:0]",
            "-A FORWARD -i br0 -m physdev --physdev-is-bridged -j BF-br0",
            "-A FORWARD -i br0 -j DROP",
            "-A BF-br0 -m physdev --physdev-is-in --physdev-is-bridged -j BF-br0-IN",
            "-A BF-br0-IN -m physdev --physdev-in vnet0 --physdev-is-bridged -j r-4-VM",
            "-A r-4-VM -j ACCEPT",
        ],
        &[
            "-D FORWARD -i br0 -m physdev --physdev-is-bridged -j BF-br0",
            "-D FORWARD -i br0 -j DROP",
            "-F BF-br0",
            "-F BF-br0-IN",
            "-F r-4-VM",
            "-X BF-br0",
            "-X BF-br0-IN",
            "-X r-4-VM",
        ],
    );
}

/// Of FORWARD, only what is printed as the script makes it.
#[test]
fn a_rule_that_looks_like_its_own_is_somebody_elses() {
    let jump = "-i br0 -m physdev --physdev-is-bridged -j BF-br0";
    let stays = |rule: &str| {
        let lines = [
            ":BF-br0 - [0:0]".to_owned(),
            format!("-A FORWARD {jump}"),
            format!("-A FORWARD {rule}"),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let delete = format!("-D FORWARD {jump}");
        check("filter", &lines, &[&delete, "-F BF-br0", "-X BF-br0"]);
    };
    for rule in [
        "-i br0 -j REJECT",
        "-i br1 -j DROP",
        "-o br0 -j DROP",
        "! -i br0 -j DROP",
        "-i br0 -p tcp -j DROP",
        "-i br0 -m comment --comment x -j DROP",
        "-i br0 -m comment --comment \"-j BF-br0\" -j ACCEPT",
        "-j DROP",
        "",
    ] {
        stays(rule);
    }
    // The second of two drops for one jump.
    check(
        "filter",
        &[
            ":BF-br0 - [0:0]",
            &format!("-A FORWARD {jump}"),
            "-A FORWARD -i br0 -j DROP",
            "-A FORWARD -i br0 -j DROP",
        ],
        &[
            &format!("-D FORWARD {jump}"),
            "-D FORWARD -i br0 -j DROP",
            "-F BF-br0",
            "-X BF-br0",
        ],
    );
}

#[test]
fn untracking_goes_in_either_dress() {
    check(
        "raw",
        &[
            "-A PREROUTING -m set --match-set cs_notrack dst -j NOTRACK",
            "-A PREROUTING -m set --match-set cs_notrack src -j CT --notrack",
            "-A PREROUTING -m set --match-set mine src -j NOTRACK",
            "-A PREROUTING -m set ! --match-set cs_notrack src -j NOTRACK",
            "-A PREROUTING -m set --match-set cs_notrack src -m comment --comment ours -j NOTRACK",
            "-A PREROUTING -m set --match-set cs_notrack src,dst -j NOTRACK",
            "-A PREROUTING -m set --match-set cs_notrack src -j CT --zone 1",
            "-A OUTPUT -m set --match-set cs_notrack dst -j NOTRACK",
        ],
        &[
            "-D PREROUTING -m set --match-set cs_notrack dst -j NOTRACK",
            "-D PREROUTING -m set --match-set cs_notrack src -j CT --notrack",
        ],
    );
}

#[test]
fn a_redirection_goes_if_it_is_just_that() {
    let its = "-d 10.1.1.2/32 -p tcp -m physdev --physdev-in vnet6 -m tcp --dport 80 -j DNAT --to-destination 10.1.1.3:80";
    check(
        "nat",
        &[
            &format!("-A PREROUTING {its}"),
            &format!("-A PREROUTING {}", its.replace("vnet6", "eth0")),
            &format!("-A PREROUTING {}", its.replace("--dport 80", "--dport 443")),
            &format!("-A PREROUTING {}", its.replace("/32", "/24")),
            &format!(
                "-A PREROUTING {}",
                its.replace("-m physdev --physdev-in vnet6 ", "")
            ),
        ],
        &[&format!("-D PREROUTING {its}")],
    );
}

#[test]
fn of_a_text_that_is_cut_nothing_is_removed() {
    let built = sample::host(Made::After, Made::After);
    let mut texts = built.texts();
    let whole = removal(&built_dumps(&texts));
    assert!(!whole.sets.is_empty() && !whole.iptables.is_empty());
    texts
        .iptables
        .truncate(texts.iptables.len() - "COMMIT\n".len());
    let cut = removal(&built_dumps(&texts));
    let expected = Removal {
        iptables: String::new(),
        sets: Vec::new(),
        doubts: vec![Doubt::Cut(Dump::Iptables)],
        ..whole
    };
    assert_eq!(cut, expected);
}

#[test]
fn the_sets_of_vms_go_and_those_of_our_plane_stay() {
    let built = sample::host(Made::After, Made::After);
    let sets = removal(&built_dumps(&built.texts())).sets;
    let vms = [
        "i-2-10-VM",
        "i-2-11-VM",
        "i-2-12-web-eg",
        "i-2-13-VM",
        "i-3-14-VM",
    ];
    let both = vms
        .iter()
        .flat_map(|vm| [vm.to_string(), format!("{vm}-6")]);
    let expected: BTreeSet<String> = both.collect();
    assert_eq!(sets.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_step_at_the_link_layer_is_a_command() {
    let ebtables = "*nat\n:PREROUTING ACCEPT\n:i-2-10-VM-in ACCEPT\n\
        -A PREROUTING -i vnet0 -j i-2-10-VM-in \n-A i-2-10-VM-in -p ARP -j DROP \n";
    let dumps = Dumps {
        ebtables,
        ..Dumps::default()
    };
    let removal = removal(&dumps);
    let steps = "-D PREROUTING -i vnet0 -j i-2-10-VM-in\n-F i-2-10-VM-in\n-X i-2-10-VM-in\n";
    assert_eq!(removal.ebtables.script(), format!("*nat\n{steps}"));
    let commands: Vec<String> = removal
        .ebtables
        .commands()
        .iter()
        .map(|c| c.join(" "))
        .collect();
    let expected: Vec<String> = steps.lines().map(|step| format!("-t nat {step}")).collect();
    assert_eq!(commands, expected);
}
