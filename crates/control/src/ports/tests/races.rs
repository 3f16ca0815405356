//! Two servers decide on one store, each on a copy that may be old.

use super::*;
use crate::groups;
use crate::networks;
use crate::subnets;
use crate::trial::new_subnet;
use std::sync::Arc;
use store::{CommitError, Store};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_twice() {
    let one = Site::new().await;
    let network = one.network(&member("red"), false).await;
    one.subnet(&member("red"), &network, "10.0.0.0/26").await;
    let other = one.beside().await;
    let sites = [Arc::new(one), Arc::new(other)];
    // More than the 61 that there are: so all are asked for, by both.
    let mut tasks = JoinSet::new();
    for n in 0..66 {
        let (site, network) = (sites[n % 2].clone(), network.clone());
        tasks.spawn(async move {
            let made = site.port_with(&member("red"), &network, |_| {}).await;
            refusal(made).is_ok()
        });
    }
    let made = tasks.join_all().await;
    assert_eq!(made.iter().filter(|made| **made).count(), 61);
    for site in &sites {
        let revision = site.store.list(&store::KeyPrefix::all()).await;
        let revision = revision.expect("a listing").revision;
        site.control.wait_for(revision).await.expect("it follows");
        let state = site.control.state();
        let ports = Vec::from_iter(state.ports_in(&network));
        let given = ports.iter().flat_map(|port| addresses(port));
        assert_eq!(given.collect::<BTreeSet<_>>().len(), 61);
        let macs = ports.iter().map(|port| port.mac);
        assert_eq!(macs.collect::<BTreeSet<_>>().len(), 61);
        site.inventory_followed();
    }
}

/// What both servers have seen.
struct Scene {
    site: Site,
    network: NetworkId,
    subnet: String,
    group: GroupId,
    /// In the network and in no group.
    port: PortId,
    /// Nothing depends on them.
    bare: NetworkId,
    unused: String,
}

async fn scene() -> Scene {
    let (site, network, subnet) = red().await;
    let port = site.port_with(&member("red"), &network, |new| {
        new.groups = Some(Vec::new())
    });
    let port = port.await.expect("a port");
    Scene {
        group: a_group(&site, "red").await,
        bare: site.network(&admin(), true).await,
        unused: site.subnet(&member("red"), &network, "10.2.0.0/24").await,
        site,
        network,
        subnet,
        port,
    }
}

type Decide = fn(&Scene, &State) -> Result<Decided<()>, Refused>;
const NOW: Moment = Moment { at: 1 };

/// Both are possible as things are, and the second, in either order, isn't any more.
async fn check_excluded(what: &str, one: Decide, other: Decide) {
    for [first, second] in [[one, other], [other, one]] {
        let scene = scene().await;
        let decided = [first, second].map(|decide| {
            let state = scene.site.control.state();
            decide(&scene, &state).expect("possible").transaction
        });
        let [first, second] = decided;
        let store = &scene.site.store;
        store.commit(first).await.expect("the first has no rival");
        let late = store.commit(second).await;
        assert!(
            matches!(late, Err(CommitError::Conflict(_))),
            "{what}: {late:?}"
        );
    }
}

/// The second, as it was decided, is too late, or isn't.
async fn check_order(what: &str, first: Decide, second: Decide, late: bool) {
    let scene = scene().await;
    let decided = [first, second].map(|decide| {
        let state = scene.site.control.state();
        decide(&scene, &state).expect("possible").transaction
    });
    let [first, second] = decided;
    let store = &scene.site.store;
    store.commit(first).await.expect("the first has no rival");
    let outcome = store.commit(second).await;
    match late {
        true => assert!(
            matches!(outcome, Err(CommitError::Conflict(_))),
            "{what}: {outcome:?}"
        ),
        false => assert!(outcome.is_ok(), "{what}: {outcome:?}"),
    }
}

/// Both, whoever is first.
async fn check_independent(what: &str, one: Decide, other: Decide) {
    let scene = scene().await;
    let decided = [one, other].map(|decide| {
        let state = scene.site.control.state();
        decide(&scene, &state).expect("possible").transaction
    });
    for transaction in decided {
        scene.site.store.commit(transaction).await.expect(what);
    }
}

fn make_port(
    scene: &Scene,
    state: &State,
    who: &Caller,
    with: fn(&Scene, &mut NewPort),
) -> Result<Decided<()>, Refused> {
    let mut new = new_port(&scene.network);
    new.groups = Some(Vec::new());
    with(scene, &mut new);
    create(
        state,
        &NOW,
        who,
        &[(PortId::new(new_id()), new)],
        &BTreeMap::new(),
    )
}

fn in_bare(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    make_port(scene, state, &member("red"), |scene, new| {
        new.network = scene.bare.to_string()
    })
}

fn in_unused(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    make_port(scene, state, &member("red"), |scene, new| {
        new.fixed = Some(vec![AskedAddress {
            subnet: Some(scene.unused.clone()),
            address: None,
        }]);
    })
}

fn with_group(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    make_port(scene, state, &member("red"), |scene, new| {
        new.groups = Some(vec![scene.group.to_string()])
    })
}

fn change(scene: &Scene, state: &State, patch: PortPatch) -> Result<Decided<()>, Refused> {
    update(
        state,
        &NOW,
        &member("red"),
        scene.port.as_str(),
        &patch,
        None,
    )
}

fn joins_group(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let groups = Some(vec![scene.group.to_string()]);
    change(
        scene,
        state,
        PortPatch {
            groups,
            ..Default::default()
        },
    )
}

fn moves_to_unused(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let fixed = Some(vec![AskedAddress {
        subnet: Some(scene.unused.clone()),
        address: None,
    }]);
    change(
        scene,
        state,
        PortPatch {
            fixed,
            ..Default::default()
        },
    )
}

fn delete_group(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let deleted = groups::delete(state, &NOW, &member("red"), scene.group.as_str(), None)?;
    Ok(Decided {
        transaction: deleted.transaction,
        answer: (),
    })
}

fn delete_bare(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    networks::delete(state, &NOW, &admin(), scene.bare.as_str(), None)
}

fn unshare(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let patch = networks::NetworkPatch {
        shared: Some(false),
        ..Default::default()
    };
    networks::update(state, &NOW, &admin(), scene.bare.as_str(), &patch, None)
}

fn delete_unused(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    subnets::delete(state, &NOW, &member("red"), &scene.unused, None)
}

fn add_subnet(
    scene: &Scene,
    state: &State,
    network: &NetworkId,
    prefix: &str,
) -> Result<Decided<()>, Refused> {
    let new = new_subnet(network, prefix);
    assert!(
        scene
            .site
            .control
            .state()
            .subnets
            .contains_key(scene.subnet.as_str())
    );
    subnets::create(state, &NOW, &admin(), &[(new_id(), new)])
}

fn delete_port(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    delete(state, &NOW, &member("red"), scene.port.as_str(), None)
}

fn certain(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    make_port(scene, state, &member("red"), |_, new| {
        new.fixed = Some(vec![at("10.2.0.9")])
    })
}

fn certain_mac(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    make_port(scene, state, &member("red"), |_, new| {
        new.mac = Some(A_MAC.to_owned())
    })
}

fn moves_to_certain(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let fixed = Some(vec![at("10.2.0.9")]);
    let mac = Some(A_MAC.to_owned());
    change(
        scene,
        state,
        PortPatch {
            fixed,
            mac,
            ..Default::default()
        },
    )
}

/// A hundred, from `fa:16:3e:00:00:01` and `10.2.0.2` on; each has two addresses.
fn hundred(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let ports = (0..100u8).map(|n| NewPort {
        mac: Some(format!("fa:16:3e:00:00:{:02x}", n + 1)),
        fixed: Some(vec![
            at(&format!("10.2.0.{}", n + 2)),
            at(&format!("10.2.0.{}", n + 102)),
        ]),
        ..in_no_group(&scene.network)
    });
    made_with_few_conditions(state, Vec::from_iter(ports))
}

/// With other MACs; and with addresses that are free, whichever these are.
fn other_hundred(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let ports = (0..100u8).map(|n| NewPort {
        mac: Some(format!("fa:16:3e:00:01:{n:02x}")),
        fixed: Some(vec![
            AskedAddress {
                subnet: Some(scene.unused.clone()),
                address: None,
            };
            2
        ]),
        ..in_no_group(&scene.network)
    });
    made_with_few_conditions(state, Vec::from_iter(ports))
}

fn hundred_in_bare(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let ports = (0..100).map(|_| in_no_group(&scene.bare));
    let new = ports.map(|new| (PortId::new(new_id()), new));
    create(
        state,
        &NOW,
        &member("red"),
        &Vec::from_iter(new),
        &BTreeMap::new(),
    )
}

fn in_no_group(network: &NetworkId) -> NewPort {
    NewPort {
        groups: Some(Vec::new()),
        ..new_port(network)
    }
}

fn made_with_few_conditions(state: &State, new: Vec<NewPort>) -> Result<Decided<()>, Refused> {
    let new = new.into_iter().map(|new| (PortId::new(new_id()), new));
    let new = Vec::from_iter(new);
    let made = create(state, &NOW, &member("red"), &new, &BTreeMap::new())?;
    let conditions = made.transaction.conditions();
    assert!(conditions.len() < 10, "{conditions:?}");
    Ok(made)
}

fn with_another_address(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    make_port(scene, state, &member("red"), |_, new| {
        new.fixed = Some(vec![at("10.2.0.250")])
    })
}

fn has_certain_mac(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let mac = Some(A_MAC.to_owned());
    change(
        scene,
        state,
        PortPatch {
            mac,
            ..Default::default()
        },
    )
}

fn has_certain_address(scene: &Scene, state: &State) -> Result<Decided<()>, Refused> {
    let fixed = Some(vec![at("10.2.0.9")]);
    change(
        scene,
        state,
        PortPatch {
            fixed,
            ..Default::default()
        },
    )
}

#[tokio::test]
async fn of_a_hundred_ports_none_has_anothers_name() {
    check_excluded("address", hundred, certain).await;
    check_excluded("MAC", hundred, certain_mac).await;
    check_excluded("both, of a port that moves", hundred, moves_to_certain).await;
    check_excluded("address of a port that moves", hundred, has_certain_address).await;
    check_excluded("MAC of a port that changes", hundred, has_certain_mac).await;
    check_excluded("a hundred, twice", hundred, hundred).await;
    check_excluded("two hundreds", hundred, other_hundred).await;
    check_order("other names", hundred, with_another_address, false).await;
    // Too strict, as all of the network have one mark: it is decided anew.
    check_order("other names first", with_another_address, hundred, true).await;
}

#[tokio::test]
async fn what_a_hundred_ports_need_doesnt_go() {
    check_excluded("subnet", hundred, delete_unused).await;
    check_excluded("network", hundred_in_bare, delete_bare).await;
    check_excluded("sharing", hundred_in_bare, unshare).await;
    check_order("a port's end", hundred, delete_port, false).await;
    check_order("a port's end first", delete_port, hundred, false).await;
    check_order("another network", hundred, in_bare, false).await;
    check_order("another network first", in_bare, hundred, false).await;
}

/// By another server, all the time: bulks are decided anew until they get through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_get_through_between_single_ones() {
    let one = Site::new().await;
    let network = one.network(&member("red"), false).await;
    one.subnet(&member("red"), &network, "10.0.0.0/20").await;
    one.subnet(&member("red"), &network, "2001:db8::/64").await;
    let other = Arc::new(one.beside().await);
    let singles = tokio::spawn({
        let (other, network) = (other.clone(), network.clone());
        async move {
            for _ in 0..200 {
                let made = other.port_with(&member("red"), &network, |_| {}).await;
                made.expect("there is room");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    });
    for _ in 0..5 {
        let new = vec![new_port(&network); 100];
        let made = one.control.create_ports(&member("red"), new).await;
        assert_eq!(made.expect("it gets through").len(), 100);
    }
    singles.await.expect("all are made");
    let listed = one.store.list(&store::KeyPrefix::all()).await;
    let revision = listed.expect("a listing").revision;
    one.control.wait_for(revision).await.expect("it follows");
    let state = one.control.state();
    let ports = Vec::from_iter(state.ports_in(&network));
    assert_eq!(ports.len(), 700);
    let given = ports.iter().flat_map(|port| addresses(port));
    assert_eq!(given.collect::<BTreeSet<_>>().len(), 1400);
    let macs = ports.iter().map(|port| port.mac);
    assert_eq!(macs.collect::<BTreeSet<_>>().len(), 700);
    one.inventory_followed();
    other.inventory_followed();
}

#[tokio::test]
async fn who_depends_and_who_deletes_exclude_each_other() {
    check_excluded("network, port", delete_bare, in_bare).await;
    check_excluded("network, subnet", delete_bare, |s, state| {
        add_subnet(s, state, &s.bare, "10.3.0.0/24")
    })
    .await;
    check_excluded("subnet, port", delete_unused, in_unused).await;
    check_excluded("subnet, port that moves", delete_unused, moves_to_unused).await;
    check_excluded("group, port", delete_group, with_group).await;
    check_excluded("group, port that joins", delete_group, joins_group).await;
    check_excluded("port, port that joins", delete_port, joins_group).await;
    check_excluded("sharing, stranger", unshare, in_bare).await;
}

#[tokio::test]
async fn a_name_has_one_holder() {
    check_excluded("address", certain, certain).await;
    check_excluded("address of a port that moves", certain, moves_to_certain).await;
    check_excluded("MAC", certain_mac, certain_mac).await;
    check_excluded("MAC of a port that changes", certain_mac, moves_to_certain).await;
}

#[tokio::test]
async fn subnets_made_at_once_dont_overlap() {
    let wide: Decide = |s, state| add_subnet(s, state, &s.network, "10.4.0.0/16");
    let narrow: Decide = |s, state| add_subnet(s, state, &s.network, "10.4.4.0/24");
    check_excluded("overlapping", wide, narrow).await;
}

#[tokio::test]
async fn what_has_nothing_to_do_with_each_other_isnt_hindered() {
    check_independent("two ports", in_unused, with_group).await;
    check_independent("two strangers", in_bare, in_bare).await;
    check_independent("a port and a subnet", in_unused, |s, state| {
        add_subnet(s, state, &s.network, "10.4.0.0/16")
    })
    .await;
}
