//! Against a real Open vSwitch: needs root and the package `openvswitch-switch`. The tools are the second
//! opinion.

mod instance;

use instance::{BRIDGE, Instance, V4};
use ovsdb::change::{self, Tunnel};
use ovsdb::conntrack::{self, Connection, Flushed};
use ovsdb::zones::{self, Timeouts};
use ovsdb::{Bridge, Control, Database, DatabaseError, Watch};
use portcullis_ovsdb as ovsdb;
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const OWNER: (&str, &str) = ("owner", "a test");
const DATAPATH: Option<&str> = Some("netdev@ovs-netdev");

fn bridge(database: &mut Database) -> Bridge {
    let mut bridges = database.bridges().expect("readable");
    assert_eq!(bridges.len(), 1);
    bridges.remove(0)
}

#[test]
fn what_the_tools_made_is_read() {
    let instance = Instance::start();
    instance.ip("link add dev0 type veth peer name dev1");
    instance.vsctl(&format!(
        "set bridge {BRIDGE} fail_mode=secure protocols=OpenFlow13,OpenFlow15 external_ids:a=b \
         -- add-port {BRIDGE} dev0 tag=7 -- set interface dev0 external_ids:iface-id=x"
    ));
    // What is wrong with a port is told, and is no reason for the tool to fail.
    instance.vsctl(&format!("add-port {BRIDGE} absent trunks=1,2"));
    let bridge = bridge(&mut instance.database());
    assert_eq!((&*bridge.name, &*bridge.datapath_type), (BRIDGE, "netdev"));
    assert_eq!(bridge.fail_mode.as_deref(), Some("secure"));
    assert_eq!(bridge.protocols, ["OpenFlow13", "OpenFlow15"]);
    assert_eq!((&*bridge.external_ids["a"], bridge.controllers), ("b", 0));
    assert_eq!(bridge.datapath_id.map(|id| id.len()), Some(16));
    let names: Vec<_> = bridge.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["absent", BRIDGE, "dev0"]);
    assert_eq!(bridge.ports[0].trunks, [1, 2]);
    let absent = &bridge.ports[0].interfaces[0];
    assert!(absent.ofport.is_none() && absent.ifindex.is_none() && absent.error.is_some());
    let device = &bridge.ports[2].interfaces[0];
    assert_eq!((bridge.ports[2].tag, &*device.kind), (Some(7), ""));
    assert_eq!(device.external_ids["iface-id"], "x");
    assert!(device.ofport.is_some() && device.ifindex.is_some() && device.mac_in_use.is_some());
    assert_eq!((device.mtu, &device.error), (Some(1500), &None));
}

#[test]
fn external_ids_and_the_fail_mode_are_set_and_removed() {
    let instance = Instance::start();
    let mut database = instance.database();
    instance.vsctl(&format!(
        "set bridge {BRIDGE} external_ids:kept=1 external_ids:a=old"
    ));
    let mut operations = change::set_external_ids(BRIDGE, &[("a", "new"), ("b", "2")]);
    operations.extend(change::set_fail_mode(BRIDGE, Some("secure")));
    database.transact(&operations).expect("done");
    let told = instance.vsctl(&format!("get bridge {BRIDGE} external_ids fail_mode"));
    assert_eq!(told.trim(), "{a=new, b=\"2\", kept=\"1\"}\nsecure");
    let mut operations = change::remove_external_ids(BRIDGE, &["a", "b", "absent"]);
    operations.extend(change::set_fail_mode(BRIDGE, None));
    database.transact(&operations).expect("done");
    let told = instance.vsctl(&format!("get bridge {BRIDGE} external_ids fail_mode"));
    assert_eq!(told.trim(), "{kept=\"1\"}\n[]");
}

#[test]
fn a_transaction_that_is_refused_changes_nothing() {
    let instance = Instance::start();
    let mut database = instance.database();
    let mut operations = change::set_fail_mode(BRIDGE, Some("secure"));
    operations.extend(change::set_external_ids("nobody", &[("a", "b")]));
    let error = database.transact(&operations).expect_err("no such bridge");
    let DatabaseError::Refused { operation, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(operation, Some(2));
    let wrong = change::set_fail_mode(BRIDGE, Some("sometimes"));
    let error = database
        .transact(&wrong)
        .expect_err("no such mode")
        .to_string();
    assert!(error.contains("constraint violation"), "{error}");
    // Found out only when all operations were done.
    let dangling = json!({
        "op": "update", "table": "Bridge", "where": [],
        "row": {"ports": ["uuid", "00000000-0000-0000-0000-000000000001"]},
    });
    let error = database.transact(&[dangling]).expect_err("no such port");
    assert!(
        matches!(
            error,
            DatabaseError::Refused {
                operation: None,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(bridge(&mut database).fail_mode, None);
}

#[test]
fn tunnels_come_and_go() {
    let instance = Instance::start();
    let mut database = instance.database();
    let tunnel = |name: &str, port: &str| Tunnel {
        name: name.to_owned(),
        kind: "geneve".to_owned(),
        external_ids: vec![("ours".to_owned(), "1".to_owned())],
        options: vec![("dst_port".to_owned(), port.to_owned())],
    };
    let mut operations = change::add_tunnel(BRIDGE, &tunnel("pc-tun.1", "6081"));
    operations.extend(change::add_tunnel(BRIDGE, &tunnel("pc-tun_1", "6082")));
    database
        .transact_and_follow(&operations, PATIENCE)
        .expect("done");
    let found = bridge(&mut database);
    let port = &found.ports[1];
    assert_eq!(
        (&*port.name, &*port.external_ids["ours"]),
        ("pc-tun.1", "1")
    );
    let interface = &port.interfaces[0];
    assert!(interface.ofport.is_some(), "{interface:?}");
    assert_eq!(
        (&*interface.kind, &*interface.options["key"]),
        ("geneve", "flow")
    );
    assert_eq!(interface.options["dst_port"], "6081");
    let twice = database.transact(&change::add_tunnel(BRIDGE, &tunnel("pc-tun.1", "6083")));
    assert!(
        matches!(twice, Err(DatabaseError::Refused { .. })),
        "{twice:?}"
    );
    let remove = change::remove_port(BRIDGE, &port.uuid);
    database
        .transact_and_follow(&remove, PATIENCE)
        .expect("done");
    let names = instance.vsctl(&format!("list-ports {BRIDGE}"));
    assert_eq!(names.trim(), "pc-tun_1");
    assert_eq!(bridge(&mut database).ports.len(), 2);
}

#[test]
fn a_dead_switch_is_waited_for_only_so_long() {
    let mut instance = Instance::start();
    let mut database = instance.database();
    let operations = change::set_fail_mode(BRIDGE, Some("secure"));
    let done = database.transact_and_follow(&operations, PATIENCE);
    assert_eq!(done.expect("done").len(), operations.len());
    instance.kill_switch();
    let error = database.transact_and_follow(&operations, Duration::from_millis(50));
    let error = error.expect_err("nobody follows");
    assert!(matches!(error, DatabaseError::Behind { .. }), "{error}");
    // The connection is as good as before.
    assert_eq!(bridge(&mut database).fail_mode.as_deref(), Some("secure"));
    instance.kill_server();
    let error = database.bridges().expect_err("nobody answers");
    assert!(matches!(error, DatabaseError::Connection(_)), "{error}");
    assert!(Database::connect(&instance.database_socket()).is_err());
}

fn timeouts(udp: u32) -> Timeouts {
    let pairs = [
        ("udp_first", udp),
        ("udp_single", udp),
        ("udp_multiple", udp),
    ];
    pairs.map(|(key, seconds)| (key.to_owned(), seconds)).into()
}

#[test]
fn zones_have_timeouts_and_share_policies() {
    let instance = Instance::start();
    let mut database = instance.database();
    let found = database.zones("netdev").expect("readable");
    assert_eq!(found, zones::Zones::default());
    let wanted: BTreeMap<u16, Timeouts> = (1..=1000)
        .map(|zone| (zone, timeouts(100 + u32::from(zone % 2))))
        .collect();
    let first = zones::set_timeouts("netdev", &found, &wanted, &[], OWNER);
    database
        .transact_and_follow(&first, PATIENCE)
        .expect("done");
    // Somebody who hasn't seen it mustn't think that he has made the row.
    let error = database.transact(&first).expect_err("somebody was faster");
    assert!(matches!(error, DatabaseError::Refused { .. }), "{error}");

    let found = database.zones("netdev").expect("readable");
    assert_eq!(found.zones.len(), 1000);
    assert_eq!(found.zones[&7].timeouts, timeouts(101));
    assert_eq!(found.zones[&7].external_ids["owner"], "a test");
    let policies = || instance.vsctl("--format=csv --no-headings list ct_timeout_policy");
    assert_eq!(policies().lines().count(), 2);

    // Known timeouts cost no new policy; others do.
    let wanted = [(1, timeouts(100)), (2001, timeouts(101)), (2, timeouts(7))].into();
    let operations = zones::set_timeouts("netdev", &found, &wanted, &[3, 9999], OWNER);
    database
        .transact_and_follow(&operations, PATIENCE)
        .expect("done");
    assert_eq!(policies().lines().count(), 3);
    let listed = instance.vsctl("list-zone-tp netdev");
    assert_eq!(listed.lines().count(), 1000, "{listed}");
    assert!(!listed.contains("Zone:3,"), "{listed}");
    assert!(
        listed.contains("Zone:2, Timeout Policies: udp_first=7"),
        "{listed}"
    );

    instance.send(2, 53);
    instance.send(4, 53);
    let told = conntrack::connections(&mut instance.control(), DATAPATH, None);
    let told = told.expect("readable");
    let left = |zone| {
        let of_zone = told.iter().find(|connection| connection.zone == zone);
        of_zone.and_then(|connection| connection.timeout_seconds)
    };
    assert!(left(2).is_some_and(|seconds| seconds <= 7), "{told:?}");
    assert!(left(4).is_some_and(|seconds| seconds > 90), "{told:?}");
}

#[test]
fn changes_are_told_and_traffic_is_not() {
    let instance = Instance::start();
    let mut watch = Watch::connect(&instance.database_socket()).expect("a watch");
    let changes = [
        format!("set bridge {BRIDGE} external_ids:a=b"),
        format!("add-port {BRIDGE} in0 -- set interface in0 type=internal"),
        "set port in0 tag=5".to_owned(),
        "set interface in0 external_ids:iface-id=x".to_owned(),
        format!("del-port {BRIDGE} in0"),
        "-- --id=@m create Datapath datapath_version=0 -- set Open_vSwitch . datapaths:netdev=@m"
            .to_owned(),
        "add-zone-tp netdev zone=5 udp_single=9".to_owned(),
    ];
    for change in changes {
        // ovs-vswitchd may still write what followed from the last one; each change is told anyway.
        while watch.changed().expect("connected") {}
        instance.vsctl(&change);
        assert!(watch.changed().expect("connected"), "{change}");
    }
    // Statistics are written every five seconds, or when this changes.
    instance.vsctl("set Open_vSwitch . other_config:stats-update-interval=5000");
    while watch.changed().expect("connected") {}
    instance.send(5, 53);
    let counted = instance.eventually(|| {
        let told = instance.vsctl(&format!("get interface {BRIDGE} statistics"));
        !told.contains("tx_packets=0") || !told.contains("tx_dropped=0")
    });
    assert!(counted, "the switch writes statistics");
    assert!(!watch.changed().expect("connected"));
}

#[test]
fn what_was_changed_before_one_asks_is_told() {
    let instance = Instance::start();
    let mut watch = Watch::connect(&instance.database_socket()).expect("a watch");
    let mut database = instance.database();
    for n in 0..500 {
        let note = change::set_external_ids(BRIDGE, &[("note", &n.to_string())]);
        database.transact(&note).expect("done");
        assert!(watch.changed().expect("connected"), "{n}");
        assert!(!watch.changed().expect("connected"), "{n}");
    }
}

#[test]
fn a_watch_ends_with_the_server() {
    let mut instance = Instance::start();
    let mut watch = Watch::connect(&instance.database_socket()).expect("a watch");
    instance.kill_server();
    assert!(watch.changed().is_err());
}

#[test]
fn a_thousand_ports_are_read() {
    let mut instance = Instance::start();
    instance.kill_switch();
    let mut database = instance.database();
    let mut operations = Vec::new();
    for i in 0..1000 {
        let tunnel = Tunnel {
            name: format!("p{i}"),
            kind: String::new(),
            external_ids: vec![("note".to_owned(), "x".repeat(500))],
            options: Vec::new(),
        };
        operations.extend(change::add_tunnel(BRIDGE, &tunnel));
    }
    database.transact(&operations).expect("done");
    assert_eq!(bridge(&mut database).ports.len(), 1001);
}

#[test]
fn commands_are_answered_and_refused() {
    let instance = Instance::start();
    let mut control = instance.control();
    let version = control.call("version", &[]).expect("answered");
    assert!(
        version.starts_with("ovs-vswitchd (Open vSwitch)"),
        "{version}"
    );
    let error = control
        .call("no-such-command", &["a"])
        .expect_err("refused");
    assert!(
        error.to_string().contains("is not a valid command"),
        "{error}"
    );
    let listed = conntrack::connections(&mut control, Some("nowhere"), None);
    assert!(listed.is_err(), "{listed:?}");
    assert_eq!(
        conntrack::tcp_sequence_check(&mut control, DATAPATH).ok(),
        Some(true)
    );
    conntrack::disable_tcp_sequence_check(&mut control, DATAPATH).expect("done");
    assert_eq!(
        conntrack::tcp_sequence_check(&mut control, None).ok(),
        Some(false)
    );
}

fn in_zone(control: &mut Control, zone: u16) -> Vec<Connection> {
    conntrack::connections(control, DATAPATH, Some(zone)).expect("readable")
}

#[test]
fn connections_are_listed_and_flushed() {
    let instance = Instance::start();
    let mut control = instance.control();
    for (zone, port) in [(5, 53), (5, 54), (6, 53)] {
        instance.send(zone, port);
    }
    let tcp = format!("{V4},nw_proto=6,tcp_src=9,tcp_dst=80,tcp_flags=2");
    instance.send_flow(5, &tcp);
    // Echo request 7; the tool composes only those with number 0.
    instance.send_packet(
        5,
        "5254000000025254000000010800\
        4500001c0000000009019ddf0a0000010a0000020800f7f700070001",
    );
    let mut found = in_zone(&mut control, 5);
    assert_eq!(found.len(), 4, "{found:?}");
    while let Some(connection) = found.pop() {
        let flushed = conntrack::flush_connection(&mut control, None, &connection);
        assert_eq!(flushed.expect("answered"), Flushed::Done, "{connection:?}");
        assert_eq!(
            in_zone(&mut control, 5).len(),
            found.len(),
            "{connection:?}"
        );
        let again = conntrack::flush_connection(&mut control, None, &connection);
        assert_eq!(again.expect("answered"), Flushed::Gone, "{connection:?}");
    }
    let v6 = "eth_type=0x86dd,ipv6_src=fd00::1,ipv6_dst=fd00::2,nw_proto=58";
    instance.send_flow(5, &format!("{v6},icmpv6_type=128,icmpv6_code=0"));
    let found = in_zone(&mut control, 5);
    let flushed = conntrack::flush_connection(&mut control, None, &found[0]);
    assert_eq!(flushed.expect("answered"), Flushed::NotAlone);
    assert_eq!(in_zone(&mut control, 5).len(), 1);
    instance.send(5, 55);
    conntrack::flush_zone(&mut control, None, 5).expect("done");
    assert!(in_zone(&mut control, 5).is_empty());
    assert_eq!(in_zone(&mut control, 6).len(), 1);
}

#[test]
fn a_zone_has_no_more_connections_than_its_limit() {
    let instance = Instance::start();
    let mut control = instance.control();
    let two = NonZeroU32::new(2).expect("not zero");
    let limits = [(5, two), (6, NonZeroU32::MAX)];
    conntrack::set_zone_limits(&mut control, DATAPATH, &limits).expect("done");
    for port in 1..=4 {
        instance.send(5, port);
        instance.send(6, port);
    }
    let mut found = conntrack::zone_limits(&mut control, DATAPATH).expect("readable");
    found.zones.sort_by_key(|limit| limit.zone);
    let counts: Vec<_> = found
        .zones
        .iter()
        .map(|z| (z.zone, z.limit, z.count))
        .collect();
    assert_eq!(counts, [(5, 2, 2), (6, u32::MAX, 4)]);
    conntrack::remove_zone_limits(&mut control, DATAPATH, &[5, 6, 7]).expect("done");
    let found = conntrack::zone_limits(&mut control, DATAPATH).expect("readable");
    assert!(found.zones.is_empty(), "{found:?}");
    instance.send(5, 9);
    assert_eq!(in_zone(&mut control, 5).len(), 3);
}
