//! Of what a real server told (Open vSwitch 3.1), and of parts of it.

use super::*;

const OWNER: (&str, &str) = ("owner", "x");

/// Zones 5 and 6 with one policy; zone 7, which isn't ours, has none.
fn told() -> Vec<Value> {
    let zone = |uuid: &str, policy: Value, owner: &str| {
        json!({
            "_uuid": ["uuid", uuid], "timeout_policy": policy,
            "external_ids": ["map", [["owner", owner]]],
        })
    };
    let policy = json!({"_uuid": ["uuid", "p"], "timeouts": ["map", [["udp_single", 9]]]});
    let zones = [
        zone("z5", json!(["uuid", "p"]), "x"),
        zone("z6", json!(["uuid", "p"]), "x"),
        zone("z7", json!(["set", []]), "y"),
    ];
    let references = json!([
        [5, ["uuid", "z5"]],
        [6, ["uuid", "z6"]],
        [7, ["uuid", "z7"]]
    ]);
    vec![
        json!({"rows": [{"datapaths": ["map", [["netdev", ["uuid", "d"]]]]}]}),
        json!({"rows": [{"_uuid": ["uuid", "d"], "ct_zones": ["map", references]}]}),
        json!({"rows": zones}),
        json!({"rows": [policy]}),
    ]
}

fn found() -> Zones {
    zones(&told(), "netdev").expect("readable")
}

fn of_udp(seconds: u32) -> Timeouts {
    [("udp_single".to_owned(), seconds)].into()
}

#[test]
fn what_was_told_is_put_together() {
    let found = found();
    assert_eq!(found.zones.len(), 3);
    assert_eq!(found.zones[&6].timeouts, of_udp(9));
    assert!(found.zones[&7].timeouts.is_empty());
    let other = zones(&told(), "system").expect("readable");
    assert_eq!(other, Zones::default());
}

#[test]
fn what_is_cut_or_garbled_is_an_error() {
    let good = told();
    for table in 0..good.len() {
        assert!(zones(&good[..table], "netdev").is_err(), "{table}");
        let columns = good[table]["rows"][0].as_object().expect("a row");
        for column in columns.keys() {
            let mut garbled = good.clone();
            garbled[table]["rows"][0][column] = json!(["map", 7]);
            assert!(zones(&garbled, "netdev").is_err(), "{column}");
        }
    }
}

#[test]
fn what_is_so_already_is_not_written() {
    let wanted = [(5, of_udp(9)), (6, of_udp(9))].into();
    let operations = set_timeouts("netdev", &found(), &wanted, &[99], OWNER);
    assert!(operations.is_empty(), "{operations:?}");
    // The same timeouts, but not ours.
    let wanted = [(7, Timeouts::new())].into();
    let operations = set_timeouts("netdev", &found(), &wanted, &[], OWNER);
    assert_eq!(operations.len(), 4, "{operations:?}");
}

#[test]
fn a_known_policy_is_used_again_and_a_new_one_made_once() {
    let wanted = [(8, of_udp(9)), (9, of_udp(3)), (10, of_udp(3))].into();
    let operations = set_timeouts("netdev", &found(), &wanted, &[5], OWNER);
    let inserts = |table| {
        operations
            .iter()
            .filter(move |o| o["op"] == "insert" && o["table"] == table)
    };
    assert_eq!(inserts(POLICY).count(), 1);
    assert_eq!(inserts(CT_ZONE).count(), 3);
    let mut first = inserts(CT_ZONE);
    let zone_8 = first.next().expect("three");
    assert_eq!(zone_8["row"]["timeout_policy"], json!(["uuid", "p"]));
    let deletion = &operations[operations.len() - 2]["mutations"][0];
    assert_eq!(
        *deletion,
        json!(["ct_zones", "delete", ["set", [5, 8, 9, 10]]])
    );
}
