//! Peers that lie, and hosts where something was taken away. What isn't owed to us doesn't pass.

use crate::bed::{Bed, SILENCE, datagram, mac};
use crate::hosts::{Hosts, check, policy};
use crate::tunnels::{Outer, PATIENCE, option, phy};
use portcullis_dataplane_ovs::Table;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Two tenants with the same addresses and groups of their own.
fn tenants(inspection: &str) -> String {
    format!(
        "
version: 1
settings: {{ inspection: {inspection} }}
hosts:
  a: {{ tunnel-address: 192.0.2.1, peer-trust: tag }}
  b: {{ tunnel-address: 192.0.2.2, peer-trust: tag }}
networks:
  red: {{ subnets: [10.0.0.0/24], scope: red, vni: 100, mtu: 1400 }}
  blue: {{ subnets: [10.0.0.0/24], scope: blue, vni: 200, mtu: 1400 }}
groups:
  red-web:
    tag: 10
    rules:
      - {{ name: http, from: red-friends, protocol: udp, ports: 80 }}
      - {{ name: dns, from: any, protocol: udp, ports: 53 }}
      - {{ name: geneve, from: any, protocol: udp, ports: 6081 }}
  red-friends: {{ tag: 11, rules: [{{ name: out, to: any }}] }}
  red-others: {{ tag: 12, rules: [{{ name: out, to: any }}] }}
  blue-web: {{ tag: 20, rules: [{{ name: http, from: blue-friends, protocol: udp, ports: 80 }}] }}
  blue-friends: {{ tag: 21 }}
  blue-others: {{ tag: 22 }}
ports:
  web: {{ host: a, network: red, device: web, mac: '52:54:00:00:00:01', addresses: 10.0.0.1, groups: red-web }}
  friend: {{ host: b, network: red, device: friend, mac: '52:54:00:00:00:02', addresses: 10.0.0.2, groups: red-friends }}
  web-b: {{ host: a, network: blue, device: web-b, mac: '52:54:00:00:00:03', addresses: 10.0.0.1, groups: blue-web }}
  friend-b: {{ host: b, network: blue, device: friend-b, mac: '52:54:00:00:00:04', addresses: 10.0.0.2, groups: blue-friends }}
  mate: {{ host: a, network: red, device: mate, mac: '52:54:00:00:00:05', addresses: 10.0.0.5, groups: red-others }}
  stranger: {{ host: b, network: red, device: stranger, mac: '52:54:00:00:00:06', addresses: 10.0.0.6, groups: red-others }}
"
    )
}

fn outer(vni: u32, options: Vec<u8>) -> Outer {
    Outer {
        from: Ipv4Addr::new(192, 0, 2, 2),
        to: Ipv4Addr::new(192, 0, 2, 1),
        vni,
        options,
    }
}

/// Sends it as host b would, and whether the VM gets it.
fn forged(hosts: &Hosts, outer: &Outer, inner: &[u8], to: &str) -> bool {
    let at = hosts.a.packets(to);
    let frame = outer.around(inner, &hosts.b, &hosts.a);
    phy(&hosts.b).send(&frame).expect("sent");
    let is_it = |seen: &[u8]| seen == inner;
    at.wait_for(SILENCE, is_it).expect("a socket").is_some()
}

/// What is counted as `unknown-tunnel`, but for the very first.
fn counted(bed: &Bed) -> u64 {
    // Counts of decisions that are remembered come late otherwise.
    bed.appctl("revalidator/purge");
    let drops = Table::Drop.number();
    let told = bed.ofctl(&format!("dump-flows br-int table={drops}"));
    let lines = told.lines().filter(|line| line.contains("reg7=0x13 "));
    let packets = lines.filter_map(|line| line.split("n_packets=").nth(1));
    let packets = packets.filter_map(|rest| rest.split(',').next());
    packets.filter_map(|count| count.parse::<u64>().ok()).sum()
}

#[test]
fn what_no_peer_would_send_is_dropped_and_counted() {
    let mut hosts = Hosts::new();
    hosts.apply(&tenants("destination"));
    hosts.find_each_other();
    let inner = datagram(6, 1, 4000, 53);
    let good = outer(100, option(1, 0, &[12]));
    assert!(forged(&hosts, &good, &inner, "web"));
    let stranger = Outer {
        from: Ipv4Addr::new(192, 0, 2, 9),
        ..good.clone()
    };
    let critical = vec![1, 1, 0x80, 1, 0, 0, 0, 0];
    let harmless = vec![1, 1, 0x01, 1, 0, 0, 0, 0];
    let short = vec![0xff, 0x70, 0x81, 1, 1, 0, 0, 0];
    let bad = [
        ("an unknown source", stranger, true),
        ("an unknown network", outer(999, option(1, 0, &[12])), true),
        ("no option", outer(100, Vec::new()), true),
        ("an unknown option", outer(100, harmless), true),
        // The switch drops these by itself.
        ("an unknown critical option", outer(100, critical), false),
        ("a short option", outer(100, short), false),
        ("no form", outer(100, option(0, 0, &[12])), true),
        ("another form", outer(100, option(2, 0, &[12])), true),
    ];
    for (what, outer, is_counted) in bad {
        // The first one of all makes the flow that counts.
        forged(&hosts, &outer, &inner, "web");
        let before = counted(&hosts.a);
        for _ in 0..3 {
            assert!(!forged(&hosts, &outer, &inner, "web"), "{what}");
        }
        let more = counted(&hosts.a) - before;
        println!("{what}: {more} counted");
        if is_counted {
            assert_eq!(more, 3, "{what}");
        }
    }
    assert!(forged(&hosts, &good, &inner, "web"), "it still works");
}

#[test]
fn a_forged_identity_is_worth_what_it_says_in_its_own_network() {
    let mut hosts = Hosts::new();
    hosts.apply(&tenants("destination"));
    hosts.find_each_other();
    let red = datagram(6, 1, 4000, 80);
    let [src, dst] = [2, 1].map(|last| Ipv4Addr::new(10, 0, 0, last).into());
    let blue = wire::build::ip(src, dst).udp(4000, 80);
    let blue = blue.macs(mac(4), mac(3)).bytes();
    for (vni, tags, inner, to, passes) in [
        (100, &[12u16][..], &red, "web", false),
        (100, &[11], &red, "web", true),
        (100, &[12, 11], &red, "web", true),
        // The other tenant's.
        (100, &[21], &red, "web", false),
        (100, &[20, 21], &red, "web", false),
        (200, &[21], &blue, "web-b", true),
        (200, &[11], &blue, "web-b", false),
        (200, &[10, 11, 12], &blue, "web-b", false),
        // To a MAC of another network.
        (200, &[11, 21], &red, "web", false),
        (100, &[11, 21], &blue, "web-b", false),
        // The number of a list that nobody knows.
        (100, &[0xffff, 11, 11], &red, "web", false),
    ] {
        let sent = outer(vni, option(1, 0, tags));
        assert_eq!(forged(&hosts, &sent, inner, to), passes, "{vni} {tags:?}");
    }
    // Nothing else is permitted to what a tag says.
    let other = datagram(6, 1, 4000, 81);
    assert!(!forged(
        &hosts,
        &outer(100, option(1, 0, &[11])),
        &other,
        "web"
    ));
    // A spoofed source of this host is what its tags say, too.
    let own = datagram(5, 1, 4000, 80);
    assert!(!forged(
        &hosts,
        &outer(100, option(1, 0, &[12])),
        &own,
        "web"
    ));
}

#[test]
fn a_word_about_inspection_counts_only_where_it_is_asked_for() {
    let mut hosts = Hosts::new();
    let denied = datagram(6, 1, 4000, 80);
    for (inspection, passes) in [("destination", false), ("both", false), ("source", true)] {
        hosts.apply(&tenants(inspection));
        hosts.find_each_other();
        let claims = outer(100, option(1, 1, &[12]));
        assert_eq!(
            forged(&hosts, &claims, &denied, "web"),
            passes,
            "{inspection}"
        );
        let silent = outer(100, option(1, 0, &[12]));
        assert!(!forged(&hosts, &silent, &denied, "web"), "{inspection}");
    }
}

#[test]
fn what_is_for_nobody_here_goes_nowhere() {
    let mut hosts = Hosts::new();
    for inspection in ["destination", "source"] {
        hosts.apply(&tenants(inspection));
        hosts.find_each_other();
        let back = phy(&hosts.b);
        // An unknown MAC, and one of the host that it came from.
        for last in [99, 6, 2] {
            let inner = datagram(6, last, 4000, 53);
            for to in ["web", "mate", "web-b"] {
                assert!(!forged(
                    &hosts,
                    &outer(100, option(1, 0, &[12])),
                    &inner,
                    to
                ));
            }
            let reflected = crate::tunnels::on_cable(&back, &inner, SILENCE);
            assert_eq!(reflected, None, "{last}");
        }
    }
}

#[test]
fn a_vm_may_send_geneve_of_its_own() {
    let mut hosts = Hosts::new();
    hosts.apply(&tenants("destination"));
    hosts.find_each_other();
    let inner = outer(100, option(1, 0, &[11])).around(&datagram(6, 1, 1, 80), &hosts.b, &hosts.a);
    for (bed, from, last) in [(&hosts.b, "stranger", 6), (&hosts.a, "mate", 5)] {
        let [src, dst] = [last, 1].map(|last| Ipv4Addr::new(10, 0, 0, last).into());
        let packet = wire::build::ip(src, dst).udp(40_000, 6081);
        let frame = packet.payload(&inner[42..]).macs(mac(last), mac(1)).bytes();
        let at = hosts.a.packets("web");
        bed.packets(from).send(&frame).expect("sent");
        let seen = at.wait_for(PATIENCE, |seen| seen[..14] == frame[..14]);
        assert_eq!(seen.expect("a socket"), Some(frame), "{from}");
    }
}

#[test]
fn a_restarted_switch_tunnels_again() {
    let mut hosts = Hosts::new();
    let policy = policy("tag", "destination");
    hosts.apply(&policy);
    hosts.find_each_other();
    hosts.a.switch.kill_vswitchd().expect("it runs");
    hosts.a.switch.start_vswitchd().expect("it starts");
    assert!(!hosts.a.ofctl("dump-tlv-map br-int").contains("0xff70"));
    assert_ne!(hosts.a.audit(), []);
    let began = Instant::now();
    hosts.a.apply(&policy);
    println!("the flows are back {:?} later", began.elapsed());
    assert_eq!(hosts.a.audit(), []);
    assert!(hosts.a.ofctl("dump-tlv-map br-int").contains("0xff70"));
    check(&hosts);
}

#[test]
fn a_deleted_tunnel_comes_back_and_an_unwanted_one_goes() {
    let mut hosts = Hosts::new();
    let wanted = policy("tag", "destination");
    hosts.apply(&wanted);
    hosts.find_each_other();
    let tunnel = |bed: &Bed| {
        let ports = bed.vsctl("list-ports br-int");
        // Machines, whose names begin by chance, have a dash in them.
        let mut names = ports.lines().filter(|name| !name.contains('-'));
        let found = names.find(|name| name.starts_with("pcg"));
        found.map(str::to_owned)
    };
    let name = tunnel(&hosts.a).expect("there is one");
    hosts.a.vsctl(&format!("del-port {name}"));
    assert_ne!(hosts.a.audit(), []);
    hosts.a.apply(&wanted);
    assert_eq!(hosts.a.audit(), []);
    check(&hosts);
    // Another address of this host.
    let moved = wanted.replace("192.0.2.1,", "192.0.2.77,");
    hosts.a.apply(&moved);
    let options = hosts.a.vsctl(&format!("get interface {name} options"));
    assert!(options.contains("192.0.2.77"), "{options}");
    let unwanted = wanted.replace("tunnel-address: 192.0.2.1, ", "");
    hosts.a.apply(&unwanted);
    assert_eq!(tunnel(&hosts.a), None);
    hosts.a.apply(&wanted);
    check(&hosts);
    hosts.a.with(dataplane::DataPlane::detach).expect("done");
    assert_eq!(tunnel(&hosts.a), None);
}

#[test]
fn options_of_others_stay() {
    let mut hosts = Hosts::new();
    hosts
        .a
        .ofctl("add-tlv-map br-int {class=0x101,type=1,len=4}->tun_metadata0");
    hosts
        .b
        .ofctl("add-tlv-map br-int {class=0xff70,type=0x81,len=20}->tun_metadata5");
    let wanted = policy("tag", "destination");
    hosts.apply(&wanted);
    check(&hosts);
    for (bed, line) in [(&hosts.a, "tun_metadata1"), (&hosts.b, "tun_metadata5")] {
        let map = bed.ofctl("dump-tlv-map br-int");
        let ours = map.lines().find(|line| line.contains("0xff70"));
        assert!(ours.is_some_and(|ours| ours.contains(line)), "{map}");
    }
}

#[test]
fn an_option_that_somebody_else_means_otherwise_is_refused() {
    let mut hosts = Hosts::new();
    hosts
        .a
        .ofctl("add-tlv-map br-int {class=0xff70,type=0x81,len=8}->tun_metadata0");
    let refused = hosts.a.try_apply(&policy("tag", "destination"));
    let error = refused.expect_err("the length differs");
    let said = format!("{error} {:?}", error.source);
    assert!(
        said.contains("somebody else uses class 0xff70 type 0x81, with 8 bytes"),
        "{said}"
    );
}

/// A host that has no port of a tenant can't speak for one.
#[test]
fn a_peer_is_heard_in_the_networks_that_it_has_ports_in() {
    let mut hosts = Hosts::new();
    let with = tenants("destination");
    let without = with.replace("friend-b: { host: b,", "friend-b: { host: a,");
    assert_ne!(with, without);
    let [src, dst] = [2, 1].map(|last| Ipv4Addr::new(10, 0, 0, last).into());
    let blue = wire::build::ip(src, dst).udp(4000, 80);
    let blue = blue.macs(mac(4), mac(3)).bytes();
    let sent = outer(200, option(1, 0, &[21]));
    for (policy, passes) in [(&with, true), (&without, false), (&with, true)] {
        hosts.a.apply(policy);
        assert_eq!(forged(&hosts, &sent, &blue, "web-b"), passes);
    }
}

#[test]
fn who_is_trusted_how_may_change() {
    let mut hosts = Hosts::new();
    for trust in ["address", "tag", "address"] {
        hosts.apply(&policy(trust, "destination"));
        // From the first packet on: what was learned before isn't gone by.
        check(&hosts);
    }
}

#[test]
fn what_can_not_go_from_host_to_host_is_said() {
    let mut hosts = Hosts::new();
    let good = policy("tag", "destination");
    hosts.a.apply(&good);
    let untagged = good.replace("others: { tag: 12, rules", "others: { rules");
    let untagged = untagged.replace("friends: { tag: 11, rules", "friends: { rules");
    let said = hosts.a.try_apply(&untagged).expect("it is applied").remarks;
    assert!(
        said.contains(&"group friends has no tag: at other hosts nobody is in it".to_owned()),
        "{said:?}"
    );
    let six = good.replace("tunnel-address: 192.0.2.2", "tunnel-address: '2001:db8::2'");
    let said = hosts.a.try_apply(&six).expect("it is applied").remarks;
    assert!(
        said.iter()
            .any(|said| said.contains("no tunnel to host b: 2001:db8::2")),
        "{said:?}"
    );
    let wide = good.replace("scope: red,", "scope: red, mtu: 1527,");
    let said = hosts.a.try_apply(&wide).expect("it is applied").remarks;
    assert_eq!(
        said,
        [
            "network red: packets of 1527 bytes don't fit into tunnels through br-phy, whose MTU is 1600; its machines \
             may have an MTU of at most 1526, or br-phy needs one of 1601"
        ]
    );
    let fits = good.replace("scope: red,", "scope: red, mtu: 1526,");
    assert_eq!(hosts.a.apply(&fits).remarks, [""; 0]);
    hosts
        .a
        .lab
        .host()
        .ip("link set br-phy mtu 1573")
        .expect("it is set");
    hosts
        .a
        .vsctl("--timeout=20 wait-until interface br-phy mtu=1573");
    let said = hosts.a.try_apply(&good).expect("it is applied").remarks;
    assert!(
        said.iter()
            .any(|said| said.starts_with("network blue: packets of 1500 bytes don't fit")),
        "{said:?}"
    );

    // One address is one bridge's.
    hosts.a.switch.add_bridge("br-two", true).expect("a bridge");
    hosts.a.unplug("mate");
    hosts.a.plug("mate", "br-two");
    let said = hosts.a.try_apply(&good).expect("it is applied").remarks;
    assert!(
        said.iter()
            .any(|said| said.contains("br-two has no tunnel to other hosts")),
        "{said:?}"
    );
}
