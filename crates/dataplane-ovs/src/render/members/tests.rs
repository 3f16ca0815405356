use super::*;
use crate::render::tunnel::TunnelPort;
use conformance::generate::Dice;
use model::{Inspection, NetworkId};
use policy::NetworkView;
use std::net::{IpAddr, Ipv4Addr};

const GROUPS: u64 = 10;

fn group(n: u64) -> GroupId {
    GroupId::new(format!("g{n}"))
}

fn scope(n: u64) -> ScopeId {
    ScopeId::new(format!("s{n}"))
}

fn address(n: u64) -> Prefix {
    Prefix::host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n as u8)))
}

/// Two scopes, tags for all groups but one.
fn names() -> Names {
    Names {
        scopes: [(scope(0), 7), (scope(1), 8)].into(),
        tags: (1..GROUPS).map(|n| (group(n), n as u16)).collect(),
        ..Names::default()
    }
}

fn overlay() -> OverlayView {
    OverlayView {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        inspection: Inspection::Destination,
        peers: BTreeMap::new(),
        networks: BTreeMap::new(),
        identities: [((scope(0), address(3)), [group(2), group(4)].into())].into(),
        crowded: BTreeMap::new(),
        tags: BTreeMap::new(),
        remote_ports: BTreeMap::new(),
    }
}

/// Changes who is in a group; of one, also whole prefixes.
fn change(view: &mut HostView, dice: &mut Dice) {
    let number = dice.roll() % GROUPS;
    let at = (scope(dice.roll() % 2), group(number));
    let set = Arc::make_mut(view.members.entry(at.clone()).or_default());
    let member = match number * 4 + dice.roll() % 4 {
        4 => Prefix::containing(address(1).network(), 24),
        _ => address(dice.roll() % 6),
    };
    if !set.remove(&member) {
        set.insert(member);
    }
    if dice.roll().is_multiple_of(32) {
        view.members.remove(&at);
    }
}

/// Gives a group another tag, takes it, or gives one.
fn retag(names: &mut Names, dice: &mut Dice) {
    let number = dice.roll() % GROUPS;
    match dice.roll() % 3 {
        0 => names.tags.remove(&group(number)),
        more => names
            .tags
            .insert(group(number), (20 * more + number) as u16),
    };
}

#[test]
fn changed_members_come_to_what_all_of_them_come_to() {
    let mut dice = Dice::new(7);
    for overlay in [None, Some(Arc::new(overlay()))] {
        let mut view = HostView::default();
        // Nothing is known of the first one's network here, so that it isn't tagged.
        let network = NetworkView {
            scope: scope(0),
            subnets: BTreeSet::new(),
            dhcp_servers: BTreeSet::new(),
            reserved_link_local: Arc::default(),
            eui64_only: false,
        };
        view.networks.insert(NetworkId::from("n"), network);
        let board = Switchboard {
            tunnel: overlay.as_ref().map(|_| TunnelPort {
                of_port: 1,
                option: 0,
            }),
            lost: [(scope(1), address(5))].into(),
            ..Switchboard::default()
        };
        view.overlay = overlay;
        let mut names = names();
        let mut known = Members::of(&view, &board, &names, None);
        let mut kept = 0;
        for _ in 0..3_000 {
            change(&mut view, &mut dice);
            if dice.roll().is_multiple_of(8) {
                retag(&mut names, &mut dice);
            }
            kept += u32::from(known.is_flat);
            known = Members::of(&view, &board, &names, Some(known));
            let fresh = Members::of(&view, &board, &names, None);
            assert_eq!(known.table, fresh.table);
            assert_eq!(known.long_lists, fresh.long_lists);
        }
        assert!(kept > 300, "{kept}");
    }
}

#[test]
fn the_same_is_the_same_in_memory() {
    let view = HostView::default();
    let board = Switchboard::default();
    let known = Members::of(&view, &board, &names(), None);
    let again = Members::of(&view, &board, &names(), Some(Arc::clone(&known)));
    assert!(Arc::ptr_eq(&known.table, &again.table));
}
