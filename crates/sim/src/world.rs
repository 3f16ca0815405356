//! The cluster that there is at the beginning, made by the use cases as users would.
//!
//! ```text
//! ordinary groups   of 2 to 128 members, four on a host; their rules name a prefix, themselves, another group, and
//!                   address groups; every port is in one of them
//! the largest       a tenth of all ports; the rules of one group, `watching`, name it, and a hundredth of the hosts have
//! a middle one      a port there. The same of a middle one: a hundredth of all ports
//! spare groups      without ports; rules name them, until they are deleted
//! ```

use crate::dice::Dice;
use control::{
    AskedBinding, AskedGateway, AskedNumber, Caller, Control, Failed, NewAddresses, NewGroup,
    NewNetwork, NewPort, NewRule, NewSubnet, Role,
};
use model::{AddressGroupId, Direction, GroupId, HostId, NetworkId};

/// What changes choose from. What users make meanwhile is added, what they delete goes.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) hosts: Vec<HostId>,
    pub(crate) networks: Vec<NetworkId>,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) largest: Option<GroupId>,
    pub(crate) middle: Option<GroupId>,
    pub(crate) spare: Vec<GroupId>,
    pub(crate) addresses: Vec<AddressGroupId>,
}

const SIZES: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];
/// Members of an ordinary group on one host.
const TOGETHER: usize = 4;
/// In one request.
const BULK: usize = 30;
const FEW: usize = 10;

pub(crate) struct Plan {
    pub(crate) hosts: usize,
    pub(crate) ports: usize,
}

impl Plan {
    /// Hosts where a rule names the largest group.
    fn watching(&self) -> usize {
        (self.hosts / 100).max(2).min(self.hosts)
    }

    fn sizes(&self) -> Vec<usize> {
        let mut left = self.ports.saturating_sub(2 * self.watching());
        let mut sizes = Vec::new();
        for size in SIZES.into_iter().cycle() {
            if left == 0 {
                return sizes;
            }
            sizes.push(size.min(left));
            left -= size.min(left);
        }
        sizes
    }
}

pub(crate) fn user() -> Caller {
    Caller {
        user: "sim".to_owned(),
        project: "sim".into(),
        role: Role::Admin,
    }
}

/// `tell`: how many ports there are so far; `false`: no more are wanted.
pub(crate) async fn build(
    control: &Control,
    plan: &Plan,
    dice: &mut Dice,
    mut tell: impl FnMut(usize) -> bool,
) -> Result<World, Failed> {
    let sizes = plan.sizes();
    let mut world = World {
        hosts: (0..plan.hosts)
            .map(|n| HostId::new(format!("host-{n:05}")))
            .collect(),
        ..World::default()
    };
    add_networks(control, plan, &mut world).await?;
    add_addresses(control, sizes.len() / 50 + 2, &mut world).await?;
    world.groups = add_groups(control, "group", sizes.len()).await?;
    world.spare = add_groups(control, "spare", sizes.len() / 50 + 2).await?;
    let special = add_groups(control, "special", 4).await?;
    let [largest, middle, watching_largest, watching_middle] = &special[..] else {
        unreachable!("four were asked for");
    };
    for number in 0..world.groups.len() {
        let rules = ordinary_rules(&world, number);
        control.create_rules(&user(), rules).await?;
    }
    for (watching, watched) in [(watching_largest, largest), (watching_middle, middle)] {
        let rule = naming(watching, watched, 9100);
        control.create_rules(&user(), vec![rule]).await?;
    }
    world.largest = Some(largest.clone());
    world.middle = Some(middle.clone());

    let mut ports = Vec::new();
    let mut made = 0;
    for (number, size) in sizes.iter().enumerate() {
        let first = dice.below(plan.hosts);
        for member in 0..*size {
            let mut groups = vec![&world.groups[number]];
            match made % 100 {
                1 => groups.extend([largest, middle]),
                of if of % 10 == 1 => groups.push(largest),
                _ => {}
            }
            let host = &world.hosts[(first + member / TOGETHER) % plan.hosts];
            let network = &world.networks[number % world.networks.len()];
            ports.push(port(network, Some(host), groups));
            made += 1;
            if ports.len() == BULK {
                let bulk = std::mem::take(&mut ports);
                control.create_ports(&user(), bulk).await?;
                if !tell(made) {
                    return Ok(world);
                }
            }
        }
    }
    let between = plan.hosts / plan.watching();
    for number in 0..plan.watching() {
        let host = &world.hosts[number * between];
        for watching in [watching_largest, watching_middle] {
            ports.push(port(&world.networks[0], Some(host), vec![watching]));
        }
    }
    while !ports.is_empty() {
        let rest = ports.split_off(BULK.min(ports.len()));
        control.create_ports(&user(), ports).await?;
        ports = rest;
    }
    Ok(world)
}

async fn add_networks(control: &Control, plan: &Plan, world: &mut World) -> Result<(), Failed> {
    let count = (plan.ports / 2_000).clamp(2, 500);
    for first in (0..count).step_by(FEW) {
        let numbers = first..count.min(first + FEW);
        let new = numbers.clone().map(|number| NewNetwork {
            name: format!("network-{number}"),
            ..NewNetwork::default()
        });
        let made = control.create_networks(&user(), new.collect()).await?;
        let subnets = numbers.zip(&made).map(|(number, network)| NewSubnet {
            network: network.to_string(),
            prefix: format!("{}.{}.0.0/16", 10 + number / 256, number % 256),
            gateway: AskedGateway::None,
            ..NewSubnet::default()
        });
        control.create_subnets(&user(), subnets.collect()).await?;
        world.networks.extend(made);
    }
    Ok(())
}

async fn add_addresses(control: &Control, count: usize, world: &mut World) -> Result<(), Failed> {
    for first in (0..count).step_by(FEW) {
        let numbers = first..count.min(first + FEW);
        let new = numbers.map(|number| NewAddresses {
            name: format!("addresses-{number}"),
            prefixes: vec![
                format!("172.16.{}.0/24", number % 256),
                "192.0.2.0/25".to_owned(),
            ],
            ..NewAddresses::default()
        });
        let made = control.create_addresses(&user(), new.collect()).await?;
        world.addresses.extend(made);
    }
    Ok(())
}

async fn add_groups(control: &Control, name: &str, count: usize) -> Result<Vec<GroupId>, Failed> {
    let mut groups = Vec::new();
    for first in (0..count).step_by(FEW) {
        let numbers = first..count.min(first + FEW);
        let new = numbers.map(|number| new_group(&format!("{name}-{number}")));
        groups.extend(control.create_groups(&user(), new.collect()).await?);
    }
    Ok(groups)
}

fn ordinary_rules(world: &World, number: usize) -> Vec<NewRule> {
    let own = &world.groups[number];
    // One of the same size, most often.
    let other = &world.groups[(number + SIZES.len()) % world.groups.len()];
    let mut rules = vec![
        NewRule {
            remote_prefix: Some("10.0.0.0/8".to_owned()),
            ..rule(own, 22)
        },
        naming(own, own, 443),
        naming(own, other, 5432),
    ];
    if number.is_multiple_of(3) {
        let addresses = &world.addresses[number % world.addresses.len()];
        rules.push(NewRule {
            remote_addresses: Some(addresses.to_string()),
            ..rule(own, 53)
        });
    }
    if let Some(spare) = world.spare.get(number) {
        rules.push(naming(own, spare, 6000));
    }
    rules
}

pub(crate) fn new_group(name: &str) -> NewGroup {
    NewGroup {
        project: None,
        name: name.to_owned(),
        description: String::new(),
        stateful: true,
    }
}

/// To one TCP port, from anybody.
pub(crate) fn rule(group: &GroupId, l4_port: u16) -> NewRule {
    let number = Some(AskedNumber::Number(i64::from(l4_port)));
    NewRule {
        project: None,
        group: group.to_string(),
        description: String::new(),
        direction: Direction::Ingress,
        family: None,
        protocol: Some("tcp".to_owned()),
        range_min: number.clone(),
        range_max: number,
        remote_prefix: None,
        remote_group: None,
        remote_addresses: None,
    }
}

pub(crate) fn naming(group: &GroupId, named: &GroupId, l4_port: u16) -> NewRule {
    NewRule {
        remote_group: Some(named.to_string()),
        ..rule(group, l4_port)
    }
}

pub(crate) fn port(network: &NetworkId, host: Option<&HostId>, groups: Vec<&GroupId>) -> NewPort {
    NewPort {
        network: network.to_string(),
        groups: Some(groups.into_iter().map(ToString::to_string).collect()),
        binding: AskedBinding {
            host: host.map(ToString::to_string),
            ..AskedBinding::default()
        },
        ..NewPort::default()
    }
}
