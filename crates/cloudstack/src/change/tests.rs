use super::*;
use crate::arguments;
use proptest::prelude::*;

/// A command line, as in `arguments`.
fn command(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    arguments::parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn vm(name: &str) -> VmName {
    VmName::new(name).expect("a name")
}

fn interface(vif: &str, bridge: &str, mac: &str) -> Interface {
    Interface {
        vif: DeviceName::new(vif).expect("a name"),
        bridge: DeviceName::new(bridge).expect("a name"),
        mac: mac.parse().expect("a MAC"),
    }
}

/// A state in words, one line for each VM and each NIC.
fn show(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, vm) in &state.vms {
        let domain = vm.domain.map_or("-".to_owned(), |d| d.to_string());
        lines.push(match &vm.kind {
            VmKind::System => format!("{name}: system, domain {domain}"),
            VmKind::User(user) => {
                let address = user.address.map_or("-".to_owned(), |a| a.to_string());
                let push = match &user.push {
                    None => "no rules yet".to_owned(),
                    Some(p) => {
                        format!("{} {} {}", p.signature, p.sequence, p.rules.text())
                    }
                };
                format!("{name}: {} {address}, domain {domain}, {push}", user.id)
            }
        });
        for (mac, nic) in &vm.nics {
            let addresses: Vec<String> = nic.addresses().map(|a| a.to_string()).collect();
            let first = if nic.first { "first " } else { "" };
            let addresses = addresses.join(" ");
            let line = format!("  {first}{mac} {}@{} {addresses}", nic.vif, nic.bridge);
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

/// What a state is after these lines, each done twice: the second time does nothing.
fn after(lines: &[&str]) -> State {
    let mut state = State::default();
    for line in lines {
        let facts = Facts {
            domain: Some(1),
            domains: Some(BTreeSet::from(["i-2-10-VM".to_owned()])),
            interfaces: Vec::new(),
        };
        apply(&mut state, &command(line), &facts).unwrap_or_else(|e| panic!("{line}: {e}"));
        let once = state.clone();
        let outcome = apply(&mut state, &command(line), &facts).expect("again");
        assert_eq!(outcome, Outcome::default(), "{line}, again");
        assert_eq!(state, once, "{line}, again");
    }
    state
}

fn check(lines: &[&str], expected: &[&str]) {
    assert_eq!(show(&after(lines)), expected, "{lines:#?}");
}

/// As `check`, for the last line alone, with what it finds; and what it says.
fn check_step(
    before: &[&str],
    line: &str,
    facts: &Facts,
    touched: &[&str],
    notes: &[&str],
) -> State {
    let mut state = after(before);
    let outcome = apply(&mut state, &command(line), facts).expect(line);
    let seen: Vec<&str> = outcome.touched.iter().map(VmName::as_str).collect();
    assert_eq!(seen, touched, "{line}: touched");
    let seen: Vec<String> = outcome.notes.iter().map(Note::to_string).collect();
    assert_eq!(seen, notes, "{line}: notes");
    state
}

const FIRST: &str = "default_network_rules --vmname i-2-10-VM --vmid 10 --vmip 10.1.1.10 --vmmac 02:00:4c:5f:00:01 --vif vnet0 --brname cloudbr0 --nicsecips 0; --isFirstNic";
const SECOND: &str = "default_network_rules --vmname i-2-10-VM --vmid 10 --vmip 10.4.0.10 --vmip6 fd00:4::10 --vmmac 02:01:4c:5f:00:11 --vif vnet1 --brname brbond0-304 --nicsecips 10.4.0.110;";
const PUSH: &str = "add_network_rules --vmname i-2-10-VM --vmid 10 --vmip 10.1.1.10 --sig s1 --seq 1 --vmmac 02:00:4c:5f:00:01 --vif vnet0 --brname cloudbr0 --nicsecips 0; --rules I:tcp;22;22;0.0.0.0/0,NEXT;";
const OTHER: &str = "default_network_rules --vmname i-2-11-VM --vmid 11 --vmip 10.1.1.11 --vmmac 02:00:4c:5f:00:02 --vif vnet2 --brname cloudbr0 --nicsecips 0; --isFirstNic";

const NEW_VM: &str = "i-2-10-VM: 10 10.1.1.10, domain 1, no rules yet";
const PUSHED_VM: &str = "i-2-10-VM: 10 10.1.1.10, domain 1, s1 1 I:tcp;22;22;0.0.0.0/0,NEXT;";
const FIRST_NIC: &str = "  first 02:00:4c:5f:00:01 vnet0@cloudbr0 10.1.1.10";
const SECOND_NIC: &str = "  02:01:4c:5f:00:11 vnet1@brbond0-304 10.4.0.10 fd00:4::10 10.4.0.110";

#[test]
fn a_vm_starts() {
    check(&[FIRST], &[NEW_VM, FIRST_NIC]);
    check(&[FIRST, PUSH], &[PUSHED_VM, FIRST_NIC]);
    check(&[FIRST, SECOND], &[NEW_VM, FIRST_NIC, SECOND_NIC]);
    check(&[FIRST, SECOND, PUSH], &[PUSHED_VM, FIRST_NIC, SECOND_NIC]);
    // Plugged while it runs: the rules are the VM's, and hold for the new NIC.
    check(&[FIRST, PUSH, SECOND], &[PUSHED_VM, FIRST_NIC, SECOND_NIC]);
}

#[test]
fn a_vm_starts_again() {
    // Its rules are of its former life, and the server will push.
    check(&[FIRST, SECOND, PUSH, FIRST], &[NEW_VM, FIRST_NIC]);
    let elsewhere = FIRST.replace("vnet0", "vnet7");
    check(
        &[FIRST, PUSH, &elsewhere],
        &[NEW_VM, "  first 02:00:4c:5f:00:01 vnet7@cloudbr0 10.1.1.10"],
    );
}

#[test]
fn a_later_nic_may_come_first() {
    check(
        &[SECOND],
        &["i-2-10-VM: 10 -, domain 1, no rules yet", SECOND_NIC],
    );
}

#[test]
fn checked_rules_are_for_what_is_not_known() {
    let checked = format!("{FIRST} --check");
    check(&[&checked], &[NEW_VM, FIRST_NIC]);
    check(&[FIRST, PUSH, &checked], &[PUSHED_VM, FIRST_NIC]);
    // A known NIC keeps its addresses: the command may be older than the last of them.
    let add = "network_rules_vmSecondaryIp --vmname i-2-10-VM --vmmac 02:00:4c:5f:00:01 --nicsecips 10.1.1.110 --action=-A";
    check(
        &[FIRST, PUSH, add, &checked],
        &[PUSHED_VM, &format!("{FIRST_NIC} 10.1.1.110")],
    );
    // At another device it is another NIC, and the VM begins anew.
    let moved = checked.replace("vnet0", "vnet7");
    check(
        &[FIRST, PUSH, &moved],
        &[NEW_VM, "  first 02:00:4c:5f:00:01 vnet7@cloudbr0 10.1.1.10"],
    );
    let moved = checked.replace("cloudbr0", "cloudbr1");
    check(
        &[FIRST, PUSH, &moved],
        &[NEW_VM, "  first 02:00:4c:5f:00:01 vnet0@cloudbr1 10.1.1.10"],
    );
    let second = format!("{SECOND} --check");
    check(&[FIRST, PUSH, &second], &[PUSHED_VM, FIRST_NIC, SECOND_NIC]);
}

#[test]
fn rules_replace_rules_and_nothing_else() {
    let again = PUSH
        .replace("--seq 1", "--seq 2")
        .replace(";22;22;", ";443;443;");
    check(
        &[FIRST, PUSH, &again],
        &[
            "i-2-10-VM: 10 10.1.1.10, domain 1, s1 2 I:tcp;443;443;0.0.0.0/0,NEXT;",
            FIRST_NIC,
        ],
    );
    // The second NIC has the group: its MAC and addresses, with the first one's device.
    let of_second = "add_network_rules --vmname i-2-10-VM --vmid 10 --vmip 10.4.0.10 --sig s1 --seq 1 --vmmac 02:01:4c:5f:00:11 --vif vnet0 --brname cloudbr0 --nicsecips 0;";
    check(
        &[FIRST, SECOND, of_second],
        &[
            "i-2-10-VM: 10 10.4.0.10, domain 1, s1 1 ",
            FIRST_NIC,
            SECOND_NIC,
        ],
    );
    // The same for a VM that lost its NICs.
    let unplug = "destroy_network_rules_for_vm --vmname i-2-10-VM --vmip 10.1.1.10 --vmmac 02:00:4c:5f:00:01 --vif vnet0 --nicsecips 0;";
    check(&[FIRST, unplug, PUSH], &[PUSHED_VM]);
}

#[test]
fn rules_of_an_unknown_vm_bring_it() {
    check(&[PUSH], &[PUSHED_VM, FIRST_NIC]);
}

#[test]
fn a_vm_goes() {
    let stop = "destroy_network_rules_for_vm --vmname i-2-10-VM --vif vnet0";
    check(&[FIRST, SECOND, PUSH, stop], &[]);
    check(&[stop], &[]);
    check(
        &[OTHER, stop],
        &[
            "i-2-11-VM: 11 10.1.1.11, domain 1, no rules yet",
            "  first 02:00:4c:5f:00:02 vnet2@cloudbr0 10.1.1.11",
        ],
    );
}

#[test]
fn a_nic_goes_by_its_mac() {
    let unplug = "destroy_network_rules_for_vm --vmname i-2-10-VM --vmip 10.4.0.10 --vmmac 02:01:4c:5f:00:11 --vif vnet1 --nicsecips 10.4.0.110;";
    check(&[FIRST, SECOND, PUSH, unplug], &[PUSHED_VM, FIRST_NIC]);
    // The agent's count of interfaces is off by one.
    let wrong = unplug.replace("vnet1", "vnet0");
    check(&[FIRST, SECOND, PUSH, &wrong], &[PUSHED_VM, FIRST_NIC]);
    let no_ipv4 = unplug.replace("--vmip 10.4.0.10 ", "");
    check(&[FIRST, SECOND, PUSH, &no_ipv4], &[PUSHED_VM, FIRST_NIC]);
    let stranger = unplug.replace("00:11", "00:99");
    check(&[FIRST, &stranger], &[NEW_VM, FIRST_NIC]);
    check(&[unplug], &[]);
    // Plugged anew it is the same NIC, at another device.
    let replug = SECOND.replace("vnet1", "vnet9");
    let nic = SECOND_NIC.replace("vnet1", "vnet9");
    check(
        &[FIRST, SECOND, PUSH, unplug, &replug],
        &[PUSHED_VM, FIRST_NIC, &nic],
    );
    check(
        &[FIRST, SECOND, PUSH, &replug],
        &[PUSHED_VM, FIRST_NIC, &nic],
    );
}

#[test]
fn secondary_addresses_come_and_go() {
    let line = |addresses: &str, action: &str| {
        format!(
            "network_rules_vmSecondaryIp --vmname i-2-10-VM --vmmac 02:00:4c:5f:00:01 --nicsecips {addresses} --action={action}"
        )
    };
    let add = line("10.1.1.110;fd00::110;", "-A");
    let both = format!("{FIRST_NIC} 10.1.1.110 fd00::110");
    check(&[FIRST, PUSH, &add], &[PUSHED_VM, &both]);
    let one = format!("{FIRST_NIC} fd00::110");
    check(
        &[FIRST, PUSH, &add, &line("10.1.1.110", "-D")],
        &[PUSHED_VM, &one],
    );
    check(&[FIRST, &line("0;", "-A")], &[NEW_VM, FIRST_NIC]);
    // The primary address is no secondary one, whatever is said of it.
    for action in ["-A", "-D"] {
        check(&[FIRST, &line("10.1.1.10", action)], &[NEW_VM, FIRST_NIC]);
    }
    check(&[&line("10.1.1.110", "-D")], &[]);
    let mut state = after(&[SECOND]);
    let error = apply(&mut state, &command(&add), &Facts::default());
    let no_such_nic = ChangeError::NoSuchNic {
        vm: vm("i-2-10-VM"),
        mac: "02:00:4c:5f:00:01".parse().expect("a MAC"),
    };
    assert_eq!(error, Err(no_such_nic));
    assert_eq!(state, after(&[SECOND]));
}

#[test]
fn a_device_belongs_to_who_claimed_it_last() {
    let other = OTHER.replace("vnet2", "vnet0");
    let other_vm = "i-2-11-VM: 11 10.1.1.11, domain 1, no rules yet";
    let other_nic = "  first 02:00:4c:5f:00:02 vnet0@cloudbr0 10.1.1.11";
    check(&[FIRST, PUSH, &other], &[PUSHED_VM, other_vm, other_nic]);
    check_step(
        &[FIRST, SECOND],
        &other,
        &Facts::default(),
        &["i-2-10-VM", "i-2-11-VM"],
        &["device vnet0 was that of NIC 02:00:4c:5f:00:01 of VM i-2-10-VM, which is forgotten"],
    );
    // Among one VM's NICs, too.
    let second = SECOND.replace("vnet1", "vnet0");
    let nic = SECOND_NIC.replace("vnet1", "vnet0");
    check(&[FIRST, &second], &[NEW_VM, &nic]);
    // A system VM's.
    let facts = Facts {
        interfaces: vec![interface("vnet0", "cloudbr0", "02:00:4c:5f:00:04")],
        ..Facts::default()
    };
    let line = "default_network_rules_systemvm --vmname r-4-VM --localbrname cloud0";
    let state = check_step(
        &[FIRST],
        line,
        &facts,
        &["i-2-10-VM", "r-4-VM"],
        &["device vnet0 was that of NIC 02:00:4c:5f:00:01 of VM i-2-10-VM, which is forgotten"],
    );
    assert_eq!(
        show(&state),
        [
            NEW_VM,
            "r-4-VM: system, domain -",
            "  02:00:4c:5f:00:04 vnet0@cloudbr0"
        ]
    );
}

#[test]
fn a_nic_is_where_libvirt_says() {
    let facts = Facts {
        domain: Some(1),
        interfaces: vec![
            interface("vnet0", "cloudbr0", "02:00:4c:5f:00:01"),
            interface("vnet5", "brbond0-304", "02:01:4c:5f:00:11"),
        ],
        domains: None,
    };
    let wrong = SECOND
        .replace("vnet1", "vnet0")
        .replace("brbond0-304", "cloudbr0");
    let nic = SECOND_NIC.replace("vnet1", "vnet5");
    let note = "NIC 02:01:4c:5f:00:11 of VM i-2-10-VM is at vnet5, not at vnet0 as the agent says";
    let state = check_step(&[FIRST], &wrong, &facts, &["i-2-10-VM"], &[note]);
    assert_eq!(show(&state), [NEW_VM, FIRST_NIC, &nic]);
    // Checked, it is the one that is known.
    let known = SECOND.replace("vnet1", "vnet5");
    let checked = format!("{wrong} --check");
    check_step(&[FIRST, &known], &checked, &facts, &[], &[note]);
}

#[test]
fn system_vms_are_known_from_libvirt() {
    let line = "default_network_rules_systemvm --vmname r-4-VM --localbrname cloud0";
    let facts = Facts {
        domain: Some(4),
        interfaces: vec![
            interface("vnet4", "cloud0", "0e:00:a9:fe:00:04"),
            interface("vnet5", "cloudbr0", "02:00:4c:5f:00:04"),
        ],
        domains: None,
    };
    let state = check_step(&[], line, &facts, &["r-4-VM"], &[]);
    assert_eq!(
        show(&state),
        [
            "r-4-VM: system, domain 4",
            "  02:00:4c:5f:00:04 vnet5@cloudbr0"
        ]
    );
    let mut state = State::default();
    let error = apply(&mut state, &command(line), &Facts::default());
    assert_eq!(error, Err(ChangeError::NoInterfaces { vm: vm("r-4-VM") }));
}

#[test]
fn who_is_gone_is_forgotten() {
    let facts = |domains: Option<&[&str]>| Facts {
        domains: domains.map(|names| names.iter().map(|n| (*n).to_owned()).collect()),
        ..Facts::default()
    };
    let gone = ["VM i-2-11-VM is gone and forgotten"];
    for line in ["cleanup_rules", "can_bridge_firewall"] {
        // By the whole name.
        let here = facts(Some(&["i-2-10-VM", "i-2-11-VM-copy", "?"]));
        let state = check_step(&[FIRST, PUSH, OTHER], line, &here, &["i-2-11-VM"], &gone);
        assert_eq!(show(&state), [PUSHED_VM, FIRST_NIC]);
    }
    check(&[FIRST, OTHER, "cleanup_rules"], &[NEW_VM, FIRST_NIC]);
    let mut state = after(&[FIRST, OTHER]);
    let error = apply(&mut state, &command("cleanup_rules"), &facts(None));
    assert_eq!(error, Err(ChangeError::DomainsUnknown));
    assert_eq!(state.vms.len(), 2);
    let start = apply(&mut state, &command("can_bridge_firewall"), &facts(None));
    assert_eq!(start, Ok(Outcome::default()));
}

#[test]
fn commands_that_ask_change_nothing() {
    for line in [
        "get_rule_logs_for_vms",
        "post_default_network_rules --vmname i-2-10-VM --vmip 10.1.1.10 --vif vnet0",
        "verify_network_rules --vmname i-2-10-VM --vmip 10.1.1.10 --vmmac 02:00:4c:5f:00:01",
    ] {
        check(&[FIRST, PUSH, line], &[PUSHED_VM, FIRST_NIC]);
    }
}

#[test]
fn a_primary_address_is_no_secondary_one() {
    let line = FIRST.replace("--nicsecips 0;", "--nicsecips 10.1.1.10;10.1.1.110;");
    check(&[&line], &[NEW_VM, &format!("{FIRST_NIC} 10.1.1.110")]);
}

/// Commands about few VMs, MACs and devices, so that they meet.
fn any_command() -> impl Strategy<Value = (Command, Facts)> {
    let number = 0..3u8;
    let parts = (
        0..7u8,
        number.clone(),
        number.clone(),
        number.clone(),
        any::<[bool; 3]>(),
    );
    parts.prop_map(|(which, name, mac, device, [first, check, known])| {
        let name = format!("i-2-{name}-VM");
        let nic = format!("--vmname {name} --vmid 1 --vmip 10.1.1.1{mac} --vmmac 02:00:4c:5f:00:0{mac} --vif vnet{device} --brname cloudbr0");
        let flags = [(first, " --isFirstNic"), (check, " --check")];
        let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, f)| *f).collect();
        let line = match which {
            0 => format!("default_network_rules {nic}{flags}"),
            1 => format!("add_network_rules {nic} --sig s --seq 1"),
            2 => format!("destroy_network_rules_for_vm --vmname {name}"),
            3 => format!("destroy_network_rules_for_vm {nic}"),
            4 => format!("default_network_rules_systemvm --vmname {name} --localbrname cloud0"),
            5 => format!("network_rules_vmSecondaryIp {nic} --nicsecips 10.1.1.110 --action=-{}", if first { "A" } else { "D" }),
            _ => "cleanup_rules".to_owned(),
        };
        let mac = format!("02:00:4c:5f:00:0{mac}");
        let facts = Facts {
            domain: known.then_some(u32::from(device)),
            interfaces: if known { vec![interface(&format!("vnet{}", 2 - device), "cloudbr0", &mac)] } else { Vec::new() },
            domains: Some(BTreeSet::from([name])),
        };
        (command(&line), facts)
    })
}

proptest! {
    #[test]
    fn whatever_comes_the_state_is_sound(
        commands in proptest::collection::vec(any_command(), 0..20)
    ) {
        let mut state = State::default();
        for (command, facts) in commands {
            let before = state.clone();
            let outcome = apply(&mut state, &command, &facts);
            // A device belongs to one NIC, and the file says the same: reading it refuses anything else.
            let read = State::from_json(&state.to_json());
            prop_assert_eq!(read.as_ref().ok(), Some(&state), "{:?}: {:?}", &command, &read);
            let Ok(outcome) = outcome else {
                prop_assert_eq!(&state, &before);
                continue;
            };
            // Touched is what changed, exactly.
            let names = before.vms.keys().chain(state.vms.keys());
            let changed = names.filter(|name| before.vms.get(*name) != state.vms.get(*name));
            prop_assert_eq!(&outcome.touched, &changed.cloned().collect());
            let once = state.clone();
            let again = apply(&mut state, &command, &facts).expect("as before");
            prop_assert_eq!(again.touched, BTreeSet::new());
            prop_assert_eq!(&state, &once);
        }
    }
}
