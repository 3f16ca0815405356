//! How long a large policy file takes to read: `cargo bench -p portcullis-policyfile`,
//! with `-- TEXT` for the cases that have TEXT in their names.

use std::fmt::Write;
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;

fn main() {
    report("10,000 ports in one group", &ports(10_000));
    report("10,000 ports, in block style", &ports_in_blocks(10_000));
    report("100,000 rules on prefixes", &prefix_rules(100_000));
    report("100,000 rules for both families", &group_rules(100_000));
    report(
        "100,000 prefixes in an address group",
        &address_group(100_000),
    );
}

fn report(what: &str, text: &str) {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    if !wanted.is_none_or(|wanted| what.contains(&wanted)) {
        return;
    }
    let host = "host".into();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let read = portcullis_policyfile::parse(text, "bench.yaml", &host);
            let took = start.elapsed();
            read.unwrap_or_else(|e| panic!("{e}"));
            took
        })
        .collect();
    times.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    println!(
        "{what:38} {:>6} KiB  median {:6.1} ms  least {:6.1} ms  most {:6.1} ms",
        text.len() / 1024,
        ms(times[ROUNDS / 2]),
        ms(times[0]),
        ms(times[ROUNDS - 1]),
    );
}

const HEAD: &str = "\
version: 1
networks:
  blue: { subnets: [10.0.0.0/16, fd00::/64] }
groups:
  web:
    rules:
      - { from: web, protocol: tcp, ports: 443 }
";

fn ports(count: usize) -> String {
    let mut text = format!("{HEAD}ports:\n");
    for (i, a, b) in (0..count).map(|i| (i, i / 250, i % 250 + 1)) {
        let _ = writeln!(
            text,
            "  vm{i}: {{ network: blue, device: tap{i}, mac: 52:54:00:00:{a:02x}:{b:02x}, addresses: [10.0.{a}.{b}, fd00::{a:x}:{b:x}], groups: [web] }}"
        );
    }
    text
}

fn ports_in_blocks(count: usize) -> String {
    let mut text = format!("{HEAD}ports:\n");
    for (i, a, b) in (0..count).map(|i| (i, i / 250, i % 250 + 1)) {
        let _ = writeln!(
            text,
            "  vm{i}:\n    network: blue\n    device: tap{i}\n    mac: 52:54:00:00:{a:02x}:{b:02x}\n    addresses:\n      - 10.0.{a}.{b}\n      - fd00::{a:x}:{b:x}\n    groups: [web]"
        );
    }
    text
}

fn prefix_rules(count: usize) -> String {
    let mut text = String::from(HEAD);
    for i in 0..count {
        let (a, b, port) = (i / 256 % 256, i % 256, 1 + i % 60_000);
        let _ = writeln!(
            text,
            "      - {{ from: 10.{a}.{b}.0/24, protocol: tcp, ports: {port} }}"
        );
    }
    text
}

fn group_rules(count: usize) -> String {
    let mut text = String::from(HEAD);
    for i in 0..count {
        let port = 1 + i % 60_000;
        let _ = writeln!(
            text,
            "      - {{ from: web, protocol: tcp, ports: {port} }}"
        );
    }
    text
}

fn address_group(count: usize) -> String {
    let mut text = format!("{HEAD}address-groups:\n  office:\n");
    for i in 0..count {
        let _ = writeln!(
            text,
            "    - 10.{}.{}.{}",
            i / 65_536,
            i / 256 % 256,
            i % 256
        );
    }
    text
}
