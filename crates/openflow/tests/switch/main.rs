//! Against Open vSwitch, each test with one of its own in a network namespace of its own. Needs root.

mod ovs;
mod samples;

use std::time::{Duration, Instant};

use portcullis_openflow::{
    Action, Bits, Change, Field, Filter, Flow, FlowWatch, Learn, Match, Port, Refused, Source,
    Spec, Switch, TlvMapping, no_flood_ports, set_no_flood,
};

use ovs::Ovs;

fn connect(ovs: &Ovs) -> Switch {
    Switch::connect(&ovs.socket()).expect("the switch listens")
}

fn flows(switch: &mut Switch, filter: &Filter) -> Vec<Flow> {
    let stats = switch.flows(filter).expect("the switch tells its flows");
    let mut flows: Vec<_> = stats.into_iter().map(|stats| stats.flow).collect();
    flows.sort();
    flows
}

/// So that no flow of the bridge's own is there.
fn clear(switch: &mut Switch) {
    let all = Change::DeleteAll {
        cookie: 0,
        mask: 0,
        table: None,
    };
    switch.change(&[all]).expect("flows can be deleted");
}

fn sorted(mut flows: Vec<Flow>) -> Vec<Flow> {
    flows.sort();
    flows
}

fn simple(table: u8, priority: u16, cookie: u64) -> Flow {
    Flow {
        table,
        priority,
        cookie,
        matching: Match::new().exact(Field::Reg(0), priority.into()),
        actions: vec![Action::Output(Port::Number(1))],
        ..Flow::default()
    }
}

fn adds(flows: &[Flow]) -> Vec<Change> {
    flows.iter().cloned().map(Change::Add).collect()
}

#[test]
fn a_flow_is_read_back_as_it_was_added() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    clear(&mut switch);
    switch
        .add_tlv(&samples::options())
        .expect("options can be mapped");
    for flow in samples::all()
        .into_iter()
        .chain([samples::set_with_a_hole()])
    {
        let added = switch.change(&[Change::Add(flow.clone())]);
        added.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            flows(&mut switch, &Filter::default()),
            std::slice::from_ref(&flow),
            "{flow}"
        );
        let gone = Change::Delete {
            table: flow.table,
            priority: flow.priority,
            matching: flow.matching.clone(),
        };
        switch.change(&[gone]).expect("a flow can be deleted");
        assert_eq!(flows(&mut switch, &Filter::default()), [], "{flow}");
    }
    switch
        .change(&adds(&samples::all()))
        .expect("all together, too");
    assert_eq!(
        flows(&mut switch, &Filter::default()),
        sorted(samples::all())
    );
}

/// What we write for people is what ovs-ofctl takes for the same flow.
#[test]
fn ovs_ofctl_understands_our_text() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    switch
        .add_tlv(&samples::options())
        .expect("options can be mapped");
    for flow in samples::all() {
        clear(&mut switch);
        ovs.ofctl("add-flow", &[&flow.to_string()]);
        assert_eq!(
            flows(&mut switch, &Filter::default()),
            std::slice::from_ref(&flow),
            "{flow}"
        );
    }
}

#[test]
fn ovs_ofctl_sees_what_we_added() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    clear(&mut switch);
    let mut flow = simple(3, 100, 0x5);
    flow.matching = Match::new()
        .exact(Field::EthType, samples::IP)
        .masked(Field::Reg(0), 0x8001, 0xffff)
        .masked(Field::IpSrc, 0x0a00_0000, 0xff00_0000);
    flow.actions = vec![
        Action::set(Field::Reg(1), 7),
        Action::Ct {
            commit: true,
            force: false,
            zone: portcullis_openflow::Zone::Number(7),
            table: None,
            exec: vec![Action::set(Field::CtMark, 1)],
        },
    ];
    flow.goto = Some(4);
    flow.idle_timeout_s = 60;
    switch
        .change(&[Change::Add(flow), Change::Add(simple(4, 1, 6))])
        .expect("they are added");
    let told = ovs.ofctl("dump-flows", &["--no-stats", "--no-names"]);
    let told: Vec<_> = told
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("table="))
        .collect();
    assert_eq!(
        told,
        [
            "cookie=0x5, table=3, idle_timeout=60, priority=100,ip,reg0=0x8001/0xffff,nw_src=10.0.0.0/8 \
             actions=set_field:0x7->reg1,ct(commit,zone=7,exec(set_field:0x1->ct_mark)),goto_table:4",
            "cookie=0x6, table=4, priority=1,reg0=0x1 actions=output:1",
        ]
    );
}

#[test]
fn a_bundle_with_a_bad_flow_changes_nothing() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    clear(&mut switch);
    let before = simple(1, 1, 1);
    switch
        .change(&adds(std::slice::from_ref(&before)))
        .expect("it is added");

    let without_eth_type = Flow {
        matching: Match::new().exact(Field::IpSrc, 1),
        ..simple(1, 3, 3)
    };
    let unmapped_option = Flow {
        actions: vec![Action::set(Field::TunMetadata(5), 1)],
        ..simple(1, 3, 3)
    };
    let bad_port = Flow {
        actions: vec![Action::Output(Port::Number(0xffff_ff10))],
        ..simple(1, 3, 3)
    };
    for (bad, name, word) in [
        (without_eth_type, "OFPBMC_BAD_PREREQ", "nw_src=0.0.0.1"),
        (unmapped_option, "NXFMFC_INVALID_TLV_FIELD", "tun_metadata5"),
        (bad_port, "OFPBAC_BAD_OUT_PORT", "output:"),
    ] {
        let all = Change::DeleteAll {
            cookie: 0,
            mask: 0,
            table: None,
        };
        let changes = [
            all,
            Change::Add(simple(1, 2, 2)),
            Change::Add(bad),
            Change::Add(simple(1, 4, 4)),
        ];
        let refused = switch.change(&changes).expect_err("one is bad");
        println!("{refused}");
        let Refused::Change {
            index,
            change,
            error,
        } = &refused
        else {
            panic!("{refused}");
        };
        assert_eq!(*index, 2);
        assert!(change.contains(word), "{change}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(
            flows(&mut switch, &Filter::default()),
            std::slice::from_ref(&before)
        );
    }
    // Such a connection goes on.
    switch
        .change(&adds(&[simple(1, 5, 5)]))
        .expect("it is good");
    switch.echo().expect("it lives");
}

/// A whole table full of them: the errors come while there is much to send.
#[test]
fn ten_thousand_bad_flows_do_not_block() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    let bad = |priority| Flow {
        matching: Match::new().exact(Field::IpSrc, 1),
        ..simple(1, priority, 1)
    };
    let changes: Vec<_> = (0..10_000)
        .map(|priority| Change::Add(bad(priority)))
        .collect();
    let refused = switch.change(&changes).expect_err("all are bad");
    assert!(
        matches!(refused, Refused::Change { index: 0, .. }),
        "{refused}"
    );
}

#[test]
fn deleting_by_cookie_spares_others() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    clear(&mut switch);
    let (ours, other) = (0xabcd_0000_0000_0001, 0x1234_0000_0000_0001);
    let all = [
        simple(1, 1, ours),
        simple(2, 2, ours + 5),
        simple(1, 3, other),
    ];
    switch.change(&adds(&all)).expect("they are added");

    let (cookie, mask) = (0xabcd << 48, 0xffff << 48);
    let asked = |switch: &mut Switch, table| {
        flows(
            switch,
            &Filter {
                cookie,
                cookie_mask: mask,
                table,
            },
        )
    };
    assert_eq!(asked(&mut switch, None), all[..2]);
    assert_eq!(asked(&mut switch, Some(2)), all[1..2]);
    assert_eq!(asked(&mut switch, Some(3)), []);

    switch
        .change(&[Change::DeleteAll {
            cookie,
            mask,
            table: Some(1),
        }])
        .expect("deleted");
    assert_eq!(
        flows(&mut switch, &Filter::default()),
        [all[2].clone(), all[1].clone()]
    );
    switch
        .change(&[Change::DeleteAll {
            cookie,
            mask,
            table: None,
        }])
        .expect("deleted");
    assert_eq!(flows(&mut switch, &Filter::default()), [all[2].clone()]);
}

#[test]
fn ten_thousand_flows_in_a_bundle() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    clear(&mut switch);
    let many: Vec<_> = (0..10_000)
        .map(|number: u32| Flow {
            table: 5,
            priority: 100,
            cookie: number.into(),
            matching: Match::new()
                .exact(Field::EthType, samples::IP)
                .exact(Field::Reg(0), 0x8001)
                .exact(Field::IpSrc, 0x0a00_0000 + u128::from(number)),
            actions: vec![Action::set(Field::Reg(1), number.into())],
            goto: Some(6),
            ..Flow::default()
        })
        .collect();
    let begin = Instant::now();
    switch.change(&adds(&many)).expect("they are added");
    let added = begin.elapsed();
    let begin = Instant::now();
    let read = flows(&mut switch, &Filter::default());
    println!(
        "10,000 flows added in {added:?}, read in {:?}",
        begin.elapsed()
    );
    assert_eq!(read, sorted(many.clone()));

    let begin = Instant::now();
    let mut replaced = vec![Change::DeleteAll {
        cookie: 0,
        mask: 0,
        table: None,
    }];
    replaced.extend(adds(&many[1..]));
    switch.change(&replaced).expect("they are replaced");
    println!("10,000 flows replaced in {:?}", begin.elapsed());
    assert_eq!(
        flows(&mut switch, &Filter::default()),
        sorted(many[1..].to_vec())
    );
}

#[test]
fn options_of_tunnels_are_mapped() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    assert_eq!(switch.tlv_map().expect("told"), []);
    let options = samples::options();
    switch.add_tlv(&options).expect("mapped");
    assert_eq!(switch.tlv_map().expect("told"), options);

    let again = switch.add_tlv(&options[..1]).expect_err("mapped already");
    assert_eq!(again.to_string(), "NXTTMFC_ALREADY_MAPPED");
    let odd = TlvMapping {
        bytes: 3,
        index: 7,
        kind: 1,
        ..options[0]
    };
    let odd = switch.add_tlv(&[odd]).expect_err("3 bytes");
    assert_eq!(odd.to_string(), "NXTTMFC_BAD_OPT_LEN");

    let user = Flow {
        matching: Match::new().exact(Field::TunMetadata(0), 1),
        ..simple(1, 1, 1)
    };
    switch.change(&adds(&[user])).expect("it is added");
    let used = switch
        .delete_tlv(&options[..1])
        .expect_err("a flow uses it");
    assert_eq!(used.to_string(), "NXTTMFC_INVALID_TLV_DEL");
    clear(&mut switch);
    let end = Instant::now() + Duration::from_secs(5);
    while let Err(used) = switch.delete_tlv(&options[..1]) {
        assert!(Instant::now() < end, "{used}");
        std::thread::yield_now();
    }
    assert_eq!(switch.tlv_map().expect("told"), options[1..]);
}

#[test]
fn flooding_is_kept_from_a_port() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    let mut ports = switch.ports().expect("told");
    ports.sort();
    let named: Vec<_> = ports
        .iter()
        .map(|port| (port.number, port.name.as_str()))
        .collect();
    assert_eq!(named, [(1, "p1"), (2, "p2"), (0xffff_fffe, "br0")]);
    assert!(
        ports.iter().all(|port| port.link_down),
        "nobody has set them up"
    );
    assert_ne!(switch.datapath_id(), 0);

    let socket = ovs.socket();
    let no_flood = || Vec::from_iter(no_flood_ports(&socket).expect("told"));
    assert_eq!(no_flood(), []);
    let both = [(1, ports[1].mac), (2, ports[1].mac)];
    let wrong = set_no_flood(&socket, &both, true).expect_err("the first one's MAC is another's");
    assert_eq!(no_flood(), [2]);
    assert_eq!(
        wrong.to_string(),
        "no-flood of port 1: OpenFlow 1.0 error 4, 1"
    );
    set_no_flood(&socket, &[(2, ports[1].mac)], false).expect("set back");
    assert_eq!(no_flood(), []);
}

#[test]
fn other_versions_are_named() {
    let ovs = Ovs::start();
    ovs.vsctl("set bridge br0 protocols=OpenFlow10,OpenFlow13");
    let refused = Switch::connect(&ovs.socket()).expect_err("1.4 is off");
    assert_eq!(
        refused.to_string(),
        "OpenFlow 1.4 is needed, the switch offers 1.0, 1.3"
    );
}

/// Others' flows have words that aren't ours. They are told, and can be added again.
#[test]
fn what_we_have_no_word_for_is_kept() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    clear(&mut switch);
    ovs.ofctl("add-group", &["group_id=1,type=all,bucket=output:1"]);
    ovs.ofctl(
        "add-flow",
        &[
            "table=1,priority=9,ipv6,ipv6_label=5,nw_ecn=1,nw_tos=32,conj_id=4 actions=group:1,\
           ct(commit,nat(src=fd00::1)),bundle(eth_src,0,hrw,ofport,members:1),\
           set_queue:3,note:01.02,write_metadata:0x5/0xff,goto_table:9",
        ],
    );
    let told = flows(&mut switch, &Filter::default());
    assert_eq!(told.len(), 1);
    println!("{}", told[0]);
    let dump = ovs.ofctl("dump-flows", &["--no-stats"]);
    clear(&mut switch);
    switch.change(&adds(&told)).expect("taken back");
    assert_eq!(flows(&mut switch, &Filter::default()), told);
    assert_eq!(ovs.ofctl("dump-flows", &["--no-stats"]), dump);
}

#[test]
fn a_switch_that_went_away_is_noticed() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    switch.barrier().expect("it is there");
    drop(ovs);
    switch.echo().expect_err("it is gone");
    let again = switch.flows(&Filter::default()).expect_err("it stays gone");
    assert_eq!(again.kind(), std::io::ErrorKind::NotConnected);
}

/// Frames go through a flow that learns and into the one that it learned. The one that teaches isn't
/// counted there: it meets the tables as they were when it came.
#[test]
fn what_was_learned_counts() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    clear(&mut switch);
    let all = |field| Bits::all(field);
    let learn = Learn {
        table: 2,
        priority: 7,
        cookie: 0x99,
        idle_timeout_s: 300,
        specs: vec![Spec::Match {
            to: all(Field::Reg(0)),
            from: Source::Field(all(Field::Reg(0))),
        }],
        ..Learn::default()
    };
    let teacher = Flow {
        table: 1,
        actions: vec![
            Action::set(Field::Reg(0), 0x8001),
            Action::Learn(learn),
            Action::Resubmit {
                port: None,
                table: 2,
            },
        ],
        ..Flow::default()
    };
    let add_teacher = adds(&[teacher]);
    switch.change(&add_teacher).expect("it is added");
    let frame = format!("020000000001020000000002{}{}", "88b5", "00".repeat(50));
    for _ in 0..3 {
        ovs.ofctl(
            "packet-out",
            &[&format!("in_port=1 packet={frame} actions=resubmit(,1)")],
        );
    }
    let learned = Flow {
        table: 2,
        priority: 7,
        cookie: 0x99,
        matching: Match::new().exact(Field::Reg(0), 0x8001),
        idle_timeout_s: 300,
        ..Flow::default()
    };
    let told = switch
        .flows(&Filter {
            table: Some(2),
            ..Filter::default()
        })
        .expect("told");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].flow, learned);
    assert_eq!((told[0].packets, told[0].bytes), (2, 2 * 64));

    // Who is added again goes on counting.
    switch.change(&add_teacher).expect("it is added");
    let told = switch
        .flows(&Filter {
            table: Some(1),
            ..Filter::default()
        })
        .expect("told");
    assert_eq!((told[0].packets, told[0].bytes), (3, 3 * 64));
}

#[test]
fn whoever_changes_a_flow_is_seen() {
    let ovs = Ovs::start();
    let mut switch = connect(&ovs);
    let mut watch = FlowWatch::begin(&ovs.socket()).expect("the switch can tell");
    assert!(!watch.changed().expect("it answers"));
    let mut flow = simple(3, 7, 1);
    let gone = Change::Delete {
        table: flow.table,
        priority: flow.priority,
        matching: flow.matching.clone(),
    };
    let add = Change::Add(flow.clone());
    flow.actions = vec![Action::Output(Port::Number(2))];
    for change in [add, Change::Add(flow), gone] {
        switch.change(&[change]).expect("it takes that");
        assert!(watch.changed().expect("it answers"));
        assert!(!watch.changed().expect("it answers"));
    }
}
