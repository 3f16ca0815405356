//! A device, and the netlink message that tells of it.
//!
//! Place on the line: devices -> **events**. Pure.
//!
//! Just the four attributes that matter are read, by ourselves: a reader of all of them stumbles
//! over what newer kernels add, and a device that is there and not seen would lose its port.
//! Knows nothing of: sockets, ports.

use dataplane::Device;
use model::MacAddr;

/// A device, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    /// `None`: not Ethernet.
    pub mac: Option<MacAddr>,
    /// The driver's name for it (`veth`, `tun`, `bridge`); `None` for hardware.
    pub kind: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// The index of the bridge (or bond, or VRF) that it is part of.
    pub master: Option<u32>,
    /// A virtual switch's for it. The kernel doesn't know it.
    pub interface_id: Option<String>,
}

impl Link {
    pub fn device(&self) -> Device {
        Device {
            name: self.name.clone(),
            ifindex: self.ifindex,
        }
    }

    /// What a MAC or a pattern may find. A bridge wears the MAC of one of its ports, a VLAN device
    /// that of its parent, and neither is a VM's own.
    pub(crate) fn is_attachable(&self) -> bool {
        const BORROWERS: [&str; 7] = [
            "bridge",
            "vlan",
            "bond",
            "team",
            "openvswitch",
            "vrf",
            "macsec",
        ];
        let kind = self.kind.as_deref();
        self.mac.is_some() && kind.is_none_or(|kind| !BORROWERS.contains(&kind))
    }
}

/// What one netlink message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkMessage {
    There(Link),
    Gone {
        ifindex: u32,
    },
    /// The end of a list.
    Done,
    /// The kernel's answer to a request: 0, or a negated error number.
    Answer(i32),
    /// Not about devices as such.
    Other,
}

/// The messages of one datagram. What is cut short ends it.
///
/// ```text
/// nlmsghdr   len 4 | type 2 | flags 2 | seq 4 | pid 4
/// ifinfomsg  family 1 | pad 1 | hardware type 2 | index 4 | flags 4 | change 4
/// attributes len 2 | type 2 | value, padded to 4
/// ```
pub(crate) fn messages(datagram: &[u8]) -> Vec<LinkMessage> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.get(..NLMSG_HEADER) {
        let length = u32_at(header, 0) as usize;
        let Some(body) = rest.get(NLMSG_HEADER..length) else {
            break;
        };
        found.push(message(u16_at(header, 4), body));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

const NLMSG_HEADER: usize = 16;
const IFINFO_HEADER: usize = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const AF_UNSPEC: u8 = 0;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

fn message(kind: u16, body: &[u8]) -> LinkMessage {
    match kind {
        NLMSG_DONE => LinkMessage::Done,
        NLMSG_ERROR if body.len() >= 4 => {
            LinkMessage::Answer(i32::from_ne_bytes([body[0], body[1], body[2], body[3]]))
        }
        // A bridge tells of its ports by the same messages in its own family; one that leaves the
        // bridge is a DELLINK there, and still exists.
        RTM_NEWLINK | RTM_DELLINK if body.len() >= IFINFO_HEADER && body[0] == AF_UNSPEC => {
            if kind == RTM_DELLINK {
                let ifindex = u32_at(body, 4);
                return LinkMessage::Gone { ifindex };
            }
            link(body).map_or(LinkMessage::Other, LinkMessage::There)
        }
        _ => LinkMessage::Other,
    }
}

fn link(body: &[u8]) -> Option<Link> {
    let ethernet = u16_at(body, 2) == ARPHRD_ETHER;
    let mut name = None;
    let mut link = Link {
        ifindex: u32_at(body, 4),
        name: String::new(),
        mac: None,
        kind: None,
        up: u32_at(body, 8) & IFF_UP != 0,
        master: None,
        interface_id: None,
    };
    for (kind, value) in attributes(&body[IFINFO_HEADER..]) {
        match kind {
            IFLA_IFNAME => name = Some(text(value)),
            IFLA_ADDRESS if ethernet => link.mac = value.try_into().ok().map(MacAddr),
            IFLA_MASTER => link.master = value.try_into().ok().map(u32::from_ne_bytes),
            IFLA_LINKINFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == IFLA_INFO_KIND)
                    .map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    link.name = name?;
    Some(link)
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = rest.get(..4)?;
        let length = usize::from(u16_at(header, 0));
        // The two highest bits are flags.
        let kind = u16_at(header, 2) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link_message(kind: u16, family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, 0];
        body.extend(ARPHRD_ETHER.to_ne_bytes());
        body.extend(7u32.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend([0xff; 4]);
        body.extend(attributes.concat());
        let mut bytes = Vec::new();
        bytes.extend((body.len() as u32 + 16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn tap() -> Vec<Vec<u8>> {
        vec![
            attribute(IFLA_IFNAME, b"tap7\0"),
            attribute(999, b"of a newer kernel"),
            attribute(IFLA_ADDRESS, &[0xfe, 0x54, 0, 0, 0, 1]),
            attribute(IFLA_MASTER, &3u32.to_ne_bytes()),
            attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"tun\0")),
        ]
    }

    fn check(datagram: &[u8], expected: &[LinkMessage]) {
        assert_eq!(messages(datagram), expected);
    }

    #[test]
    fn a_device_is_read_past_what_is_not_known() {
        let link = Link {
            ifindex: 7,
            name: "tap7".to_owned(),
            mac: "fe:54:00:00:00:01".parse().ok(),
            kind: Some("tun".to_owned()),
            up: true,
            master: Some(3),
            interface_id: None,
        };
        check(
            &link_message(RTM_NEWLINK, AF_UNSPEC, &tap()),
            &[LinkMessage::There(link)],
        );
    }

    #[test]
    fn a_device_that_leaves_its_bridge_is_not_gone() {
        const AF_BRIDGE: u8 = 7;
        check(
            &link_message(RTM_DELLINK, AF_BRIDGE, &tap()),
            &[LinkMessage::Other],
        );
        check(
            &link_message(RTM_DELLINK, AF_UNSPEC, &[]),
            &[LinkMessage::Gone { ifindex: 7 }],
        );
    }

    #[test]
    fn several_messages_share_a_datagram_and_a_cut_one_ends_it() {
        let gone = link_message(RTM_DELLINK, AF_UNSPEC, &[]);
        let two = [gone.clone(), gone.clone()].concat();
        let expected = LinkMessage::Gone { ifindex: 7 };
        check(&two, &[expected.clone(), expected.clone()]);
        check(&two[..two.len() - 1], &[expected]);
        check(&[0; 64], &[]);
    }
}
