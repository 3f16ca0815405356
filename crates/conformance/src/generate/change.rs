//! Policy changes in mid-flow: what let a flow in goes, and perhaps comes back.

use super::dice::Dice;
use super::inventory::{self, L4_PORTS, address_pair, here, inside};
use model::{
    AddressGroupId, Budgets, Family, GroupId, HostId, Inventory, L4Match, L4PortRange, Moving,
    Narrowing, Port, PortId, Rule, RuleId, SecurityGroup,
};

/// What was taken away and can be restored.
#[derive(Default)]
pub(super) struct Changes {
    removed: Vec<Removed>,
    rules_added: usize,
}

enum Removed {
    Rule(GroupId, Rule),
    Members(GroupId, Vec<PortId>),
    Group(SecurityGroup),
    Port(Port),
}

#[derive(Clone, Copy)]
enum Kind {
    RemoveRule,
    AddRule,
    ReplaceRule,
    Leave,
    Join,
    EmptyGroup,
    RemoveGroup,
    Statefulness,
    Elision,
    Narrowing,
    Budgets,
    AddressGroup,
    Address,
    Pair,
    PortFlags,
    PortSecurity,
    RemovePort,
    MovePort,
    Network,
    Nothing,
}

const KINDS: [(usize, Kind); 20] = [
    (12, Kind::RemoveRule),
    (8, Kind::AddRule),
    (5, Kind::ReplaceRule),
    (8, Kind::Leave),
    (8, Kind::Join),
    (5, Kind::EmptyGroup),
    (3, Kind::RemoveGroup),
    (4, Kind::Statefulness),
    (6, Kind::Elision),
    (2, Kind::Narrowing),
    (2, Kind::Budgets),
    (5, Kind::AddressGroup),
    (5, Kind::Address),
    (3, Kind::Pair),
    (2, Kind::PortFlags),
    (2, Kind::PortSecurity),
    (2, Kind::RemovePort),
    (2, Kind::MovePort),
    (3, Kind::Network),
    (1, Kind::Nothing),
];

impl Changes {
    /// The next revision. One change mostly; now and then several at once.
    pub(super) fn change(&mut self, dice: &mut Dice, made: &mut Inventory) {
        made.revision.commit += 1;
        for _ in 0..dice.weighted(&[(6, 1), (2, 2), (1, 4)]) {
            if !self.removed.is_empty() && dice.chance(35) {
                let back = self.removed.swap_remove(dice.below(self.removed.len()));
                restore(made, back);
            } else {
                let kind = dice.weighted(&KINDS);
                self.one(kind, dice, made);
            }
        }
        // What is long gone is forgotten: coming back matters while flows live.
        let too_many = self.removed.len().saturating_sub(8);
        self.removed.drain(..too_many);
    }

    fn one(&mut self, kind: Kind, dice: &mut Dice, made: &mut Inventory) {
        match kind {
            Kind::RemoveRule => {
                let some: Vec<(GroupId, RuleId)> = all_rules(made);
                if let Some((group, rule)) = dice.pick_if_any(&some) {
                    self.remove_rule(made, group, rule);
                }
            }
            Kind::AddRule => self.add_rule(dice, made),
            Kind::ReplaceRule => {
                let some: Vec<(GroupId, RuleId)> = all_rules(made);
                if let Some((group, id)) = dice.pick_if_any(&some) {
                    let mut rule = inventory::rule(dice, made);
                    if let Some(of) = made.groups.get_mut(group) {
                        if let Some(old) = of.rules.get(id)
                            && dice.chance(60)
                        {
                            rule = nudged(dice, old);
                        }
                        rule.id = id.clone();
                        of.rules.insert(id.clone(), rule);
                    }
                }
            }
            Kind::Leave => {
                let joined = made.ports.values().filter(|p| !p.groups.is_empty());
                let some: Vec<PortId> = joined.map(|p| p.id.clone()).collect();
                if let Some(port) = dice.pick_if_any(&some).and_then(|p| made.ports.get_mut(p)) {
                    let groups: Vec<&GroupId> = port.groups.iter().collect();
                    let group = (*dice.pick(&groups)).clone();
                    port.groups.remove(&group);
                    let members = vec![port.id.clone()];
                    self.removed.push(Removed::Members(group, members));
                }
            }
            Kind::Join => {
                let groups: Vec<GroupId> = made.groups.keys().cloned().collect();
                if let (Some(group), Some(port)) =
                    (dice.pick_if_any(&groups).cloned(), any_port(dice, made))
                {
                    port.groups.insert(group);
                }
            }
            Kind::EmptyGroup => {
                let groups: Vec<GroupId> = made.groups.keys().cloned().collect();
                if let Some(group) = dice.pick_if_any(&groups) {
                    let ports = made.ports.values_mut();
                    let members =
                        ports.filter_map(|p| p.groups.remove(group).then(|| p.id.clone()));
                    let members = members.collect();
                    self.removed.push(Removed::Members(group.clone(), members));
                }
            }
            Kind::RemoveGroup => {
                let groups: Vec<GroupId> = made.groups.keys().cloned().collect();
                let group = dice.pick_if_any(&groups);
                if let Some(group) = group.and_then(|g| made.groups.remove(g)) {
                    self.removed.push(Removed::Group(group));
                }
            }
            Kind::Statefulness => {
                let groups: Vec<GroupId> = made.groups.keys().cloned().collect();
                let group = dice.pick_if_any(&groups);
                if let Some(group) = group.and_then(|g| made.groups.get_mut(g)) {
                    group.stateful = !group.stateful;
                }
            }
            Kind::Elision => {
                let elision = inventory::elision(dice);
                if let Some(host) = made.hosts.get_mut(&here()) {
                    host.settings.elision = elision;
                }
            }
            Kind::Narrowing => {
                if let Some(host) = made.hosts.get_mut(&here()) {
                    host.settings.narrowing = match host.settings.narrowing {
                        Narrowing::Cut => Narrowing::Keep,
                        Narrowing::Keep => Narrowing::Cut,
                    };
                }
            }
            // Not timeouts and not half-open places: what these mean for flows that are there already,
            // the contract doesn't say.
            Kind::Budgets => {
                let budgets = inventory::budgets(dice);
                if let Some(host) = made.hosts.get_mut(&here()) {
                    let half_open_per_port = host.settings.budgets.half_open_per_port;
                    host.settings.budgets = Budgets {
                        half_open_per_port,
                        ..budgets
                    };
                }
            }
            Kind::AddressGroup => {
                let prefix = inventory::prefix(dice, made);
                let groups: Vec<AddressGroupId> = made.address_groups.keys().cloned().collect();
                let group = dice.pick_if_any(&groups);
                if let Some(group) = group.and_then(|g| made.address_groups.get_mut(g)) {
                    if dice.chance(50) {
                        group.prefixes.pop_last();
                    } else {
                        group.prefixes.insert(prefix);
                    }
                }
            }
            Kind::Address => self.change_address(dice, made),
            Kind::Pair => {
                let networks: Vec<_> = made.networks.values().cloned().collect();
                let network = dice.pick_if_any(&networks).cloned();
                if let (Some(network), Some(port)) = (network, any_port(dice, made)) {
                    match port.address_pairs.last().copied() {
                        Some(last) => port.address_pairs.remove(&last),
                        None => port.address_pairs.insert(address_pair(dice, &network)),
                    };
                }
            }
            Kind::PortFlags => {
                if let Some(port) = any_port(dice, made) {
                    if dice.chance(50) {
                        port.router = !port.router;
                    } else {
                        port.dhcp_server = !port.dhcp_server;
                    }
                }
            }
            Kind::PortSecurity => {
                if let Some(port) = any_port(dice, made) {
                    port.port_security = !port.port_security;
                }
            }
            Kind::RemovePort => {
                let ports: Vec<PortId> = made.ports.keys().cloned().collect();
                // The last one stays: without a port there is nothing to judge.
                if ports.len() > 2
                    && let Some(port) = made.ports.remove(dice.pick(&ports))
                {
                    self.removed.push(Removed::Port(port));
                }
            }
            Kind::MovePort => {
                if let Some(port) = any_port(dice, made) {
                    let to = match port.host {
                        Some(ref host) if *host == here() => HostId::new("there"),
                        Some(_) | None => here(),
                    };
                    let device = port.device.clone();
                    port.moving = match port.moving {
                        None if dice.chance(50) => Some(Box::new(Moving { to, device })),
                        // It is there, or goes at once.
                        Some(_) | None => {
                            port.host = Some(to);
                            None
                        }
                    };
                }
            }
            Kind::Network => change_network(dice, made),
            Kind::Nothing => {}
        }
    }

    fn remove_rule(&mut self, made: &mut Inventory, group: &GroupId, rule: &RuleId) {
        let of = made.groups.get_mut(group);
        if let Some(rule) = of.and_then(|of| of.rules.remove(rule)) {
            self.removed.push(Removed::Rule(group.clone(), rule));
        }
    }

    fn add_rule(&mut self, dice: &mut Dice, made: &mut Inventory) {
        let mut rule = inventory::rule(dice, made);
        // Before or after all others, as text.
        let name = *dice.pick(&["a", "z"]);
        rule.id = RuleId::new(format!("{name}{}", self.rules_added));
        self.rules_added += 1;
        let groups: Vec<GroupId> = made.groups.keys().cloned().collect();
        let group = dice.pick_if_any(&groups);
        if let Some(group) = group.and_then(|g| made.groups.get_mut(g)) {
            group.rules.insert(rule.id.clone(), rule);
        }
    }

    /// A port loses an address, gains one, or two ports exchange theirs.
    fn change_address(&mut self, dice: &mut Dice, made: &mut Inventory) {
        let ids: Vec<PortId> = made.ports.keys().cloned().collect();
        let (Some(one), Some(other)) = (dice.pick_if_any(&ids), dice.pick_if_any(&ids)) else {
            return;
        };
        let taken = made.ports.get_mut(one).and_then(|port| {
            let address = match dice.below(3) {
                0 => port.fixed_addresses.first().copied(),
                _ => port.fixed_addresses.last().copied(),
            }?;
            port.fixed_addresses.remove(&address);
            Some(address)
        });
        if let (Some(address), Some(port)) = (taken, made.ports.get_mut(other)) {
            port.fixed_addresses.insert(address);
            let family = Family::of(address);
            let subnets = made.networks.get(&port.network).map(|n| &n.subnets);
            let subnet = subnets.and_then(|s| s.iter().find(|s| s.family() == family));
            if let Some(subnet) = subnet
                && let Some(port) = made.ports.get_mut(one)
                && dice.chance(70)
            {
                let number = 1 + dice.below(14) as u32;
                port.fixed_addresses.insert(inside(subnet, number));
            }
        }
    }
}

fn restore(made: &mut Inventory, back: Removed) {
    match back {
        Removed::Rule(group, rule) => {
            if let Some(group) = made.groups.get_mut(&group) {
                group.rules.insert(rule.id.clone(), rule);
            }
        }
        Removed::Members(group, members) => {
            for member in members {
                if let Some(port) = made.ports.get_mut(&member) {
                    port.groups.insert(group.clone());
                }
            }
        }
        Removed::Group(group) => {
            made.groups.insert(group.id.clone(), group);
        }
        Removed::Port(port) => {
            made.ports.insert(port.id.clone(), port);
        }
    }
}

fn all_rules(made: &Inventory) -> Vec<(GroupId, RuleId)> {
    let groups = made.groups.values();
    groups
        .flat_map(|g| g.rules.keys().map(|r| (g.id.clone(), r.clone())))
        .collect()
}

fn any_port<'a>(dice: &mut Dice, made: &'a mut Inventory) -> Option<&'a mut Port> {
    let count = made.ports.len();
    if count == 0 {
        return None;
    }
    made.ports.values_mut().nth(dice.below(count))
}

/// The rule, with one end of its ports moved.
fn nudged(dice: &mut Dice, rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    if let L4Match::Ported { protocol, dst } = rule.l4 {
        let end = *dice.pick(&L4_PORTS);
        let first = dst.first().min(end);
        let last = if dice.chance(50) { dst.last() } else { end };
        let dst = L4PortRange::new(first, last.max(first)).expect("the greater comes last");
        rule.l4 = L4Match::Ported { protocol, dst };
    }
    rule
}

fn change_network(dice: &mut Dice, made: &mut Inventory) {
    let count = made.networks.len();
    let Some(network) = made.networks.values_mut().nth(dice.below(count.max(1))) else {
        return;
    };
    match dice.below(4) {
        0 => network.eui64_only = !network.eui64_only,
        1 => {
            if network.dhcp_servers.pop_first().is_none() {
                let server = inventory::parse_address("192.0.2.53");
                network.dhcp_servers.insert(server);
            }
        }
        2 => {
            if network.routers.pop_last().is_none() {
                network.routers.insert(inventory::parse_address("fe80::1"));
            }
        }
        _ => {
            network.subnets.pop_last();
        }
    }
}
