//! `reach`: who may begin which flows with whom, by the policy.

use super::InstanceArgs;
use crate::client::MaybeServerArgs;
use crate::failure::Failure;
use crate::output::{FormatArgs, Tone, print};
use crate::policy_source::{InForce, InspectionArgs, asked, in_force};
use crate::reach_view::{Listing, has_scopes, rows};
use clap::Args;
use model::{Family, GroupId, Inventory, L4Match, PortId};
use policy::{L4Set, Question, Who};
use policyfile::spoken;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Say who can reach whom, and by which rules
///
/// Every address, protocol and port is considered, not samples: the rules of both ends, where both are ports of
/// the policy, on whatever hosts. "Outside" is whoever has an address that no port has. The answer is about new
/// flows: replies need no rule. What needs none in any direction (ARP, neighbour discovery, DHCP), link-local
/// addresses, and what a port sends to itself are not in it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis reach --policy policy.yaml --to db tcp 5432     who can reach db on 5432?
  portcullis reach --policy policy.yaml --from web           what can web reach?
  portcullis reach --policy policy.yaml --from 192.0.2.0/24 --to db
  portcullis reach --to db icmp echo-request                 the policy in force
  portcullis reach --to db --server http://127.0.0.1:9696    a cluster's policy

WHO is a port, a group (all its ports), an address group, an address or a prefix; a name that a port has
is the port. FLOW is a protocol and perhaps a port, a range, or an ICMP type, as in the policy file: tcp,
udp 53, tcp 8000-8099, icmp echo-request, gre.

Exit codes: 0 answered (also if nobody can), 2 no such port, group or flow, 3 invalid policy, 4 nothing
to ask.")]
pub(crate) struct ReachArgs {
    /// Only these flows [default: any]
    #[arg(value_name = "FLOW")]
    flow: Vec<String>,

    /// Who begins the flows
    #[arg(long, value_name = "WHO", required_unless_present = "to")]
    from: Option<String>,

    /// Whom they are for
    #[arg(long, value_name = "WHO")]
    to: Option<String>,

    /// Ask this policy [default: what is in force]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// The host, where the policy has several [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    instance: InstanceArgs,

    #[command(flatten)]
    server: MaybeServerArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: ReachArgs) -> Result<(), Failure> {
    let (policy, host) = (args.policy.as_deref(), args.host.as_deref());
    let policy = asked(args.server.client()?.as_ref(), host, || {
        let instance = args.instance.instance()?;
        in_force(&instance, policy, host, InspectionArgs::default())
    })?;
    let question = question(&args, &policy)?;
    let told = policy::reach(&policy.inventory, &question);
    let scopes = has_scopes(&policy.inventory);
    let value = json!({
        "policy": policy.from,
        "from": args.from,
        "to": args.to,
        "flow": (!args.flow.is_empty()).then(|| args.flow.join(" ")),
        "reach": rows(&told),
    });
    print(args.format.output, &value, |value, wide| {
        table(value, wide, scopes)
    });
    Ok(())
}

fn question(args: &ReachArgs, policy: &InForce) -> Result<Question, Failure> {
    let who = |text: &Option<String>| match text {
        Some(text) => who(text, policy),
        None => Ok(Who::Anybody),
    };
    Ok(Question {
        from: who(&args.from)?,
        to: who(&args.to)?,
        kinds: kinds(&args.flow.join(" "))?,
    })
}

fn kinds(words: &str) -> Result<[L4Set; 2], Failure> {
    if words.is_empty() {
        return Ok(Family::BOTH.map(L4Set::any));
    }
    let named = spoken::kinds(words).map_err(Failure::Usage)?;
    Ok(Family::BOTH.map(|family| {
        let mut matches = named.iter().filter(|(of, _)| *of == family);
        let l4: Option<L4Match> = matches.next().map(|(_, l4)| *l4);
        l4.map_or_else(|| L4Set::none(family), |l4| L4Set::of(family, l4))
    }))
}

fn who(text: &str, policy: &InForce) -> Result<Who, Failure> {
    let inventory = &policy.inventory;
    if let Some((port, _)) = inventory.ports.get_key_value(text) {
        return Ok(Who::Ports([port.clone()].into()));
    }
    if let Some((group, _)) = inventory.groups.get_key_value(text) {
        return Ok(Who::Ports(ports_of(inventory, group).collect()));
    }
    if let Some(group) = inventory.address_groups.get(text) {
        return Ok(Who::Addresses(group.prefixes.clone()));
    }
    if spoken::looks_like_address(text) {
        let prefix = spoken::prefix(text).map_err(Failure::Usage)?;
        return Ok(Who::Addresses([prefix].into()));
    }
    let ports = inventory.ports.keys().map(|id| id.as_str());
    let groups = inventory.groups.keys().map(|id| id.as_str());
    let lists = inventory.address_groups.keys().map(|id| id.as_str());
    let known = ports.chain(groups).chain(lists);
    let near = policyfile::suggestion(text, "ports and groups", known);
    Err(Failure::Usage(format!(
        "no port or group {text} in {}; {near}",
        policy.from
    )))
}

fn ports_of(inventory: &Inventory, group: &GroupId) -> impl Iterator<Item = PortId> {
    let ports = inventory.ports.values();
    let joined = ports.filter(|port| port.groups.contains(group));
    joined.map(|port| port.id.clone())
}

fn table(value: &Value, wide: bool, scopes: bool) -> String {
    let rows = &value["reach"];
    if rows.as_array().is_none_or(Vec::is_empty) {
        return "no such flow is permitted\n".to_owned();
    }
    let marked = [("", Tone::Plain, rows)];
    let listing = Listing {
        wide,
        scopes,
        marked: &marked,
    };
    listing.text()
}
