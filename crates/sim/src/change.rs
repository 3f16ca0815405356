//! What users do, at random: one request at a time.
//!
//! Place on the line: **request** -> use case.

use crate::dice::Dice;
use crate::figures::Class;
use crate::ledger::Ledger;
use crate::world::{World, naming, new_group, port, rule, user};
use control::objects::Host;
use control::{AskedBinding, Control, Failed, NewRule, PortPatch};
use model::{AddressGroupId, FrozenSet, GroupId, HostId, NetworkId, PortId, RuleId, Settings};

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Groups {
        port: PortId,
        groups: FrozenSet<GroupId>,
        class: Class,
    },
    AddRule(Box<NewRule>),
    RemoveRule(RuleId),
    AddPort {
        network: NetworkId,
        host: HostId,
        groups: Vec<GroupId>,
    },
    RemovePort(PortId),
    MovePort {
        port: PortId,
        host: HostId,
    },
    AddGroup {
        named_by: GroupId,
        l4_port: u16,
    },
    RemoveGroup(GroupId),
    AddAddresses(AddressGroupId, String),
    RemoveAddresses(AddressGroupId, String),
    Settings(Box<Host>),
}

impl Change {
    /// `None`: what was to be changed isn't there.
    pub(crate) fn draw(dice: &mut Dice, world: &World, ledger: &Ledger) -> Option<Self> {
        match dice.below(100) {
            0..25 => joins(dice, world, ledger),
            25..50 => leaves(dice, world, ledger),
            50..59 => Some(Self::AddRule(Box::new(any_rule(dice, world)?))),
            59..66 => {
                let group = ledger.group(dice.one_of(&world.groups)?)?;
                let rules: Vec<&RuleId> = group.rules.keys().collect();
                Some(Self::RemoveRule((*dice.one_of(&rules)?).clone()))
            }
            66..74 => Some(Self::AddPort {
                network: dice.one_of(&world.networks)?.clone(),
                host: dice.one_of(&world.hosts)?.clone(),
                groups: vec![dice.one_of(&world.groups)?.clone()],
            }),
            74..82 => Some(Self::RemovePort(any_port(dice, world, ledger)?)),
            82..90 => Some(Self::MovePort {
                port: any_port(dice, world, ledger)?,
                host: dice.one_of(&world.hosts)?.clone(),
            }),
            90..92 => Some(Self::AddGroup {
                named_by: dice.one_of(&world.groups)?.clone(),
                l4_port: dice.between(20_000, 60_000) as u16,
            }),
            92..94 => Some(Self::RemoveGroup(dice.one_of(&world.spare)?.clone())),
            94..98 => {
                let id = dice.one_of(&world.addresses)?.clone();
                let prefix = format!("198.51.100.{}/32", dice.below(8));
                Some(match dice.one_in(2) {
                    true => Self::AddAddresses(id, prefix),
                    false => Self::RemoveAddresses(id, prefix),
                })
            }
            _ => {
                let mut settings = Settings::default();
                settings.budgets.flows_per_port += dice.below(1_000) as u32;
                Some(Self::Settings(Box::new(Host {
                    id: dice.one_of(&world.hosts)?.clone(),
                    tunnel_address: None,
                    tagged: false,
                    tags: Default::default(),
                    settings: Some(settings),
                })))
            }
        }
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Groups { class, .. } => *class,
            Self::AddRule(_) | Self::RemoveRule(_) => Class::Rule,
            Self::AddPort { .. } | Self::RemovePort(_) => Class::Port,
            Self::MovePort { .. } => Class::Move,
            Self::AddGroup { .. } | Self::RemoveGroup(_) => Class::Group,
            Self::AddAddresses(..) | Self::RemoveAddresses(..) => Class::Addresses,
            Self::Settings(_) => Class::Settings,
        }
    }

    pub(crate) async fn ask(&self, control: &Control, world: &mut World) -> Result<(), Failed> {
        let user = &user();
        match self.clone() {
            Self::Groups { port, groups, .. } => {
                let groups = groups.iter().map(ToString::to_string).collect();
                let patch = PortPatch {
                    groups: Some(groups),
                    ..PortPatch::default()
                };
                control.update_port(user, port.as_str(), patch, None).await
            }
            Self::AddRule(rule) => control.create_rules(user, vec![*rule]).await.map(drop),
            Self::RemoveRule(rule) => control.delete_rule(user, rule.as_str(), None).await,
            Self::AddPort {
                network,
                host,
                groups,
            } => {
                let new = port(&network, Some(&host), groups.iter().collect());
                control.create_ports(user, vec![new]).await.map(drop)
            }
            Self::RemovePort(port) => control.delete_port(user, port.as_str(), None).await,
            Self::MovePort { port, host } => {
                let patch = PortPatch {
                    binding: AskedBinding {
                        host: Some(host.to_string()),
                        ..AskedBinding::default()
                    },
                    ..PortPatch::default()
                };
                control.update_port(user, port.as_str(), patch, None).await
            }
            Self::AddGroup { named_by, l4_port } => {
                let made = control.create_groups(user, vec![new_group("made")]).await?;
                let [made] = &made[..] else {
                    unreachable!("one was asked for");
                };
                world.spare.push(made.clone());
                let rule = naming(&named_by, made, l4_port);
                control.create_rules(user, vec![rule]).await.map(drop)
            }
            Self::RemoveGroup(group) => {
                control.delete_group(user, group.as_str(), None).await?;
                world.spare.retain(|spare| *spare != group);
                Ok(())
            }
            Self::AddAddresses(id, prefix) => {
                let prefixes = vec![prefix];
                control.add_addresses(user, id.as_str(), prefixes).await
            }
            Self::RemoveAddresses(id, prefix) => {
                let prefixes = vec![prefix];
                control.remove_addresses(user, id.as_str(), prefixes).await
            }
            Self::Settings(host) => control.put_host(user, *host).await,
        }
    }
}

fn joins(dice: &mut Dice, world: &World, ledger: &Ledger) -> Option<Change> {
    let group = any_group(dice, world)?.clone();
    let port = any_port(dice, world, ledger)?;
    let mut groups = ledger.port(&port)?.groups.clone();
    let class = class_of(world, ledger, &group);
    groups.insert(group);
    Some(Change::Groups {
        port,
        groups,
        class,
    })
}

fn leaves(dice: &mut Dice, world: &World, ledger: &Ledger) -> Option<Change> {
    let group = any_group(dice, world)?;
    let members = ledger.in_group(group)?;
    let port = members.iter().nth(dice.below(members.len()))?.clone();
    let mut groups = ledger.port(&port)?.groups.clone();
    groups.remove(group);
    Some(Change::Groups {
        port,
        groups,
        class: class_of(world, ledger, group),
    })
}

fn class_of(world: &World, ledger: &Ledger, group: &GroupId) -> Class {
    if world.largest.as_ref() == Some(group) {
        return Class::MemberOfLargest;
    }
    match ledger.members(group) {
        0..=16 => Class::MemberOfSmall,
        _ if world.middle.as_ref() == Some(group) => Class::MemberOfMiddle,
        _ => Class::Member,
    }
}

/// One of five is one of the large ones.
fn any_group<'a>(dice: &mut Dice, world: &'a World) -> Option<&'a GroupId> {
    match dice.below(10) {
        0 => world.largest.as_ref(),
        1 => world.middle.as_ref(),
        _ => dice.one_of(&world.groups),
    }
}

fn any_port(dice: &mut Dice, world: &World, ledger: &Ledger) -> Option<PortId> {
    let ports = ledger.on_host(dice.one_of(&world.hosts)?)?;
    ports.iter().nth(dice.below(ports.len())).cloned()
}

fn any_rule(dice: &mut Dice, world: &World) -> Option<NewRule> {
    let group = dice.one_of(&world.groups)?;
    let l4_port = dice.between(1_000, 20_000) as u16;
    Some(match dice.below(3) {
        0 => rule(group, l4_port),
        1 => naming(group, dice.one_of(&world.groups)?, l4_port),
        _ => NewRule {
            remote_addresses: Some(dice.one_of(&world.addresses)?.to_string()),
            ..rule(group, l4_port)
        },
    })
}
