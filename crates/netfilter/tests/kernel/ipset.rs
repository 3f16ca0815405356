use crate::support::{alone, tool, tool_fed};
use model::{Family, Prefix};
use portcullis_netfilter::ipset::{
    Behind, Carries, Changes, Element, Header, Kind, Said, header as one_header, headers,
};
use std::net::Ipv4Addr;

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

fn element(net: &str, behind: Behind) -> Element {
    let net: Prefix = net.parse().unwrap();
    Element { net, behind }
}

fn service(protocol: u8, l4_port: u16) -> Behind {
    Behind::Service { protocol, l4_port }
}

/// The elements of a set as ipset prints them, in order.
fn saved(set: &str) -> Vec<String> {
    let text = tool(&format!("ipset save {set}"));
    let begin = format!("add {set} ");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&begin));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A set, its elements, and what ipset prints of them.
type Row = (
    Kind,
    Family,
    Carries,
    Vec<(Element, Said)>,
    &'static [&'static str],
);

#[test]
fn ipset_reads_what_is_written() {
    let plain = |element| (element, Said::Nothing);
    let named = |element, text: &str| (element, Said::Comment(text.to_owned()));
    let on = |name: &str| Behind::Device(name.to_owned());
    let rows: [Row; 8] = [
        (
            Kind::Ip,
            Family::V4,
            Carries::Nothing,
            vec![plain(element("10.0.0.1/32", Behind::Nothing))],
            &["10.0.0.1"],
        ),
        (
            Kind::Ip,
            Family::V6,
            Carries::Nothing,
            vec![plain(element("fd00::1/128", Behind::Nothing))],
            &["fd00::1"],
        ),
        (
            Kind::Net,
            Family::V4,
            Carries::CountersAndComment,
            vec![
                named(element("10.0.0.1/32", Behind::Nothing), "web/a b"),
                named(element("128.0.0.0/1", Behind::Nothing), "web/b"),
            ],
            &[
                "10.0.0.1 packets 0 bytes 0 comment \"web/a b\"",
                "128.0.0.0/1 packets 0 bytes 0 comment \"web/b\"",
            ],
        ),
        (
            Kind::Net,
            Family::V6,
            Carries::Nothing,
            vec![plain(element("8000::/1", Behind::Nothing))],
            &["8000::/1"],
        ),
        (
            Kind::NetPort,
            Family::V4,
            Carries::CountersAndComment,
            vec![
                named(element("10.0.0.0/8", service(6, 80)), "web/http"),
                named(element("10.0.0.0/8", service(47, 0)), "web/gre"),
            ],
            &[
                "10.0.0.0/8,gre:0 packets 0 bytes 0 comment \"web/gre\"",
                "10.0.0.0/8,tcp:80 packets 0 bytes 0 comment \"web/http\"",
            ],
        ),
        (
            Kind::IpPort,
            Family::V6,
            Carries::Nothing,
            vec![plain(element("fd00::1/128", service(17, 53)))],
            &["fd00::1,udp:53"],
        ),
        (
            Kind::NetIface,
            Family::V4,
            Carries::Mark,
            vec![
                (element("10.0.0.1/32", on("br0")), Said::Mark(0x1001)),
                (element("10.1.0.0/16", on("br0")), Said::Mark(0xffff_ffff)),
            ],
            &[
                "10.0.0.1,br0 skbmark 0x1001",
                "10.1.0.0/16,br0 skbmark 0xffffffff",
            ],
        ),
        (
            Kind::NetIface,
            Family::V6,
            Carries::Mark,
            vec![(element("fe80::1/128", on("br0")), Said::Mark(7))],
            &["fe80::1,br0 skbmark 0x7"],
        ),
    ];
    alone(move || {
        for (kind, family, carries, elements, printed) in rows {
            let mut changes = Changes::default();
            changes.create("s", kind, family, carries, 1 << 22);
            changes.add("s", &elements);
            // Again, as if another process had come half-way.
            changes.create("s", kind, family, carries, 1 << 22);
            changes.add("s", &elements);
            changes.execute().unwrap();
            assert_eq!(saved("s"), printed);
            let found = headers("s").unwrap();
            let found = (found[0].type_name.as_str(), found[0].family);
            assert_eq!(found, (kind.name(), Some(family)));

            let mut changes = Changes::default();
            let elements: Vec<Element> = elements.into_iter().map(|(element, _)| element).collect();
            changes.delete("s", &elements);
            changes.delete("s", &elements);
            changes.execute().unwrap();
            assert_eq!(saved("s"), [""; 0]);
            let mut changes = Changes::default();
            changes.destroy("s");
            changes.execute().unwrap();
            assert_eq!(headers("").unwrap(), []);
        }
    });
}

#[test]
fn what_is_said_of_an_element_changes() {
    alone(|| {
        let element = element("10.0.0.1/32", Behind::Device("br0".to_owned()));
        let mut changes = Changes::default();
        changes.create("s", Kind::NetIface, Family::V4, Carries::Mark, 64);
        changes.add("s", &[(element.clone(), Said::Mark(1))]);
        changes.add("s", &[(element, Said::Mark(2))]);
        changes.execute().unwrap();
        assert_eq!(saved("s"), ["10.0.0.1,br0 skbmark 0x2"]);
    });
}

#[test]
fn as_much_as_can_be_said_is_said_of_many() {
    alone(|| {
        let text = "x".repeat(255);
        let elements = (1..=200).map(|number| {
            let said = Said::Comment(text.clone());
            (element("10.0.0.0/8", service(6, number)), said)
        });
        let mut changes = Changes::default();
        let carries = Carries::CountersAndComment;
        changes.create("s", Kind::NetPort, Family::V4, carries, 1 << 22);
        changes.add("s", &elements.collect::<Vec<_>>());
        changes.execute().unwrap();
        let saved = saved("s");
        assert_eq!(saved.len(), 200);
        let end = format!("comment \"{text}\"");
        assert!(saved.iter().all(|line| line.ends_with(&end)));
    });
}

#[test]
fn one_set_is_asked_for_by_its_name() {
    alone(|| {
        assert_eq!(one_header("a").unwrap(), None);
        tool("ipset create ab hash:ip");
        assert_eq!(one_header("a").unwrap(), None);
        tool("ipset create a hash:ip");
        tool("ipset add a 10.0.0.1");
        let expected = header("a", "hash:ip", Some(Family::V4), 1);
        assert_eq!(one_header("a").unwrap(), Some(expected));
    });
}

#[test]
fn sets_are_emptied_and_swapped() {
    alone(|| {
        let one = |address: &str| [(element(address, Behind::Nothing), Said::Nothing)];
        let mut changes = Changes::default();
        for (name, address) in [("a", "10.0.0.1/32"), ("b", "10.0.0.2/32")] {
            changes.create(name, Kind::Ip, Family::V4, Carries::Nothing, 64);
            changes.add(name, &one(address));
        }
        changes.swap("a", "b");
        changes.flush("b");
        changes.execute().unwrap();
        assert_eq!(saved("a"), ["10.0.0.2"]);
        assert_eq!(saved("b"), [""; 0]);
    });
}

#[test]
fn many_elements_go_in_one_call() {
    alone(|| {
        let address = |number: u32| Prefix::host(Ipv4Addr::from(0x0a00_0000 + number).into());
        let elements = (0..50_000).map(|number| Element {
            net: address(number),
            behind: Behind::Nothing,
        });
        let elements: Vec<_> = elements.map(|element| (element, Said::Nothing)).collect();
        let mut changes = Changes::default();
        changes.create("s", Kind::Net, Family::V4, Carries::Nothing, 1 << 22);
        changes.add("s", &elements);
        changes.execute().unwrap();
        assert_eq!(headers("s").unwrap()[0].elements, Some(50_000));
    });
}

#[test]
fn what_the_kernel_refuses_is_told() {
    alone(|| {
        let told = |changes: Changes| changes.execute().unwrap_err().to_string();
        let mut changes = Changes::default();
        changes.add(
            "nowhere",
            &[(element("10.0.0.1/32", Behind::Nothing), Said::Nothing)],
        );
        let text = told(changes);
        assert!(
            text.starts_with("adding to the address set nowhere: "),
            "{text}"
        );

        let mut changes = Changes::default();
        changes.create("used", Kind::Ip, Family::V4, Carries::Nothing, 64);
        changes.execute().unwrap();
        tool("iptables-nft -A FORWARD -m set --match-set used src");
        let mut changes = Changes::default();
        changes.destroy("used");
        assert_eq!(told(changes), "removing the address set used: it is in use");

        let mut changes = Changes::default();
        changes.create("full", Kind::Ip, Family::V4, Carries::Nothing, 64);
        let many = (0..200).map(|number| {
            let net = Prefix::host(Ipv4Addr::from(0x0a00_0000 + number).into());
            let behind = Behind::Nothing;
            (Element { net, behind }, Said::Nothing)
        });
        changes.add("full", &many.collect::<Vec<_>>());
        assert_eq!(told(changes), "adding to the address set full: it is full");
    });
}
