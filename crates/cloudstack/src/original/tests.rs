mod nics;
mod random;

use super::*;
use crate::built::{Built, Made, Texts, sample};
use crate::change::{self, Facts, Interface};
use crate::{DeviceName, arguments};
use proptest::prelude::*;

/// The state that the host's commands would have made here.
fn told(built: &Built) -> State {
    let mut state = State::default();
    let mut apply = |line: &str, facts: &Facts| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = arguments::parse(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
        change::apply(&mut state, &command, facts).unwrap_or_else(|e| panic!("{line}: {e}"));
    };
    for line in built.commands() {
        let vm = built
            .vms
            .iter()
            .find(|vm| line.contains(&format!(" {} ", vm.name)));
        let facts = Facts {
            domain: vm.map(|vm| vm.id as u32 + 100),
            ..Facts::default()
        };
        apply(&line, &facts);
    }
    let links = built.links();
    for (name, nics) in &built.system_vms {
        let interface = |(vif, bridge): &(&str, &str)| Interface {
            vif: DeviceName::new(vif).expect("a name"),
            bridge: DeviceName::new(bridge).expect("a name"),
            mac: links
                .iter()
                .find(|(device, ..)| device == vif)
                .map(|(.., mac)| mac.parse().expect("a MAC"))
                .expect("every device is listed"),
        };
        let facts = Facts {
            domain: Some(4),
            interfaces: nics.iter().map(interface).collect(),
            domains: None,
        };
        apply(
            &format!("default_network_rules_systemvm --vmname {name} --localbrname cloud0"),
            &facts,
        );
    }
    state
}

/// As the kernel lists the devices.
fn links(built: &Built) -> Vec<Link> {
    let link = |(vif, bridge, mac): (&str, &str, String)| Link {
        device: vif.to_owned(),
        bridge: Some(bridge.to_owned()),
        mac: Some(mac.parse().expect("a MAC")),
    };
    let uplink = Link {
        device: "eth0@if3".to_owned(),
        bridge: Some("cloudbr0".to_owned()),
        mac: None,
    };
    built
        .links()
        .into_iter()
        .map(link)
        .chain([uplink])
        .collect()
}

fn logs(built: &Built) -> Vec<LogLine> {
    let lines = built.logs();
    lines
        .iter()
        .map(|line| LogLine::parse(line).expect("a line"))
        .collect()
}

fn dumps(texts: &Texts) -> Dumps<'_> {
    Dumps {
        iptables: &texts.iptables,
        ip6tables: &texts.ip6tables,
        ipset: &texts.ipset,
        ebtables: &texts.ebtables,
    }
}

fn recovered(built: &Built, texts: &Texts) -> Recovered {
    recover(&dumps(texts), &logs(built), &links(built))
}

fn name(vm: &str) -> VmName {
    VmName::new(vm).expect("a name")
}

fn vif(vif: &str) -> DeviceName {
    DeviceName::new(vif).expect("a name")
}

fn user<'s>(recovered: &'s Recovered, vm: &str) -> (&'s UserVm, &'s BTreeMap<MacAddr, Nic>) {
    let vm = &recovered.state.vms[vm];
    match &vm.kind {
        VmKind::User(user) => (user, &vm.nics),
        VmKind::System => panic!("a tenant's"),
    }
}

fn said(recovered: &Recovered) -> Vec<String> {
    recovered.doubts.iter().map(Doubt::to_string).collect()
}

/// The rules that a VM has, and whether the server is asked for its own.
fn check_rules(recovered: &Recovered, vm: &str, expected: Option<(&str, bool)>) {
    let (user, _) = user(recovered, vm);
    let push = user.push.as_ref();
    let seen = push.map(|push| (push.rules.text(), push.is_provisional()));
    assert_eq!(seen, expected, "{:#?}", said(recovered));
}

#[test]
fn what_the_script_was_told_is_what_is_read_back() {
    for made in Made::ALL {
        for pushed in Made::ALL {
            let built = sample::host(made, pushed);
            let recovered = recovered(&built, &built.texts());
            assert_eq!(recovered.state, told(&built), "{made:?} {pushed:?}");
        }
    }
}

#[test]
fn versions_are_told_by_what_they_leave() {
    use Version::{After, Before, Main};
    let check = |made, pushed, expected: &[Version]| {
        let built = sample::host(made, pushed);
        let recovered = recovered(&built, &built.texts());
        let expected: BTreeSet<Version> = expected.iter().copied().collect();
        assert_eq!(recovered.versions[&name("i-2-10-VM")], expected);
        let old = |version: &Version| *version == Before;
        let is_mixed = expected.iter().any(old) && !expected.iter().all(old);
        let pushed: Vec<&str> = match is_mixed {
            true => vec!["i-2-10-VM", "i-2-11-VM", "i-2-12-web-eg", "i-3-14-VM"],
            false => vec![],
        };
        let mixed: Vec<Doubt> = pushed
            .into_iter()
            .map(|vm| Doubt::Mixed { vm: name(vm) })
            .collect();
        assert_eq!(recovered.doubts, mixed);
    };
    check(Made::Before, Made::Before, &[Before]);
    check(Made::After, Made::After, &[After]);
    check(Made::Main, Made::Main, &[Main]);
    check(Made::Before, Made::After, &[Before, After]);
    check(Made::After, Made::Before, &[Before, After]);
    // In a chain of rules these two leave the same.
    check(Made::After, Made::Main, &[After]);
    check(Made::Main, Made::After, &[Main]);
}

#[test]
fn without_links_the_rules_tell_all_but_system_vms() {
    let built = sample::host(Made::After, Made::After);
    let texts = built.texts();
    let recovered = recover(&dumps(&texts), &logs(&built), &[]);
    let mut expected = told(&built);
    expected.vms.get_mut("r-4-VM").expect("told").nics.clear();
    assert_eq!(recovered.state, expected);
    let no_mac = |device| Doubt::NoMac {
        vm: name("r-4-VM"),
        vif: vif(device),
    };
    let no_nics = Doubt::NoNics { vm: name("r-4-VM") };
    assert_eq!(
        recovered.doubts,
        [no_mac("vnet5"), no_mac("vnet7"), no_nics]
    );
}

#[test]
fn direct_routing_is_read_by_addresses() {
    let mut built = sample::host(Made::Main, Made::Main);
    built.vms.push(sample::routed_vm());
    let recovered = recovered(&built, &built.texts());
    assert_eq!(recovered.state, told(&built));
    assert_eq!(recovered.doubts, []);
}

/// A rule, or part of one, of the sample's text is replaced: what then of its first VM?
struct Change {
    made: Made,
    texts: Texts,
    built: Built,
}

impl Change {
    fn new(made: Made) -> Self {
        let built = sample::host(made, made);
        Self {
            made,
            texts: built.texts(),
            built,
        }
    }

    fn four(mut self, from: &str, to: &str) -> Self {
        assert!(
            self.texts.iptables.contains(from),
            "{from}: {}",
            self.texts.iptables
        );
        self.texts.iptables = self.texts.iptables.replacen(from, to, 1);
        self
    }

    fn six(mut self, from: &str, to: &str) -> Self {
        assert!(
            self.texts.ip6tables.contains(from),
            "{from}: {}",
            self.texts.ip6tables
        );
        self.texts.ip6tables = self.texts.ip6tables.replacen(from, to, 1);
        self
    }

    fn check(&self, rules: Option<(&str, bool)>, expected: &[Doubt]) {
        let recovered = recovered(&self.built, &self.texts);
        check_rules(&recovered, "i-2-10-VM", rules);
        let expected: BTreeSet<Doubt> = expected.iter().cloned().collect();
        let seen: BTreeSet<Doubt> = recovered.doubts.iter().cloned().collect();
        assert_eq!(seen, expected, "{:?}", self.made);
        // Nobody else pays.
        let mut state = recovered.state;
        let mut told = told(&self.built);
        for state in [&mut state, &mut told] {
            state.vms.remove("i-2-10-VM");
        }
        assert_eq!(state, told);
    }
}

const INGRESS: &str = "I:tcp;22;22;192.0.2.0/24,0.0.0.0/0,::/0,NEXT;I:tcp;8000;8099;10.0.0.0/8,NEXT;\
    I:icmp;-1;-1;0.0.0.0/0,::/0,NEXT;I:icmp;8;0;10.2.0.0/16,fd00::/8,NEXT;\
    I:47;0;0;10.3.0.0/16,fd00:3::/32,NEXT;";
const INGRESS_6: &str = "I:tcp;22;22;::/0,NEXT;I:icmp;-1;-1;::/0,NEXT;I:icmp;8;0;fd00::/8,NEXT;\
    I:47;0;0;fd00:3::/32,NEXT;";
const EGRESS: &str = "E:udp;123;123;0.0.0.0/0,NEXT;E:tcp;1;65535;198.51.100.0/24,NEXT;";

fn incomplete(family: Family, direction: model::Direction) -> Doubt {
    Doubt::Incomplete {
        vm: name("i-2-10-VM"),
        family,
        direction,
    }
}

#[test]
fn an_incomplete_chain_is_closed_and_asked_for() {
    use model::Direction::{Egress, Ingress};
    let rules = format!("{INGRESS}{EGRESS}");
    for (made, end, egress_end) in [
        (Made::Before, "-j DROP", "-j DROP"),
        (Made::After, "-j RETURN", "-j RETURN"),
        (Made::Main, "-j RETURN", "-j RETURN"),
    ] {
        // What there is of a half-built ingress is some of what was meant.
        Change::new(made)
            .four(&format!("-A i-2-10-VM {end}\n"), "")
            .check(Some((&rules, true)), &[incomplete(Family::V4, Ingress)]);
        Change::new(made)
            .four(&format!("-A i-2-10-VM-eg {egress_end}\n"), "")
            .check(Some((&rules, true)), &[incomplete(Family::V4, Egress)]);
        // IPv6's egress was open, and isn't without its one rule.
        let open = match made {
            Made::Before => "-A i-2-10-VM-eg -j RETURN\n",
            Made::After | Made::Main => "-A i-2-10-VM-eg -j ACCEPT\n",
        };
        Change::new(made).six(open, "").check(
            Some((&format!("{rules}E:all;0;0;::/128,NEXT;"), true)),
            &[incomplete(Family::V6, Egress)],
        );
        let chains = ":i-2-10-VM - [0:0]\n:i-2-10-VM-eg - [0:0]\n";
        let mut gone = Change::new(made).six(chains, "");
        let lines = gone.texts.ip6tables.lines();
        let of_others = |line: &&str| {
            !line.starts_with("-A i-2-10-VM ") && !line.starts_with("-A i-2-10-VM-eg ")
        };
        gone.texts.ip6tables = lines
            .filter(of_others)
            .map(|line| format!("{line}\n"))
            .collect();
        let four = "I:tcp;22;22;192.0.2.0/24,0.0.0.0/0,NEXT;I:tcp;8000;8099;10.0.0.0/8,NEXT;\
            I:icmp;-1;-1;0.0.0.0/0,NEXT;I:icmp;8;0;10.2.0.0/16,NEXT;I:47;0;0;10.3.0.0/16,NEXT;";
        gone.check(
            Some((&format!("{four}{EGRESS}E:all;0;0;::/128,NEXT;"), true)),
            &[
                incomplete(Family::V6, Ingress),
                incomplete(Family::V6, Egress),
            ],
        );
    }
}

/// A push of 4.23 to a VM of 4.22, on a host that had none before: it flushes, and fails.
#[test]
fn a_push_that_failed_leaves_nothing_open() {
    let mut change = Change::new(Made::Before);
    for text in [&mut change.texts.iptables, &mut change.texts.ip6tables] {
        let of_others = |line: &&str| {
            !line.starts_with("-A i-2-10-VM ") && !line.starts_with("-A i-2-10-VM-eg ")
        };
        *text = text
            .lines()
            .filter(of_others)
            .map(|line| format!("{line}\n"))
            .collect();
    }
    let all = Family::BOTH
        .map(|f| model::Direction::BOTH.map(|d| incomplete(f, d)))
        .concat();
    change.check(Some(("E:all;0;0;null/32,::/128,NEXT;", true)), &all);
}

/// Of a restricted egress of 4.23, the end looks like an open one of 4.22.
#[test]
fn an_end_alone_opens_nothing_but_with_its_version() {
    let rules = "-A i-2-10-VM-eg -d 198.51.100.0/24 -p tcp -m tcp --dport 1:65535 -j ACCEPT\n\
        -A i-2-10-VM-eg -p udp -m udp --dport 123 -j ACCEPT\n";
    Change::new(Made::After).four(rules, "").check(
        Some((&format!("{INGRESS}E:all;0;0;null/32,NEXT;"), true)),
        &[incomplete(Family::V4, model::Direction::Egress)],
    );
}

#[test]
fn a_rule_that_cannot_be_read_closes_its_direction() {
    use model::Direction::{Egress, Ingress};
    let unreadable = |family, direction, rule: &str| Doubt::Unreadable {
        vm: name("i-2-10-VM"),
        family,
        direction,
        rule: rule.to_owned(),
    };
    for made in Made::ALL {
        let log = "-j LOG --log-prefix \"a -j ACCEPT\"";
        Change::new(made)
            .four(
                "-A i-2-10-VM -s",
                &format!("-A i-2-10-VM {log}\n-A i-2-10-VM -s"),
            )
            .check(
                Some((&format!("{INGRESS_6}{EGRESS}"), true)),
                &[unreadable(Family::V4, Ingress, log)],
            );
        Change::new(made)
            .four(
                "-A i-2-10-VM-eg -d",
                &format!("-A i-2-10-VM-eg {log}\n-A i-2-10-VM-eg -d"),
            )
            .check(
                Some((&format!("{INGRESS}E:all;0;0;null/32,NEXT;"), true)),
                &[unreadable(Family::V4, Egress, log)],
            );
    }
}

#[test]
fn a_log_is_believed_only_where_the_chains_agree() {
    let built = sample::host(Made::After, Made::After);
    let texts = built.texts();
    let check = |vm: &str, line: Option<&str>, rules: Option<(&str, bool)>, expected: &[Doubt]| {
        let mut logs = logs(&built);
        logs.retain(|log| log.vm.as_str() != vm);
        logs.extend(line.map(|line| LogLine::parse(line).expect("a line")));
        let recovered = recover(&dumps(&texts), &logs, &links(&built));
        check_rules(&recovered, vm, rules);
        assert_eq!(recovered.doubts, expected);
        user(&recovered, vm).0.clone()
    };
    let vm = || name("i-2-10-VM");
    let rules = format!("{INGRESS}{EGRESS}");
    // Nothing to compare with.
    let user = check(
        "i-2-10-VM",
        None,
        Some((&rules, true)),
        &[Doubt::NoLog { vm: vm() }],
    );
    assert_eq!((user.id, user.address), (10, Some([10, 1, 1, 10].into())));
    let system = "i-2-10-VM,-1,_ignore_,4,_initial_,-1";
    check(
        "i-2-10-VM",
        Some(system),
        Some((&rules, true)),
        &[Doubt::NoLog { vm: vm() }],
    );
    // It knows of no push, and there has been one.
    let initial = "i-2-10-VM,10,10.1.1.10,110,_initial_,-1";
    check(
        "i-2-10-VM",
        Some(initial),
        Some((&rules, true)),
        &[Doubt::NotLogged { vm: vm() }],
    );
    // It knows of a push, and the VM has been begun anew since.
    let pushed = "i-2-13-VM,13,10.1.1.13,113,s9,9";
    let vm = name("i-2-13-VM");
    check(
        "i-2-13-VM",
        Some(pushed),
        Some(("E:all;0;0;null/32,::/128,NEXT;", true)),
        &[Doubt::NotPushed { vm: vm.clone() }],
    );
    check("i-2-13-VM", None, None, &[Doubt::NoLog { vm }]);
}

#[test]
fn a_log_alone_makes_no_vm() {
    let log = LogLine::parse("i-2-10-VM,10,10.1.1.10,3,9a03,7").expect("a line");
    let recovered = recover(&Dumps::default(), &[log], &[]);
    assert_eq!(recovered.state, State::default());
    let vm = name("i-2-10-VM");
    assert_eq!(recovered.doubts, [Doubt::LogAlone { vm }]);
}

#[test]
fn a_text_that_is_cut_counts_for_nothing_whole() {
    let mut change = Change::new(Made::After);
    let egress = "-A i-2-10-VM-eg -j ACCEPT\n";
    let at = change.texts.ip6tables.rfind(egress).expect("there") + egress.len();
    change.texts.ip6tables.truncate(at);
    let recovered = recovered(&change.built, &change.texts);
    assert!(recovered.doubts.contains(&Doubt::Cut(Dump::Ip6tables)));
    // Its IPv6 egress looks open.
    let rules = format!("{INGRESS_6}{EGRESS}");
    let (user, _) = user(&recovered, "i-2-10-VM");
    let push = user.push.as_ref().expect("rules");
    assert!(push.is_provisional());
    assert!(
        push.rules.text().contains("E:all;0;0;::/128,NEXT;"),
        "{} {rules}",
        push.rules.text()
    );
}

#[test]
fn long_names_are_found_by_sets_and_logs() {
    let mut built = sample::host(Made::After, Made::After);
    built.vms.truncate(1);
    let long = "i-1234-123456-averylonghost";
    let cut = "i-1234-123456-averylongh";
    assert_eq!((long.len(), cut.len()), (27, 24));
    let texts = |built: &Built| {
        let texts = built.texts();
        // The chains' names are cut, those of sets aren't.
        let iptables = |text: String| {
            let text = text.replace(
                &format!("--match-set {cut}"),
                &format!("--match-set {long}"),
            );
            text.replace("i-2-10-def", "i-1234-123456-def")
        };
        Texts {
            iptables: iptables(texts.iptables),
            ip6tables: iptables(texts.ip6tables),
            ipset: texts.ipset.replace(cut, long),
            ebtables: texts.ebtables.replace(cut, &cut[..22]),
        }
    };
    built.vms[0].name = cut;
    let texts = texts(&built);
    let log = format!("{long},10,10.1.1.10,110,9a0364b9e99bb480dd25e1f0284c8555,1");
    let log = LogLine::parse(&log).expect("a line");
    let with_log = recover(&dumps(&texts), &[log], &links(&built));
    built.vms[0].name = long;
    let told_user = told(&built).vms[long].clone();
    assert_eq!(with_log.state.vms[long], told_user);
    assert_eq!(with_log.doubts, []);
    let without = recover(&dumps(&texts), &[], &links(&built));
    let names: Vec<&str> = without.state.vms.keys().map(VmName::as_str).collect();
    assert_eq!(names, [long, "r-4-VM"]);
}

#[test]
fn vms_that_share_their_chains_are_closed() {
    let mut built = sample::host(Made::After, Made::After);
    built.vms.truncate(1);
    built.vms[0].name = "i-1234-123456-averylongh";
    let texts = built.texts();
    let log = |name: &str| LogLine::parse(&format!("{name},10,10.1.1.10,1,s,1")).expect("a line");
    let logs = ["i-1234-123456-averylonghost", "i-1234-123456-averylonghose"].map(log);
    // Without the guard, only names are left.
    let lines = texts.iptables.lines();
    let iptables: String = lines
        .filter(|line| !line.contains("-def") && !line.contains("BF-"))
        .map(|line| format!("{line}\n"))
        .collect();
    let texts = Texts { iptables, ..texts };
    let recovered = recover(&dumps(&texts), &logs, &[]);
    for (vm, other) in [(0, 1), (1, 0)].map(|(a, b)| (&logs[a].vm, &logs[b].vm)) {
        check_rules(
            &recovered,
            vm.as_str(),
            Some(("E:all;0;0;null/32,::/128,NEXT;", true)),
        );
        let (vm, other) = (vm.clone(), other.clone());
        assert!(recovered.doubts.contains(&Doubt::Shared { vm, other }));
    }
}
