//! Against bytes of ovs-ofctl and ovs-vswitchd 3.1, recorded. What they say, in ovs-ofctl's words, is
//! beside them.

use super::message::{
    BundleStep, Header, MULTIPART_FLOW, MULTIPART_PORTS, TlvStep, read_error, read_flows,
    read_header, read_hello, read_multipart, read_ports, read_tlv_map, write_bundle_step,
    write_bundled, write_flow_request, write_hello, write_tlv_mod,
};
use super::oxm::{read_match, write_match};
use super::*;
use crate::{
    Action, Bits, Change, Field, Filter, Flow, FlowStats, Learn, Match, OfError, OtherField, Port,
    PortDesc, Source, Spec, TlvMapping, Value, Zone,
};

/// `xid` 6, as in the recordings.
fn added(flow: &Flow) -> String {
    let mut out = Vec::new();
    write_bundled(&mut out, 6, 3, &Change::Add(flow.clone()));
    hex(&out[16..])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16);
    digits
        .chunks(2)
        .map(|pair| byte(pair).expect("it is hex"))
        .collect()
}

/// From the bytes of a message that adds it.
fn read_added(hex: &str) -> Flow {
    let message = bytes(hex);
    let mut from = Reader::new(&message[48..], "test");
    let matching = read_match(&mut from).expect("a match");
    let (actions, goto) = action::read_instructions(from).expect("instructions");
    Flow {
        table: message[24],
        priority: u16::from_be_bytes([message[30], message[31]]),
        matching,
        actions,
        goto,
        ..Flow::default()
    }
}

fn flow(table: u8, matching: Match, actions: Vec<Action>) -> Flow {
    Flow {
        table,
        priority: 0x8000,
        matching,
        actions,
        ..Flow::default()
    }
}

fn in_ip() -> Match {
    Match::new().exact(Field::EthType, 0x0800)
}

/// output:1,output:NXM_NX_REG15[],IN_PORT,NORMAL
const OUTPUTS: &str = "050e008800000006000000000000000000000000000000000100000000008000ffffffffffffffff\
    ffffffff000000000001000400000000000400500000000000000010000000010000000000000000ffff001800002320\
    000f001f00011e04ffff00000000000000000010fffffff8000000000000000000000010fffffffa0000000000000000";
/// ip actions=set_field:0x1234->reg3,load:5->NXM_NX_REG1[4..9],set_field:10.0.0.1->tun_dst
const SETS: &str = "050e008000000006000000000000000000000000000000000200000000008000ffffffffffffffff\
    ffffffff000000000001000a80000a020800000000000000000400400000000000190010000106040000123400000000\
    ffff0018000023200007010500010204000000000000000500190010000140040a00000100000000";
/// move:NXM_NX_REG0[0..15]->NXM_NX_REG1[16..31],move:NXM_NX_TUN_METADATA0[0..31]->NXM_NX_REG5[],
/// push:NXM_NX_TUN_METADATA0[0..31],pop:NXM_NX_REG7[]
const MOVES: &str = "050e00a000000006000000000000000000000000000000000300000000008000ffffffffffffffff\
    ffffffff0000000000010004000000000004006800000000ffff00180000232000060010000000100001000400010204\
    ffff00180000232000060020000000000001507c00010a04ffff001800002320001b00000001507c0020000000000000\
    ffff001800002320001c000000010e040020000000000000";
/// resubmit(,9),resubmit(7,9)
const RESUBMITS: &str = "050e006000000006000000000000000000000000000000000400000000008000ffffffffffff\
    ffffffffffff0000000000010004000000000004002800000000ffff001000002320000efff809000000ffff00100000\
    2320000e000709000000";
/// ip actions=ct(commit,force,zone=7,table=8,exec(set_field:0x5->ct_mark,set_field:0x1/0x3->ct_label,
/// move:NXM_NX_REG0[]->NXM_NX_CT_LABEL[0..31])),ct(table=9,zone=NXM_NX_REG4[0..15]),ct_clear
const CONNTRACK: &str = "050e00c800000006000000000000000000000000000000000500000000008000ffffffffffff\
    ffffffffffff000000000001000a80000a0208000000000000000004008800000000ffff005800002320002300030000\
    00000007080000000000001900100001d6040000000500000000ffff001800002320000700010001d810000000000000\
    0001ffff0018000023200006002000000000000100040001d810ffff0018000023200023000000010804000f09000000\
    0000ffff001000002320002b000000000000";
/// clone(output:1,resubmit(,9)),check_pkt_larger(1500)->NXM_NX_REG0[3]
const CLONED: &str = "050e008800000006000000000000000000000000000000000600000000008000ffffffffffffff\
    ffffffffff0000000000010004000000000004005000000000ffff003000002320002a00000000000000000010000000\
    010000000000000000ffff001000002320000efff809000000ffff001800002320003105dc0003000100040000000000\
    00";
/// learn(table=9,idle_timeout=5,hard_timeout=6,priority=77,cookie=0x99,delete_learned,NXM_NX_REG0[],
/// NXM_NX_REG7[0..15]=0x1234,load:NXM_NX_REG1[]->NXM_NX_REG2[],load:0x5->NXM_NX_REG3[0..2],output:NXM_NX_REG4[])
const LEARNS: &str = "050e009800000006000000000000000000000000000000000700000000008000ffffffffffffff\
    ffffffffff0000000000010004000000000004006000000000ffff005800002320001000050006004d00000000000000\
    99000209000000000000200001000400000001000400002010123400010e040000082000010204000000010404000028\
    0300050001060400001020000108040000";
/// tcp,tcp_flags=+syn-ack,nw_ttl=3,ip_frag=no actions=drop
const TCP_FLAGS: &str = "050e005800000006000000000000000000000000000000000900000000008000ffffffffffff\
    ffffffffffff000000000001002580000a020800000134010000013a01038000140106ffff55084f4e46000002001200\
    0000";
/// tun_metadata0=0x5/0xff,tun_metadata1=0x7
/// actions=set_field:0x0102030405060708090a0b0c0d0e0f1011121314->tun_metadata0,
/// load:3->NXM_NX_TUN_METADATA0[0..3],set_field:0x77->tun_metadata1
const OPTIONS: &str = "050e008800000006000000000000000000000000000000000a00000000008000ffffffffffffff\
    ffffffffff000000000001000f0001510205ff0001520107000004004800000000001900200001501401020304050607\
    08090a0b0c0d0e0f101112131400000000ffff001000002320002100015102030f001900100001520177000000000000\
    00";

/// Answers to a request of flows: the flow of OPTIONS, and table=1,priority=5,reg0=1 actions=drop.
const TOLD: &str = "000100000000000000b00a000000000007cee6c080000000000000000000000000000000000000000000000000\
    00000000000000000000000001003800015128000000000000000000000000000000000000000500000000000000000000\
    000000000000000000ff000152040000000700040048000000000019002000015014010203040506070809\
    0a0b0c0d0e0f101112131400000000ffff001000002320002100015102030f00190010000152017700000000000000\
    0040010000000016 19cf0e40 0005 0000 0000 0000 0000 0000 0000000000000000 0000000000000000 0000000000000000\
    0001000c000100040000000100000000";

fn outputs() -> Flow {
    let actions = vec![
        Action::Output(Port::Number(1)),
        Action::OutputReg(Bits::all(Field::Reg(15))),
        Action::Output(Port::InPort),
        Action::Output(Port::Normal),
    ];
    flow(1, Match::new(), actions)
}

fn moves() -> Flow {
    let move_it = |from, to| Action::Move { from, to };
    let actions = vec![
        move_it(
            Bits::new(Field::Reg(0), 0, 16),
            Bits::new(Field::Reg(1), 16, 16),
        ),
        move_it(
            Bits::new(Field::TunMetadata(0), 0, 32),
            Bits::all(Field::Reg(5)),
        ),
        Action::Push(Bits::new(Field::TunMetadata(0), 0, 32)),
        Action::Pop(Bits::all(Field::Reg(7))),
    ];
    flow(3, Match::new(), actions)
}

fn resubmits() -> Flow {
    let resubmit = |port| Action::Resubmit { port, table: 9 };
    flow(4, Match::new(), vec![resubmit(None), resubmit(Some(7))])
}

fn cloned() -> Flow {
    let inside = vec![
        Action::Output(Port::Number(1)),
        Action::Resubmit {
            port: None,
            table: 9,
        },
    ];
    let to = Bits::one(Field::Reg(0), 3);
    let larger = Action::CheckPktLarger { bytes: 1500, to };
    flow(6, Match::new(), vec![Action::Clone(inside), larger])
}

fn learns() -> Flow {
    let all = |n| Bits::all(Field::Reg(n));
    let learn = Learn {
        table: 9,
        priority: 77,
        cookie: 0x99,
        idle_timeout_s: 5,
        hard_timeout_s: 6,
        delete_learned: true,
        specs: vec![
            Spec::Match {
                to: all(0),
                from: Source::Field(all(0)),
            },
            Spec::Match {
                to: Bits::new(Field::Reg(7), 0, 16),
                from: Source::Value(Value::from(0x1234)),
            },
            Spec::Load {
                to: all(2),
                from: Source::Field(all(1)),
            },
            Spec::Load {
                to: Bits::new(Field::Reg(3), 0, 3),
                from: Source::Value(Value::from(5)),
            },
            Spec::Output(all(4)),
        ],
        ..Learn::default()
    };
    flow(7, Match::new(), vec![Action::Learn(learn)])
}

fn options() -> Flow {
    let matching = Match::new()
        .masked(Field::TunMetadata(0), 5, 0xff)
        .exact(Field::TunMetadata(1), 7);
    let counted: Vec<u8> = (1..=20).collect();
    let to = Field::TunMetadata(0);
    let whole = Action::Set {
        to,
        value: Value::from_bytes(&counted).expect("20 bytes fit"),
        mask: to.all_ones(),
    };
    let part = Action::set_bits(Bits::new(to, 0, 4), 3);
    flow(
        10,
        matching,
        vec![whole, part, Action::set(Field::TunMetadata(1), 0x77)],
    )
}

#[test]
fn written_and_read_as_ovs_ofctl_does() {
    for (flow, recorded) in [
        (outputs(), OUTPUTS),
        (moves(), MOVES),
        (resubmits(), RESUBMITS),
        (cloned(), CLONED),
        (learns(), LEARNS),
        (options(), OPTIONS),
    ] {
        assert_eq!(added(&flow), hex(&bytes(recorded)), "{flow}");
        assert_eq!(read_added(recorded), flow);
    }
}

/// Here ovs-ofctl chose another encoding of the same.
#[test]
fn other_encodings_mean_the_same() {
    let sets = vec![
        Action::set(Field::Reg(3), 0x1234),
        Action::set_bits(Bits::new(Field::Reg(1), 4, 6), 5),
        Action::set(Field::TunDst, 0x0a00_0001),
    ];
    assert_eq!(read_added(SETS), flow(2, in_ip(), sets));

    let tcp_flags = in_ip()
        .exact(Field::IpProto, 6)
        .exact(Field::IpTtl, 3)
        .exact(Field::IpFrag, 0)
        .masked(Field::TcpFlags, 2, 0x12);
    assert_eq!(read_added(TCP_FLAGS), flow(9, tcp_flags, Vec::new()));

    let exec = vec![
        Action::set(Field::CtMark, 5),
        Action::set_bits(Bits::new(Field::CtLabel, 0, 2), 1),
        Action::Move {
            from: Bits::all(Field::Reg(0)),
            to: Bits::new(Field::CtLabel, 0, 32),
        },
    ];
    let ct = |yes, zone, table, exec| Action::Ct {
        commit: yes,
        force: yes,
        zone,
        table,
        exec,
    };
    let zone = Zone::Field(Bits::new(Field::Reg(4), 0, 16));
    let actions = vec![
        ct(true, Zone::Number(7), Some(8), exec),
        ct(false, zone, Some(9), Vec::new()),
        Action::CtClear,
    ];
    assert_eq!(read_added(CONNTRACK), flow(5, in_ip(), actions));
}

fn matched(fields: &str) -> Match {
    let fields = bytes(fields);
    let mut all = vec![0, 1, 0, 4 + fields.len() as u8];
    all.extend(fields);
    pad(&mut all, 0);
    read_match(&mut Reader::new(&all, "test")).expect("a match")
}

/// From the tables of ovs-fields(7): what it calls the NXM and the OXM of a field.
#[test]
fn both_headers_of_a_field_are_read() {
    for (nxm, oxm) in [
        ("00000002 0003", "80000004 00000003"),
        ("00000002 fffe", "80000004 fffffffe"),
        ("00000206 0200 0000 0001", "80000606 0200 0000 0001"),
        ("00000602 0800", "80000a02 0800"),
        ("00000c01 06", "80001401 06"),
        ("00000f08 0a000000 ff000000", "80001708 0a000000 ff000000"),
        ("00012008 0000000000000007", "80004c08 0000000000000007"),
        ("00014402 0012", "ffff5406 4f4e4600 0012"),
        ("00014402 0012", "80005402 0012"),
        ("00014504 0002 0fff", "ffff5508 4f4e4600 0002 ffff"),
        ("00000904 1064 1fff", "80000c02 1064"),
        ("00000904 1000 1000", "80000d04 1000 1000"),
        ("00000802 b064", "80000c02 1064 80000e01 05"),
        ("00000802 0000", "80000c02 0000"),
        (
            "0001de10 00000001 00000002 00000003 00000004",
            "00010004 00000001 00010204 00000002 00010404 00000003 00010604 00000004",
        ),
    ] {
        assert_eq!(matched(nxm), matched(oxm), "{nxm}");
    }
}

#[test]
fn each_field_is_read_by_its_own_header() {
    let numbered = (0..64).flat_map(|n| {
        [
            (16, Field::Reg(n)),
            (8, Field::XReg(n)),
            (4, Field::XxReg(n)),
            (64, Field::TunMetadata(n)),
        ]
        .map(|(end, field)| (n < end).then_some(field))
    });
    let other = OtherField {
        class: 0x8000,
        experimenter: 0,
        number: 28,
        bytes: 4,
    };
    let plain = (0..=u8::MAX).flat_map(|number| {
        [0x0000, 0x0001, 0x8000].map(|class| Some(Field::from_wire(class, 0, number & 0x7f, 4)))
    });
    let all = numbered
        .chain(plain)
        .chain([Some(Field::Other(other))])
        .flatten();
    for field in all {
        let row = field.row();
        assert_eq!(Field::from_wire(row.class, 0, row.number, row.bytes), field);
        assert!(
            row.bits <= 8 * u16::from(row.bytes).min(32),
            "{}",
            field.name()
        );
    }
}

/// Otherwise the switch refuses the match: what a field depends on comes before it.
#[test]
fn prerequisites_come_first() {
    let order = [
        Field::EthType,
        Field::IpProto,
        Field::TcpFlags,
        Field::Icmpv6Type,
        Field::NdTarget,
        Field::CtNwSrc,
    ];
    assert!(order.is_sorted());
    assert!(Field::CtState < Field::CtNwProto);
    let mut out = Vec::new();
    write_match(
        &mut out,
        &Match::new()
            .exact(Field::IpSrc, 1)
            .exact(Field::EthType, 0x0800),
    );
    assert_eq!(
        hex(&out),
        "0001001280000a020800800016040000000100000000000000"
            .split_at(48)
            .0
    );
}

#[test]
fn flows_are_told() {
    let told = bytes(TOLD);
    let (from, more) = read_multipart(&told, MULTIPART_FLOW).expect("flows");
    assert!(!more);
    let mut flows = Vec::new();
    read_flows(from, &mut flows).expect("flows");
    let drop = Flow {
        priority: 5,
        ..flow(1, Match::new().exact(Field::Reg(0), 1), Vec::new())
    };
    let stats = |flow, duration_s| FlowStats {
        flow,
        packets: 0,
        bytes: 0,
        duration_s,
    };
    assert_eq!(flows, [stats(options(), 0), stats(drop, 0x16)]);
}

#[test]
fn messages_without_flows() {
    let mut out = Vec::new();
    write_hello(&mut out, 1);
    assert_eq!(hex(&out), "05000010000000010001000800000020");
    out.clear();
    write_bundle_step(&mut out, 7, 0, BundleStep::Open);
    write_bundle_step(&mut out, 9, 0, BundleStep::Commit);
    assert_eq!(
        hex(&out),
        "0521001000000007000000000000000305210010000000090000000000040003"
    );
    out.clear();
    let mapping = TlvMapping {
        class: 0x0102,
        kind: 0x83,
        bytes: 8,
        index: 3,
    };
    write_tlv_mod(&mut out, 2, TlvStep::Delete, &[mapping]);
    assert_eq!(
        hex(&out),
        "0504002000000002000023200000001800010000000000000102830800030000"
    );
}

#[test]
fn answers_without_flows() {
    let header = |version| Header {
        version,
        kind: 0,
        length: 16,
        xid: 1,
    };
    assert_eq!(
        read_hello(header(5), &bytes("0001000800000022")),
        Ok(0b10_0010)
    );
    assert_eq!(read_hello(header(1), &[]), Ok(0b11));
    let error = OfError {
        kind: 4,
        code: 9,
        experimenter: 0,
    };
    assert_eq!(read_error(&bytes("00040009 050e")), Ok(error));
    let tlv = "000023200000001a000001000040000000000000000000000102801400000000 0102810400010000";
    let mapping = |kind, bytes, index| TlvMapping {
        class: 0x0102,
        kind,
        bytes,
        index,
    };
    assert_eq!(
        read_tlv_map(&bytes(tlv)),
        Ok(vec![mapping(0x80, 20, 0), mapping(0x81, 4, 1)])
    );
    assert_eq!(
        read_header([5, 1, 0, 7, 0, 0, 0, 1]),
        Err(Malformed("header"))
    );
}

const PORTS: &str = "000d000000000000fffffffe0048000066369c1f31400000627230000000000000000000000000000000\
    00010000000100000020000000000000084000000000000000000000000000989680 00000000";

#[test]
fn ports_are_told() {
    let told = bytes(PORTS);
    let (from, _) = read_multipart(&told, MULTIPART_PORTS).expect("ports");
    let mut ports = Vec::new();
    read_ports(from, &mut ports).expect("ports");
    let bridge = PortDesc {
        number: Port::Local.number(),
        name: "br0".to_owned(),
        mac: [0x66, 0x36, 0x9c, 0x1f, 0x31, 0x40],
        link_down: true,
    };
    assert_eq!(ports, [bridge]);
}

#[test]
fn a_request_of_flows() {
    let mut out = Vec::new();
    let filter = Filter {
        cookie: 5,
        cookie_mask: 0xff,
        table: Some(3),
    };
    write_flow_request(&mut out, 2, &filter);
    let recorded = "0512003800000002000100000000000003000000ffffffffffffffff00000000\
        000000000000000500000000000000ff0001000400000000";
    assert_eq!(hex(&out), recorded);
}

/// Whatever comes instead: an answer or an error, never a panic, neither in what is made of it.
#[test]
fn damaged_bytes_are_read_without_panic() {
    for recorded in [
        OUTPUTS, SETS, MOVES, RESUBMITS, CONNTRACK, CLONED, LEARNS, TCP_FLAGS, OPTIONS,
    ] {
        damage(&bytes(recorded)[48..], |damaged| {
            let mut from = Reader::new(damaged, "test");
            let Ok(matching) = read_match(&mut from) else {
                return false;
            };
            let Ok((actions, goto)) = action::read_instructions(from) else {
                return false;
            };
            let mut read = flow(1, matching, actions);
            read.goto = goto;
            let _ = (read.to_string(), added(&read));
            true
        });
    }
    damage(&bytes(TOLD), |damaged| {
        let parts = read_multipart(damaged, MULTIPART_FLOW);
        parts.is_ok_and(|(from, _)| read_flows(from, &mut Vec::new()).is_ok())
    });
    damage(&bytes(PORTS), |damaged| {
        let parts = read_multipart(damaged, MULTIPART_PORTS);
        parts.is_ok_and(|(from, _)| read_ports(from, &mut Vec::new()).is_ok())
    });
}

/// Each bit turned, which may be read, and each length cut, which may not, but where a part ends.
fn damage(whole: &[u8], read: impl Fn(&[u8]) -> bool) {
    assert!(read(whole));
    let cuts_read = (0..whole.len()).filter(|end| read(&whole[..*end])).count();
    assert!(cuts_read <= 2, "{cuts_read} cuts are read");
    for bit in 0..8 * whole.len() {
        let mut damaged = whole.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        read(&damaged);
    }
}
