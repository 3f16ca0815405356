//! The NICs of one VM: whose MAC is behind a device, and which addresses are its.
//!
//! | what | where it is told |
//! | --- | --- |
//! | MAC of a device | the guard's DHCPv6 rule, which has the address made from it; else the link, with what the link layer or the IPv6 set knows |
//! | IPv4 addresses | in the set, by MAC in `<vm>-in-ips`; what isn't there is every NIC's |
//! | IPv6 addresses | in the set; by NIC only where they are made from a MAC |
//! | the primary one | the log's, else the oldest of the MAC in `<vm>-in-ips` |
//! | the first NIC | whose guard is first: the chain begins anew with it |
//!
//! In the script's guard, each NIC may use every address of the VM, so nothing is opened by what isn't
//! told.
//! Knows nothing of: rules.

use super::dispatch::Dispatch;
use super::dump::{Clause, Rule};
use super::host::{Beside, Host};
use super::{Doubt, Link, names};
use crate::{DeviceName, Nic, VmName, words};
use model::{Family, MacAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the host knows of a VM, for its NICs.
pub(super) struct Evidence<'e, 'a> {
    pub(super) vm: &'e VmName,
    /// The chain of its ingress rules.
    pub(super) chain: &'e str,
    pub(super) host: &'e Host<'a>,
    pub(super) beside: &'e Beside<'a>,
}

/// The NICs of a tenant's VM. Total: what isn't told is left out, and said.
pub(super) fn of_user_vm(
    evidence: &Evidence<'_, '_>,
    dispatched: &[&Dispatch],
    doubts: &mut Vec<Doubt>,
) -> BTreeMap<MacAddr, Nic> {
    let vm = evidence.vm;
    let mut nics: BTreeMap<MacAddr, Nic> = BTreeMap::new();
    for dispatch in evidence.in_order(dispatched) {
        let link = evidence.beside.links.get(dispatch.vif.as_str()).copied();
        if link.is_none() && !evidence.beside.links.is_empty() {
            doubts.push(Doubt::NoDevice {
                vm: vm.clone(),
                vif: dispatch.vif.clone(),
            });
            continue;
        }
        let Some(mac) = evidence.mac(dispatch, link, dispatched.len(), doubts) else {
            doubts.push(Doubt::NoMac {
                vm: vm.clone(),
                vif: dispatch.vif.clone(),
            });
            continue;
        };
        if let Some(nic) = nics.get(&mac) {
            doubts.push(Doubt::SameMac {
                vm: vm.clone(),
                vif: nic.vif.clone(),
                other: dispatch.vif.clone(),
            });
            continue;
        }
        if !evidence.is_complete(dispatch) {
            doubts.push(Doubt::HalfBuilt {
                vm: vm.clone(),
                vif: dispatch.vif.clone(),
            });
        }
        let nic = Nic {
            vif: dispatch.vif.clone(),
            bridge: bridge(vm, dispatch, link, doubts),
            ipv4: None,
            ipv6: None,
            secondary: BTreeSet::new(),
            first: nics.is_empty(),
            direct_routed: dispatch.is_routed,
        };
        nics.insert(mac, nic);
    }
    evidence.give_ipv4(&mut nics, doubts);
    evidence.give_ipv6(&mut nics, doubts);
    nics
}

/// The NICs of a system VM: nothing but where they are. Their guests' MACs aren't in any rule, and
/// nothing is compared with them; the host's own stands for one that libvirt wasn't asked for.
pub(super) fn of_system_vm(
    vm: &VmName,
    dispatched: &[&Dispatch],
    beside: &Beside<'_>,
    doubts: &mut Vec<Doubt>,
) -> BTreeMap<MacAddr, Nic> {
    let mut nics = BTreeMap::new();
    for dispatch in dispatched {
        let link = beside.links.get(dispatch.vif.as_str()).copied();
        let Some(mac) = link.and_then(|link| link.mac) else {
            let (vm, vif) = (vm.clone(), dispatch.vif.clone());
            doubts.push(match link.is_none() && !beside.links.is_empty() {
                true => Doubt::NoDevice { vm, vif },
                false => Doubt::NoMac { vm, vif },
            });
            continue;
        };
        let nic = Nic {
            vif: dispatch.vif.clone(),
            bridge: bridge(vm, dispatch, link, doubts),
            ipv4: None,
            ipv6: None,
            secondary: BTreeSet::new(),
            first: false,
            direct_routed: dispatch.is_routed,
        };
        nics.insert(mac, nic);
    }
    nics
}

/// The host has the last word.
fn bridge(
    vm: &VmName,
    dispatch: &Dispatch,
    link: Option<&Link>,
    doubts: &mut Vec<Doubt>,
) -> DeviceName {
    let found = link.and_then(|link| DeviceName::new(link.bridge.as_deref()?).ok());
    let Some(found) = found.filter(|found| *found != dispatch.bridge) else {
        return dispatch.bridge.clone();
    };
    doubts.push(Doubt::OtherBridge {
        vm: vm.clone(),
        vif: dispatch.vif.clone(),
        said: dispatch.bridge.clone(),
        found: found.clone(),
    });
    found
}

/// libvirt gives a device its guest's MAC with another first byte.
pub(super) fn is_behind(mac: MacAddr, link: MacAddr) -> bool {
    mac == link || (matches!(link.0[0], 0xfe | 0xfa) && mac.0[1..] == link.0[1..])
}

/// MACs that the guard's DHCPv6 rules have for a device, in their order. A NIC that was unplugged may
/// have left some.
pub(super) fn guarded_macs(guard: Option<&[Rule<'_>]>, vif: &DeviceName) -> Vec<MacAddr> {
    let mac = |rule: &Rule<'_>| {
        let of_vif = rule.value("--physdev-in") == Some(vif.as_str());
        let is_dhcp = rule.value("-d") == Some("ff02::1:2/128");
        let source = rule.value("-s").filter(|_| of_vif && is_dhcp)?;
        mac_in(source.strip_suffix("/128")?.parse().ok()?)
    };
    let mut macs: Vec<MacAddr> = Vec::new();
    for mac in guard.unwrap_or_default().iter().filter_map(mac) {
        macs.retain(|known| *known != mac);
        macs.push(mac);
    }
    macs
}

/// The MAC that an address is made from.
fn mac_in(address: Ipv6Addr) -> Option<MacAddr> {
    let [.., a, b, c, 0xff, 0xfe, d, e, f] = address.octets() else {
        return None;
    };
    let mac = MacAddr([a ^ 2, b, c, d, e, f]);
    (!mac.is_group() && mac != MacAddr::ZERO).then_some(mac)
}

/// One that ebtables prints: with leading zeros or, in its older version, without.
fn printed_mac(text: &str) -> Option<MacAddr> {
    let part = |part: &str| match part.len() {
        1 => format!("0{part}"),
        _ => part.to_owned(),
    };
    let parts: Vec<String> = text.split(':').map(part).collect();
    words::mac(&parts.join(":"))
}

impl Evidence<'_, '_> {
    /// The guard's chain begins anew with the first NIC, and each further one is put behind it.
    fn in_order<'d>(&self, dispatched: &[&'d Dispatch]) -> Vec<&'d Dispatch> {
        let guard = self.guard(Family::V4).unwrap_or_default();
        let place = |dispatch: &&Dispatch| {
            let is_of = |rule: &Rule<'_>| {
                let vif = Some(dispatch.vif.as_str());
                rule.value("--physdev-in") == vif || rule.value("--physdev-out") == vif
            };
            guard.iter().position(is_of).unwrap_or(usize::MAX)
        };
        let mut dispatched = dispatched.to_vec();
        dispatched.sort_by_key(place);
        dispatched
    }

    fn guard(&self, family: Family) -> Option<&[Rule<'_>]> {
        let chain = names::default_chain(self.chain);
        self.host.chain(family, &chain)
    }

    /// Both ways lead to the guard, and from there to the rules, in both families.
    fn is_complete(&self, dispatch: &Dispatch) -> bool {
        if dispatch.is_routed {
            return dispatch.from_vm && dispatch.to_vm;
        }
        let vif = Some(dispatch.vif.as_str());
        let leads = |family, to: &str, option: &str| {
            let guard = self.guard(family).unwrap_or_default();
            let is_it = |rule: &Rule<'_>| rule.value(option) == vif && rule.leads_to() == Some(to);
            guard.iter().any(is_it)
        };
        let egress = names::egress_chain(self.chain);
        let asks_set = |rule: &Rule<'_>| {
            let is_set = |clause: &Clause<'_>| clause.option() == "--match-set";
            rule.value("--physdev-in") == vif && rule.matches.iter().any(is_set)
        };
        let guard = self.guard(Family::V4).unwrap_or_default();
        let has_ipv4 = guard.iter().any(asks_set);
        let guarded = leads(Family::V4, self.chain, "--physdev-out")
            && (!has_ipv4 || leads(Family::V4, &egress, "--physdev-in"))
            && leads(Family::V6, self.chain, "--physdev-out")
            && leads(Family::V6, &egress, "--physdev-in");
        let sent = |part: &str, option: &str| {
            let chain = format!("BF-{}-{part}", dispatch.bridge);
            let rules = self.host.chain(Family::V6, &chain).unwrap_or_default();
            rules
                .iter()
                .any(|rule| rule.value(option) == vif && rule.leads_to() == Some(&*dispatch.chain))
        };
        let dispatched = dispatch.from_vm
            && dispatch.to_vm
            && sent("IN", "--physdev-in")
            && sent("OUT", "--physdev-out");
        guarded && dispatched
    }

    /// `of`: how many devices the VM has. One of them is behind the only MAC that is known.
    fn mac(
        &self,
        dispatch: &Dispatch,
        link: Option<&Link>,
        of: usize,
        doubts: &mut Vec<Doubt>,
    ) -> Option<MacAddr> {
        let found = link.and_then(|link| link.mac);
        let fits = |mac: &&MacAddr| found.is_some_and(|found| is_behind(**mac, found));
        let guarded = guarded_macs(self.guard(Family::V6), &dispatch.vif);
        let listed = self.listed_macs();
        let newest = || {
            let listed = guarded.iter().rev().find(|mac| listed.contains(mac));
            listed.or(guarded.last())
        };
        if let Some(mac) = guarded.iter().rev().find(fits).or_else(newest) {
            if let Some(found) = found.filter(|found| !is_behind(*mac, *found)) {
                doubts.push(Doubt::OtherMac {
                    vm: self.vm.clone(),
                    vif: dispatch.vif.clone(),
                    mac: *mac,
                    found,
                });
            }
            return Some(*mac);
        }
        let mut known: BTreeSet<MacAddr> = listed;
        let members = self.members(Family::V6).filter_map(as_ipv6);
        known.extend(
            members
                .filter(|a| a.is_unicast_link_local())
                .filter_map(mac_in),
        );
        if let Some(mac) = known.iter().find(fits) {
            return Some(*mac);
        }
        match (found, known.len(), of) {
            // The guest's own, as libvirt tells it.
            (Some(found), ..) if !matches!(found.0[0], 0xfe | 0xfa) => Some(found),
            (None, 1, 1) => known.into_iter().next(),
            (Some(_) | None, ..) => None,
        }
    }

    /// MACs that may send, at the link layer.
    fn listed_macs(&self) -> BTreeSet<MacAddr> {
        let rules = self.link_layer("-in-src").iter();
        rules
            .filter_map(|rule| printed_mac(rule.value("-s")?))
            .collect()
    }

    /// Who may say in ARP to have which address; the newest first.
    fn arp(&self) -> Vec<(MacAddr, Ipv4Addr)> {
        let pair = |rule: &Rule<'_>| {
            let mac = printed_mac(rule.value("-s")?)?;
            let address = rule.value("--arp-ip-src")?.parse().ok()?;
            Some((mac, address))
        };
        self.link_layer("-in-ips").iter().filter_map(pair).collect()
    }

    fn link_layer(&self, part: &str) -> &[Rule<'_>] {
        let vm = names::link_layer_chain(self.chain);
        self.host.link_layer_chain(&format!("{vm}{part}"))
    }

    /// Members of the VM's set, as printed.
    fn members(&self, family: Family) -> impl Iterator<Item = &str> {
        let set = names::set(self.vm.as_str());
        let set = match family {
            Family::V4 => self.host.sets.get(set),
            Family::V6 => self.host.sets.get(&*format!("{set}-6")),
        };
        set.into_iter().flat_map(|set| set.members.iter().copied())
    }

    /// Addresses that the VM has, and doubts about the rest.
    fn addresses(&self, family: Family, doubts: &mut Vec<Doubt>) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        for member in self.members(family) {
            match words::address(member) {
                Some(address) if Family::of(address) == family => {
                    addresses.insert(address);
                }
                Some(_) | None => doubts.push(Doubt::Member {
                    vm: self.vm.clone(),
                    member: member.to_owned(),
                }),
            }
        }
        addresses
    }

    fn give_ipv4(&self, nics: &mut BTreeMap<MacAddr, Nic>, doubts: &mut Vec<Doubt>) {
        let arp = self.arp();
        let log = self.beside.logs.get(self.vm).and_then(|log| log.address());
        let mut of_nics: BTreeMap<MacAddr, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for address in self.addresses(Family::V4, doubts) {
            let IpAddr::V4(ipv4) = address else { continue };
            let macs: BTreeSet<MacAddr> = (arp.iter().filter(|(_, of)| *of == ipv4))
                .map(|(mac, _)| *mac)
                .collect();
            let mut owners: Vec<MacAddr> = macs.iter().copied().collect();
            owners.retain(|mac| nics.contains_key(mac));
            match macs.first() {
                // Nobody but a NIC that is gone may say that it has the address.
                Some(mac) if owners.is_empty() => {
                    doubts.push(Doubt::FormerAddress {
                        vm: self.vm.clone(),
                        mac: *mac,
                        address,
                    });
                    continue;
                }
                Some(_) => {}
                None => owners = self.every_nic(address, nics, doubts),
            }
            for mac in owners {
                of_nics.entry(mac).or_default().insert(ipv4);
            }
        }
        for (mac, mut addresses) in of_nics {
            let nic = nics.get_mut(&mac).expect("owners are NICs");
            let oldest = (arp.iter().rev()).find(|(of, ip)| *of == mac && addresses.contains(ip));
            let logged = log.filter(|log| addresses.contains(log));
            let primary = logged.or(oldest.map(|(_, ip)| *ip));
            nic.ipv4 = primary.or(addresses.first().copied());
            addresses.retain(|address| Some(*address) != nic.ipv4);
            nic.secondary.extend(addresses.into_iter().map(IpAddr::V4));
        }
    }

    /// Which of a NIC's addresses is the primary one isn't told; one that is made from its MAC is, or
    /// the lowest. The link-local one goes without saying.
    fn give_ipv6(&self, nics: &mut BTreeMap<MacAddr, Nic>, doubts: &mut Vec<Doubt>) {
        let addresses = self.addresses(Family::V6, doubts);
        let ipv6 = |address: &IpAddr| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        };
        let addresses: BTreeSet<Ipv6Addr> = addresses.iter().filter_map(ipv6).collect();
        let is_link_local = |address: &Ipv6Addr, mac: MacAddr| *address == mac.eui64_link_local();
        let former: BTreeSet<MacAddr> = addresses
            .iter()
            .filter_map(|address| mac_in(*address).filter(|mac| is_link_local(address, *mac)))
            .filter(|mac| !nics.contains_key(mac))
            .collect();
        doubts.extend(former.iter().map(|mac| Doubt::FormerNic {
            vm: self.vm.clone(),
            mac: *mac,
        }));
        for address in addresses {
            match mac_in(address) {
                Some(mac) if is_link_local(&address, mac) => {}
                Some(mac) if nics.contains_key(&mac) => {
                    let nic = nics.get_mut(&mac).expect("it is there");
                    match nic.ipv6 {
                        None => nic.ipv6 = Some(address),
                        Some(_) => nic.secondary.extend([IpAddr::V6(address)]),
                    }
                }
                Some(mac) if former.contains(&mac) => doubts.push(Doubt::FormerAddress {
                    vm: self.vm.clone(),
                    mac,
                    address: address.into(),
                }),
                Some(_) | None => {
                    for mac in self.every_nic(address.into(), nics, doubts) {
                        let nic = nics.get_mut(&mac).expect("it is there");
                        nic.secondary.insert(address.into());
                    }
                }
            }
        }
        // Of a VM with one NIC, all addresses are that NIC's.
        if let [nic] = &mut nics.values_mut().collect::<Vec<_>>()[..]
            && nic.ipv6.is_none()
        {
            nic.ipv6 = nic.secondary.iter().find_map(ipv6);
            let primary = nic.ipv6.map(IpAddr::V6);
            nic.secondary.retain(|address| Some(*address) != primary);
        }
    }

    fn every_nic(
        &self,
        address: IpAddr,
        nics: &BTreeMap<MacAddr, Nic>,
        doubts: &mut Vec<Doubt>,
    ) -> Vec<MacAddr> {
        if nics.len() > 1 {
            doubts.push(Doubt::AnyNic {
                vm: self.vm.clone(),
                address,
            });
        }
        nics.keys().copied().collect()
    }
}

fn as_ipv6(member: &str) -> Option<Ipv6Addr> {
    member.parse().ok()
}
