use super::super::dump::Tables;
use super::*;

/// The rules of a chain, as the server would send them, and how the chain stands.
fn check_in(
    family: Family,
    direction: Direction,
    chain: &[&str],
    expected: Result<(&str, ChainState<'static>), &str>,
) {
    let mut text = "*filter\n:x - [0:0]\n".to_owned();
    for rule in chain {
        text += &format!("-A x {rule}\n");
    }
    text += "COMMIT\n";
    let tables = Tables::of_iptables(&text);
    let rules = &tables.table("filter").expect("there")["x"];
    let reading = read(Some(rules), direction, family);
    let seen: Vec<String> = reading.rules.iter().map(|(s, p)| words(*s, *p)).collect();
    match (reading.state, expected) {
        (ChainState::Unreadable(rule), Err(expected)) => {
            assert_eq!((rule, &seen[..]), (expected, &[][..]));
        }
        (state, Ok((rules, expected))) => {
            assert_eq!((&*seen.join(", "), state), (rules, expected), "{chain:?}");
        }
        (state, Err(expected)) => panic!("{state:?}, not {expected}: {chain:?}"),
    }
}

fn words(service: Service, remote: Prefix) -> String {
    let service = match service {
        Service::All => "all".to_owned(),
        Service::Ports { transport, ports } if ports == L4PortRange::ALL => transport.to_string(),
        Service::Ports { transport, ports } => {
            format!("{transport} {}-{}", ports.first(), ports.last())
        }
        Service::Icmp(None) => "icmp".to_owned(),
        Service::Icmp(Some(kind)) => match kind.code {
            Some(code) => format!("icmp {}/{code}", kind.icmp_type),
            None => format!("icmp {}", kind.icmp_type),
        },
        Service::Protocol(number) => format!("{number}"),
    };
    format!("{service} {}/{}", remote.network(), remote.length())
}

fn check_ingress(chain: &[&str], rules: &str, state: ChainState<'static>) {
    check_in(Family::V4, Direction::Ingress, chain, Ok((rules, state)));
}

fn check_egress(chain: &[&str], rules: &str, state: ChainState<'static>) {
    check_in(Family::V4, Direction::Egress, chain, Ok((rules, state)));
}

#[test]
fn ingress_is_read_bottom_up() {
    let closed = ChainState::Closed;
    check_ingress(&["-j DROP"], "", closed);
    check_ingress(&["-j RETURN"], "", closed);
    check_ingress(
        &[
            "-s 10.3.0.0/16 -p gre -j ACCEPT",
            "-p icmp -m icmp --icmp-type any -j ACCEPT",
            "-s 10.0.0.0/8 -p tcp -m tcp --dport 8000:8099 -m state --state NEW -j ACCEPT",
            "-m state --state NEW -j ACCEPT",
            "-j DROP",
        ],
        "all 0.0.0.0/0, tcp 8000-8099 10.0.0.0/8, icmp 0.0.0.0/0, 47 10.3.0.0/16",
        closed,
    );
    check_ingress(&["-j ACCEPT", "-j RETURN"], "all 0.0.0.0/0", closed);
    // Begun anew by a push: the end is there twice.
    let twice = [
        "-s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j ACCEPT",
        "-j RETURN",
        "-j RETURN",
    ];
    check_ingress(&twice, "tcp 22-22 10.0.0.0/8", closed);
    // Never reached.
    check_ingress(&["-j DROP", "-j ACCEPT"], "", closed);
    check_ingress(&["-j ACCEPT"], "all 0.0.0.0/0", ChainState::Unended);
    check_ingress(&[], "", ChainState::Empty);
    let missing = read(None, Direction::Ingress, Family::V4);
    assert_eq!(missing, Reading::of(ChainState::Missing));
}

#[test]
fn an_egress_is_open_restricted_or_neither() {
    check_egress(&["-j RETURN"], "", ChainState::Open);
    check_egress(&["-j ACCEPT"], "", ChainState::Open);
    let mark = "-j MARK --set-xmark 0x40000000/0x40000000";
    check_egress(&[mark], "", ChainState::Open);

    let ntp = "-p udp -m udp --dport 123";
    let old = format!("{ntp} -m state --state NEW -j RETURN");
    check_egress(
        &[&old, "-j DROP"],
        "udp 123-123 0.0.0.0/0",
        ChainState::Closed,
    );
    let new = format!("{ntp} -j ACCEPT");
    check_egress(
        &[&new, "-j RETURN"],
        "udp 123-123 0.0.0.0/0",
        ChainState::Closed,
    );
    let routed = format!("{ntp} {mark}");
    check_egress(
        &[&routed, "-j RETURN"],
        "udp 123-123 0.0.0.0/0",
        ChainState::Closed,
    );
    // Everything, but said by a rule.
    check_egress(
        &["-j ACCEPT", "-j RETURN"],
        "all 0.0.0.0/0",
        ChainState::Closed,
    );
    check_egress(
        &["-j RETURN", "-j DROP"],
        "all 0.0.0.0/0",
        ChainState::Closed,
    );

    check_egress(&[], "", ChainState::Empty);
    check_egress(&[&old], "udp 123-123 0.0.0.0/0", ChainState::Unended);
    check_egress(&[&new], "udp 123-123 0.0.0.0/0", ChainState::Unended);
    check_egress(&["-j DROP"], "", ChainState::Closed);
}

/// One line may stand for a denial: all or nothing.
#[test]
fn what_cannot_be_told_makes_the_chain_unreadable() {
    let good = "-s 10.1.0.0/16 -j ACCEPT";
    for bad in [
        "-s 10.0.0.0/8 -j DROP",
        "-j LOG",
        "-j mine",
        "-g mine",
        "-p tcp -m tcp --sport 22 -j ACCEPT",
        "-p sctp -m sctp --dport 22 -j ACCEPT",
        "-p nonsense -j ACCEPT",
        "! -s 10.0.0.0/8 -j ACCEPT",
        "-d 10.0.0.0/8 -j ACCEPT",
        "-s 10.0.0.0/8 -s 10.0.0.0/8 -j ACCEPT",
        "-s fd00::/8 -j ACCEPT",
        "-s 10.0.0.0/255.0.255.0 -j ACCEPT",
        "-m socket -j ACCEPT",
        "-m state --state RELATED,ESTABLISHED -j ACCEPT",
        "-m comment --comment x -j ACCEPT",
        "-p icmp -m icmp --icmp-type echo -j ACCEPT",
        "-p icmp -m icmp --icmp-type 300/0 -j ACCEPT",
        "--icmp-type 8/0 -j ACCEPT",
        "-p tcp -m icmp --icmp-type 8/0 -j ACCEPT",
        "-p tcp -m tcp --dport 23:22 -j ACCEPT",
        "--dport 22 -j ACCEPT",
        "-m physdev --physdev-in vnet0 -j ACCEPT",
        "",
    ] {
        let chain = [good, bad, "-j RETURN"];
        check_in(Family::V4, Direction::Ingress, &chain, Err(bad));
    }
    let mixed = [
        "-d 10.0.0.0/8 -j ACCEPT",
        "-d 10.1.0.0/16 -j RETURN",
        "-j DROP",
    ];
    check_in(Family::V4, Direction::Egress, &mixed, Err(mixed[0]));
    let denied = ["-d 10.0.0.0/8 -j DROP", "-j DROP"];
    check_in(Family::V4, Direction::Egress, &denied, Err(denied[0]));
}

fn check_service(family: Family, matches: &str, expected: &str) {
    let rule = format!("{matches} -j ACCEPT");
    let whole = Prefix::whole(family);
    let expected = match expected {
        "" => String::new(),
        service => format!("{service} {}/0", whole.network()),
    };
    let chain = [&*rule, "-j RETURN"];
    check_in(
        family,
        Direction::Ingress,
        &chain,
        Ok((&expected, ChainState::Closed)),
    );
}

#[test]
fn services_are_as_iptables_prints_them() {
    use Family::{V4, V6};
    check_service(V4, "-p tcp -m tcp", "tcp");
    check_service(V4, "-p tcp", "tcp");
    check_service(V4, "-p 17", "udp");
    check_service(V4, "-p tcp -m tcp --dport 1:65535", "tcp 1-65535");
    check_service(
        V4,
        "-p udp -m udp --dport 53 -m conntrack --ctstate NEW",
        "udp 53-53",
    );
    check_service(V4, "-p icmp -m icmp --icmp-type 3/4", "icmp 3/4");
    check_service(V4, "-p icmp -m icmp --icmp-type 8", "icmp 8");
    check_service(V4, "-p icmp", "icmp");
    check_service(V6, "-p ipv6-icmp", "icmp");
    check_service(
        V6,
        "-p ipv6-icmp -m icmp6 --icmpv6-type 128/0",
        "icmp 128/0",
    );
    check_service(V4, "-p esp", "50");
    check_service(V4, "-p 99", "99");
    // The other family's, which isn't on the wire: a rule, and nobody's.
    check_service(V4, "-p ipv6-icmp", "58");
    check_service(V6, "-p icmp", "");
}
