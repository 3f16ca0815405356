//! Random inventories in words, biased to edges: nested prefixes that fill each other, range ends,
//! empty sets, references that lead nowhere.

use proptest::prelude::*;
use proptest::sample::select;

/// `PORT` is always there, with groups; everything else may be missing.
pub(crate) const PORT: &str = "vm0";

pub(crate) fn lines() -> impl Strategy<Value = Vec<String>> {
    let always = (groups(), settled())
        .prop_map(|(groups, network)| format!("port {PORT} {network} in=g0,{groups}"));
    let line = prop_oneof![
        9 => rule(),
        3 => port(),
        1 => select(GROUPS).prop_map(|g| format!("group {g}")),
        1 => select(GROUPS).prop_map(|g| format!("group {g} stateless")),
        2 => (select(SETS), prefixes()).prop_map(|(id, p)| format!("addresses {id} {p}")),
    ];
    let fixed = [
        "host h1",
        "network net blue 10.0.0.0/24",
        "network red red 10.0.0.0/24",
        "group g0",
        "group g1",
    ];
    (always, proptest::collection::vec(line, 0..40)).prop_map(move |(port, lines)| {
        let fixed = fixed.iter().map(|line| (*line).to_owned());
        fixed.chain([port]).chain(lines).collect()
    })
}

/// A host of every kind of object that leads somewhere or nowhere.
pub(crate) fn dangling_lines() -> impl Strategy<Value = Vec<String>> {
    (lines(), any::<u32>()).prop_map(|(lines, keep)| {
        let kept = |(n, _): &(usize, String)| keep & (1 << (n % 32)) != 0;
        let lines = lines.into_iter().enumerate().filter(kept);
        lines.map(|(_, line)| line).collect()
    })
}

const GROUPS: &[&str] = &["g0", "g1", "g2", "g3"];
const SETS: &[&str] = &["a0", "a1"];
const V4: &[&str] = &[
    "0.0.0.0/0",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "10.0.0.0/24",
    "10.0.0.0/25",
    "10.0.0.128/25",
    "10.0.0.1",
    "10.0.0.2/31",
    "255.255.255.255",
];
const V6: &[&str] = &[
    "::/0",
    "::/1",
    "8000::/1",
    "2001:db8::/64",
    "2001:db8::1",
    "fe80::/10",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];
const L4: &[&str] = &[
    "any",
    "any",
    "tcp",
    "tcp",
    "tcp:22-22",
    "tcp:0-21",
    "tcp:22-65535",
    "tcp:23-65534",
    "tcp:65535-65535",
    "tcp:0-0",
    "udp",
    "udp:53-53",
    "sctp:1-2",
    "icmp",
    "icmp:8",
    "icmp:0",
    "icmp:8/0",
    "icmp:0/1",
    "icmp:3",
    "icmp:11",
    "icmp:12",
    "icmp:1",
    "icmp:2",
    "icmp:4",
    "icmp:128",
    "icmp:129",
    "icmp:3/4",
    "47",
    "51",
];

fn rule() -> impl Strategy<Value = String> {
    let of_family = |family: &'static str, prefixes: &'static [&'static str]| {
        let peer = prop_oneof![
            3 => Just("any".to_owned()),
            3 => select(prefixes).prop_map(str::to_owned),
            2 => select(GROUPS).prop_map(|g| format!("group:{g}")),
            1 => select(SETS).prop_map(|s| format!("addresses:{s}")),
        ];
        peer.prop_map(move |peer| (family, peer))
    };
    let family = prop_oneof![2 => of_family("IPv4", V4), 1 => of_family("IPv6", V6)];
    let direction = select(&["ingress", "egress"][..]);
    let group = select(&["g0", "g0", "g0", "g1", "g1", "g2", "g3"][..]);
    (group, 0..12, direction, select(L4), family).prop_map(
        |(group, id, direction, l4, (family, peer))| {
            format!("rule {group}/{id} {direction} {family} {l4} {peer}")
        },
    )
}

fn port() -> impl Strategy<Value = String> {
    let host = select(&["h1", "h2", "-"][..]);
    let network = select(&["net", "red", "ghost"][..]);
    let addresses = select(
        &[
            "-",
            "10.0.0.1",
            "10.0.0.2,10.0.0.3",
            "10.0.0.5,2001:db8::1,fe80::5",
        ][..],
    );
    let more = select(&["", "off", "pairs=10.0.0.0/25,::/0", "pairs=10.0.0.128/25"][..]);
    let moving = select(&["", "", "", "to=h1:tap9", "to=h2:tap9", "to=h3:tap9"][..]);
    (1..5, host, network, addresses, groups(), (more, moving)).prop_map(
        |(n, host, network, addresses, groups, (more, moving))| {
            format!(
                "port vm{n} {network} {host} 02:00:00:00:00:0{n} {addresses} in={groups} {more} {moving}"
            )
        },
    )
}

fn settled() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "net h1 02:00:00:00:00:00 10.0.0.1",
            "net h1 02:00:00:00:00:00 10.0.0.1",
            "net h1 02:00:00:00:00:00 10.0.0.1",
            "red h1 02:00:00:00:00:00 10.0.0.1",
            "net h1 02:00:00:00:00:00 10.0.0.1 off",
        ][..],
    )
}

fn groups() -> impl Strategy<Value = String> {
    proptest::sample::subsequence(GROUPS, 1..3).prop_map(|groups| groups.join(","))
}

fn prefixes() -> impl Strategy<Value = String> {
    let all: Vec<&str> = V4.iter().chain(V6).copied().collect();
    proptest::sample::subsequence(all, 1..4).prop_map(|prefixes| prefixes.join(","))
}
