//! What each command does on this host.
//!
//! Place on the line: command -> state -> inventory -> compile -> target -> the plane -> **answer**.

use super::adopt::{self, adopt};
use super::host::{CloudHost, links};
use super::libvirt::Libvirt;
use super::release;
use crate::failure::Failure;
use crate::plane::{FlawAt, LivePlane};
use agent::Link;
use cloudstack::arguments::{Command, NicArguments, Verify};
use cloudstack::change::{self, Facts, Interface};
use cloudstack::inventory::port_id;
use cloudstack::{DeviceName, State, VmName, log_files};
use dataplane::ApplyReport;
use model::MacAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

/// How a call ends that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u8,
    /// For standard output.
    pub(crate) line: Option<String>,
}

impl Answer {
    const DONE: Self = Self {
        code: 0,
        line: None,
    };
}

pub(crate) fn carry_out(host: &CloudHost, command: &Command) -> Result<Answer, Failure> {
    match command {
        Command::RuleLogs => rule_logs(host),
        Command::Verify(asked) => verify(host, asked),
        Command::PostDefaultRules => Ok(Answer::DONE),
        Command::CanBridgeFirewall
        | Command::DefaultRules(_)
        | Command::AddRules(_)
        | Command::DestroyVm { .. }
        | Command::UnplugNic { .. }
        | Command::SystemVmRules { .. }
        | Command::SecondaryAddresses { .. }
        | Command::CleanupRules => change(host, command),
    }
}

/// The state moves only after what it says is in force.
fn change(host: &CloudHost, command: &Command) -> Result<Answer, Failure> {
    let old = match host.state()? {
        Some(state) => state,
        None => begin(host)?,
    };
    adopt::finish(host)?;
    release::undo(host)?;
    let mut new = old.clone();
    // All of these take a while.
    let (view_of_old, facts, links) = thread::scope(|scope| {
        let view = scope.spawn(|| host.view(&old));
        let facts = scope.spawn(|| asked_of_libvirt(host, command, &old));
        let links = links();
        let sound = "it doesn't panic";
        (view.join().expect(sound), facts.join().expect(sound), links)
    });
    let (mut facts, links) = (facts?, links?);
    let placed = newcomer(command, &old).and_then(|(_, nic)| place(nic, &links));
    facts.interfaces.extend(placed);
    let outcome = change::apply(&mut new, command, &facts).map_err(Failure::system)?;
    for note in &outcome.notes {
        tracing::warn!(%note, "noticed");
    }
    let report = host.enforce((&old, &view_of_old), &new, &links)?;
    refused(&report, &outcome.touched, &new)?;
    host.save(&new)?;
    host.write_logs(&new, &outcome.touched)?;
    let (writes, took_ms) = (report.writes, report.took.as_millis());
    tracing::info!(vms = new.vms.len(), writes, took_ms, "in force");
    Ok(Answer::DONE)
}

/// The first change on a host: what the script has built so far goes on as ours.
fn begin(host: &CloudHost) -> Result<State, Failure> {
    let Some(adopted) = adopt(host)? else {
        let nothing = State::default();
        // From now on there is a state, whatever becomes of this call.
        host.save(&nothing)?;
        return Ok(nothing);
    };
    let (vms, connections) = (adopted.state.vms.len(), adopted.connections);
    tracing::info!(vms, connections, "taken over from the script");
    for doubt in &adopted.doubts {
        tracing::warn!(%doubt, "not clear in what the script has built");
    }
    Ok(adopted.state)
}

/// A NIC of these VMs that can't be served is an error of the call.
fn refused(report: &ApplyReport, touched: &BTreeSet<VmName>, state: &State) -> Result<(), Failure> {
    for name in touched {
        let nics = state
            .vms
            .get(name)
            .into_iter()
            .flat_map(|vm| vm.nics.keys());
        for mac in nics {
            if let Some(why) = report.refused.get(&port_id(name, *mac)) {
                return Err(Failure::System(format!("NIC {mac} of VM {name}: {why}")));
            }
        }
    }
    Ok(())
}

/// The VM and the NIC that a command may tell of for the first time.
fn newcomer<'a>(command: &'a Command, state: &State) -> Option<(&'a VmName, &'a NicArguments)> {
    match command {
        Command::DefaultRules(rules) => Some((&rules.vm, &rules.nic)),
        Command::AddRules(rules) if !state.vms.contains_key(&rules.vm) => {
            Some((&rules.vm, &rules.nic))
        }
        _ => None,
    }
}

/// What the command needs to know of libvirt, and no more.
fn asked_of_libvirt(host: &CloudHost, command: &Command, state: &State) -> Result<Facts, Failure> {
    let libvirt = Libvirt::by(&host.config.virsh);
    let mut facts = Facts::default();
    if let Some((vm, _)) = newcomer(command, state) {
        facts.domain = libvirt.domain(vm);
        return Ok(facts);
    }
    match command {
        Command::SystemVmRules { vm, .. } => {
            facts.domain = libvirt.domain(vm);
            facts.interfaces = libvirt.interfaces(vm)?;
        }
        Command::CleanupRules => facts.domains = Some(libvirt.domains()?),
        // It is asked at the agent's start, perhaps before libvirt is up.
        Command::CanBridgeFirewall => facts.domains = libvirt.domains().ok(),
        Command::DefaultRules(_)
        | Command::AddRules(_)
        | Command::DestroyVm { .. }
        | Command::UnplugNic { .. }
        | Command::SecondaryAddresses { .. }
        | Command::PostDefaultRules
        | Command::RuleLogs
        | Command::Verify(_) => {}
    }
    Ok(facts)
}

/// Where the NIC is: the agent counts interfaces, and is wrong once one was unplugged. libvirt gives a device the
/// guest's MAC, but for its first byte. `None`: the kernel doesn't tell, so the agent is believed.
fn place(nic: &NicArguments, links: &BTreeMap<u32, Link>) -> Option<Interface> {
    let tap = |mac: MacAddr| MacAddr([0xfe, mac.0[1], mac.0[2], mac.0[3], mac.0[4], mac.0[5]]);
    let is_its = |link: &&Link| link.mac.is_some_and(|m| m == nic.mac || m == tap(nic.mac));
    let fitting: Vec<&Link> = links
        .values()
        .filter(|link| link.kind.as_deref() != Some("bridge"))
        .filter(is_its)
        .collect();
    let named = |link: &&&Link| link.name == nic.vif.as_str();
    let link = match fitting[..] {
        [only] => only,
        _ => fitting.iter().find(named)?,
    };
    let bridge = links.get(&link.master?)?;
    Some(Interface {
        vif: DeviceName::new(&link.name).ok()?,
        bridge: DeviceName::new(&bridge.name).ok()?,
        mac: nic.mac,
    })
}

/// The lines of VMs whose rules the kernel has; of others, that no rules have come: the server sends them then.
fn rule_logs(host: &CloudHost) -> Result<Answer, Failure> {
    let state = host.state()?.unwrap_or_default();
    let domains = Libvirt::by(&host.config.virsh).domains()?;
    let in_force = match state.vms.is_empty() {
        true => false,
        false => flaws(host, &state)?.is_empty(),
    };
    let running = domains.iter().map(String::as_str);
    let line = log_files::answer(&state, running, |_| in_force);
    Ok(Answer {
        code: 0,
        line: Some(line),
    })
}

/// Where the kernel isn't as the state says.
fn flaws(host: &CloudHost, state: &State) -> Result<Vec<(FlawAt, String)>, Failure> {
    let mut plane = host.plane(state)?;
    let flaws = plane.verify()?;
    let mut flaws: Vec<_> = flaws.into_iter().map(|flaw| (flaw.at, flaw.what)).collect();
    if !is_known(&mut *plane, host, state)? {
        let what = "what is in force is not what was last told to this host".to_owned();
        flaws.push((FlawAt::Rules, what));
    }
    if !host.guard_is_in_place()? {
        let what = "devices that nobody has told of are not closed".to_owned();
        flaws.push((FlawAt::Guard, what));
    }
    for (_, what) in &flaws {
        tracing::warn!(%what, "not as it should be");
    }
    Ok(flaws)
}

/// Whether each NIC whose device is there is judged by its own port.
fn is_known(plane: &mut dyn LivePlane, host: &CloudHost, state: &State) -> Result<bool, Failure> {
    let target = host.target(state, &links()?);
    let devices = plane.find_devices()?;
    Ok(target.devices == devices.of_ports)
}

/// 0 right, 2 addresses, 3 bridge, 4 the VM's rules, 5 the link layer.
fn verify(host: &CloudHost, asked: &Verify) -> Result<Answer, Failure> {
    let state = host.state()?.unwrap_or_default();
    let (code, line) = match wrong(host, &state, asked)? {
        None => (
            0,
            format!("VM {}: NIC {} is as it should be", asked.vm, asked.mac),
        ),
        Some((code, what)) => (code, format!("VM {}: {what}", asked.vm)),
    };
    Ok(Answer {
        code,
        line: Some(line),
    })
}

fn wrong(host: &CloudHost, state: &State, asked: &Verify) -> Result<Option<(u8, String)>, Failure> {
    const ADDRESSES: u8 = 2;
    const BRIDGE: u8 = 3;
    const RULES: u8 = 4;
    const LINK_LAYER: u8 = 5;
    let Some(vm) = state.vms.get(&asked.vm) else {
        return Ok(Some((RULES, "this host has no rules for it".to_owned())));
    };
    let Some(nic) = vm.nics.get(&asked.mac) else {
        let what = format!("it has no NIC {} here", asked.mac);
        return Ok(Some((RULES, what)));
    };
    let known: BTreeSet<IpAddr> = nic.addresses().collect();
    let given = [IpAddr::V4(asked.ipv4)].into_iter();
    let given = given
        .chain(asked.ipv6.map(IpAddr::V6))
        .chain(asked.secondary.iter().copied());
    for address in given {
        if !known.contains(&address) {
            let what = format!("NIC {} may not use {address}", asked.mac);
            return Ok(Some((ADDRESSES, what)));
        }
    }
    for (given, known) in [(&asked.vif, &nic.vif), (&asked.bridge, &nic.bridge)] {
        if let Some(given) = given.as_ref().filter(|given| *given != known) {
            let what = format!("NIC {} is at {known}, not at {given}", asked.mac);
            return Ok(Some((BRIDGE, what)));
        }
    }
    let links = links()?;
    let on_bridge = |link: &Link| {
        let bridge = link.master.and_then(|master| links.get(&master));
        link.name == nic.vif.as_str() && bridge.is_some_and(|b| b.name == nic.bridge.as_str())
    };
    if !links.values().any(on_bridge) {
        let what = format!("there is no device {} on bridge {}", nic.vif, nic.bridge);
        return Ok(Some((BRIDGE, what)));
    }
    let mut flaws = flaws(host, state)?;
    flaws.sort();
    let code = |at| match at {
        FlawAt::Hooks => BRIDGE,
        FlawAt::Rules => RULES,
        FlawAt::Guard => LINK_LAYER,
    };
    Ok(flaws.into_iter().next().map(|(at, what)| (code(at), what)))
}
