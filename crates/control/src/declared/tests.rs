use super::plan::Plan;
use super::*;
use crate::ids::Moment;
use crate::inventory_of;
use crate::state::State;
use crate::trial::{Dice, Site, admin, at, chance, check_refused, member, new_port, one, pick};
use crate::{AskedAddress, NewPort};
use model::{
    AddressGroup, AddressGroupId, AddressPair, DeviceMatch, Direction, Family, Host, HostId,
    L4Match, L4PortRange, MacAddr, Network, NetworkId, Peer, PeerTrust, Port, PortId,
    PortedProtocol, Prefix, Rule, RuleId, ScopeId, SecurityGroup, Settings,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use store::memory::Memory;
use store::{CommitError, Store};

fn declared(inventory: Inventory) -> Declared {
    Declared {
        inventory,
        project: ProjectId::from("p"),
        label: "l".to_owned(),
        prune: true,
        dry_run: false,
    }
}

fn file(text: &str) -> Inventory {
    let host = match text.contains("rack1-a") {
        true => "rack1-a",
        false => "h1",
    };
    let read = policyfile::parse(text, "policy", &HostId::from(host));
    read.expect("a good file").inventory
}

/// What a file says, as a cluster says it.
fn as_told(mut inventory: Inventory) -> Inventory {
    for (id, group) in &mut inventory.groups {
        group.project = Some(ProjectId::from("p"));
        let mut said = BTreeSet::new();
        let rules = std::mem::take(&mut group.rules).into_values();
        for mut rule in rules {
            if said.insert(crate::rules::content(&records::asks(&rule))) {
                rule.id = records::rule_id(id, &rule.id);
                group.rules.insert(rule.id.clone(), rule);
            }
        }
    }
    for port in inventory.ports.values_mut() {
        if port.host.is_none() {
            port.device = DeviceMatch::Mac;
        }
    }
    untagged(inventory)
}

fn untagged(mut inventory: Inventory) -> Inventory {
    inventory.revision = Revision::default();
    for group in inventory.groups.values_mut() {
        group.tag = None;
    }
    inventory
}

/// Declared twice: the second time nothing is written.
async fn check_told(inventory: Inventory, what: &str) {
    let site = Site::new().await;
    let asked = declared(inventory.clone());
    let first = site.control.declare(&admin(), asked.clone()).await;
    let first = first.unwrap_or_else(|error| panic!("{what}: {error}"));
    let told = inventory_of(&site.control.state());
    assert_eq!(untagged(told), as_told(inventory), "{what}");
    let again = site.control.declare(&admin(), asked).await;
    let again = again.expect("it was possible before");
    assert_eq!(again.revision, first.revision, "{what}");
    let quiet = |what: &What| matches!(what, What::Unchanged | What::Repeats(_));
    assert!(
        again.outcomes.iter().all(|o| quiet(&o.what)),
        "{what}: {again:?}"
    );
    site.inventory_followed();
}

#[tokio::test]
async fn a_file_is_told_as_it_was_written() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = std::fs::read_to_string(&path).expect("a text");
            check_told(file(&text), &path.display().to_string()).await;
            read += 1;
        }
    }
    assert!(read >= 5, "{read} examples");
    for seed in 0..40 {
        let inventory = policy(&mut Dice::new(seed));
        check_told(inventory, &format!("seed {seed}")).await;
    }
}

/// With so few writes in a commit, even small policies take several.
const ROOMS: [usize; 2] = [26, 40];

#[tokio::test]
async fn nothing_passes_on_the_way_that_neither_policy_lets_pass() {
    let mut many = 0;
    for seed in 0..300 {
        let mut random = Dice::new(seed);
        let (old, new) = (policy(&mut random), policy(&mut random));
        let room = *pick(&mut random, &ROOMS);
        let store = Memory::new();
        for step in steps(&store, &declared(old.clone()), room).await {
            store.commit(step).await.expect("nobody else writes");
        }
        let allowed = &passing(&old) | &passing(&new);
        let mut commits = 0;
        while let Some(step) = step(&store, &declared(new.clone()), room).await {
            store.commit(step).await.expect("nobody else writes");
            let now = inventory_of(&state(&store).await);
            let more = Vec::from_iter(passing(&now).difference(&allowed).cloned());
            assert!(more.is_empty(), "seed {seed}, commit {commits}: {more:?}");
            commits += 1;
            assert!(commits < 200, "seed {seed} gets nowhere");
        }
        many += usize::from(commits > 2);
        let told = inventory_of(&state(&store).await);
        assert_eq!(untagged(told), as_told(new), "seed {seed}");
    }
    assert!(
        many > 100,
        "{many} of the changes took more than two commits"
    );
}

async fn steps(store: &Memory, declared: &Declared, room: usize) -> Vec<store::Transaction> {
    while let Some(step) = step(store, declared, room).await {
        store.commit(step).await.expect("nobody else writes");
    }
    Vec::new()
}

async fn step(store: &Memory, declared: &Declared, room: usize) -> Option<store::Transaction> {
    let state = state(store).await;
    let now = Moment { at: 7 };
    let mut plan = Plan::of(&state, &now, declared).expect("nothing is in the way");
    plan.room = room;
    let transaction = steps::next(&plan).expect("each unit fits").transaction;
    (!transaction.writes().is_empty()).then_some(transaction)
}

async fn state(store: &Memory) -> State {
    State::read(store).await.expect("memory answers")
}

/// At a port with this MAC in this network: own address, remote address and destination port.
type Passes = (PortId, NetworkId, MacAddr, IpAddr, Direction, IpAddr, u16);

/// As docs/semantics.md has it, of a small world.
fn passing(inventory: &Inventory) -> BTreeSet<Passes> {
    let mut passing = BTreeSet::new();
    for port in inventory.ports.values() {
        for (own, remote) in ADDRESSES.iter().flat_map(|a| ADDRESSES.map(|b| (*a, b))) {
            let (own, remote) = (address(own), address(remote));
            for (direction, l4_port) in Direction::BOTH.iter().flat_map(|d| [(d, 1), (d, 2)]) {
                if passes(inventory, port, own, *direction, remote, l4_port) {
                    let (id, network) = (port.id.clone(), port.network.clone());
                    passing.insert((id, network, port.mac, own, *direction, remote, l4_port));
                }
            }
        }
    }
    passing
}

fn passes(
    inventory: &Inventory,
    port: &Port,
    own: IpAddr,
    direction: Direction,
    remote: IpAddr,
    l4_port: u16,
) -> bool {
    if !port.port_security {
        return true;
    }
    let pairs = port.address_pairs.iter();
    let is_own = port.fixed_addresses.contains(&own)
        || pairs.into_iter().any(|pair| pair.prefix.contains(own));
    let groups = port.groups.iter().filter_map(|id| inventory.groups.get(id));
    let mut rules = groups.flat_map(|group| group.rules.values());
    is_own
        && rules.any(|rule| {
            let said = match rule.l4 {
                L4Match::Ported { dst, .. } => dst.contains(l4_port),
                _ => true,
            };
            let peer = match &rule.peer {
                Peer::Any => true,
                Peer::Prefix(prefix) => prefix.contains(remote),
                Peer::Group(id) => is_member(inventory, id, &port.network, remote),
                Peer::AddressGroup(id) => {
                    let group = inventory.address_groups.get(id);
                    group.is_some_and(|g| g.prefixes.iter().any(|p| p.contains(remote)))
                }
            };
            rule.direction == direction && said && peer
        })
}

fn is_member(inventory: &Inventory, group: &GroupId, network: &NetworkId, address: IpAddr) -> bool {
    let scope = |id: &NetworkId| inventory.networks.get(id).map(|network| &network.scope);
    inventory.ports.values().any(|port| {
        port.port_security
            && port.groups.contains(group)
            && scope(&port.network) == scope(network)
            && port
                .member_prefixes()
                .any(|prefix| prefix.contains(address))
    })
}

const ADDRESSES: [&str; 6] = [
    "10.0.0.11",
    "10.0.0.12",
    "10.0.0.13",
    "10.0.0.14",
    "10.0.0.15",
    "10.9.0.1",
];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn some<T: Clone>(random: &mut Dice, of: &[T]) -> Vec<T> {
    of.iter().filter(|_| chance(random, 2)).cloned().collect()
}

fn policy(random: &mut Dice) -> Inventory {
    let hosts = some(random, &["h1", "h2"]).into_iter().map(|id| Host {
        id: HostId::from(id),
        tunnel_address: chance(random, 2).then(|| address("192.0.2.1")),
        peer_trust: *pick(random, &[PeerTrust::Tag, PeerTrust::Address]),
        settings: Settings {
            ethertypes: some(random, &[0x88cc]).into_iter().collect(),
            ..Default::default()
        },
    });
    let mut inventory = Inventory {
        hosts: hosts.map(|host| (host.id.clone(), host)).collect(),
        ..Default::default()
    };
    for id in ["n1", "n2"] {
        let network = network(random, id);
        inventory.networks.insert(network.id.clone(), network);
    }
    for id in ["a1", "a2"] {
        let group = AddressGroup {
            id: AddressGroupId::from(id),
            prefixes: some(random, &[prefix("10.0.0.12"), prefix("10.9.0.0/16")])
                .into_iter()
                .collect(),
        };
        inventory.address_groups.insert(group.id.clone(), group);
    }
    let groups = Vec::from_iter(["g1", "g2"].into_iter().chain(some(random, &["g3", "g4"])));
    for id in &groups {
        let group = group(random, id, &groups);
        inventory.groups.insert(group.id.clone(), group);
    }
    ports(random, &mut inventory, &groups);
    inventory
}

fn network(random: &mut Dice, id: &str) -> Network {
    Network {
        id: NetworkId::from(id),
        scope: ScopeId::from(*pick(random, &["s1", "s1", "s2"])),
        vni: chance(random, 2).then_some(7),
        mtu: chance(random, 2).then_some(1400),
        subnets: some(random, &[prefix("10.0.0.0/24"), prefix("fd00::/64")])
            .into_iter()
            .collect(),
        dhcp_servers: some(random, &[address("10.0.0.2")]).into_iter().collect(),
        routers: some(random, &[address("10.0.0.1")]).into_iter().collect(),
        eui64_only: chance(random, 2),
    }
}

fn group(random: &mut Dice, id: &str, groups: &[&str]) -> SecurityGroup {
    let rules = (1..=random.below(6)).map(|number| {
        let first = 1 + random.below(2) as u16;
        let range = L4PortRange::new(first, first).expect("it isn't empty");
        Rule {
            id: RuleId::new(number.to_string()),
            direction: *pick(random, &Direction::BOTH),
            family: Family::V4,
            l4: match chance(random, 3) {
                true => L4Match::Any,
                false => L4Match::Ported {
                    protocol: PortedProtocol::Tcp,
                    dst: range,
                },
            },
            peer: match random.below(4) {
                0 => Peer::Any,
                1 => Peer::Prefix(prefix("10.0.0.12")),
                2 => Peer::AddressGroup(AddressGroupId::from(*pick(random, &["a1", "a2"]))),
                _ => Peer::Group(GroupId::from(*pick(random, groups))),
            },
        }
    });
    SecurityGroup {
        id: GroupId::from(id),
        project: None,
        name: id.to_owned(),
        rules: rules.map(|rule| (rule.id.clone(), rule)).collect(),
        stateful: chance(random, 2),
        tag: None,
    }
}

/// MACs and addresses go from one to the other.
fn ports(random: &mut Dice, inventory: &mut Inventory, groups: &[&str]) {
    let mut addresses = Vec::from_iter(ADDRESSES[..5].iter().map(|text| address(text)));
    let mut macs = Vec::from_iter((1..=10).map(|last| MacAddr([2, 0, 0, 0, 0, last])));
    for id in some(random, &["p1", "p2", "p3", "p4", "p5"]) {
        let mac = macs.remove(random.below(macs.len()));
        let mac = if chance(random, 2) {
            mac
        } else {
            macs.pop().unwrap_or(mac)
        };
        let fixed = addresses.remove(random.below(addresses.len()));
        let pair = AddressPair {
            prefix: prefix("10.9.0.0/16"),
            mac: None,
        };
        let dhcp_server = chance(random, 6);
        let port = Port {
            id: PortId::from(id),
            network: NetworkId::from(*pick(random, &["n1", "n1", "n2"])),
            host: inventory.hosts.keys().next().cloned(),
            device: DeviceMatch::Name(format!("tap-{id}")),
            moving: None,
            mac,
            fixed_addresses: [fixed].into(),
            address_pairs: some(random, &[pair]).into_iter().collect(),
            groups: some(random, groups)
                .into_iter()
                .map(GroupId::from)
                .collect(),
            port_security: !chance(random, 6),
            dhcp_server,
            router: !dhcp_server && chance(random, 6),
        };
        inventory.ports.insert(port.id.clone(), port);
    }
}

const WEB: &str = "
version: 1
networks: { lan: { subnets: 10.0.0.0/24, routers: 10.0.0.1 } }
address-groups: { office: [192.0.2.0/24] }
groups:
  web: { rules: [{ from: any, protocol: tcp, ports: 80, family: ipv4 }, { from: 0.0.0.0/0, protocol: tcp, ports: 80 }] }
ports:
  vm1: { device: tap1, mac: 52:54:00:00:00:01, addresses: 10.0.0.11, groups: web }
";

async fn told(site: &Site, declared: Declared) -> Vec<(String, What)> {
    let done = site.control.declare(&admin(), declared).await;
    let outcomes = done.expect("it is possible").outcomes.into_iter();
    let differing = outcomes.filter(|outcome| outcome.what != What::Unchanged);
    differing
        .map(|outcome| {
            (
                format!("{} {}", outcome.kind.name(), outcome.id),
                outcome.what,
            )
        })
        .collect()
}

fn as_text(told: &[(String, What)]) -> Vec<String> {
    told.iter()
        .map(|(id, what)| format!("{id} {what:?}"))
        .collect()
}

#[tokio::test]
async fn what_became_of_each_object_is_told() {
    let site = Site::new().await;
    let all = [
        "host h1 Created",
        "address-group office Created",
        "network lan Created",
        "subnet lan-10.0.0.0-24 Created",
        "group web Created",
        "rule web.1 Created",
        "rule web.2 Repeats(\"web.1\")",
        "port vm1 Created",
    ];
    let dry = Declared {
        dry_run: true,
        ..declared(file(WEB))
    };
    let before = site.control.state().revision;
    assert_eq!(as_text(&told(&site, dry).await), all);
    assert_eq!(site.control.state().revision, before);
    assert_eq!(as_text(&told(&site, declared(file(WEB))).await), all);
    let changed = WEB
        .replace("ports: 80", "ports: 81")
        .replace("  vm1", "  vm2");
    let kept = Declared {
        prune: false,
        ..declared(file(
            &changed
                .replace("10.0.0.11", "10.0.0.12")
                .replace("00:01", "00:02"),
        ))
    };
    let some = told(&site, kept).await;
    let expected = [
        "rule web.1 Updated",
        "rule web.2 Repeats(\"web.1\")",
        "port vm2 Created",
    ];
    assert_eq!(as_text(&some), expected);
    let gone = told(&site, declared(Inventory::default())).await;
    assert!(gone.iter().all(|(_, what)| *what == What::Removed));
    assert_eq!(gone.len(), 8, "{gone:?}");
    assert_eq!(inventory_of(&site.control.state()).hosts.len(), 0);
    site.inventory_followed();
}

#[tokio::test]
async fn others_objects_stay() {
    let site = Site::new().await;
    let web = declared(file(WEB));
    site.control
        .declare(&admin(), web.clone())
        .await
        .expect("made");
    let other = Declared {
        label: "other".to_owned(),
        ..web.clone()
    };
    let before = site.control.state().revision;
    let refused = site.control.declare(&admin(), other).await;
    let text = refused.as_ref().expect_err("it isn't theirs").to_string();
    assert!(text.contains("group web"), "{text}");
    check_refused("of another label", refused, "NotOfLabel");
    let empty = declared(Inventory::default());
    let refused = site.control.declare(&member("p"), empty.clone()).await;
    check_refused("by a member", refused, "NotAuthorized");
    assert_eq!(site.control.state().revision, before);

    let vm = NewPort {
        network: "lan".to_owned(),
        project: Some(ProjectId::from("p")),
        groups: Some(vec!["web".to_owned()]),
        fixed: Some(vec![AskedAddress {
            subnet: None,
            address: Some("10.0.0.77".to_owned()),
        }]),
        ..Default::default()
    };
    let vm = one(site
        .control
        .create_ports(&admin(), vec![vm])
        .await
        .expect("a port"));
    let before = site.control.state().revision;
    let refused = site.control.declare(&admin(), empty.clone()).await;
    let text = refused.as_ref().expect_err("it is in use").to_string();
    for used in ["group web", "network lan", "subnet lan-10.0.0.0-24"] {
        assert!(text.contains(&format!("{used} (by port {vm})")), "{text}");
    }
    check_refused("in use", refused, "UsedByOthers");
    let taken = declared(file(&WEB.replace("10.0.0.11", "10.0.0.77")));
    check_refused(
        "has its address",
        site.control.declare(&admin(), taken).await,
        "NotOfLabel",
    );
    assert_eq!(site.control.state().revision, before);
    site.control
        .delete_port(&admin(), vm.as_str(), None)
        .await
        .expect("it goes");
    site.control
        .declare(&admin(), empty)
        .await
        .expect("nobody uses it");
    site.inventory_followed();
}

#[tokio::test]
async fn what_a_cluster_cannot_say_is_refused() {
    for (text, why) in [
        (
            WEB.replace("groups: web", "groups: web, router: on, dhcp-server: on"),
            "both a DHCP server and a router",
        ),
        (
            WEB.replace(
                "  web:",
                "  web.1: { rules: [{ name: a, to: 10.0.0.0/8 }] }\n  web:",
            )
            .replace(
                "{ from: 0.0.0.0/0,",
                "{ name: b, from: [10.0.0.1, 10.0.0.2],",
            ),
            "",
        ),
    ] {
        let site = Site::new().await;
        let done = site.control.declare(&admin(), declared(file(&text))).await;
        match why {
            "" => assert!(done.is_ok(), "{done:?}"),
            why => {
                let error = done.expect_err("it can't be said").to_string();
                assert!(error.contains(why), "{error}");
            }
        }
    }
    let mut inventory = file(WEB);
    let mut twin = inventory.groups["web"].clone();
    let rule = twin.rules.pop_first().expect("a rule").1;
    twin.id = GroupId::from("web.x");
    twin.rules = BTreeMap::from([(RuleId::from("1"), rule.clone())]);
    inventory.groups.insert(twin.id.clone(), twin);
    let web = inventory.groups.get_mut("web").expect("it is there");
    web.rules.insert(RuleId::from("x.1"), rule);
    let site = Site::new().await;
    let done = site.control.declare(&admin(), declared(inventory)).await;
    let error = done.expect_err("two rules have one id").to_string();
    assert!(error.contains("would both be 'web"), "{error}");
}

/// A rule that is put in before many others moves all their numbers.
#[tokio::test]
async fn large_groups_take_several_commits() {
    let ports = |from: u16| {
        let rules = (from..from + 1600).map(|l4_port| {
            format!("    - {{ from: any, protocol: tcp, ports: {l4_port}, family: ipv4 }}\n")
        });
        format!(
            "version: 1\ngroups:\n  web:\n    rules:\n{}",
            rules.collect::<String>()
        )
    };
    let site = Site::new().await;
    for from in [1000, 999, 1005] {
        let inventory = file(&ports(from));
        let before = site.control.state().revision.commit;
        let done = site
            .control
            .declare(&admin(), declared(inventory.clone()))
            .await;
        let done = done.expect("it is possible");
        assert!(done.revision.commit - before > 2, "{:?}", done.revision);
        let told = inventory_of(&site.control.state());
        assert_eq!(untagged(told), as_told(inventory));
    }
    site.inventory_followed();
}

/// A network, a group with so many rules, and so many ports in it, each with two addresses.
fn many(rules: usize, ports: usize) -> Inventory {
    let rules = (1..=rules).map(|l4_port| {
        format!("      - {{ from: any, protocol: tcp, ports: {l4_port}, family: ipv4 }}\n")
    });
    let ports = (1..=ports).map(|n| {
        format!(
            "  p{n}: {{ mac: '52:54:00:00:00:{n:02x}', addresses: [10.0.0.{n}, 'fd00:d::{n}'], groups: [web] }}\n"
        )
    });
    file(&format!(
        "version: 1\nnetworks:\n  lan: {{ subnets: [10.0.0.0/24, 'fd00:d::/64'] }}\n\
         groups:\n  web:\n    rules:\n{}ports:\n{}",
        rules.collect::<String>(),
        ports.collect::<String>()
    ))
}

#[tokio::test]
async fn a_hundred_ports_or_hundreds_of_rules_are_one_commit() {
    for (rules, ports) in [(1, 100), (700, 1)] {
        let site = Site::new().await;
        let before = site.control.state().revision.commit;
        let inventory = many(rules, ports);
        let done = site
            .control
            .declare(&admin(), declared(inventory.clone()))
            .await;
        let done = done.expect("it is possible");
        assert_eq!(done.revision.commit - before, 1, "{rules}, {ports}");
        let told = inventory_of(&site.control.state());
        assert_eq!(untagged(told), as_told(inventory));
        site.inventory_followed();
    }
}

/// Of two servers the one takes a name for a policy's port, the other for one of a hundred: whoever is second
/// decides anew.
#[tokio::test]
async fn a_policys_port_and_a_hundred_have_no_name_twice() {
    let new_mac = |port: &mut Port| port.mac = MacAddr([0x52, 0x54, 0, 0, 1, 9]);
    let new_address = |port: &mut Port| {
        port.fixed_addresses = ["10.0.0.109", "fd00:d::1"].map(address).into();
    };
    for (changes, of_mac) in [(new_mac as fn(&mut Port), true), (new_address, false)] {
        for policy_first in [true, false] {
            let site = Site::new().await;
            let mut inventory = many(1, 1);
            let first = declared(inventory.clone());
            site.control.declare(&admin(), first).await.expect("made");
            changes(inventory.ports.get_mut("p1").expect("it is there"));
            let state = state(&site.store).await;
            let now = Moment { at: 7 };
            let changed = declared(inventory);
            let plan = Plan::of(&state, &now, &changed).expect("nothing is in the way");
            let policy = steps::next(&plan).expect("it fits").transaction;
            let hundred = hundred_ports(&state, &now);
            let (first, second) = match policy_first {
                true => (policy, hundred),
                false => (hundred, policy),
            };
            site.store.commit(first).await.expect("it is the first");
            let late = site.store.commit(second).await;
            assert!(
                matches!(late, Err(CommitError::Conflict(_))),
                "{of_mac}, {policy_first}: {late:?}"
            );
        }
    }
}

/// In the policy's network; one has `52:54:00:00:01:09` and `10.0.0.109`.
fn hundred_ports(state: &State, now: &Moment) -> store::Transaction {
    let ports = (0..100).map(|n| NewPort {
        mac: Some(format!("52:54:00:00:01:{n:02x}")),
        fixed: Some(vec![
            at(&format!("10.0.0.{}", n + 100)),
            at(&format!("fd00:d::{}", n + 100)),
        ]),
        groups: Some(Vec::new()),
        ..new_port(&NetworkId::from("lan"))
    });
    let new = ports.map(|new| (PortId::new(ids::new_id()), new));
    let new = Vec::from_iter(new);
    let made = crate::ports::create(state, now, &member("p"), &new, &BTreeMap::new());
    made.expect("the names are free").transaction
}

/// Each would undo the other's work for ever.
#[tokio::test]
async fn of_two_policies_of_a_label_the_later_goes_on() {
    let site = Site::new().await;
    let (first, second) = (many(1_900, 1), many(2_000, 2));
    let who = admin();
    let (first, done) = tokio::join!(
        site.control.declare(&who, declared(first)),
        site.control.declare(&who, declared(second.clone())),
    );
    check_refused("the first", first, "DeclaredAnew");
    done.expect("the second");
    let told = inventory_of(&site.control.state());
    assert_eq!(untagged(told), as_told(second.clone()));
    site.inventory_followed();
    let before = site.control.state().revision;
    let again = site.control.declare(&who, declared(second)).await;
    again.expect("it is so");
    assert_eq!(
        site.control.state().revision,
        before,
        "nobody's turn is left"
    );
}

#[tokio::test]
async fn policies_of_two_labels_share_a_host() {
    let site = Site::new().await;
    told(&site, declared(file(WEB))).await;
    let text = "version: 1\nnetworks: { dmz: { subnets: 10.1.0.0/24 } }\ngroups: { db: {} }\nports:\n  vm9: { device: \
        tap9, mac: 52:54:00:00:00:09, addresses: 10.1.0.9, groups: db }\n";
    let other = |text: &str| Declared {
        label: "other".to_owned(),
        ..declared(file(text))
    };
    let made = as_text(&told(&site, other(text)).await);
    assert!(
        !made.iter().any(|made| made.starts_with("host")),
        "{made:?}"
    );
    assert_eq!(site.control.state().hosts.len(), 1);
    let mine = text.replace("device: tap9", "host: h1, device: tap9");
    let mine = format!("{mine}hosts: {{ h1: {{ tunnel-address: 192.0.2.9 }} }}\n");
    let refused = site.control.declare(&admin(), other(&mine)).await;
    check_refused("it says more of it", refused, "NotOfLabel");
    told(&site, other("version: 1\n")).await;
    let left = inventory_of(&site.control.state());
    assert_eq!(left.ports.len(), 1);
    assert_eq!(left.hosts.len(), 1);
}
