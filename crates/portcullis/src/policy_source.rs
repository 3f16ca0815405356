//! From a policy file on disk to an inventory, and which host this is.

use crate::client::Client;
use crate::cloudstack;
use crate::control;
use crate::failure::Failure;
use crate::plane::{self, LivePlane, PlaneArgs};
use crate::served_policy;
use agent::Instance;
use clap::{Args, ValueEnum};
use model::{Host, HostId, Inspection, Inventory};
use policy::Finding;
use policyfile::{PolicyFile, Positions};
use std::path::Path;
use std::sync::Arc;

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct InspectionArgs {
    /// For the ovs plane: where this host has the policy of a receiver on another host asked, whatever the policy
    /// file's settings say
    #[arg(long, value_enum, value_name = "WHERE", env = "PORTCULLIS_INSPECTION")]
    inspection: Option<InspectionName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InspectionName {
    /// At the receiver's host, which learns the sender's groups
    Destination,
    /// Here, as far as it can be known here
    Source,
    /// At both
    Both,
}

impl InspectionName {
    fn inspection(self) -> Inspection {
        match self {
            Self::Destination => Inspection::Destination,
            Self::Source => Inspection::Source,
            Self::Both => Inspection::Both,
        }
    }
}

impl InspectionArgs {
    /// As the command line takes it; `None` if the policy file decides.
    pub(crate) fn name(self) -> Option<&'static str> {
        self.inspection.map(|name| match name {
            InspectionName::Destination => "destination",
            InspectionName::Source => "source",
            InspectionName::Both => "both",
        })
    }

    pub(crate) fn inspection(self) -> Option<Inspection> {
        self.inspection.map(InspectionName::inspection)
    }

    fn named(name: &str) -> Option<Self> {
        let inspection = Some(InspectionName::from_str(name, false).ok()?);
        Some(Self { inspection })
    }

    /// On this host, if it is there.
    pub(crate) fn set(self, host: Option<&mut Host>) {
        if let (Some(name), Some(host)) = (self.inspection, host) {
            host.settings.inspection = name.inspection();
        }
    }
}

/// The policy that is in force, or would be.
pub(crate) struct InForce {
    pub(crate) host: HostId,
    pub(crate) inventory: Inventory,
    /// Where it was found, for people.
    pub(crate) from: String,
}

/// `--host`, else the machine's name.
pub(crate) fn this_host(given: Option<&str>) -> Result<HostId, Failure> {
    if let Some(name) = given {
        return Ok(HostId::new(name));
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|e| {
        Failure::System(format!(
            "reading the machine's name: {e}; give one by --host"
        ))
    })?;
    Ok(HostId::new(name.trim()))
}

/// A policy and what looks wrong in it, or why it is refused. What is broken in a file written by
/// hand is an error: nobody wants half of it.
pub(crate) fn understand(
    bytes: &[u8],
    file: &str,
    host: &HostId,
) -> Result<(PolicyFile, Vec<Finding>), String> {
    let read = policyfile::parse_bytes(bytes, file, host).map_err(|e| e.to_string())?;
    let (_, findings) = policy::compile(&read.inventory, host);
    let broken: Vec<String> = findings
        .iter()
        .filter(|f| f.is_broken())
        .map(|f| located(f, file, &read.positions))
        .collect();
    match broken.is_empty() {
        true => Ok((read, findings)),
        false => Err(broken.join("\n")),
    }
}

/// The finding with the place in the file of what it is about.
pub(crate) fn located(finding: &Finding, file: &str, positions: &Positions) -> String {
    let position = match finding {
        Finding::HostMissing { host } => positions.hosts.get(host).copied(),
        Finding::PortHostMissing { port, .. }
        | Finding::PortNetworkMissing { port, .. }
        | Finding::PortGroupMissing { port, .. }
        | Finding::PortTooManyGroups { port, .. }
        | Finding::UnguardedInGroups { port }
        | Finding::WidePair { port, .. } => positions.ports.get(port).copied(),
        Finding::DuplicateMac { ports, .. }
        | Finding::DuplicateAddress { ports, .. }
        | Finding::DuplicateDevice { ports, .. } => positions.ports.get(&ports[1]).copied(),
        Finding::RuleGroupMissing { rule, .. }
        | Finding::RuleAddressGroupMissing { rule, .. }
        | Finding::RulePrefixFamily { rule, .. }
        | Finding::RuleExtensionHeader { rule, .. } => positions.rule(&rule.group, &rule.rule),
    };
    let place = position.map(|p| format!(":{p}")).unwrap_or_default();
    format!("{file}{place}: {} [{}]", finding, finding.code())
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    agent::watch::read(path).map_err(Failure::System)
}

/// For the agent: what makes an inventory of a file's bytes.
pub(crate) fn parser(path: &Path, host: &HostId, inspection: InspectionArgs) -> agent::Parse {
    let (file, host) = (path.display().to_string(), host.clone());
    Arc::new(move |bytes| {
        policyfile::parse_bytes(bytes, &file, &host)
            .map(|read| {
                let mut inventory = read.inventory;
                inspection.set(inventory.hosts.get_mut(&host));
                inventory
            })
            .map_err(|errors| errors.errors.iter().map(|e| one_line(e, &file)).collect())
    })
}

/// The same for what a server has sent.
pub(crate) fn served_parser(host: &HostId, inspection: InspectionArgs) -> agent::Parse {
    let host = host.clone();
    Arc::new(move |bytes| {
        let decoded = served_policy::decode(bytes);
        let decoded = decoded.unwrap_or_else(|| Err("it is of no server".to_owned()));
        let mut inventory = decoded.map_err(|error| vec![error])?;
        inspection.set(inventory.hosts.get_mut(&host));
        Ok(inventory)
    })
}

/// For logs, which have no room for the excerpt.
fn one_line(error: &policyfile::Error, file: &str) -> String {
    let place = error.position.map(|p| format!(":{p}")).unwrap_or_default();
    let advice = match error.advice.as_str() {
        "" => String::new(),
        advice => format!("; {advice}"),
    };
    format!("{file}{place}: {} [{}]{advice}", error.what, error.kind)
}

/// From `--policy`, or the running agent, or the cache of the last one.
pub(crate) fn in_force(
    instance: &Instance,
    policy: Option<&Path>,
    host: Option<&str>,
    mut inspection: InspectionArgs,
) -> Result<InForce, Failure> {
    let (bytes, from, host) = if let Some(path) = policy {
        (
            read_file(path)?,
            path.display().to_string(),
            this_host(host)?,
        )
    } else if let Some(answer) = control::request(instance, "policy")? {
        let bytes = control::policy_bytes(&answer).ok_or_else(|| {
            Failure::System("the agent has no policy in force yet; give one by --policy".to_owned())
        })?;
        let running = answer["host"].as_str().unwrap_or_default();
        let of_agent = answer["inspection"].as_str();
        if let Some(of_agent) = of_agent.and_then(InspectionArgs::named) {
            inspection = of_agent;
        }
        (
            bytes,
            "the running agent".to_owned(),
            HostId::new(host.unwrap_or(running)),
        )
    } else if cloudstack::state_path(instance).exists() {
        return told_by_cloudstack(instance);
    } else {
        let path = instance.cache_path();
        let cached = agent::cache::load(&path).map_err(Failure::system)?;
        let cached = cached.ok_or_else(|| {
            Failure::System(format!(
                "no agent of instance {} runs, and there is no policy cached in {}; give one by --policy",
                instance.name(),
                path.display()
            ))
        })?;
        (cached.text, path.display().to_string(), this_host(host)?)
    };
    let mut inventory = match served_policy::decode(&bytes) {
        Some(served) => served.map_err(|e| Failure::System(format!("{from}: {e}")))?,
        None => {
            let understood = understand(&bytes, &from, &host);
            understood.map_err(Failure::Policy)?.0.inventory
        }
    };
    inspection.set(inventory.hosts.get_mut(&host));
    Ok(InForce {
        host,
        inventory,
        from,
    })
}

/// What a server has, or else this host.
pub(crate) fn asked(
    server: Option<&Client>,
    host: Option<&str>,
    here: impl FnOnce() -> Result<InForce, Failure>,
) -> Result<InForce, Failure> {
    let Some(server) = server else {
        return here();
    };
    Ok(InForce {
        host: this_host(host)?,
        inventory: server.inventory()?,
        from: server.server().to_owned(),
    })
}

/// The calls of CloudStack's agent are its policy.
fn told_by_cloudstack(instance: &Instance) -> Result<InForce, Failure> {
    let path = cloudstack::state_path(instance);
    let state = ::cloudstack::files::load(&path).map_err(Failure::system)?;
    let state = state.ok_or_else(|| {
        Failure::System(format!(
            "CloudStack's agent has told nothing: {} is not there",
            path.display()
        ))
    })?;
    let config = cloudstack::Config::read_given()?;
    let host = this_host(None)?;
    Ok(InForce {
        inventory: ::cloudstack::inventory::inventory(&state, config.host(&host), &config.options),
        host,
        from: path.display().to_string(),
    })
}

/// To look at what is enforced, with its rules' names where the policy in force is known.
pub(crate) fn look_named(
    args: PlaneArgs,
    instance: &Instance,
    inspection: InspectionArgs,
) -> Result<Box<dyn LivePlane>, Failure> {
    let mut plane = plane::look(args, instance)?;
    // Without it, or without the right to read it, rules go by number.
    if let Ok(policy) = in_force(instance, None, None, inspection) {
        plane.recognize(&policy::compile(&policy.inventory, &policy.host).0)?;
    }
    Ok(plane)
}
