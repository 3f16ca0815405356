//! Exact packets: every field has the value that a correct sender gives it, unless it is set otherwise.
//!
//! ```
//! # use portcullis_wire::{TcpFlags, build};
//! # let (a, b) = ("10.0.0.5".parse().unwrap(), "10.0.0.9".parse().unwrap());
//! let syn = build::ip(a, b).tcp(40_000, 443, TcpFlags::SYN).bytes();
//! let cut_short = build::ip(a, b).udp(1, 2).payload(b"hello").cut(40).bytes();
//! ```
//!
//! Place on the line: before it; tests, tools and `explain` make the packets that the rest judges.
//! Knows nothing of: what is sensible. Lengths, checksums and versions can be made to lie, headers to
//! end early. Nothing here panics: a value that doesn't fit is cut to its field.

mod bytes;
mod checksum;
mod extension;
mod infrastructure;
mod transport;

use bytes::Put;
use checksum::Sum;
use model::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use transport::Transport;

pub use extension::Extension;
pub use infrastructure::{SOURCE_LINK_LAYER, TARGET_LINK_LAYER};

/// A frame in the making, with `C` behind the Ethernet header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder<C> {
    src_mac: MacAddr,
    /// Unset: broadcast or multicast as the destination address asks, else zero.
    dst_mac: Option<MacAddr>,
    /// Tag protocol and tag control, the outermost first.
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    trailer: Vec<u8>,
    pad_to: usize,
    cut: Option<usize>,
    content: C,
}

/// What can stand behind an Ethernet header.
pub trait Content {
    fn ethertype(&self) -> u16;
    fn default_destination(&self) -> MacAddr;
    fn write(&self, out: &mut Vec<u8>);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    src: IpAddr,
    dst: IpAddr,
    hops: u8,
    traffic_class: u8,
    /// IPv4's, and the IPv6 flow label.
    identification: u32,
    fragment: Option<FragmentField>,
    dont_fragment: bool,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    transport: Transport,
    payload: Vec<u8>,
    lies: Lies,
}

/// Fields that are computed unless set here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lies {
    version: Option<u8>,
    header_words: Option<u8>,
    length: Option<u16>,
    protocol: Option<u8>,
    ip_checksum: Option<u16>,
    l4_checksum: Option<u16>,
    l4_length: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FragmentField {
    id: u32,
    /// In bytes.
    offset: u32,
    more: bool,
}

/// ARP for IPv4 over Ethernet, or RARP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    ethertype: u16,
    header: (u16, u16, u8, u8),
    opcode: u16,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
}

/// Bytes behind an ethertype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    ethertype: u16,
    bytes: Vec<u8>,
}

/// An IP packet, with no protocol yet (255). The source's family decides; a destination of the other
/// family is converted as in `::ffff:0:0/96`.
pub fn ip(src: IpAddr, dst: IpAddr) -> Builder<Ip> {
    let dst = match (src, dst) {
        (IpAddr::V4(_), IpAddr::V6(a)) => {
            let [.., x, y] = a.segments();
            IpAddr::V4(Ipv4Addr::from((u32::from(x) << 16) | u32::from(y)))
        }
        (IpAddr::V6(_), IpAddr::V4(a)) => IpAddr::V6(a.to_ipv6_mapped()),
        _ => dst,
    };
    Builder::new(Ip {
        src,
        dst,
        hops: 64,
        traffic_class: 0,
        identification: 0,
        fragment: None,
        dont_fragment: false,
        options: Vec::new(),
        extensions: Vec::new(),
        transport: Transport::Raw { protocol: 255 },
        payload: Vec::new(),
        lies: Lies::default(),
    })
}

/// Any ARP message; the frame goes from the sender's MAC to everybody unless set otherwise.
pub fn arp(opcode: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Builder<Arp> {
    let built = Builder::new(Arp {
        ethertype: 0x0806,
        header: (1, 0x0800, 6, 4),
        opcode,
        sender,
        target,
    });
    built.src_mac(sender.0)
}

/// `who-has target tell sender`.
pub fn arp_request(sender: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Builder<Arp> {
    arp(1, sender, (MacAddr::ZERO, target))
}

/// `sender is-at its MAC`, to the target.
pub fn arp_reply(sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Builder<Arp> {
    arp(2, sender, target).dst_mac(target.0)
}

/// The announcement that a hypervisor sends for a VM that has just arrived.
pub fn rarp(mac: MacAddr) -> Builder<Arp> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let mut built = arp(3, (mac, nobody), (mac, nobody));
    built.content.ethertype = 0x8035;
    built
}

/// A frame of any ethertype (or 802.3 length).
pub fn ethernet(ethertype: u16, bytes: &[u8]) -> Builder<Raw> {
    Builder::new(Raw {
        ethertype,
        bytes: bytes.to_vec(),
    })
}

impl<C: Content> Builder<C> {
    fn new(content: C) -> Self {
        Self {
            src_mac: MacAddr::ZERO,
            dst_mac: None,
            tags: Vec::new(),
            ethertype: None,
            trailer: Vec::new(),
            pad_to: 0,
            cut: None,
            content,
        }
    }

    pub fn src_mac(mut self, mac: MacAddr) -> Self {
        self.src_mac = mac;
        self
    }

    pub fn dst_mac(mut self, mac: MacAddr) -> Self {
        self.dst_mac = Some(mac);
        self
    }

    pub fn macs(self, src: MacAddr, dst: MacAddr) -> Self {
        self.src_mac(src).dst_mac(dst)
    }

    /// Adds a tag inside those already there: protocol (0x8100, 0x88a8) and priority with VLAN id.
    pub fn tag(mut self, protocol: u16, control: u16) -> Self {
        self.tags.push((protocol, control));
        self
    }

    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = Some(ethertype);
        self
    }

    /// Bytes behind the packet's end.
    pub fn trailer(mut self, bytes: &[u8]) -> Self {
        self.trailer = bytes.to_vec();
        self
    }

    /// Zeros up to this frame length: 60 is what network cards send at least.
    pub fn pad_to(mut self, frame_bytes: usize) -> Self {
        self.pad_to = frame_bytes;
        self
    }

    /// Cuts the finished frame to this length.
    pub fn cut(mut self, frame_bytes: usize) -> Self {
        self.cut = Some(frame_bytes);
        self
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let dst = self.dst_mac.unwrap_or(self.content.default_destination());
        out.put(&dst.0);
        out.put(&self.src_mac.0);
        for (protocol, control) in &self.tags {
            out.put16(*protocol);
            out.put16(*control);
        }
        out.put16(self.ethertype.unwrap_or(self.content.ethertype()));
        self.content.write(&mut out);
        out.put(&self.trailer);
        if out.len() < self.pad_to {
            out.resize(self.pad_to, 0);
        }
        out.truncate(self.cut.unwrap_or(usize::MAX));
        out
    }

    /// What stands behind the Ethernet header, as an ICMP error quotes it.
    pub fn packet(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.content.write(&mut out);
        out
    }
}

impl Builder<Arp> {
    /// Hardware type, protocol type and the two lengths; (1, 0x0800, 6, 4) if not set.
    pub fn arp_header(mut self, header: (u16, u16, u8, u8)) -> Self {
        self.content.header = header;
        self
    }

    pub fn opcode(mut self, opcode: u16) -> Self {
        self.content.opcode = opcode;
        self
    }

    /// The sender's MAC inside the message.
    pub fn sender_mac(mut self, mac: MacAddr) -> Self {
        self.content.sender.0 = mac;
        self
    }

    pub fn target_mac(mut self, mac: MacAddr) -> Self {
        self.content.target.0 = mac;
        self
    }
}

impl Builder<Ip> {
    /// TTL or hop limit.
    pub fn hops(mut self, hops: u8) -> Self {
        self.content.hops = hops;
        self
    }

    pub fn traffic_class(mut self, value: u8) -> Self {
        self.content.traffic_class = value;
        self
    }

    /// IPv4's identification, or the IPv6 flow label.
    pub fn identification(mut self, value: u32) -> Self {
        self.content.identification = value;
        self
    }

    pub fn dont_fragment(mut self) -> Self {
        self.content.dont_fragment = true;
        self
    }

    /// IPv4 options, padded with zeros to a multiple of 4 bytes. An IPv6 packet has none.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.content.options = options.to_vec();
        self
    }

    /// An IPv6 extension header, behind those already there. An IPv4 packet has none.
    pub fn extension(mut self, extension: Extension) -> Self {
        self.content.extensions.push(extension);
        self
    }

    /// Makes this one fragment of a datagram. What the packet holds stands at this offset (in bytes,
    /// a multiple of 8); for a later fragment use [`Builder::protocol`] and a payload, not a transport.
    /// In IPv6 the fragment header comes behind the extension headers already there.
    pub fn fragment(mut self, id: u32, offset: u32, more: bool) -> Self {
        match self.content.src {
            IpAddr::V4(_) => self.content.fragment = Some(FragmentField { id, offset, more }),
            IpAddr::V6(_) => {
                let fragment = Extension::Fragment { id, offset, more };
                self.content.extensions.push(fragment);
            }
        }
        self
    }

    /// The whole datagram as fragments that hold up to `bytes` of it each (cut to a multiple of 8, at
    /// least 8). The extension headers stand in each.
    pub fn fragments(&self, id: u32, bytes: usize) -> Vec<Builder<Ip>> {
        let datagram = self.content.transport_bytes();
        let size = (bytes / 8).max(1) * 8;
        let pieces = datagram.chunks(size).enumerate();
        pieces
            .map(|(i, piece)| {
                let part = self.clone().protocol(self.content.protocol(), piece);
                let offset = i * size;
                part.fragment(id, offset as u32, offset + piece.len() < datagram.len())
            })
            .collect()
    }

    /// What the transport carries; replaces what was there.
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.content.payload = bytes.to_vec();
        self
    }

    pub fn version(mut self, version: u8) -> Self {
        self.content.lies.version = Some(version);
        self
    }

    /// IPv4's header length, in 4-byte words.
    pub fn header_words(mut self, words: u8) -> Self {
        self.content.lies.header_words = Some(words);
        self
    }

    /// IPv4's total length, IPv6's payload length.
    pub fn ip_length(mut self, length: u16) -> Self {
        self.content.lies.length = Some(length);
        self
    }

    /// The protocol number in the IP header (or the last extension header), whatever follows.
    pub fn next_header(mut self, protocol: u8) -> Self {
        self.content.lies.protocol = Some(protocol);
        self
    }

    pub fn ip_checksum(mut self, checksum: u16) -> Self {
        self.content.lies.ip_checksum = Some(checksum);
        self
    }

    pub fn l4_checksum(mut self, checksum: u16) -> Self {
        self.content.lies.l4_checksum = Some(checksum);
        self
    }

    /// UDP's length, UDP-Lite's coverage.
    pub fn l4_length(mut self, length: u16) -> Self {
        self.content.lies.l4_length = Some(length);
        self
    }
}

impl Content for Raw {
    fn ethertype(&self) -> u16 {
        self.ethertype
    }

    fn default_destination(&self) -> MacAddr {
        MacAddr::ZERO
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put(&self.bytes);
    }
}

impl Content for Arp {
    fn ethertype(&self) -> u16 {
        self.ethertype
    }

    fn default_destination(&self) -> MacAddr {
        MacAddr::BROADCAST
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (hardware, protocol, hardware_len, protocol_len) = self.header;
        out.put16(hardware);
        out.put16(protocol);
        out.put(&[hardware_len, protocol_len]);
        out.put16(self.opcode);
        for (mac, ip) in [self.sender, self.target] {
            out.put(&mac.0);
            out.put(&ip.octets());
        }
    }
}

impl Content for Ip {
    fn ethertype(&self) -> u16 {
        match self.src {
            IpAddr::V4(_) => 0x0800,
            IpAddr::V6(_) => 0x86dd,
        }
    }

    fn default_destination(&self) -> MacAddr {
        match self.dst {
            IpAddr::V4(a) if a.is_broadcast() => MacAddr::BROADCAST,
            IpAddr::V4(a) if a.is_multicast() => {
                let [_, b, c, d] = a.octets();
                MacAddr([1, 0, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(a) if a.is_multicast() => {
                let [.., b, c, d, e] = a.octets();
                MacAddr([0x33, 0x33, b, c, d, e])
            }
            _ => MacAddr::ZERO,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let transport = self.transport_bytes();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.write_v4(src, dst, &transport, out),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.write_v6(src, dst, &transport, out),
            // `ip` gives both one family.
            _ => {}
        }
        out.put(&transport);
    }
}

impl Ip {
    fn protocol(&self) -> u8 {
        self.transport.protocol(self.src)
    }

    fn transport_bytes(&self) -> Vec<u8> {
        let pseudo = Sum::default().address(self.src).address(self.dst);
        self.transport
            .bytes(self.protocol(), pseudo, &self.payload, &self.lies)
    }

    fn write_v4(&self, src: Ipv4Addr, dst: Ipv4Addr, transport: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let options_len = self.options.len().next_multiple_of(4);
        let header_len = 20 + options_len;
        let words = (header_len / 4).min(15) as u8;
        let words = self.lies.header_words.unwrap_or(words);
        let version = self.lies.version.unwrap_or(4);
        let length = fit(header_len + transport.len());
        let fragment = self.fragment.unwrap_or(FragmentField {
            id: self.identification,
            offset: 0,
            more: false,
        });
        let flags = (u16::from(self.dont_fragment) << 14) | (u16::from(fragment.more) << 13);
        out.put(&[(version << 4) | (words & 0xf), self.traffic_class]);
        out.put16(self.lies.length.unwrap_or(length));
        out.put16(fragment.id as u16);
        out.put16(flags | ((fragment.offset / 8) as u16 & 0x1fff));
        let protocol = self.lies.protocol.unwrap_or(self.protocol());
        out.put(&[self.hops, protocol]);
        out.put16(0);
        out.put(&src.octets());
        out.put(&dst.octets());
        out.put(&self.options);
        out.resize(start + header_len, 0);
        let sum = Sum::default().bytes(&out[start..]).complement();
        let sum = self.lies.ip_checksum.unwrap_or(sum).to_be_bytes();
        out[start + 10..start + 12].copy_from_slice(&sum);
    }

    fn write_v6(&self, src: Ipv6Addr, dst: Ipv6Addr, transport: &[u8], out: &mut Vec<u8>) {
        let protocol = self.lies.protocol.unwrap_or(self.protocol());
        let kinds = self.extensions.iter().map(Extension::kind);
        let mut next = kinds.skip(1).chain([protocol]);
        let mut chain = Vec::new();
        for extension in &self.extensions {
            extension.write(next.next().unwrap_or(protocol), &mut chain);
        }
        let first = self.extensions.first().map_or(protocol, Extension::kind);
        let version = self.lies.version.unwrap_or(6);
        let label = self.identification & 0xf_ffff;
        out.put32((u32::from(version & 0xf) << 28) | (u32::from(self.traffic_class) << 20) | label);
        let length = fit(chain.len() + transport.len());
        out.put16(self.lies.length.unwrap_or(length));
        out.put(&[first, self.hops]);
        out.put(&src.octets());
        out.put(&dst.octets());
        out.put(&chain);
    }
}

/// A length beyond 16 bits is written as 0, as for large offloaded packets.
fn fit(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(0)
}

#[cfg(test)]
mod tests;
