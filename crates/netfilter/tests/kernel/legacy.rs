use crate::support::{alone, datagrams, tool, tool_fed};
use model::Family;
use portcullis_netfilter::legacy::{fingerprint, tables};

fn filter(family: Family) -> u64 {
    let found = fingerprint(family, "filter").unwrap();
    found.expect("the table is there").digest
}

fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    }
}

#[test]
fn every_change_of_a_rule_changes_the_fingerprint() {
    for family in Family::BOTH {
        alone(move || {
            let any = match family {
                Family::V4 => "10.0.0.0/8",
                Family::V6 => "fd00::/8",
            };
            tool(&format!("{} -L", program(family)));
            let changes = [
                "-A FORWARD -j ACCEPT",
                "-R FORWARD 1 -j DROP",
                &format!("-R FORWARD 1 -s {any} -j DROP"),
                &format!("-R FORWARD 1 -d {any} -j DROP"),
                "-R FORWARD 1 -i eth+ -j DROP",
                "-R FORWARD 1 -i eth0 -j DROP",
                "-R FORWARD 1 ! -i eth0 -j DROP",
                "-R FORWARD 1 -p tcp --dport 80 -j DROP",
                "-R FORWARD 1 -p tcp --dport 81 -j DROP",
                "-R FORWARD 1 -m comment --comment a -j DROP",
                "-R FORWARD 1 -m comment --comment b -j DROP",
                "-N mine",
                "-A mine -j RETURN",
                "-E mine yours",
                "-A OUTPUT -m limit --limit 5/s",
                "-P FORWARD DROP",
                "-F FORWARD",
                "-F",
                "-X",
            ];
            let mut seen = vec![filter(family)];
            for change in changes {
                tool(&format!("{} {change}", program(family)));
                let now = filter(family);
                assert!(!seen.contains(&now), "{change}: as at some time before");
                seen.push(now);
            }
            tool(&format!("{} -P FORWARD ACCEPT", program(family)));
            assert_eq!(filter(family), seen[0], "the same rules as at first");
        });
    }
}

#[test]
fn neither_traffic_nor_reading_changes_the_fingerprint() {
    for family in Family::BOTH {
        alone(move || {
            let program = program(family);
            let rules = [
                "",
                "-m limit --limit 1/hour --limit-burst 2",
                "-m statistic --mode nth --every 3 --packet 0",
                "-m quota --quota 200",
                "-m hashlimit --hashlimit-name h --hashlimit-upto 1/hour --hashlimit-burst 2",
                "-m recent --set --name r",
                "-m conntrack --ctstate NEW",
            ];
            for rule in rules {
                tool(&format!("{program} -A OUTPUT {rule}"));
                tool(&format!("{program} -A INPUT -j ACCEPT"));
            }
            // The tools word a few defaults otherwise the second time.
            let saved = tool(&format!("{program}-save -t filter"));
            tool_fed(&format!("{program}-restore"), &saved);
            let before = filter(family);
            let to = match family {
                Family::V4 => "127.0.0.1",
                Family::V6 => "::1",
            };
            datagrams(to, 4);
            let counted = tool(&format!("{program}-save -c -t filter"));
            assert!(counted.contains("[4:"), "{counted}");
            assert_eq!(filter(family), before, "traffic");
            tool(&format!("{program} -L -v -n"));
            assert_eq!(filter(family), before, "reading");
            tool(&format!("{program} -Z"));
            assert_eq!(filter(family), before, "counters set to 0");
            tool_fed(&format!("{program}-restore"), &counted);
            assert_eq!(filter(family), before, "the same rules once more");
        });
    }
}

#[test]
fn asking_for_a_table_that_nobody_uses_leaves_it_unused() {
    alone(|| {
        for family in Family::BOTH {
            for table in ["filter", "nat", "mangle", "raw", "security", "none", ""] {
                assert_eq!(fingerprint(family, table).unwrap(), None, "{table}");
            }
            assert_eq!(tables(family).unwrap(), [""; 0]);
        }
        tool("iptables-legacy -t raw -L");
        assert_eq!(tables(Family::V4).unwrap(), ["raw"]);
        assert_eq!(tables(Family::V6).unwrap(), [""; 0]);
        assert!(fingerprint(Family::V4, "raw").unwrap().is_some());
        assert_eq!(fingerprint(Family::V4, "filter").unwrap(), None);
    });
}

#[test]
fn tables_and_families_are_told_apart() {
    alone(|| {
        tool("iptables-legacy -A FORWARD -j ACCEPT");
        tool("iptables-legacy -t raw -A PREROUTING -j ACCEPT");
        tool("ip6tables-legacy -A FORWARD -j ACCEPT");
        let raw = fingerprint(Family::V4, "raw").unwrap();
        let (v4, v6) = (filter(Family::V4), filter(Family::V6));
        tool("ip6tables-legacy -F");
        assert_eq!(filter(Family::V4), v4);
        assert_ne!(filter(Family::V6), v6);
        tool("iptables-legacy -F");
        assert_ne!(filter(Family::V4), v4);
        assert_eq!(fingerprint(Family::V4, "raw").unwrap(), raw);
    });
}
