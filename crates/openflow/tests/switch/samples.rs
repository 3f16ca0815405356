//! Flows that use each field and each action at least once.

use portcullis_openflow::{
    Action, Bits, Field, Flow, Learn, Match, Port, Source, Spec, TlvMapping, Value, Zone,
};

pub(crate) const IP: u128 = 0x0800;
pub(crate) const IPV6: u128 = 0x86dd;
const ARP: u128 = 0x0806;
const TRACKED_AND_VALID: (u128, u128) = (0x20, 0x30);

/// The options that the flows use.
pub(crate) fn options() -> Vec<TlvMapping> {
    let option = |index: u16, bytes| TlvMapping {
        class: 0x0102,
        kind: 0x80 | index as u8,
        bytes,
        index,
    };
    vec![option(0, 20), option(1, 4)]
}

pub(crate) fn all() -> Vec<Flow> {
    let matches = matches()
        .into_iter()
        .map(|matching| (matching, vec![Action::Output(Port::Number(1))]));
    let any = || Match::new();
    let in_ip = || Match::new().exact(Field::EthType, IP);
    let tagged = || in_ip().masked(Field::VlanTci, 0x1000, 0x1000);
    let actions = [
        (any(), outputs()),
        (
            tagged(),
            vec![
                Action::PopVlan,
                Action::PushVlan(0x8100),
                Action::set(Field::VlanTci, 0x1064),
            ],
        ),
        (in_ip(), vec![Action::DecTtl, Action::set(Field::IpTtl, 7)]),
        (any(), moves()),
        (in_ip(), conntrack()),
        (any(), vec![Action::Learn(learn())]),
        (any(), nested()),
        (any(), Vec::new()),
    ];
    let sets = sets().into_iter().map(|action| (in_ip(), vec![action]));
    (1..)
        .zip(matches.chain(actions).chain(sets))
        .map(|(priority, (matching, actions))| Flow {
            table: 9,
            priority,
            cookie: 0xc0_0000 + u64::from(priority),
            matching,
            actions,
            goto: (priority % 2 == 0).then_some(20),
            idle_timeout_s: priority % 3 * 300,
            hard_timeout_s: priority % 4 * 400,
        })
        .collect()
}

/// ovs-ofctl makes several actions of this one.
pub(crate) fn set_with_a_hole() -> Flow {
    let value = Value::from(0x101);
    let mask = Value::from(0x303);
    let action = Action::Set {
        to: Field::Reg(2),
        value,
        mask,
    };
    Flow {
        actions: vec![action],
        ..Flow::default()
    }
}

fn matches() -> Vec<Match> {
    let ip = || Match::new().exact(Field::EthType, IP);
    let ipv6 = || Match::new().exact(Field::EthType, IPV6);
    let tcp = || ip().exact(Field::IpProto, 6);
    let nd = |kind: u128| {
        ipv6()
            .exact(Field::IpProto, 58)
            .exact(Field::Icmpv6Type, kind)
            .exact(Field::Icmpv6Code, 0)
    };
    let valid =
        |matching: Match| matching.masked(Field::CtState, TRACKED_AND_VALID.0, TRACKED_AND_VALID.1);
    let mut all = vec![
        Match::new(),
        Match::new()
            .exact(Field::InPort, 0xffff_fffe)
            .masked(Field::Metadata, 0x1_0000_0002, 0xf_0000_000f)
            .exact(Field::PktMark, 7)
            .masked(Field::Reg(0), 0x8001, 0xffff)
            .exact(Field::Reg(15), 0)
            .masked(Field::XReg(1), 5, 0xff_0000_00ff)
            .exact(Field::XxReg(2), 0x1_0000_0002_0000_0003_0000_0004),
        Match::new()
            .exact(Field::TunId, 0x1234)
            .exact(Field::TunSrc, 0x0a00_0001)
            .masked(Field::TunDst, 0x0a00_0000, 0xff00_0000)
            .exact(Field::TunFlags, 1)
            .exact(Field::TunMetadata(1), 0x77),
        Match::new()
            .exact(Field::TunIpv6Src, 0xfd00 << 112 | 1)
            .masked(Field::TunIpv6Dst, 0xfd00 << 112, 0xffff << 112)
            .with(Field::TunMetadata(0), long(0x11), long(0xf3)),
        Match::new().with(
            Field::TunMetadata(0),
            long(0xaa),
            Field::TunMetadata(0).all_ones(),
        ),
        Match::new()
            .masked(Field::CtState, 0x21, 0x25)
            .exact(Field::CtZone, 9)
            .masked(Field::CtMark, 1, 3)
            .masked(Field::CtLabel, 1 << 100, 0xff << 96),
        Match::new()
            .exact(Field::CtState, 0x22)
            .exact(Field::CtLabel, u128::MAX - 1),
        Match::new()
            .masked(Field::EthDst, 0x0100_0000_0000, 0x0100_0000_0000)
            .exact(Field::EthSrc, 0x0200_0000_0001)
            .exact(Field::VlanTci, 0xb064),
        Match::new().exact(Field::VlanTci, 0),
        Match::new().masked(Field::VlanTci, 0x1064, 0x1fff),
        ip().masked(Field::IpFrag, 0, 2).exact(Field::IpTtl, 64),
        ip().exact(Field::IpFrag, 3).exact(Field::IpSrc, 1).masked(
            Field::IpDst,
            0x0a00_0000,
            0xff00_0000,
        ),
        ipv6()
            .exact(Field::Ipv6Src, 1)
            .masked(Field::Ipv6Dst, 0xfe80 << 112, 0xffc0 << 112),
        tcp()
            .exact(Field::TcpSrc, 80)
            .masked(Field::TcpDst, 0x1000, 0xf000)
            .masked(Field::TcpFlags, 2, 0x12),
        tcp().exact(Field::TcpFlags, 0x10),
        ip().exact(Field::IpProto, 17)
            .exact(Field::UdpSrc, 53)
            .masked(Field::UdpDst, 0x8000, 0x8000),
        ipv6()
            .exact(Field::IpProto, 132)
            .exact(Field::SctpSrc, 5)
            .exact(Field::SctpDst, 6),
        ip().exact(Field::IpProto, 1)
            .exact(Field::IcmpType, 8)
            .exact(Field::IcmpCode, 0),
        nd(135)
            .exact(Field::NdTarget, 5)
            .exact(Field::NdSll, 0x0200_0000_0001),
        nd(136)
            .masked(Field::NdTarget, 0, 0xff)
            .exact(Field::NdTll, 0x0200_0000_0001),
        Match::new()
            .exact(Field::EthType, ARP)
            .exact(Field::ArpOp, 1)
            .exact(Field::ArpSpa, 0x0a00_0001)
            .masked(Field::ArpTpa, 0x0a00_0000, 0xffff_ff00)
            .exact(Field::ArpSha, 0x0200_0000_0001)
            .exact(Field::ArpTha, 0),
    ];
    all.push(
        valid(ip())
            .exact(Field::CtNwProto, 6)
            .exact(Field::CtNwSrc, 1)
            .masked(Field::CtNwDst, 0x0a00_0000, 0xff00_0000)
            .exact(Field::CtTpSrc, 80)
            .masked(Field::CtTpDst, 0x1000, 0xf000),
    );
    all.push(
        valid(ipv6())
            .exact(Field::CtIpv6Src, 1)
            .masked(Field::CtIpv6Dst, 0, 0xff),
    );
    all
}

fn outputs() -> Vec<Action> {
    [
        Port::Number(2),
        Port::InPort,
        Port::Table,
        Port::Normal,
        Port::Flood,
        Port::All,
        Port::Controller,
        Port::Local,
    ]
    .map(Action::Output)
    .into_iter()
    .chain([
        Action::OutputReg(Bits::new(Field::Reg(3), 4, 16)),
        Action::OutputReg(Bits::new(Field::TunMetadata(0), 0, 16)),
    ])
    .collect()
}

fn sets() -> Vec<Action> {
    vec![
        Action::set(Field::Reg(1), 0x1234),
        Action::set_bits(Bits::new(Field::Reg(1), 4, 6), 5),
        Action::set(Field::XReg(1), 1),
        Action::set(Field::XxReg(1), u128::MAX),
        Action::set_bits(Bits::new(Field::XxReg(1), 32, 64), 9),
        Action::set(Field::Metadata, 3),
        Action::set(Field::PktMark, 4),
        Action::set(Field::InPort, 2),
        Action::set(Field::TunId, 4),
        Action::set(Field::TunDst, 0x0a00_0001),
        Action::set(Field::TunMetadata(1), 0x77),
        Action::Set {
            to: Field::TunMetadata(0),
            value: long(1),
            mask: Field::TunMetadata(0).all_ones(),
        },
        Action::set_bits(Bits::new(Field::TunMetadata(0), 40, 8), 0x7f),
        Action::set(Field::EthDst, 0x0200_0000_0001),
        Action::set(Field::IpSrc, 0x0a00_0001),
        Action::set_bits(Bits::one(Field::EthSrc, 0), 1),
    ]
}

fn moves() -> Vec<Action> {
    vec![
        Action::Move {
            from: Bits::new(Field::Reg(0), 0, 16),
            to: Bits::new(Field::Reg(1), 16, 16),
        },
        Action::Move {
            from: Bits::new(Field::TunMetadata(0), 32, 128),
            to: Bits::all(Field::XxReg(1)),
        },
        Action::Move {
            from: Bits::all(Field::XxReg(1)),
            to: Bits::new(Field::TunMetadata(0), 32, 128),
        },
        Action::Move {
            from: Bits::all(Field::InPort),
            to: Bits::all(Field::Reg(2)),
        },
        Action::Move {
            from: Bits::all(Field::CtState),
            to: Bits::new(Field::Reg(2), 0, 8),
        },
        Action::Resubmit {
            port: None,
            table: 30,
        },
        Action::Resubmit {
            port: Some(2),
            table: 31,
        },
        Action::CheckPktLarger {
            bytes: 1500,
            to: Bits::one(Field::Reg(0), 3),
        },
    ]
}

fn conntrack() -> Vec<Action> {
    let exec = vec![
        Action::set(Field::CtMark, 5),
        Action::set_bits(Bits::new(Field::CtMark, 8, 4), 5),
        Action::set_bits(Bits::new(Field::CtLabel, 64, 40), 6),
        Action::Move {
            from: Bits::all(Field::Reg(0)),
            to: Bits::new(Field::CtLabel, 0, 32),
        },
    ];
    let committed = Action::Ct {
        commit: true,
        force: true,
        zone: Zone::Number(7),
        table: Some(21),
        exec,
    };
    let looked_up = Action::Ct {
        commit: false,
        force: false,
        zone: Zone::Field(Bits::new(Field::Reg(4), 0, 16)),
        table: Some(22),
        exec: Vec::new(),
    };
    let forgotten = Action::Ct {
        commit: true,
        force: false,
        zone: Zone::Number(0),
        table: None,
        exec: Vec::new(),
    };
    vec![committed, Action::CtClear, looked_up, forgotten]
}

fn learn() -> Learn {
    let all = |field| Bits::all(field);
    Learn {
        table: 40,
        priority: 77,
        cookie: 0x99,
        idle_timeout_s: 5,
        hard_timeout_s: 6,
        fin_idle_timeout_s: 1,
        fin_hard_timeout_s: 2,
        delete_learned: true,
        specs: vec![
            Spec::Match {
                to: all(Field::Reg(0)),
                from: Source::Field(all(Field::Reg(0))),
            },
            Spec::Match {
                to: Bits::new(Field::Reg(7), 0, 20),
                from: Source::Value(Value::from(0x81234)),
            },
            Spec::Match {
                to: all(Field::EthType),
                from: Source::Value(Value::from(IP)),
            },
            Spec::Load {
                to: Bits::one(Field::Reg(2), 3),
                from: Source::Value(Value::from(1)),
            },
            Spec::Load {
                to: all(Field::Reg(3)),
                from: Source::Field(Bits::new(Field::TunMetadata(0), 0, 32)),
            },
            Spec::Load {
                to: all(Field::Reg(5)),
                from: Source::Field(all(Field::InPort)),
            },
            Spec::Output(all(Field::Reg(4))),
        ],
    }
}

fn nested() -> Vec<Action> {
    let inner = Action::Clone(vec![Action::Output(Port::Number(1)), Action::CtClear]);
    vec![
        Action::Clone(vec![
            Action::set(Field::Reg(0), 1),
            inner,
            Action::Resubmit {
                port: None,
                table: 30,
            },
        ]),
        Action::Output(Port::Number(2)),
    ]
}

/// 20 bytes of this.
fn long(byte: u8) -> Value {
    Value::from_bytes(&[byte; 20]).expect("20 bytes fit")
}
