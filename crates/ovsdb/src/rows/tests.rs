//! Of what a real server told (Open vSwitch 3.1), and of parts of it.

use super::*;
use serde_json::json;

/// A bridge with its own interface, and a device that has a name in front of it but isn't there.
fn told() -> Vec<Value> {
    let bridge = json!({
        "_uuid": ["uuid", "c0283537-0cfd-4572-b99a-2035b6510c64"], "name": "br0",
        "controller": ["set", []], "datapath_id": "0000363528c07245", "datapath_type": "netdev",
        "external_ids": ["map", [["a", "b"]]], "fail_mode": "secure", "other_config": ["map", []],
        "ports": ["set", [["uuid", "38c9d0b1-5326-4455-93c9-e9215aa509c9"],
                          ["uuid", "7dcaaa1e-eba6-43f4-b687-946bcdbd30dd"]]],
        "protocols": ["set", ["OpenFlow13", "OpenFlow15"]],
    });
    let port = |uuid: &str, name: &str, interface: &str| {
        json!({
            "_uuid": ["uuid", uuid], "name": name, "interfaces": ["uuid", interface],
            "external_ids": ["map", []], "tag": 7, "trunks": ["set", []], "vlan_mode": ["set", []],
        })
    };
    let interfaces = json!([
        {
            "_uuid": ["uuid", "a829c3df-2496-4278-b60c-9912bde77e59"], "name": "br0",
            "type": "internal", "ofport": 65534, "ifindex": 5, "error": ["set", []],
            "mac_in_use": "36:35:28:c0:72:45", "external_ids": ["map", []],
            "options": ["map", []], "link_state": "down", "mtu": 1500,
        },
        {
            "_uuid": ["uuid", "20593b3c-f0b7-49dc-ba50-928e276d0238"], "name": "absent",
            "type": "", "ofport": -1, "ifindex": ["set", []],
            "error": "could not open network device absent (No such device)",
            "mac_in_use": ["set", []], "external_ids": ["map", []], "options": ["map", []],
            "link_state": ["set", []], "mtu": ["set", []],
        },
    ]);
    vec![
        json!({"rows": [bridge]}),
        json!({"rows": [
            port("7dcaaa1e-eba6-43f4-b687-946bcdbd30dd", "br0", "a829c3df-2496-4278-b60c-9912bde77e59"),
            port("38c9d0b1-5326-4455-93c9-e9215aa509c9", "absent", "20593b3c-f0b7-49dc-ba50-928e276d0238"),
        ]}),
        json!({"rows": interfaces}),
    ]
}

#[test]
fn what_was_told_is_put_together() {
    let bridges = bridges(&told()).expect("readable");
    let [bridge] = bridges.as_slice() else {
        panic!("{bridges:?}");
    };
    assert_eq!(bridge.fail_mode.as_deref(), Some("secure"));
    assert_eq!(bridge.protocols, ["OpenFlow13", "OpenFlow15"]);
    assert_eq!(bridge.external_ids["a"], "b");
    let [absent, own] = bridge.ports.as_slice() else {
        panic!("{bridge:?}");
    };
    assert_eq!((absent.tag, &*absent.name), (Some(7), "absent"));
    assert_eq!(absent.interfaces[0].ofport, None);
    assert!(absent.interfaces[0].error.is_some());
    let own = &own.interfaces[0];
    assert_eq!((own.ofport, own.ifindex), (Some(65534), Some(5)));
    assert_eq!((own.mtu, own.link_up), (Some(1500), false));
}

/// Each part of it in turn is absent, and is something else.
#[test]
fn what_is_cut_or_garbled_is_an_error_and_names_its_place() {
    let good = told();
    for (table, name) in ["Bridge", "Port", "Interface"].into_iter().enumerate() {
        let columns = good[table]["rows"][0].as_object().expect("a row");
        for column in columns.keys() {
            let mut cut = good.clone();
            cut[table]["rows"][0]
                .as_object_mut()
                .expect("a row")
                .remove(column);
            let error = bridges(&cut).expect_err(column).to_string();
            assert!(error.starts_with(&format!("{name}.{column} ")), "{error}");
            for garbage in [json!({"a": []}), json!(["set", [[], null]])] {
                let mut garbled = good.clone();
                garbled[table]["rows"][0][column] = garbage;
                assert!(bridges(&garbled).is_err(), "{column}");
            }
        }
    }
    assert!(bridges(&[]).is_err());
    assert!(bridges(&good[..2]).is_err());
}

#[test]
fn a_reference_to_what_is_not_there_is_left_out() {
    let mut told = told();
    told[2] = json!({"rows": []});
    let bridges = bridges(&told).expect("readable");
    assert!(
        bridges[0]
            .ports
            .iter()
            .all(|port| port.interfaces.is_empty())
    );
}
