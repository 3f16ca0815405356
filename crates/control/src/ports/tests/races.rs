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
            .contains_key(&scene.subnet)
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
