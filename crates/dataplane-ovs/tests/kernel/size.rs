//! How many flows a policy comes to.

use crate::bed::Bed;

/// 20 local ports, 15 rules of which 5 name a group, and that many members elsewhere.
fn crowd(members: usize, more: &str) -> String {
    let mut rules = String::new();
    for n in 0..5 {
        rules += &format!(
            "      - {{ name: g{n}, from: peers, protocol: tcp, ports: {} }}\n",
            1000 + n
        );
        rules += &format!(
            "      - {{ name: p{n}, from: 198.51.100.{n}/32, protocol: tcp, ports: {} }}\n",
            2000 + n
        );
        rules += &format!(
            "      - {{ name: o{n}, to: any, protocol: tcp, ports: {} }}\n",
            3000 + n
        );
    }
    if !more.is_empty() {
        rules += &format!("      - {more}\n");
    }
    let mut ports = String::new();
    for n in 1..=20 {
        ports += &format!(
            "  vm{n}: {{ host: here, network: red, device: vm{n}, mac: '52:54:00:00:00:{n:02x}', addresses: 10.0.0.{n}, groups: local }}\n"
        );
    }
    for n in 0..members {
        let (high, low) = (n / 250, n % 250 + 1);
        ports += &format!(
            "  m{n}: {{ host: h{}, network: red, device: m{n}, mac: '52:54:01:00:{high:02x}:{low:02x}', addresses: 10.1.{high}.{low}, groups: peers }}\n",
            n % 20
        );
    }
    let hosts: String = (0..20)
        .map(|n| {
            format!(
                "  h{n}: {{ tunnel-address: 192.0.2.{}, peer-trust: tag }}\n",
                10 + n
            )
        })
        .collect();
    format!(
        "
version: 1
hosts:
  here: {{ tunnel-address: 192.0.2.1, peer-trust: tag }}
{hosts}
networks: {{ red: {{ subnets: [10.0.0.0/15], scope: red, vni: 100, mtu: 1400 }} }}
groups:
  peers: {{ tag: 11 }}
  local:
    tag: 10
    rules:
{rules}
ports:
{ports}"
    )
}

#[test]
fn flows_are_of_rules_and_ports_and_not_of_members() {
    let mut bed = Bed::new(&[("br-int", true)]);
    bed.host = model::HostId::new("here");
    for n in 1..=20 {
        bed.add_vm(&format!("vm{n}"), n, &[&format!("10.0.0.{n}")], "br-int");
    }
    bed.apply(&crowd(20, ""));
    let few = bed.flows("br-int", true).len();
    let grown = bed.apply(&crowd(2000, ""));
    let many = bed.flows("br-int", true).len();
    println!("{many} flows: 20 ports, 15 rules, 2,000 members on 20 hosts");
    assert_eq!((few, grown.writes), (many, 0));
    assert!(many < 500, "{many}");

    let rule = "{ name: more, from: 198.51.100.9/32, protocol: tcp, ports: 9 }";
    let report = bed.apply(&crowd(2000, rule));
    assert_eq!(report.writes, 2, "one for packets, one for first packets");
}
