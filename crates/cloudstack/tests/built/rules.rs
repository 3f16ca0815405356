//! The chains of a VM's rules, from the text that the server sends.

use super::{BuiltVm, Family, Made, Table, printed};

/// Before a push, ingress has an end for each NIC and egress is empty.
pub(super) fn chains(filter: &mut Table, family: Family, made: Made, vm: &BuiltVm) {
    let (ingress, egress) = (vm.name.to_owned(), format!("{}-eg", vm.name));
    filter.chain(&ingress);
    filter.chain(&egress);
    let Some(push) = vm.push else {
        for _ in &vm.nics {
            filter.append(&ingress, end(made));
        }
        return;
    };
    let is_routed = vm.nics.iter().any(|nic| nic.routed);
    let permit = match (push.made, is_routed) {
        (Made::Before, _) => "RETURN",
        (Made::After | Made::Main, true) => "MARK --set-xmark 0x40000000/0x40000000",
        (Made::After | Made::Main, false) => "ACCEPT",
    };
    let mut is_restricted = false;
    for record in push.rules.split_inclusive("NEXT;") {
        let record = record.strip_suffix(",NEXT;").expect("whole records");
        let (direction, record) = record.split_once(':').expect("a direction");
        let (service, prefixes) = record.rsplit_once(';').expect("prefixes");
        let is_six = |prefix: &&str| prefix.contains(':') == (family == Family::Six);
        for prefix in prefixes.split(',').filter(is_six) {
            let matches = |side| matches(family, push.made, service, side, prefix);
            if direction == "I" {
                filter.insert(&ingress, format!("{}-j ACCEPT", matches("-s")));
            } else {
                filter.insert(&egress, format!("{}-j {permit}", matches("-d")));
                is_restricted = true;
            }
        }
    }
    let egress_end = match (push.made, is_restricted) {
        (Made::Before, true) => "-j DROP".to_owned(),
        (Made::Before, false) | (Made::After | Made::Main, true) => "-j RETURN".to_owned(),
        (Made::After | Made::Main, false) => format!("-j {permit}"),
    };
    filter.append(&egress, egress_end);
    filter.append(&ingress, end(push.made));
}

/// Since 4.23, a VM's addresses of a family aren't tracked if a record lets everything of it pass.
pub(super) fn is_untracked(family: Family, vm: &BuiltVm) -> bool {
    let everybody = match family {
        Family::Four => "0.0.0.0/0",
        Family::Six => "::/0",
    };
    let records = vm.push.iter().flat_map(|push| push.rules.split("NEXT;"));
    let mut all = records.filter(|record| record.contains(":all;"));
    all.any(|record| record.split([';', ',']).any(|prefix| prefix == everybody))
}

fn end(made: Made) -> &'static str {
    match made {
        Made::Before => "-j DROP",
        Made::After | Made::Main => "-j RETURN",
    }
}

/// All but the target, with a blank behind.
fn matches(family: Family, made: Made, service: &str, side: &str, prefix: &str) -> String {
    let [protocol, start, end] = service.split(';').collect::<Vec<_>>()[..] else {
        panic!("{service} is no service");
    };
    let mut text = match prefix.ends_with("/0") {
        true => String::new(),
        false => format!("{side} {prefix} "),
    };
    match (protocol, family) {
        ("all", _) => {}
        ("tcp" | "udp", _) => {
            text += &format!("-p {protocol} -m {protocol} ");
            text += &match (start, end) {
                ("0", "0" | "65535") => String::new(),
                (first, last) if first == last => format!("--dport {first} "),
                (first, last) => format!("--dport {first}:{last} "),
            };
        }
        ("icmp", Family::Four) if start == "-1" => text += "-p icmp -m icmp --icmp-type any ",
        ("icmp", Family::Four) => text += &format!("-p icmp -m icmp --icmp-type {start}/{end} "),
        ("icmp", Family::Six) if start == "-1" => text += "-p ipv6-icmp ",
        ("icmp", Family::Six) => {
            text += &format!("-p ipv6-icmp -m icmp6 --icmpv6-type {start}/{end} ");
        }
        (number, _) => text += &format!("-p {} ", printed(number)),
    }
    if made == Made::Before && matches!(protocol, "tcp" | "udp" | "all") {
        text += "-m state --state NEW ";
    }
    text
}
