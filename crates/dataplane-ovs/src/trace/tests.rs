use super::*;

/// As Open vSwitch 3.1 answers, shortened.
const HALF: &str = "\
Flow: tcp,in_port=LOCAL,vlan_tci=0x0000,nw_frag=no,tp_src=4000,tp_dst=80,tcp_flags=syn

bridge(\"br0\")
-------------
    set_field:0x10000/0xffff0000->reg4
    resubmit(,<HandOver>)
<HandOver>. priority 0, cookie 0x706f720000000000
    set_field:0->reg1
    goto_table:<Enter>
<Enter>. reg4=0x10000/0xffff0000, priority 10, cookie 0x706f720200008002
    set_field:0x1/0xfffffbff->reg1
    set_field:0->reg2
    goto_table:<Elide>
<Elide>. ip, priority 10, cookie 0x706f720000000000
    ct(table=<State>,zone=NXM_NX_REG0[0..15])
    drop
     -> A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table <State>.

Final flow: tcp,reg1=0x1,in_port=LOCAL
Datapath actions: ct(zone=32770),recirc(0xb)

===============================================================================
recirc(0xb) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)
===============================================================================

Flow: recirc_id=0xb,ct_state=new|trk,ct_zone=32770,eth,tcp,reg1=0x1,in_port=LOCAL,nw_frag=no,tp_src=4000

bridge(\"br0\")
-------------
thaw
     >>>> Recirculation conflict (actions)! <<<<
Translation failed (Recirculation conflict), packet is dropped.
";

/// With the numbers of the tables that are named.
fn numbered(text: &str) -> String {
    let tables = Table::ALL.into_iter();
    tables.fold(text.to_owned(), |text, table| {
        text.replace(&format!("<{table:?}>"), &table.number().to_string())
    })
}

fn second(steps: &str) -> Trace {
    let text =
        format!("Flow: tcp,reg1=0x1,in_port=LOCAL\n\nbridge(\"br0\")\n-------------\n{steps}");
    Trace::parse(&numbered(&text)).expect("it is one")
}

#[test]
fn a_first_half_ends_where_the_tracker_is_asked() {
    let trace = Trace::parse(&numbered(HALF)).expect("it is one");
    let tables: Vec<u8> = trace.steps.iter().map(|step| step.table).collect();
    let met = [Table::HandOver, Table::Enter, Table::Elide];
    assert_eq!(tables, met.map(Table::number));
    assert_eq!(trace.steps[1].cookie, Some(0x706f_7202_0000_8002));
    // What the switch makes of its own guess is not looked at.
    assert_eq!(trace.trouble, None);
    let fields = "ct_zone=32770,tcp,reg1=0x1,in_port=LOCAL,nw_frag=no,tcp_src=4000".to_owned();
    assert_eq!(trace.end(Direction::Ingress), End::Asked { fields });
}

#[test]
fn a_second_half_says_by_what_it_passes() {
    let trace = second(
        "    resubmit(,<State>)\n\
         <State>. ip, priority 0, cookie 0x706f720000000000\n    resubmit(,<Walk>)\n    \
         <Walk>. reg3=0x7, priority 10, cookie 0x706f720000000000\n            resubmit(,<Rules>)\n    \
         <Rules>. tcp, priority 10, cookie 0x706f720100000042\n            set_field:0x42->reg2\n            \
         set_field:0x6/0x6->reg1\n    goto_table:<Verdict>\n\
         <Verdict>. reg1=0x2/0x2, priority 40, cookie 0x706f720000000000\n    goto_table:<Passed>\n\
         <Passed>. reg0=0x8002/0xffff, priority 10, cookie 0x706f720200008002\n    output:1\n",
    );
    let End::Passed { from, said } = trace.end(Direction::Ingress) else {
        panic!("{trace:?}");
    };
    assert_eq!((from, said.rule), (Table::Verdict, 0x42));
    assert!(said.has(Flag::PERMITTED) && said.has(Flag::STATEFUL));
    assert!(!said.has(Flag::LIVE));
}

#[test]
fn a_drop_has_its_reason_and_what_is_not_ours_none() {
    let drop = "<Verdict>. priority 0, cookie 0x706f720000000000\n    set_field:0xe->reg7\n    goto_table:<Drop>\n\
                <Drop>. priority 0, cookie 0x706f720000000000\n     >> suppressing side effects\n";
    let reason = second(drop).end(Direction::Ingress);
    assert_eq!(reason, End::Dropped(DropReason::NoRule));
    let unknown = drop.replace("0xe", "0");
    assert_eq!(
        second(&unknown).end(Direction::Ingress),
        End::Elsewhere(Table::Drop.number())
    );
    let missed = "<Verdict>. No match.\n    drop\n";
    assert_eq!(second(missed).steps[0].cookie, None);
    assert_eq!(
        second(missed).end(Direction::Ingress),
        End::Elsewhere(Table::Verdict.number())
    );
    let others = " 7. priority 1\n    drop\n";
    assert_eq!(second(others).end(Direction::Ingress), End::Elsewhere(7));
    let failed = second(
        "<Verdict>. No match.\n    drop\nTranslation failed (Too many resubmits), dropped.\n",
    );
    assert!(failed.trouble.is_some());
    assert_eq!(Trace::parse("no trace"), None);
}

#[test]
fn fields_are_put_into_words_that_are_read() {
    for (written, read) in [
        (
            "tcp6,nw_frag=no,tp_src=1,tp_dst=2",
            "tcp6,nw_frag=no,tcp_src=1,tcp_dst=2",
        ),
        (
            "sctp,nw_frag=no,tp_src=1,tp_dst=2",
            "sctp,nw_frag=no,sctp_src=1,sctp_dst=2",
        ),
        ("udp,nw_frag=first,tp_src=1,tp_dst=2", "udp,nw_frag=first"),
        (
            "ip,nw_proto=2,nw_frag=no,tp_src=22,tp_dst=0",
            "ip,nw_proto=2,nw_frag=no",
        ),
        ("icmp,nw_frag=no,icmp_type=3", "icmp,nw_frag=no,icmp_type=3"),
        (
            "icmp6,nw_frag=no,icmp_type=135,icmp_code=0,nd_sll=a,nd_tll=b",
            "icmp6,nw_frag=no,icmpv6_type=135,icmpv6_code=0,nd_sll=a",
        ),
        (
            "udp,dl_vlan=7,vlan_tci1=0x0000,nw_frag=no",
            "udp,dl_vlan=7,nw_frag=no",
        ),
    ] {
        assert_eq!(readable(written), read);
        assert_eq!(readable(read), read, "once is enough");
    }
}
