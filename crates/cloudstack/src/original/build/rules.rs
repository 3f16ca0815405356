//! The chains of a VM's rules, from the text that was pushed: how `original::chains` reads them, the other
//! way round.
//!
//! The script reads that text itself, and some records otherwise than they are meant: those are built
//! narrower than it would, never wider.

use super::super::Version;
use super::guard;
use super::plan::PlannedVm;
use super::tables::Table;
use super::{BuildDoubt, Misread};
use crate::Push;
use crate::rules::{AsTold, Remote, Service};
use model::{Direction, Family, IcmpKind, L4PortRange, Prefix};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Of one family.
pub(super) fn add(
    filter: &mut Table,
    family: Family,
    version: Version,
    vm: &PlannedVm<'_>,
    doubts: &mut Vec<BuildDoubt>,
) {
    let names = &vm.names;
    filter.chain(names.chain);
    filter.chain(&names.egress);
    // Nothing leads there.
    if vm.is_closed {
        return;
    }
    let Some(push) = &vm.user.push else {
        // Begun with each NIC, and egress not at all.
        let ends = vm.open_nics().count().max(1);
        let ends = std::iter::repeat_n(target(end(version)), ends);
        filter.chain(names.chain).extend(ends);
        return;
    };
    let written = Written {
        version,
        family,
        pass: guard::pass(version, vm.is_routed()),
    };
    let mut told = |record: AsTold<'_>, misread| {
        doubts.push(BuildDoubt::Record {
            vm: vm.name.clone(),
            record: record.record.to_string(),
            misread,
        });
    };
    let ingress = written.ingress(push, &mut told);
    let egress = written.egress(push, &mut told);
    filter.chain(names.chain).extend(ingress);
    filter.chain(&names.egress).extend(egress);
}

/// One family's rules in the words of a version.
struct Written {
    version: Version,
    family: Family,
    /// Where what the VM may send comes to.
    pass: String,
}

type Told<'t> = dyn FnMut(AsTold<'_>, Misread) + 't;

impl Written {
    fn ingress(&self, push: &Push, told: &mut Told<'_>) -> Vec<String> {
        let mut rules = self.rules(push, Direction::Ingress, told);
        rules.push(target(end(self.version)));
        rules
    }

    fn egress(&self, push: &Push, told: &mut Told<'_>) -> Vec<String> {
        let mut rules = self.rules(push, Direction::Egress, told);
        let restricting = |told: &AsTold<'_>| {
            told.record.direction == Direction::Egress && told.record.is_of(self.family)
        };
        let Some(restricts) = push.rules.as_told().find(restricting) else {
            let open = match self.version {
                Version::Before => "RETURN",
                Version::After | Version::Main => &self.pass,
            };
            return vec![target(open)];
        };
        if rules.is_empty() {
            // An end alone would be an open egress, to us or to what stands behind.
            if restricts
                .record
                .remotes
                .iter()
                .all(|remote| *remote == Remote::NoAddress)
            {
                told(restricts, Misread::Nobody);
            }
            let nobody = self.rule(Service::All, false, nobody(self.family), "-d");
            rules.extend(nobody.map(|nobody| format!("{nobody}{}", target(&self.pass))));
        }
        rules.push(target(end(self.version)));
        rules
    }

    /// Each is put before the ones that were told before.
    fn rules(&self, push: &Push, direction: Direction, told: &mut Told<'_>) -> Vec<String> {
        let (side, pass) = match direction {
            Direction::Ingress => ("-s", "ACCEPT"),
            Direction::Egress => ("-d", &*self.pass),
        };
        let mut rules = Vec::new();
        for record in push
            .rules
            .as_told()
            .filter(|told| told.record.direction == direction)
        {
            if !record.record.is_of(self.family) {
                continue;
            }
            if let Some(misread) = self.misread(record) {
                told(record, misread);
            }
            for remote in &record.record.remotes {
                // The other's rules are of the other family.
                let Remote::Prefix(prefix) = remote else {
                    continue;
                };
                if prefix.family() == self.family {
                    let rule =
                        self.rule(record.record.service, record.is_numbered(), *prefix, side);
                    rules.extend(rule.map(|rule| format!("{rule}{}", target(pass))));
                }
            }
        }
        rules.reverse();
        rules
    }

    fn misread(&self, record: AsTold<'_>) -> Option<Misread> {
        match (record.record.service, self.family) {
            (Service::Protocol(0), _) => Some(Misread::EveryProtocol),
            (Service::Icmp(Some(kind)), Family::V4) if kind.icmp_type == 255 => {
                Some(Misread::EveryType)
            }
            (Service::Icmp(Some(IcmpKind { code: None, .. })), _) => Some(Misread::AnyCode),
            (Service::Icmp(_) | Service::All | Service::Ports { .. } | Service::Protocol(_), _) => {
                None
            }
        }
    }

    /// All but the target, with a blank behind. `None`: it can't be said. `is_numbered`: the protocol was
    /// told by its number, which the script hands on as it is.
    fn rule(
        &self,
        service: Service,
        is_numbered: bool,
        remote: Prefix,
        side: &str,
    ) -> Option<String> {
        let mut rule = match remote.length() {
            0 => String::new(),
            _ => format!("{side} {}/{} ", remote.network(), remote.length()),
        };
        let (matches, is_tracked) = match service {
            Service::All => (String::new(), true),
            Service::Ports { transport, .. } if is_numbered => (format!("-p {transport} "), false),
            Service::Ports { transport, ports } => (
                format!("-p {transport} -m {transport} {}", dport(ports)),
                true,
            ),
            Service::Icmp(kind) => (self.icmp(kind, is_numbered)?, false),
            Service::Protocol(0) => return None,
            Service::Protocol(number) => (format!("-p {number} "), false),
        };
        rule += &matches;
        if is_tracked && self.version == Version::Before {
            rule += "-m state --state NEW ";
        }
        Some(rule)
    }

    fn icmp(&self, kind: Option<IcmpKind>, is_numbered: bool) -> Option<String> {
        let (protocol, module, option) = match self.family {
            Family::V4 => ("icmp", "icmp", "--icmp-type"),
            Family::V6 => ("ipv6-icmp", "icmp6", "--icmpv6-type"),
        };
        Some(match (kind, self.family) {
            // IPv4's, in both families.
            (None, _) if is_numbered => "-p 1 ".to_owned(),
            (None, Family::V4) => format!("-p {protocol} -m {module} {option} any "),
            (None, Family::V6) => format!("-p {protocol} "),
            (Some(kind), Family::V4) if kind.icmp_type == 255 => return None,
            (Some(IcmpKind { icmp_type, code }), _) => {
                let code = code.map_or(String::new(), |code| format!("/{code}"));
                format!("-p {protocol} -m {module} {option} {icmp_type}{code} ")
            }
        })
    }
}

fn dport(ports: L4PortRange) -> String {
    match (ports.first(), ports.last()) {
        _ if ports == L4PortRange::ALL => String::new(),
        (first, last) if first == last => format!("--dport {first} "),
        (first, last) => format!("--dport {first}:{last} "),
    }
}

/// Of what isn't permitted.
fn end(version: Version) -> &'static str {
    match version {
        Version::Before => "DROP",
        Version::After | Version::Main => "RETURN",
    }
}

fn target(target: &str) -> String {
    format!("-j {target}")
}

/// Whom no packet goes to.
fn nobody(family: Family) -> Prefix {
    Prefix::host(match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    })
}
