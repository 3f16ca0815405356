//! Which device is which port's.
//!
//! Place on the line: view + devices -> **target**. Pure.
//! Knows nothing of: how devices are discovered, what is done with them.

use crate::devices::Link;
use dataplane::{Bridge, Device};
use model::{DeviceMatch, MacAddr, PortId};
use policy::PortView;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// Ports whose device is there.
    pub devices: BTreeMap<PortId, Device>,
    /// Devices that several ports claim: none of them gets it, and it passes nothing.
    pub contested: BTreeSet<Device>,
    pub findings: Vec<DeviceFinding>,
}

/// A port that stays without a device although there are candidates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceFinding {
    /// A pattern, a MAC or an interface id that fits more than one device.
    Several {
        port: PortId,
        wanted: String,
        devices: Vec<String>,
    },
    /// Several ports want the same device.
    Contested { device: String, ports: Vec<PortId> },
    /// Ports that want a device by its interface id, and nobody here has such ids.
    NoInterfaceIds { ports: Vec<PortId> },
}

impl fmt::Display for DeviceFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceFinding::Several {
                port,
                wanted,
                devices,
            } => write!(
                f,
                "port {port} wants one device by {wanted}, and {} fit: {}; it gets none",
                devices.len(),
                shortened(devices)
            ),
            DeviceFinding::Contested { device, ports } => {
                let names: Vec<String> = ports.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "device {device} is claimed by {} ports ({}); it passes nothing",
                    ports.len(),
                    shortened(&names)
                )
            }
            DeviceFinding::NoInterfaceIds { ports } => {
                let names: Vec<String> = ports.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "this data plane knows of no interface ids: ports that want a device by one get none ({}: {})",
                    ports.len(),
                    shortened(&names)
                )
            }
        }
    }
}

/// Each port gets the one device that fits it; what is not clear is a finding, and no port's.
pub fn match_devices<'a, P: Borrow<PortView> + 'a>(
    ports: impl IntoIterator<Item = (&'a PortId, &'a P)>,
    links: &BTreeMap<u32, Link>,
) -> Matching {
    let by_name: BTreeMap<&str, &Link> = links.values().map(|l| (l.name.as_str(), l)).collect();
    let mut by_mac: BTreeMap<MacAddr, Vec<&Link>> = BTreeMap::new();
    for link in links.values().filter(|l| l.is_attachable()) {
        if let Some(mac) = link.mac {
            by_mac.entry(mac).or_default().push(link);
        }
    }
    let mut by_id: BTreeMap<&str, Vec<&Link>> = BTreeMap::new();
    for link in links.values() {
        if let Some(id) = &link.interface_id {
            by_id.entry(id).or_default().push(link);
        }
    }

    let mut matching = Matching::default();
    let mut claims: BTreeMap<&Link, Vec<&PortId>> = BTreeMap::new();
    for (id, port) in ports {
        let port = port.borrow();
        let fitting: Vec<&Link> = match &port.device {
            DeviceMatch::Name(name) => by_name.get(name.as_str()).copied().into_iter().collect(),
            DeviceMatch::Mac => by_mac_of(port.mac, &by_mac),
            DeviceMatch::Pattern(pattern) => links
                .values()
                .filter(|l| l.is_attachable() && fits(pattern, &l.name))
                .collect(),
            DeviceMatch::InterfaceId(id) => by_id.get(id.as_str()).cloned().unwrap_or_default(),
        };
        match fitting.as_slice() {
            [] => {}
            [link] => claims.entry(link).or_default().push(id),
            several => matching.findings.push(DeviceFinding::Several {
                port: id.clone(),
                wanted: wanted(port),
                devices: several.iter().map(|l| l.name.clone()).collect(),
            }),
        }
    }
    for (link, ports) in claims {
        let device = link.device();
        match ports.as_slice() {
            [port] => {
                matching.devices.insert((*port).clone(), device);
            }
            several => {
                matching.findings.push(DeviceFinding::Contested {
                    device: device.name.clone(),
                    ports: several.iter().map(|p| (*p).clone()).collect(),
                });
                matching.contested.insert(device);
            }
        }
    }
    matching.findings.sort();
    matching
}

/// The bridges that any of these devices are on.
pub fn bridges_of<'a>(
    devices: impl IntoIterator<Item = &'a Device>,
    links: &BTreeMap<u32, Link>,
) -> BTreeMap<Device, Bridge> {
    let mut bridges: BTreeMap<u32, Bridge> = BTreeMap::new();
    for device in devices {
        let master = links.get(&device.ifindex).and_then(|link| link.master);
        let master = master.and_then(|master| links.get(&master));
        if let Some(bridge) = master.filter(|link| link.kind.as_deref() == Some("bridge")) {
            bridges.entry(bridge.ifindex).or_default();
        }
    }
    for link in links.values() {
        let on = [Some(link.ifindex), link.master].into_iter().flatten();
        for index in on {
            let Some(bridge) = bridges.get_mut(&index) else {
                continue;
            };
            bridge.macs.extend(link.mac);
            if index != link.ifindex {
                bridge.members.insert(link.device());
            }
        }
    }
    let named = bridges.into_iter();
    named
        .map(|(index, bridge)| (links[&index].device(), bridge))
        .collect()
}

/// The devices with the port's MAC, or with the port's MAC behind a first byte of `fe`.
fn by_mac_of<'a>(mac: MacAddr, by_mac: &BTreeMap<MacAddr, Vec<&'a Link>>) -> Vec<&'a Link> {
    let mut tap = mac;
    tap.0[0] = 0xfe;
    let macs = BTreeSet::from([mac, tap]);
    macs.iter()
        .flat_map(|m| by_mac.get(m).into_iter().flatten().copied())
        .collect()
}

/// `*` stands for any text, also none.
pub fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("split gives at least one part");
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let middle: Vec<&str> = parts.collect();
    let Some((last, middle)) = middle.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn wanted(port: &PortView) -> String {
    match &port.device {
        DeviceMatch::Name(name) => format!("the name {name}"),
        DeviceMatch::Mac => format!("the MAC {}", port.mac),
        DeviceMatch::Pattern(pattern) => format!("the pattern {pattern}"),
        DeviceMatch::InterfaceId(id) => format!("the interface id {id}"),
    }
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::NetworkId;

    const PORT_MAC: &str = "52:54:00:00:00:01";
    const TAP_MAC: &str = "fe:54:00:00:00:01";
    const OTHER_MAC: &str = "52:54:00:00:00:99";

    fn port(device: DeviceMatch) -> PortView {
        PortView {
            network: NetworkId::new("lan"),
            device,
            mac: PORT_MAC.parse().expect("a MAC"),
            port_security: true,
            dhcp_server: false,
            router: false,
            addresses: BTreeSet::new(),
            groups: Vec::new(),
        }
    }

    fn links(named: &[(&str, &str, &str)]) -> BTreeMap<u32, Link> {
        let link = |(index, (name, mac, kind)): (usize, &(&str, &str, &str))| {
            let ifindex = index as u32 + 1;
            let link = Link {
                ifindex,
                name: (*name).to_owned(),
                mac: mac.parse().ok(),
                kind: Some((*kind).to_owned()),
                up: true,
                master: None,
                interface_id: None,
            };
            (ifindex, link)
        };
        named.iter().enumerate().map(link).collect()
    }

    /// `expected`: the devices of the ports in order, `-` for none; then the number of findings.
    fn check(wants: &[DeviceMatch], there: &[(&str, &str, &str)], expected: (&[&str], usize)) {
        check_links(wants, &links(there), expected);
    }

    fn check_links(wants: &[DeviceMatch], there: &BTreeMap<u32, Link>, expected: (&[&str], usize)) {
        let ports: BTreeMap<PortId, PortView> = wants
            .iter()
            .enumerate()
            .map(|(i, w)| (PortId::new(format!("p{i}")), port(w.clone())))
            .collect();
        let matching = match_devices(&ports, there);
        let seen: Vec<&str> = ports
            .keys()
            .map(|id| matching.devices.get(id).map_or("-", |d| d.name.as_str()))
            .collect();
        assert_eq!(
            (seen.as_slice(), matching.findings.len()),
            expected,
            "{matching:?}"
        );
    }

    #[test]
    fn a_name_fits_the_device_of_that_name() {
        let name = |n: &str| DeviceMatch::Name(n.to_owned());
        let there = [("tap1", OTHER_MAC, "tun"), ("tap10", OTHER_MAC, "tun")];
        check(&[name("tap1")], &there, (&["tap1"], 0));
        check(&[name("tap")], &there, (&["-"], 0));
        check(
            &[name("tap1"), name("tap10")],
            &there,
            (&["tap1", "tap10"], 0),
        );
    }

    #[test]
    fn a_mac_fits_the_tap_that_has_it_and_never_the_bridge_that_borrows_it() {
        let there = [("virbr0", TAP_MAC, "bridge"), ("vnet0", TAP_MAC, "tun")];
        check(&[DeviceMatch::Mac], &there, (&["vnet0"], 0));
        check(
            &[DeviceMatch::Mac],
            &[("veth0", PORT_MAC, "veth")],
            (&["veth0"], 0),
        );
        check(
            &[DeviceMatch::Mac],
            &[("veth0", OTHER_MAC, "veth")],
            (&["-"], 0),
        );
        let both = [("a", PORT_MAC, "veth"), ("b", TAP_MAC, "tun")];
        check(&[DeviceMatch::Mac], &both, (&["-"], 1));
    }

    #[test]
    fn a_pattern_has_to_fit_exactly_one_device() {
        let pattern = |p: &str| DeviceMatch::Pattern(p.to_owned());
        let there = [("tap-a-1", OTHER_MAC, "tun"), ("tap-b-1", OTHER_MAC, "tun")];
        check(&[pattern("tap-a-*")], &there, (&["tap-a-1"], 0));
        check(&[pattern("*b*")], &there, (&["tap-b-1"], 0));
        check(&[pattern("tap-*-1")], &there, (&["-"], 1));
        check(&[pattern("tap-c*")], &there, (&["-"], 0));
        check(&[pattern("tap-a-1*1")], &there, (&["-"], 0));
    }

    #[test]
    fn an_interface_id_has_to_be_that_of_exactly_one_device() {
        let wants = [DeviceMatch::InterfaceId("id-1".to_owned())];
        let with_ids = |ids: [Option<&str>; 2]| {
            let mut there = links(&[
                ("tap1", PORT_MAC, "tun"),
                ("int1", OTHER_MAC, "openvswitch"),
            ]);
            for (link, id) in there.values_mut().zip(ids) {
                link.interface_id = id.map(str::to_owned);
            }
            there
        };
        check_links(&wants, &with_ids([None, None]), (&["-"], 0));
        check_links(&wants, &with_ids([Some("ID-1"), None]), (&["-"], 0));
        check_links(
            &wants,
            &with_ids([Some("id-1"), Some("id-2")]),
            (&["tap1"], 0),
        );
        // The switch says so itself: it isn't guessed by a MAC that may be borrowed.
        check_links(&wants, &with_ids([None, Some("id-1")]), (&["int1"], 0));
        check_links(&wants, &with_ids([Some("id-1"), Some("id-1")]), (&["-"], 1));
        let both = [wants[0].clone(), DeviceMatch::Name("tap1".to_owned())];
        check_links(&both, &with_ids([Some("id-1"), None]), (&["-", "-"], 1));
    }

    #[test]
    fn a_device_that_two_ports_claim_is_closed() {
        let name = DeviceMatch::Name("tap1".to_owned());
        let there = [("tap1", PORT_MAC, "tun")];
        check(&[name.clone(), DeviceMatch::Mac], &there, (&["-", "-"], 1));
        let ports = BTreeMap::from([
            (PortId::new("a"), port(name)),
            (PortId::new("b"), port(DeviceMatch::Mac)),
        ]);
        let matching = match_devices(&ports, &links(&there));
        assert_eq!(matching.contested.len(), 1);
        assert_eq!(
            matching.findings[0].to_string(),
            "device tap1 is claimed by 2 ports (a, b); it passes nothing"
        );
    }
}
