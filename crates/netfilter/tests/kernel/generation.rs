use crate::support::{alone, datagrams, tool, tool_fed};
use portcullis_netfilter::generation;

/// Whether these commands change the number.
fn check(commands: &[&str], changes: bool) {
    for command in commands {
        let before = generation::nft().unwrap();
        tool(command);
        let after = generation::nft().unwrap();
        assert_eq!(before != after, changes, "{command}: {before} -> {after}");
    }
}

#[test]
fn any_tool_that_changes_rules_changes_the_generation() {
    alone(|| {
        check(
            &[
                "nft add table inet t",
                "nft add chain inet t c",
                "nft add rule inet t c accept",
                "nft add set inet t s { type ipv4_addr ; }",
                "nft add element inet t s { 10.0.0.1 }",
                "nft delete element inet t s { 10.0.0.1 }",
                "iptables-nft -A FORWARD -j ACCEPT",
                "iptables-nft -D FORWARD -j ACCEPT",
                "iptables-nft -P FORWARD DROP",
                "ip6tables-nft -A FORWARD -j ACCEPT",
                "ebtables-nft -A FORWARD -j ACCEPT",
                "arptables-nft -A INPUT -j ACCEPT",
                "iptables-nft -A FORWARD -j ACCEPT",
                "iptables-nft -F",
                "nft flush ruleset",
            ],
            true,
        );
    });
}

#[test]
fn neither_reading_nor_others_change_the_generation() {
    alone(|| {
        tool("nft add table inet t");
        tool("iptables-nft -A OUTPUT -j ACCEPT");
        tool("ebtables-nft -A FORWARD -j ACCEPT");
        check(
            &[
                "nft list ruleset",
                "iptables-nft -S",
                "iptables-nft-save",
                "iptables-nft -C OUTPUT -j ACCEPT",
                "ebtables-nft -L",
                "iptables-legacy -A FORWARD -j ACCEPT",
                "ipset create s hash:ip",
                "true",
            ],
            false,
        );
    });
}

#[test]
fn what_traffic_adds_to_a_set_is_not_a_change() {
    alone(|| {
        let rules = "table ip t {
            set seen { type ipv4_addr; flags dynamic,timeout; size 16; timeout 1m; }
            chain out { type filter hook output priority 0; add @seen { ip daddr }; }
        }";
        tool_fed("nft -f -", rules);
        let before = generation::nft().unwrap();
        datagrams("127.0.0.1", 1);
        assert_eq!(generation::nft().unwrap(), before);
        assert!(tool("nft list set ip t seen").contains("127.0.0.1"));
    });
}

#[test]
fn each_namespace_counts_on_its_own() {
    alone(|| {
        let before = generation::nft().unwrap();
        alone(|| {
            tool("nft add table inet t");
        });
        assert_eq!(generation::nft().unwrap(), before);
    });
}
