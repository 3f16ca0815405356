use crate::support::{alone, tool, tool_fed};
use model::Family;
use portcullis_netfilter::ipset::{Header, headers};

fn header(name: &str, type_name: &str, family: Option<Family>, elements: u32) -> Header {
    Header {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        family,
        elements: Some(elements),
        references: 0,
    }
}

fn check(prefix: &str, expected: &[Header]) {
    let mut seen = headers(prefix).unwrap();
    seen.sort();
    assert_eq!(seen, expected);
}

#[test]
fn no_sets_make_an_empty_list() {
    alone(|| check("", &[]));
}

#[test]
fn every_type_that_we_use_tells_its_elements() {
    let types = [
        (
            "hash:ip",
            "family inet",
            Some(Family::V4),
            "10.0.0.1",
            "10.0.0.2",
        ),
        (
            "hash:ip",
            "family inet6",
            Some(Family::V6),
            "fd00::1",
            "fd00::2",
        ),
        (
            "hash:ip",
            "timeout 600",
            Some(Family::V4),
            "10.0.0.1",
            "10.0.0.2",
        ),
        (
            "hash:net",
            "family inet",
            Some(Family::V4),
            "10.0.0.0/8",
            "10.1.0.0/16",
        ),
        (
            "hash:net",
            "family inet6",
            Some(Family::V6),
            "fd00::/8",
            "fd01::/16",
        ),
        (
            "hash:net,port",
            "",
            Some(Family::V4),
            "10.0.0.0/8,tcp:80",
            "10.0.0.0/8,udp:80",
        ),
        (
            "hash:net,port",
            "family inet6",
            Some(Family::V6),
            "fd00::/8,tcp:80",
            "fd00::/8,udp:80",
        ),
        (
            "hash:net,iface",
            "",
            Some(Family::V4),
            "10.0.0.0/8,a",
            "10.0.0.0/8,b",
        ),
        (
            "hash:ip,port",
            "",
            Some(Family::V4),
            "10.0.0.1,tcp:80",
            "10.0.0.1,icmp:8/0",
        ),
        (
            "hash:ip,port,net",
            "",
            Some(Family::V4),
            "1.0.0.1,80,2.0.0.0/8",
            "1.0.0.1,81,2.0.0.0/8",
        ),
        ("bitmap:port", "range 0-65535", None, "80", "443"),
        (
            "bitmap:port",
            "range 0-65535 timeout 600",
            None,
            "80",
            "443",
        ),
    ];
    for (type_name, options, family, one, other) in types {
        alone(move || {
            tool(&format!("ipset create s {type_name} {options}"));
            check("s", &[header("s", type_name, family, 0)]);
            tool(&format!("ipset add s {one}"));
            tool(&format!("ipset add s {other}"));
            check("s", &[header("s", type_name, family, 2)]);
            tool(&format!("ipset del s {one}"));
            check("s", &[header("s", type_name, family, 1)]);
            tool("ipset flush s");
            check("s", &[header("s", type_name, family, 0)]);
        });
    }
}

#[test]
fn a_prefix_chooses_and_references_count() {
    alone(|| {
        tool_fed(
            "ipset restore",
            "create pc-a hash:ip
             create pc-b hash:ip
             create other hash:ip
             create pc-list list:set
             add pc-list pc-a
             add pc-a 10.0.0.1",
        );
        tool("iptables-legacy -A FORWARD -m set --match-set pc-a src -j ACCEPT");
        let mut a = header("pc-a", "hash:ip", Some(Family::V4), 1);
        a.references = 2;
        check(
            "pc-",
            &[
                a,
                header("pc-b", "hash:ip", Some(Family::V4), 0),
                header("pc-list", "list:set", None, 1),
            ],
        );
        assert_eq!(headers("").unwrap().len(), 4);
        check("nobody", &[]);
    });
}

/// More than one datagram holds, and than the kernel makes room for at first.
#[test]
fn a_thousand_sets_are_all_told() {
    alone(|| {
        let lines: String = (0..1000)
            .map(|n| format!("create pc-{n} hash:net hashsize 64\nadd pc-{n} 10.0.0.0/8\n"))
            .collect();
        tool_fed("ipset restore", &lines);
        let seen = headers("pc-").unwrap();
        assert_eq!(seen.len(), 1000);
        assert!(seen.iter().all(|header| header.elements == Some(1)));
    });
}

#[test]
fn a_name_that_is_as_long_as_can_be_is_whole() {
    alone(|| {
        let name = "n".repeat(31);
        tool(&format!("ipset create {name} hash:ip"));
        check(&name, &[header(&name, "hash:ip", Some(Family::V4), 0)]);
    });
}
