use super::*;
use crate::objects::{
    AskedPeer, Asks, Binding, Described, Destination, Device, FixedAddress, FixedAddresses, Move,
    Pair, Segment, Shared, Unbound,
};
use crate::told::{Connection, Lack, NotEnforced, Running, Told};
use model::{
    Direction, Family, FrozenSet, GroupId, HostId, MacAddr, NetworkId, PortId, RuleId, ScopeId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The bytes are a promise to newer programs: what changes here needs a default or a migration.
fn check<T: Kept + PartialEq + std::fmt::Debug>(object: &T, key: &str, expected: &str) {
    assert_eq!(object.key().as_str(), key);
    let value = object.value();
    let text = String::from_utf8_lossy(&value);
    assert_eq!(text, format!("\u{1}{expected}"));
    let record = record(key, &value);
    assert_eq!(read::<T>(&record).as_ref().ok(), Some(object));
}

fn record(key: &str, value: &[u8]) -> Record {
    Record {
        key: Key::new(key).expect("a key"),
        value: value.into(),
        created: 1,
        modified: 1,
    }
}

fn said() -> Described {
    Described {
        name: "web".into(),
        description: Default::default(),
        tags: ["blue".into()].into(),
        created_at: 1,
        updated_at: 2,
    }
}

fn bare() -> Described {
    Described {
        created_at: 1,
        updated_at: 2,
        ..Described::default()
    }
}

fn rule(protocol: Option<&str>, range: [Option<u16>; 2], peer: AskedPeer) -> GroupRule {
    GroupRule {
        id: RuleId::from("r"),
        group: GroupId::from("g"),
        project: ProjectId::from("p"),
        said: bare(),
        asks: Asks {
            direction: Direction::Ingress,
            family: Family::V4,
            protocol: protocol.map(str::to_owned),
            range_min: range[0],
            range_max: range[1],
            peer,
        },
    }
}

#[test]
fn groups_and_rules_are_written_so() {
    let group = Group {
        id: GroupId::from("g"),
        project: ProjectId::from("p"),
        said: said(),
        stateful: true,
        default: false,
        wire_tag: Some(7),
    };
    check(
        &group,
        "group/g",
        r#"{"id":"g","project":"p","name":"web","tags":["blue"],"created_at":1,"updated_at":2,"stateful":true,"wire_tag":7}"#,
    );
    let default = Group {
        said: bare(),
        default: true,
        wire_tag: None,
        ..group
    };
    check(
        &default,
        "group/g",
        r#"{"id":"g","project":"p","created_at":1,"updated_at":2,"stateful":true,"default":true}"#,
    );
    check(
        &rule(None, [None, None], AskedPeer::Anyone),
        "rule/g/r",
        r#"{"id":"r","group":"g","project":"p","created_at":1,"updated_at":2,"direction":"ingress","family":"IPv4","protocol":null,"range_min":null,"range_max":null,"peer":"anyone"}"#,
    );
    let prefix = AskedPeer::Prefix {
        written: "10.0.0.5/24".to_owned(),
        prefix: "10.0.0.0/24".parse().expect("a prefix"),
    };
    check(
        &rule(Some("tcp"), [Some(22), Some(23)], prefix),
        "rule/g/r",
        r#"{"id":"r","group":"g","project":"p","created_at":1,"updated_at":2,"direction":"ingress","family":"IPv4","protocol":"tcp","range_min":22,"range_max":23,"peer":{"prefix":{"written":"10.0.0.5/24","prefix":"10.0.0.0/24"}}}"#,
    );
    let own = AskedPeer::Group(GroupId::from("g"));
    check(
        &rule(None, [None, None], own),
        "rule/g/r",
        r#"{"id":"r","group":"g","project":"p","created_at":1,"updated_at":2,"direction":"ingress","family":"IPv4","protocol":null,"range_min":null,"range_max":null,"peer":{"group":"g"}}"#,
    );
    let template = TemplateRule {
        id: RuleId::from("t"),
        said: bare(),
        asks: rule(Some("58"), [None, None], AskedPeer::Anyone).asks,
        remote_is_own_group: true,
        in_default_groups: true,
        in_other_groups: false,
    };
    let template = TemplateRule {
        asks: Asks {
            family: Family::V6,
            ..template.asks
        },
        ..template
    };
    check(
        &template,
        "template/t",
        r#"{"id":"t","created_at":1,"updated_at":2,"direction":"ingress","family":"IPv6","protocol":"58","range_min":null,"range_max":null,"peer":"anyone","remote_is_own_group":true,"in_default_groups":true,"in_other_groups":false}"#,
    );
}

#[test]
fn what_projects_have_is_written_so() {
    let project = Project {
        id: ProjectId::from("p"),
        default_group: GroupId::from("g"),
    };
    check(&project, "project/p", r#"{"id":"p","default_group":"g"}"#);
    let quota = QuotaOf {
        project: "p".to_owned(),
        quota: Quota::of([(Resource::Port, -1), (Resource::SecurityGroupRule, 5)]),
    };
    check(
        &quota,
        "quota/p",
        r#"{"project":"p","quota":{"limits":{"security_group_rule":5,"port":-1}}}"#,
    );
    let share = Share {
        id: "s".to_owned(),
        project: ProjectId::from("p"),
        object: Shared::Group(GroupId::from("g")),
        target: None,
        created_at: 1,
    };
    check(
        &share,
        "share/s",
        r#"{"id":"s","project":"p","object":{"group":"g"},"target":null,"created_at":1}"#,
    );
    let addresses = Addresses {
        id: model::AddressGroupId::from("a"),
        project: ProjectId::from("p"),
        said: said(),
        prefixes: BTreeSet::from(["10.0.0.0/8".parse().expect("a prefix")]),
    };
    check(
        &addresses,
        "addresses/a",
        r#"{"id":"a","project":"p","name":"web","tags":["blue"],"created_at":1,"updated_at":2,"prefixes":["10.0.0.0/8"]}"#,
    );
}

#[test]
fn networks_and_ports_are_written_so() {
    let network = Network {
        id: NetworkId::from("n"),
        project: ProjectId::from("p"),
        said: bare(),
        admin_up: true,
        shared: false,
        port_security: true,
        scope: ScopeId::from("s"),
        mtu: Some(1450),
        segment: Some(Segment {
            kind: "geneve".to_owned(),
            physical_network: None,
            number: Some(5),
        }),
        eui64_only: true,
        dhcp_servers: None,
        routers: None,
    };
    check(
        &network,
        "network/n",
        r#"{"id":"n","project":"p","created_at":1,"updated_at":2,"admin_up":true,"port_security":true,"scope":"s","mtu":1450,"segment":{"kind":"geneve","physical_network":null,"number":5}}"#,
    );
    let address = |text: &str| text.parse().expect("an address");
    let subnet = Subnet {
        id: "u".into(),
        project: ProjectId::from("p"),
        network: NetworkId::from("n"),
        said: bare(),
        prefix: "10.0.0.0/24".parse().expect("a prefix"),
        gateway: Some(address("10.0.0.1")),
        dhcp: true,
        pools: vec![(address("10.0.0.2"), address("10.0.0.254"))],
        dns_servers: Vec::new(),
        host_routes: Vec::new(),
    };
    check(
        &subnet,
        "subnet/u",
        r#"{"id":"u","project":"p","network":"n","created_at":1,"updated_at":2,"prefix":"10.0.0.0/24","gateway":"10.0.0.1","dhcp":true,"pools":[["10.0.0.2","10.0.0.254"]]}"#,
    );
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let port = Port {
        id: PortId::from("o"),
        project: ProjectId::from("p"),
        network: NetworkId::from("n"),
        said: bare(),
        mac,
        fixed: FixedAddresses::from_iter([FixedAddress {
            subnet: "u".into(),
            address: address("10.0.0.5"),
        }]),
        pairs: [Pair {
            prefix: "10.9.0.0/24".parse().expect("a prefix"),
            mac,
        }]
        .into(),
        groups: FrozenSet::from([GroupId::from("g")]),
        port_security: true,
        admin_up: true,
        device_id: "vm".into(),
        device_owner: "compute:nova".into(),
        binding: Some(Arc::new(Binding {
            host: HostId::from("h"),
            device: Some(Device::Name("tap1".to_owned())),
            profile: BTreeMap::new(),
            vnic_type: "normal".into(),
            moving: Some(Box::new(Move::To(Destination {
                host: HostId::from("i"),
                device: Some(Device::Mac),
                profile: None,
                since: 3,
            }))),
        })),
        unbound: None,
    };
    check(
        &port,
        "port/o",
        r#"{"id":"o","project":"p","network":"n","created_at":1,"updated_at":2,"mac":"02:00:00:00:00:01","fixed":[{"subnet":"u","address":"10.0.0.5"}],"pairs":[{"prefix":"10.9.0.0/24","mac":"02:00:00:00:00:01"}],"groups":["g"],"port_security":true,"admin_up":true,"device_id":"vm","device_owner":"compute:nova","binding":{"host":"h","device":{"name":"tap1"},"vnic_type":"normal","moving":{"to":{"host":"i","device":"mac","since":3}}}}"#,
    );
    let waiting = Port {
        binding: None,
        unbound: Some(Box::new(Unbound {
            profile: BTreeMap::new(),
            vnic_type: "direct".into(),
        })),
        ..port
    };
    check(
        &waiting,
        "port/o",
        r#"{"id":"o","project":"p","network":"n","created_at":1,"updated_at":2,"mac":"02:00:00:00:00:01","fixed":[{"subnet":"u","address":"10.0.0.5"}],"pairs":[{"prefix":"10.9.0.0/24","mac":"02:00:00:00:00:01"}],"groups":["g"],"port_security":true,"admin_up":true,"device_id":"vm","device_owner":"compute:nova","unbound":{"vnic_type":"direct"}}"#,
    );
    let host = Host {
        id: HostId::from("h"),
        tunnel_address: Some(address("192.0.2.1")),
        tagged: true,
        tags: Default::default(),
        settings: None,
    };
    check(
        &host,
        "host/h",
        r#"{"id":"h","tunnel_address":"192.0.2.1","tagged":true}"#,
    );
}

#[test]
fn what_hosts_tell_is_kept() {
    let not = NotEnforced {
        lack: Lack::Refused,
        why: "too many ranges".to_owned(),
    };
    let told = Told {
        host: HostId::from("h"),
        connection: Connection {
            started_ms: 1,
            number: 2,
            turn: 3,
        },
        server: Some("s".to_owned()),
        software: "portcullis 1".to_owned(),
        epoch: 4,
        enforced: 5,
        not_enforced: BTreeMap::from([(PortId::from("o"), not)]),
    };
    check(
        &told,
        "told/h",
        r#"{"host":"h","connection":{"started_ms":1,"number":2,"turn":3},"server":"s","software":"portcullis 1","epoch":4,"enforced":5,"not_enforced":{"o":{"lack":"refused","why":"too many ranges"}}}"#,
    );
    let running = Running {
        run: "s".to_owned(),
        name: "rack1:9696".to_owned(),
    };
    check(&running, "server/s", r#"{"run":"s","name":"rack1:9696"}"#);
}

#[test]
fn c5_a_record_that_has_lost_a_field_is_no_wider_rule() {
    let prefix = AskedPeer::Prefix {
        written: "10.0.0.0/24".to_owned(),
        prefix: "10.0.0.0/24".parse().expect("a prefix"),
    };
    let whole = rule(Some("tcp"), [Some(22), Some(23)], prefix);
    let json: serde_json::Value = serde_json::to_value(&whole).expect("it is JSON");
    let read_without = |field: &str| {
        let mut json = json.clone();
        let fields = json.as_object_mut().expect("an object");
        assert!(fields.remove(field).is_some(), "{field}");
        let json = serde_json::to_vec(&json).expect("it is JSON");
        let value = GroupRule::ENCODING.encode(&json);
        read::<GroupRule>(&record("rule/g/r", &value)).map(|rule| rule.asks)
    };
    for field in json.as_object().expect("an object").keys() {
        assert!(read_without(field).is_err(), "{field}");
    }
}

#[test]
fn what_cant_be_meant_is_unreadable() {
    let check = |key: &str, rule: &GroupRule, expected: &str| {
        let error = read::<GroupRule>(&record(key, &rule.value()));
        let error = error.expect_err("it can't be read").to_string();
        assert_eq!(error, format!("the record {key} can't be read: {expected}"));
    };
    let rule = |protocol, range| rule(protocol, range, AskedPeer::Anyone);
    let together = "its fields don't go together";
    check("rule/g/r", &rule(Some("112"), [Some(1), Some(1)]), together);
    check("rule/g/r", &rule(None, [Some(1), Some(1)]), together);
    check("rule/g/r", &rule(Some("tcp"), [Some(2), Some(1)]), together);
    check("rule/g/r", &rule(Some("nonsense"), [None, None]), together);
    let another = "it says that it is another one";
    check("rule/g/other", &rule(None, [None, None]), another);
    check("rule/h/r", &rule(None, [None, None]), another);
}
