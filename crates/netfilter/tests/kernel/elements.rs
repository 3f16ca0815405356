use crate::support::{alone, tool, tool_fed};
use portcullis_netfilter::elements::{Element, Transaction, is_there};
use portcullis_netfilter::generation;
use std::time::Duration;

const TABLE: &str = "table bridge t {
    set ports { type iface_index; }
    set held { type iface_index; flags timeout; }
    set macs { type iface_index . ether_addr; }
    set nets { type iface_index . ipv4_addr; flags interval; }
    map marks { type iface_index : mark; }
}";

fn device(index: u32) -> Element {
    Element {
        key: index.to_ne_bytes().to_vec(),
        ..Element::default()
    }
}

/// A key of a device and something. Where there are ranges, nft has numbers in network order.
fn with(index: u32, first: &[u8], last: Option<&[u8]>) -> Element {
    let join = |field: &[u8]| [&index.to_ne_bytes(), field].concat();
    Element {
        key: join(first),
        last: last.map(join),
        ..Element::default()
    }
}

/// What nft says of the elements of a set or a map.
fn listed(kind: &str, name: &str) -> String {
    let whole = tool(&format!("nft -s list {kind} bridge t {name}"));
    let elements = whole.split_once("elements = {");
    let elements = elements.and_then(|(_, rest)| rest.split_once('}'));
    elements.map_or(String::new(), |(text, _)| {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

#[test]
fn nft_reads_what_is_written() {
    alone(|| {
        tool_fed("nft -f -", TABLE);
        let before = generation::nft().unwrap();
        let mut transaction = Transaction::in_bridge_table("t");
        transaction.add("ports", &[device(77), device(78)]);
        let held = Element {
            timeout: Some(Duration::from_secs(100)),
            ..device(77)
        };
        transaction.add("held", &[held]);
        transaction.add("macs", &[with(77, &[2, 0, 0, 0, 0, 1, 0, 0], None)]);
        let net = with(77u32.to_be(), &[10, 0, 0, 0], Some(&[10, 0, 0, 255]));
        let one = with(78u32.to_be(), &[10, 0, 0, 1], Some(&[10, 0, 0, 1]));
        transaction.add("nets", &[net.clone(), one.clone()]);
        let mark = Element {
            value: Some(0x1001),
            ..device(77)
        };
        transaction.add("marks", &[mark]);
        transaction.commit().unwrap();
        assert_eq!(generation::nft().unwrap(), before + 1);
        assert_eq!(listed("set", "ports"), "77, 78");
        assert_eq!(listed("set", "held"), "77 timeout 1m40s");
        assert_eq!(listed("set", "macs"), "77 . 02:00:00:00:00:01");
        assert_eq!(listed("set", "nets"), "77 . 10.0.0.0/24, 78 . 10.0.0.1");
        assert_eq!(listed("map", "marks"), "77 : 0x00001001");

        assert!(is_there("t", "nets", &one).unwrap());
        assert!(is_there("t", "ports", &device(77)).unwrap());
        assert!(!is_there("t", "ports", &device(79)).unwrap());
        let other = with(79u32.to_be(), &[10, 0, 0, 1], Some(&[10, 0, 0, 1]));
        assert!(!is_there("t", "nets", &other).unwrap());

        let mut transaction = Transaction::in_bridge_table("t");
        transaction.delete("nets", &[net]);
        transaction.delete("marks", &[device(77)]);
        let mark = Element {
            value: Some(0x2002),
            ..device(77)
        };
        transaction.add("marks", &[mark]);
        transaction.commit().unwrap();
        assert_eq!(listed("set", "nets"), "78 . 10.0.0.1");
        assert_eq!(listed("map", "marks"), "77 : 0x00002002");
    });
}

#[test]
fn what_is_refused_changes_nothing_and_names_the_set() {
    alone(|| {
        tool_fed("nft -f -", TABLE);
        let before = generation::nft().unwrap();
        let mut transaction = Transaction::in_bridge_table("t");
        transaction.add("ports", &[device(77)]);
        transaction.delete("held", &[device(77)]);
        transaction.delete("macs", &[with(77, &[2, 0, 0, 0, 0, 1, 0, 0], None)]);
        let error = transaction.commit().unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(error.to_string().contains("the set held"), "{error}");
        assert_eq!(listed("set", "ports"), "");
        assert_eq!(generation::nft().unwrap(), before);

        let mut transaction = Transaction::in_bridge_table("nowhere");
        transaction.add("ports", &[device(77)]);
        let error = transaction.commit().unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
    });
}

#[test]
fn many_elements_go_in_one_transaction() {
    alone(|| {
        tool_fed("nft -f -", TABLE);
        let before = generation::nft().unwrap();
        let many: Vec<Element> = (1..=20_000).map(device).collect();
        let mut transaction = Transaction::in_bridge_table("t");
        transaction.add("ports", &many);
        transaction.commit().unwrap();
        assert_eq!(generation::nft().unwrap(), before + 1);
        assert_eq!(listed("set", "ports").split(", ").count(), many.len());
    });
}
