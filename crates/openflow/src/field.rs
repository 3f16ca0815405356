//! The fields of a packet, and of what the switch keeps with it, and how each is said on the wire.
//!
//! ```text
//! header   class 2 | number, 7 bits | has a mask, 1 bit | length of what follows 1
//!          [experimenter 4, if the class is 0xffff] | value | [mask, as long as the value]
//! ```
//! Many fields have two headers, Open vSwitch's (NXM) and OpenFlow's (OXM). We write one and read all.
//! Source: ovs-fields(7).

use crate::Value;

/// The order is the order on the wire: what others depend on comes before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// 32 bits, as in OpenFlow 1.1 and later.
    InPort,
    Metadata,
    PktMark,
    /// 0 to 15.
    Reg(u8),
    /// 0 to 7: two `Reg`s each. A `Match` holds those instead.
    XReg(u8),
    /// 0 to 3: four `Reg`s each. A `Match` holds those instead.
    XxReg(u8),
    TunId,
    TunSrc,
    TunDst,
    TunIpv6Src,
    TunIpv6Dst,
    TunFlags,
    /// 0 to 63: an option of the tunnel's header, as `Switch::add_tlv` names it. Its length isn't said in flows; all
    /// ones of `all_ones` stand for all of it.
    TunMetadata(u8),
    CtState,
    CtZone,
    CtMark,
    CtLabel,
    EthDst,
    EthSrc,
    EthType,
    /// All of the tag: priority 3 bits, "there is a tag" 1 bit, VLAN 12 bits. The switch knows
    /// the priority only as a whole, and only beside the other two: other matches of it aren't read
    /// back as they were added.
    VlanTci,
    IpFrag,
    IpProto,
    IpTtl,
    IpSrc,
    IpDst,
    Ipv6Src,
    Ipv6Dst,
    TcpSrc,
    TcpDst,
    TcpFlags,
    UdpSrc,
    UdpDst,
    SctpSrc,
    SctpDst,
    IcmpType,
    IcmpCode,
    Icmpv6Type,
    Icmpv6Code,
    NdTarget,
    NdSll,
    NdTll,
    ArpOp,
    ArpSpa,
    ArpTpa,
    ArpSha,
    ArpTha,
    /// These want a `CtState` of a valid connection besides the `EthType`: one of `new`, `est`, `rel`, `rpl`, or
    /// `trk` without `inv`.
    CtNwProto,
    CtNwSrc,
    CtNwDst,
    CtIpv6Src,
    CtIpv6Dst,
    CtTpSrc,
    CtTpDst,
    Other(OtherField),
}

/// One that this crate has no name for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OtherField {
    pub class: u16,
    /// 0 unless the class is 0xffff.
    pub experimenter: u32,
    pub number: u8,
    pub bytes: u8,
}

/// How one is written, on the wire and for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) bits: u16,
    /// On the wire, where some are longer than their bits.
    pub(crate) bytes: u8,
    pub(crate) class: u16,
    pub(crate) number: u8,
    pub(crate) notation: Notation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Number,
    Port,
    Ipv4,
    Ipv6,
    Mac,
    CtState,
    Fragment,
    TunnelFlags,
}

pub(crate) const NXM_OF: u16 = 0x0000;
pub(crate) const NXM_NX: u16 = 0x0001;
pub(crate) const OXM: u16 = 0x8000;
const PKT_REGS: u16 = 0x8001;
pub(crate) const EXPERIMENTER: u16 = 0xffff;
const ONF: u32 = 0x4f4e_4600;

const REG0: u8 = 0;
const TUN_METADATA0: u8 = 40;
const XXREG0: u8 = 111;
/// What Open vSwitch says for the length of such an option where it doesn't look at it.
pub(crate) const TUN_METADATA_BYTES: u8 = 124;

impl Field {
    /// As ovs-ofctl calls it.
    pub fn name(self) -> String {
        let name = self.row().name;
        if let Field::Reg(n) | Field::XReg(n) | Field::XxReg(n) | Field::TunMetadata(n) = self {
            return format!("{name}{n}");
        }
        if let Field::Other(other) = self {
            let OtherField {
                class,
                experimenter,
                number,
                bytes: _,
            } = other;
            return format!("field_{class:#x}_{experimenter:#x}_{number}");
        }
        name.to_owned()
    }

    /// How many of its bits can be matched or set. An option of a tunnel counts as a `Value`, whatever its length.
    pub fn bits(self) -> u16 {
        self.row().bits
    }

    /// The mask of an exact match.
    pub fn all_ones(self) -> Value {
        Value::ones(0, self.bits())
    }

    #[rustfmt::skip]
    pub(crate) fn row(self) -> Row {
        let row = |name, bits, class, number| Row {
            name, bits, bytes: bits.div_ceil(8) as u8, class, number, notation: Notation::Number,
        };
        let ipv4 = |name, class, number| Row { notation: Notation::Ipv4, ..row(name, 32, class, number) };
        let ipv6 = |name, class, number| Row { notation: Notation::Ipv6, ..row(name, 128, class, number) };
        let mac = |name, class, number| Row { notation: Notation::Mac, ..row(name, 48, class, number) };
        match self {
            Field::InPort =>         Row { notation: Notation::Port, ..row("in_port", 32, OXM, 0) },
            Field::Metadata =>       row("metadata", 64, OXM, 2),
            Field::PktMark =>        row("pkt_mark", 32, NXM_NX, 33),
            Field::Reg(n) =>         row("reg", 32, NXM_NX, REG0 + below(16, n)),
            Field::XReg(n) =>        row("xreg", 64, PKT_REGS, below(8, n)),
            Field::XxReg(n) =>       row("xxreg", 128, NXM_NX, XXREG0 + below(4, n)),
            Field::TunId =>          row("tun_id", 64, OXM, 38),
            Field::TunSrc =>         ipv4("tun_src", NXM_NX, 31),
            Field::TunDst =>         ipv4("tun_dst", NXM_NX, 32),
            Field::TunIpv6Src =>     ipv6("tun_ipv6_src", NXM_NX, 109),
            Field::TunIpv6Dst =>     ipv6("tun_ipv6_dst", NXM_NX, 110),
            Field::TunFlags =>       Row {
                bytes: 2, notation: Notation::TunnelFlags, ..row("tun_flags", 1, NXM_NX, 104)
            },
            Field::TunMetadata(n) => Row {
                bytes: TUN_METADATA_BYTES, ..row("tun_metadata", 256, NXM_NX, TUN_METADATA0 + below(64, n))
            },
            Field::CtState =>        Row { bytes: 4, notation: Notation::CtState, ..row("ct_state", 8, NXM_NX, 105) },
            Field::CtZone =>         row("ct_zone", 16, NXM_NX, 106),
            Field::CtMark =>         row("ct_mark", 32, NXM_NX, 107),
            Field::CtLabel =>        row("ct_label", 128, NXM_NX, 108),
            Field::EthDst =>         mac("dl_dst", OXM, 3),
            Field::EthSrc =>         mac("dl_src", OXM, 4),
            Field::EthType =>        row("dl_type", 16, OXM, 5),
            Field::VlanTci =>        row("vlan_tci", 16, NXM_OF, 4),
            Field::IpFrag =>         Row { notation: Notation::Fragment, ..row("ip_frag", 2, NXM_NX, 26) },
            Field::IpProto =>        row("nw_proto", 8, OXM, 10),
            Field::IpTtl =>          row("nw_ttl", 8, NXM_NX, 29),
            Field::IpSrc =>          ipv4("nw_src", OXM, 11),
            Field::IpDst =>          ipv4("nw_dst", OXM, 12),
            Field::Ipv6Src =>        ipv6("ipv6_src", OXM, 26),
            Field::Ipv6Dst =>        ipv6("ipv6_dst", OXM, 27),
            Field::TcpSrc =>         row("tcp_src", 16, OXM, 13),
            Field::TcpDst =>         row("tcp_dst", 16, OXM, 14),
            Field::TcpFlags =>       row("tcp_flags", 12, NXM_NX, 34),
            Field::UdpSrc =>         row("udp_src", 16, OXM, 15),
            Field::UdpDst =>         row("udp_dst", 16, OXM, 16),
            Field::SctpSrc =>        row("sctp_src", 16, OXM, 17),
            Field::SctpDst =>        row("sctp_dst", 16, OXM, 18),
            Field::IcmpType =>       row("icmp_type", 8, OXM, 19),
            Field::IcmpCode =>       row("icmp_code", 8, OXM, 20),
            Field::Icmpv6Type =>     row("icmpv6_type", 8, OXM, 29),
            Field::Icmpv6Code =>     row("icmpv6_code", 8, OXM, 30),
            Field::NdTarget =>       ipv6("nd_target", OXM, 31),
            Field::NdSll =>          mac("nd_sll", OXM, 32),
            Field::NdTll =>          mac("nd_tll", OXM, 33),
            Field::ArpOp =>          row("arp_op", 16, OXM, 21),
            Field::ArpSpa =>         ipv4("arp_spa", OXM, 22),
            Field::ArpTpa =>         ipv4("arp_tpa", OXM, 23),
            Field::ArpSha =>         mac("arp_sha", OXM, 24),
            Field::ArpTha =>         mac("arp_tha", OXM, 25),
            Field::CtNwProto =>      row("ct_nw_proto", 8, NXM_NX, 119),
            Field::CtNwSrc =>        ipv4("ct_nw_src", NXM_NX, 120),
            Field::CtNwDst =>        ipv4("ct_nw_dst", NXM_NX, 121),
            Field::CtIpv6Src =>      ipv6("ct_ipv6_src", NXM_NX, 122),
            Field::CtIpv6Dst =>      ipv6("ct_ipv6_dst", NXM_NX, 123),
            Field::CtTpSrc =>        row("ct_tp_src", 16, NXM_NX, 124),
            Field::CtTpDst =>        row("ct_tp_dst", 16, NXM_NX, 125),
            Field::Other(o) =>       Row { bytes: o.bytes, ..row("", 8 * u16::from(o.bytes), o.class, o.number) },
        }
    }

    /// By any of its headers. `bytes`: how long its value is there.
    #[rustfmt::skip]
    pub(crate) fn from_wire(class: u16, experimenter: u32, number: u8, bytes: u8) -> Field {
        match (class, number) {
            (OXM, 0) | (NXM_OF, 0) => Field::InPort,
            (OXM, 2) => Field::Metadata,
            (NXM_NX, 33) => Field::PktMark,
            (NXM_NX, REG0..16) => Field::Reg(number - REG0),
            (PKT_REGS, 0..8) => Field::XReg(number),
            (NXM_NX, XXREG0..115) => Field::XxReg(number - XXREG0),
            (OXM, 38) | (NXM_NX, 16) => Field::TunId,
            (NXM_NX, 31) => Field::TunSrc,
            (NXM_NX, 32) => Field::TunDst,
            (NXM_NX, 109) => Field::TunIpv6Src,
            (NXM_NX, 110) => Field::TunIpv6Dst,
            (NXM_NX, 104) => Field::TunFlags,
            (NXM_NX, TUN_METADATA0..104) => Field::TunMetadata(number - TUN_METADATA0),
            (NXM_NX, 105) => Field::CtState,
            (NXM_NX, 106) => Field::CtZone,
            (NXM_NX, 107) => Field::CtMark,
            (NXM_NX, 108) => Field::CtLabel,
            (OXM, 3) | (NXM_OF, 1) => Field::EthDst,
            (OXM, 4) | (NXM_OF, 2) => Field::EthSrc,
            (OXM, 5) | (NXM_OF, 3) => Field::EthType,
            (NXM_OF, 4) => Field::VlanTci,
            (NXM_NX, 26) => Field::IpFrag,
            (OXM, 10) | (NXM_OF, 6) => Field::IpProto,
            (NXM_NX, 29) => Field::IpTtl,
            (OXM, 11) | (NXM_OF, 7) => Field::IpSrc,
            (OXM, 12) | (NXM_OF, 8) => Field::IpDst,
            (OXM, 26) | (NXM_NX, 19) => Field::Ipv6Src,
            (OXM, 27) | (NXM_NX, 20) => Field::Ipv6Dst,
            (OXM, 13) | (NXM_OF, 9) => Field::TcpSrc,
            (OXM, 14) | (NXM_OF, 10) => Field::TcpDst,
            (OXM, 42) | (NXM_NX, 34) => Field::TcpFlags,
            (EXPERIMENTER, 42) if experimenter == ONF => Field::TcpFlags,
            (OXM, 15) | (NXM_OF, 11) => Field::UdpSrc,
            (OXM, 16) | (NXM_OF, 12) => Field::UdpDst,
            (OXM, 17) => Field::SctpSrc,
            (OXM, 18) => Field::SctpDst,
            (OXM, 19) | (NXM_OF, 13) => Field::IcmpType,
            (OXM, 20) | (NXM_OF, 14) => Field::IcmpCode,
            (OXM, 29) | (NXM_NX, 21) => Field::Icmpv6Type,
            (OXM, 30) | (NXM_NX, 22) => Field::Icmpv6Code,
            (OXM, 31) | (NXM_NX, 23) => Field::NdTarget,
            (OXM, 32) | (NXM_NX, 24) => Field::NdSll,
            (OXM, 33) | (NXM_NX, 25) => Field::NdTll,
            (OXM, 21) | (NXM_OF, 15) => Field::ArpOp,
            (OXM, 22) | (NXM_OF, 16) => Field::ArpSpa,
            (OXM, 23) | (NXM_OF, 17) => Field::ArpTpa,
            (OXM, 24) | (NXM_NX, 17) => Field::ArpSha,
            (OXM, 25) | (NXM_NX, 18) => Field::ArpTha,
            (NXM_NX, 119) => Field::CtNwProto,
            (NXM_NX, 120) => Field::CtNwSrc,
            (NXM_NX, 121) => Field::CtNwDst,
            (NXM_NX, 122) => Field::CtIpv6Src,
            (NXM_NX, 123) => Field::CtIpv6Dst,
            (NXM_NX, 124) => Field::CtTpSrc,
            (NXM_NX, 125) => Field::CtTpDst,
            _ => Field::Other(OtherField { class, experimenter, number, bytes }),
        }
    }
}

fn below(end: u8, n: u8) -> u8 {
    assert!(n < end, "no such register or option");
    n
}
