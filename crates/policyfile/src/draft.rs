//! The file as it is written: every section read, values parsed, names not yet looked up.
//!
//! Place on the line: text -> reader -> **draft** -> resolve -> inventory.
//! A thing that is wrong is noted and left out of the draft, so that the rest is still looked at.
//! Knows nothing of: whether names exist, what rules expand to, what is doubled in another place.

use crate::error::{Complaint, ErrorKind, Place, Position, Stop, quoted};
use crate::protocols::{Protocol, protocol};
use crate::reader::{Reader, Shape, Text};
use crate::words;
use model::{
    AddressPair, Direction, Elision, Family, Inspection, L4PortRange, MacAddr, Narrowing,
    PeerTrust, Prefix, Settings,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(crate) const FILE_FIELDS: &[&str] = &[
    "version",
    "settings",
    "hosts",
    "networks",
    "address-groups",
    "groups",
    "ports",
];
pub(crate) const SETTINGS_FIELDS: &[&str] = &[
    "elision",
    "narrowing",
    "inspection",
    "timeouts",
    "budgets",
    "ethertypes",
];
pub(crate) const TIMEOUT_FIELDS: &[&str] = &[
    "tcp-opening",
    "tcp-established",
    "tcp-closing",
    "tcp-reset",
    "udp",
    "udp-replied",
    "icmp",
    "other",
];
pub(crate) const BUDGET_FIELDS: &[&str] = &[
    "flows-per-port",
    "half-open-per-port",
    "flows-per-host",
    "reserve-per-port",
    "elided-errors-per-second",
];
pub(crate) const HOST_FIELDS: &[&str] = &["tunnel-address", "peer-trust", "settings"];
pub(crate) const NETWORK_FIELDS: &[&str] = &[
    "scope",
    "subnets",
    "dhcp-servers",
    "routers",
    "eui64-only",
    "vni",
    "mtu",
];
pub(crate) const GROUP_FIELDS: &[&str] = &["stateless", "tag", "rules"];
pub(crate) const RULE_FIELDS: &[&str] = &["name", "from", "to", "family", "protocol", "ports"];
pub(crate) const PORT_FIELDS: &[&str] = &[
    "network",
    "host",
    "device",
    "iface-id",
    "mac",
    "addresses",
    "pairs",
    "groups",
    "port-security",
    "dhcp-server",
    "router",
];
pub(crate) const PAIR_FIELDS: &[&str] = &["prefix", "mac"];

/// Ethertypes that a host can let through; data planes have room for so many.
pub(crate) const MAX_ETHERTYPES: usize = 8;
const MAX_TIMEOUT_S: u32 = 31_536_000;
const MAX_FLOWS: u32 = 1 << 30;

#[derive(Default)]
pub(crate) struct Draft<'a> {
    pub(crate) settings: SettingsDraft,
    pub(crate) hosts: Vec<(Text<'a>, HostDraft)>,
    /// Whether the file has the section, even an empty one.
    pub(crate) has_hosts: bool,
    pub(crate) networks: Vec<(Text<'a>, NetworkDraft<'a>)>,
    pub(crate) address_groups: Vec<(Text<'a>, BTreeSet<Prefix>)>,
    pub(crate) groups: Vec<(Text<'a>, GroupDraft<'a>)>,
    pub(crate) ports: Vec<(Text<'a>, PortDraft<'a>)>,
}

/// What the file chooses; the rest is the default, or for a host what the file chooses for all.
#[derive(Default)]
pub(crate) struct SettingsDraft {
    elision: Option<Elision>,
    narrowing: Option<Narrowing>,
    inspection: Option<Inspection>,
    timeouts: Vec<(&'static str, u32)>,
    budgets: Vec<(&'static str, u32)>,
    ethertypes: Option<BTreeSet<u16>>,
}

#[derive(Default)]
pub(crate) struct HostDraft {
    pub(crate) tunnel_address: Option<IpAddr>,
    pub(crate) peer_trust: PeerTrust,
    pub(crate) settings: SettingsDraft,
}

#[derive(Default)]
pub(crate) struct NetworkDraft<'a> {
    pub(crate) scope: Option<Text<'a>>,
    pub(crate) subnets: BTreeSet<Prefix>,
    pub(crate) dhcp_servers: BTreeSet<IpAddr>,
    pub(crate) routers: BTreeSet<IpAddr>,
    pub(crate) eui64_only: bool,
    pub(crate) vni: Option<u32>,
    pub(crate) mtu: Option<u16>,
}

#[derive(Default)]
pub(crate) struct GroupDraft<'a> {
    pub(crate) stateless: bool,
    pub(crate) tag: Option<(u16, Place)>,
    pub(crate) rules: Vec<RuleDraft<'a>>,
}

#[derive(Default)]
pub(crate) struct RuleDraft<'a> {
    pub(crate) at: Place,
    pub(crate) name: Option<Text<'a>>,
    pub(crate) direction: Option<Direction>,
    pub(crate) remotes: Vec<Remote<'a>>,
    pub(crate) family: Option<(Family, Place)>,
    /// With the text, which names the parts of a rule with several. Empty: any.
    pub(crate) protocols: Vec<(Protocol, Text<'a>)>,
    pub(crate) ports: Vec<(L4PortRange, Place)>,
    /// Something in it is wrong and noted.
    pub(crate) broken: bool,
}

pub(crate) enum Remote<'a> {
    Any,
    Prefix(Prefix, Place),
    Name(Text<'a>),
}

#[derive(Default)]
pub(crate) struct PortDraft<'a> {
    pub(crate) network: Option<Text<'a>>,
    pub(crate) host: Option<Text<'a>>,
    pub(crate) device: Option<Text<'a>>,
    /// With `device`: noted as wrong.
    pub(crate) interface_id: Option<Text<'a>>,
    pub(crate) mac: Option<(MacAddr, Place)>,
    pub(crate) addresses: Vec<(IpAddr, Place)>,
    pub(crate) pairs: BTreeSet<AddressPair>,
    pub(crate) groups: Vec<Text<'a>>,
    pub(crate) no_port_security: bool,
    pub(crate) dhcp_server: bool,
    pub(crate) router: bool,
}

/// Reads the whole file. On [`Stop`] the rest of it is unread.
pub(crate) fn read<'a>(reader: &mut Reader<'a>) -> Result<Draft<'a>, Stop> {
    let mut draft = Draft::default();
    reader.document(|reader| {
        let is_map = reader.shape()? == Shape::Map;
        let present = reader.fields("a policy file", FILE_FIELDS, |r, field, _| {
            match field {
                "version" => version(r)?,
                "settings" => draft.settings = settings(r)?,
                "hosts" => {
                    draft.has_hosts = true;
                    r.named("`hosts`", |r, name| {
                        check_name(r, &name, host_name)?;
                        draft.hosts.push((name, host(r)?));
                        Ok(())
                    })?;
                }
                "networks" => r.named("`networks`", |r, name| {
                    check_name(r, &name, words::name)?;
                    draft.networks.push((name, network(r)?));
                    Ok(())
                })?,
                "address-groups" => r.named("`address-groups`", |r, name| {
                    check_name(r, &name, words::group_name)?;
                    draft
                        .address_groups
                        .push((name, prefixes(r, "a prefix of an address group")?));
                    Ok(())
                })?,
                "groups" => r.named("`groups`", |r, name| {
                    check_name(r, &name, words::group_name)?;
                    draft.groups.push((name, group(r)?));
                    Ok(())
                })?,
                "ports" => r.named("`ports`", |r, name| {
                    check_name(r, &name, words::name)?;
                    let port = port(r, &name)?;
                    draft.ports.push((name, port));
                    Ok(())
                })?,
                other => unreachable!("{other} is not in FILE_FIELDS"),
            }
            Ok(())
        })?;
        if is_map && !present.has(FILE_FIELDS, "version") {
            let at = start();
            let what = "the file has no `version`";
            reader.note(
                at,
                ErrorKind::MissingField,
                what,
                "begin it with `version: 1`",
            )?;
        }
        Ok(())
    })?;
    Ok(draft)
}

/// Nothing else in a file of another version means what we think: reading stops.
fn version(r: &mut Reader<'_>) -> Result<(), Stop> {
    let Some(text) = r.text("`version`")? else {
        return Ok(());
    };
    if text.value == "1" {
        return Ok(());
    }
    let what = format!("version {} is not known here", quoted(&text.value));
    let advice = "this program reads version 1: write `version: 1`";
    r.note(text.at, ErrorKind::Version, what, advice)?;
    Err(Stop)
}

fn settings(r: &mut Reader<'_>) -> Result<SettingsDraft, Stop> {
    let mut draft = SettingsDraft::default();
    r.fields("`settings`", SETTINGS_FIELDS, |r, field, at| {
        match field {
            "elision" => {
                let choices = [
                    ("on", Elision::On),
                    ("strict", Elision::Strict),
                    ("off", Elision::Off),
                ];
                draft.elision = value(r, "`elision`", |t| words::choice(t, "`elision`", &choices))?;
            }
            "narrowing" => {
                let choices = [("cut", Narrowing::Cut), ("keep", Narrowing::Keep)];
                draft.narrowing = value(r, "`narrowing`", |t| {
                    words::choice(t, "`narrowing`", &choices)
                })?;
            }
            "inspection" => {
                let choices = [
                    ("destination", Inspection::Destination),
                    ("source", Inspection::Source),
                    ("both", Inspection::Both),
                ];
                draft.inspection = value(r, "`inspection`", |t| {
                    words::choice(t, "`inspection`", &choices)
                })?;
            }
            "timeouts" => {
                r.fields("`timeouts`", TIMEOUT_FIELDS, |r, field, _| {
                    let bounds = 1..=MAX_TIMEOUT_S;
                    let seconds = |t: &str| words::bounded(t, "a timeout in seconds", bounds);
                    let seconds = value(r, field, seconds)?;
                    draft.timeouts.extend(seconds.map(|s| (field, s)));
                    Ok(())
                })?;
            }
            "budgets" => {
                r.fields("`budgets`", BUDGET_FIELDS, |r, field, _| {
                    let bounds = match field {
                        "half-open-per-port" => 1..=4096,
                        "reserve-per-port" => 0..=MAX_FLOWS,
                        _ => 1..=MAX_FLOWS,
                    };
                    let budget = value(r, field, |t| words::bounded(t, field, bounds))?;
                    draft.budgets.extend(budget.map(|b| (field, b)));
                    Ok(())
                })?;
            }
            "ethertypes" => {
                let mut listed = BTreeSet::new();
                r.items(|r| {
                    listed.extend(value(r, "an ethertype", words::ethertype)?);
                    Ok(())
                })?;
                if listed.len() > MAX_ETHERTYPES {
                    let what = format!("{} ethertypes are listed", listed.len());
                    let advice = format!("a host lets through at most {MAX_ETHERTYPES}");
                    r.note(at, ErrorKind::TooManyValues, what, advice)?;
                }
                draft.ethertypes = Some(listed);
            }
            other => unreachable!("{other} is not in SETTINGS_FIELDS"),
        }
        Ok(())
    })?;
    Ok(draft)
}

impl SettingsDraft {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        settings.elision = self.elision.unwrap_or(settings.elision);
        settings.narrowing = self.narrowing.unwrap_or(settings.narrowing);
        settings.inspection = self.inspection.unwrap_or(settings.inspection);
        for (field, seconds) in &self.timeouts {
            let t = &mut settings.timeouts;
            let timeout = match *field {
                "tcp-opening" => &mut t.tcp_opening_s,
                "tcp-established" => &mut t.tcp_established_s,
                "tcp-closing" => &mut t.tcp_closing_s,
                "tcp-reset" => &mut t.tcp_reset_s,
                "udp" => &mut t.udp_s,
                "udp-replied" => &mut t.udp_replied_s,
                "icmp" => &mut t.icmp_s,
                "other" => &mut t.other_s,
                other => unreachable!("{other} is not in TIMEOUT_FIELDS"),
            };
            *timeout = *seconds;
        }
        for (field, count) in &self.budgets {
            let b = &mut settings.budgets;
            let budget = match *field {
                "flows-per-port" => &mut b.flows_per_port,
                "half-open-per-port" => &mut b.half_open_per_port,
                "flows-per-host" => &mut b.flows_per_host,
                "reserve-per-port" => &mut b.reserve_per_port,
                "elided-errors-per-second" => &mut b.elided_errors_per_s,
                other => unreachable!("{other} is not in BUDGET_FIELDS"),
            };
            *budget = *count;
        }
        if let Some(ethertypes) = &self.ethertypes {
            settings.ethertypes = ethertypes.clone();
        }
    }
}

fn host(r: &mut Reader<'_>) -> Result<HostDraft, Stop> {
    let mut draft = HostDraft::default();
    r.fields("a host", HOST_FIELDS, |r, field, _| {
        match field {
            "tunnel-address" => {
                draft.tunnel_address = value(r, "`tunnel-address`", words::address)?;
            }
            "peer-trust" => {
                let choices = [("tag", PeerTrust::Tag), ("address", PeerTrust::Address)];
                let trust = value(r, "`peer-trust`", |t| {
                    words::choice(t, "`peer-trust`", &choices)
                })?;
                draft.peer_trust = trust.unwrap_or_default();
            }
            "settings" => draft.settings = settings(r)?,
            other => unreachable!("{other} is not in HOST_FIELDS"),
        }
        Ok(())
    })?;
    Ok(draft)
}

fn network<'a>(r: &mut Reader<'a>) -> Result<NetworkDraft<'a>, Stop> {
    let mut draft = NetworkDraft::default();
    r.fields("a network", NETWORK_FIELDS, |r, field, _| {
        match field {
            "scope" => {
                draft.scope = r.text("`scope`")?;
                if let Some(scope) = &draft.scope {
                    check_name(r, scope, words::name)?;
                }
            }
            "subnets" => draft.subnets = prefixes(r, "a subnet")?,
            "dhcp-servers" => draft.dhcp_servers = addresses(r, "a DHCP server")?,
            "routers" => draft.routers = addresses(r, "a router")?,
            "eui64-only" => draft.eui64_only = switch(r, "`eui64-only`")?,
            "vni" => {
                draft.vni = value(r, "`vni`", |t| words::bounded(t, "a VNI", 1..=0xff_ffff))?;
            }
            "mtu" => {
                let mtu = value(r, "`mtu`", |t| words::bounded(t, "an MTU", 68..=65_535))?;
                draft.mtu = mtu.and_then(|mtu| u16::try_from(mtu).ok());
            }
            other => unreachable!("{other} is not in NETWORK_FIELDS"),
        }
        Ok(())
    })?;
    Ok(draft)
}

fn group<'a>(r: &mut Reader<'a>) -> Result<GroupDraft<'a>, Stop> {
    let mut draft = GroupDraft::default();
    r.fields("a group", GROUP_FIELDS, |r, field, _| {
        match field {
            "stateless" => draft.stateless = switch(r, "`stateless`")?,
            "tag" => {
                let tag = r.parsed("`tag`", |t| words::bounded(t, "a tag", 1..=65_535))?;
                draft.tag = tag.and_then(|(tag, at)| Some((u16::try_from(tag).ok()?, at)));
            }
            "rules" => match r.shape()? {
                // A rule alone would read like a list of its fields.
                Shape::Map => {
                    r.wrong_shape("`rules`", "a list of rules, each behind a `-`,", Shape::Map)?;
                }
                Shape::Value | Shape::List => r.items(|r| {
                    draft.rules.push(rule(r)?);
                    Ok(())
                })?,
            },
            other => unreachable!("{other} is not in GROUP_FIELDS"),
        }
        Ok(())
    })?;
    Ok(draft)
}

fn rule<'a>(r: &mut Reader<'a>) -> Result<RuleDraft<'a>, Stop> {
    let mut draft = RuleDraft::default();
    let before = r.log.len();
    draft.at = r.place()?;
    let mut directions = 0;
    let mut one_way = |draft: &mut RuleDraft<'a>, direction| {
        directions += 1;
        draft.direction = Some(direction);
    };
    r.fields("a rule", RULE_FIELDS, |r, field, _| {
        match field {
            "name" => {
                draft.name = r.text("`name`")?;
                if let Some(name) = &draft.name {
                    check_name(r, name, words::rule_name)?;
                }
            }
            "from" => {
                one_way(&mut draft, Direction::Ingress);
                remotes(r, "`from`", &mut draft.remotes)?;
            }
            "to" => {
                one_way(&mut draft, Direction::Egress);
                remotes(r, "`to`", &mut draft.remotes)?;
            }
            "family" => {
                let choices = [("ipv4", Family::V4), ("ipv6", Family::V6)];
                draft.family = r.parsed("`family`", |t| words::choice(t, "`family`", &choices))?;
            }
            "protocol" => r.items(|r| {
                let Some(text) = r.text("`protocol`")? else {
                    return Ok(());
                };
                match protocol(&text.value) {
                    Ok(protocol) => draft.protocols.push((protocol, text)),
                    Err(complaint) => r.log.note(Some(text.at), complaint)?,
                }
                Ok(())
            })?,
            "ports" => r.items(|r| {
                draft.ports.extend(r.parsed("`ports`", words::ports)?);
                Ok(())
            })?,
            other => unreachable!("{other} is not in RULE_FIELDS"),
        }
        Ok(())
    })?;
    if r.log.len() == before && directions != 1 {
        let what = match directions {
            0 => "the rule has neither `from` nor `to`",
            _ => "the rule has both `from` and `to`",
        };
        let advice = "`from: web` lets web's members reach the port, `to: web` lets the port reach them; `any` is everybody; write two rules for both";
        r.note(draft.at, ErrorKind::Direction, what, advice)?;
    }
    draft.broken = r.log.len() != before;
    Ok(draft)
}

fn remotes<'a>(r: &mut Reader<'a>, what: &str, remotes: &mut Vec<Remote<'a>>) -> Result<(), Stop> {
    let at = r.place()?;
    let before = (r.log.len(), remotes.len());
    r.items(|r| {
        let Some(text) = r.text(what)? else {
            return Ok(());
        };
        if text.value.eq_ignore_ascii_case("any") {
            remotes.push(Remote::Any);
        } else if words::looks_like_address(&text.value) {
            match words::prefix(&text.value) {
                Ok(prefix) => remotes.push(Remote::Prefix(prefix, text.at)),
                Err(complaint) => r.log.note(Some(text.at), complaint)?,
            }
        } else {
            remotes.push(Remote::Name(text));
        }
        Ok(())
    })?;
    if before == (r.log.len(), remotes.len()) {
        let message = format!("{what} names nobody");
        let advice = "name a group, an address group or a prefix, or `any`";
        r.note(at, ErrorKind::WrongShape, message, advice)?;
    }
    Ok(())
}

fn port<'a>(r: &mut Reader<'a>, name: &Text<'a>) -> Result<PortDraft<'a>, Stop> {
    let mut draft = PortDraft::default();
    let present = r.fields("a port", PORT_FIELDS, |r, field, _| {
        match field {
            "network" => draft.network = r.text("`network`")?,
            "host" => draft.host = r.text("`host`")?,
            "device" => {
                draft.device = r.text("`device`")?;
                if let Some(device) = &draft.device {
                    check_name(r, device, words::device)?;
                }
            }
            "iface-id" => {
                draft.interface_id = r.text("`iface-id`")?;
                if let Some(id) = &draft.interface_id {
                    check_name(r, id, words::interface_id)?;
                }
            }
            "mac" => draft.mac = r.parsed("`mac`", words::mac)?,
            "addresses" => r.items(|r| {
                draft
                    .addresses
                    .extend(r.parsed("an address", words::address)?);
                Ok(())
            })?,
            "pairs" => r.items(|r| {
                draft.pairs.extend(pair(r)?);
                Ok(())
            })?,
            "groups" => r.items(|r| {
                draft.groups.extend(r.text("a group's name")?);
                Ok(())
            })?,
            "port-security" => draft.no_port_security = !switch(r, "`port-security`")?,
            "dhcp-server" => draft.dhcp_server = switch(r, "`dhcp-server`")?,
            "router" => draft.router = switch(r, "`router`")?,
            other => unreachable!("{other} is not in PORT_FIELDS"),
        }
        Ok(())
    })?;
    if !present.has(PORT_FIELDS, "mac") {
        let what = format!("the port {} has no `mac`", quoted(&name.value));
        let advice = "give it the MAC address of the VM's interface: `mac: 52:54:00:12:34:56`";
        r.note(name.at, ErrorKind::MissingField, what, advice)?;
    }
    if let (Some(_), Some(id)) = (&draft.device, &draft.interface_id) {
        let what = format!(
            "the port {} has both `device` and `iface-id`",
            quoted(&name.value)
        );
        let advice = "a port's device is found in one way: remove one of them";
        r.note(id.at, ErrorKind::DeviceTwice, what, advice)?;
    }
    Ok(draft)
}

/// A prefix, or a map of it and the MAC that uses it.
fn pair(r: &mut Reader<'_>) -> Result<Option<AddressPair>, Stop> {
    if r.shape()? == Shape::Value {
        let prefix = value(r, "a pair", words::prefix)?;
        return Ok(prefix.map(|prefix| AddressPair { prefix, mac: None }));
    }
    let at = r.place()?;
    let (mut prefix, mut mac) = (None, None);
    let before = r.log.len();
    r.fields("a pair", PAIR_FIELDS, |r, field, _| {
        match field {
            "prefix" => prefix = value(r, "`prefix`", words::prefix)?,
            "mac" => mac = value(r, "`mac`", words::mac)?,
            other => unreachable!("{other} is not in PAIR_FIELDS"),
        }
        Ok(())
    })?;
    if prefix.is_none() && r.log.len() == before {
        let advice = "write `{ prefix: 10.0.0.100, mac: 52:54:00:12:34:56 }`";
        r.note(
            at,
            ErrorKind::MissingField,
            "the pair has no `prefix`",
            advice,
        )?;
    }
    Ok(prefix.map(|prefix| AddressPair { prefix, mac }))
}

fn prefixes(r: &mut Reader<'_>, what: &str) -> Result<BTreeSet<Prefix>, Stop> {
    let mut all = Vec::new();
    r.items(|r| {
        all.extend(value(r, what, words::prefix)?);
        Ok(())
    })?;
    Ok(all.into_iter().collect())
}

fn addresses(r: &mut Reader<'_>, what: &str) -> Result<BTreeSet<IpAddr>, Stop> {
    let mut all = BTreeSet::new();
    r.items(|r| {
        all.extend(value(r, what, words::address)?);
        Ok(())
    })?;
    Ok(all)
}

fn value<T>(
    r: &mut Reader<'_>,
    what: &str,
    parse: impl FnOnce(&str) -> Result<T, Complaint>,
) -> Result<Option<T>, Stop> {
    Ok(r.parsed(what, parse)?.map(|(value, _)| value))
}

/// A switch that is no switch is noted, and off.
fn switch(r: &mut Reader<'_>, what: &str) -> Result<bool, Stop> {
    Ok(value(r, what, |t| words::switch(t, what))?.unwrap_or_default())
}

fn check_name(
    r: &mut Reader<'_>,
    name: &Text<'_>,
    grammar: fn(&str) -> Result<(), Complaint>,
) -> Result<(), Stop> {
    match grammar(&name.value) {
        Ok(()) => Ok(()),
        Err(complaint) => r.log.note(Some(name.at), complaint),
    }
}

fn host_name(text: &str) -> Result<(), Complaint> {
    words::name(text)?;
    if text == crate::resolve::NO_HOST {
        let what = "`none` can't be the name of a host";
        let advice = "`host: none` is said of ports that no host of the file has";
        return Err(Complaint::new(ErrorKind::BadName, what, advice));
    }
    Ok(())
}

fn start() -> Place {
    let position = Position { line: 1, column: 1 };
    Place { position, width: 1 }
}
