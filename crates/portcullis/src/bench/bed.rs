//! A test bed: a host with a bridge and two VMs, under one way of filtering. All beds are alike but for
//! the filter, and stand side by side, so that rounds can alternate between them.
//!
//! A bed for Open vSwitch has a switch of its own, with the datapath that is ovs-vswitchd's. It takes packets out of
//! a queue: it is sent more than it can take, and what arrives is counted by the time of the processor that
//! ovs-vswitchd has used.

use super::busy;
use super::own_plane::{self, OwnPlane};
use super::policies::{
    ADDRESS_A, ADDRESS_B, HOST, L4_PORT, MAC_A, MAC_B, Policy, inventory, source,
};
use super::traffic::{Generator, Packets};
use crate::plane::{PlaneArgs, PlaneName};
use anyhow::{Context, bail};
use conformance::lab::load::{Rate, pin, received, tcp_bulk, tcp_connections};
use conformance::lab::{Arrival, Attach, Lab, LabError, Offload, OpenVswitch, Vm, probe};
use dataplane_iptables::Backend;
use model::{Direction, HostId, Verdict};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;
use wire::build;

/// What stands between the VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Nothing,
    Ours(Policy),
    /// The same, and straight from port to port.
    Direct(Policy),
    /// iptables with conntrack and this many rules, on bridged packets, as one writes them by hand.
    ByHand(u32),
}

impl Filter {
    /// What a plane of ours enforces.
    fn policy(self) -> Option<Policy> {
        match self {
            Self::Ours(policy) | Self::Direct(policy) => Some(policy),
            Self::Nothing | Self::ByHand(_) => None,
        }
    }
}

/// Which packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// UDP, all of one flow.
    OneFlow,
    /// UDP, of 4,096 flows in turn.
    ManyFlows,
    /// UDP, each packet of another flow.
    NewFlows,
    /// UDP, from this many permitted sources in no order.
    Sources(u32),
    TcpConnections,
    TcpBulk,
}

pub(super) struct Measured {
    /// Of what arrived.
    pub(super) rate: Rate,
    /// Packets that were sent and did not arrive.
    pub(super) lost: u64,
}

/// What came of many flows.
pub(super) struct Flood {
    pub(super) arrived: u64,
    /// The flows that the filter keeps state of then.
    pub(super) entries: u64,
}

pub(super) struct Bed {
    filter: Filter,
    // Before the lab: its daemons are in the lab's namespace.
    switch: Option<OpenVswitch>,
    lab: Lab,
    a: Vm,
    b: Vm,
    plane: Option<OwnPlane>,
    generator: Generator,
}

/// Where the sender, and so the whole way of its packets, runs.
const PROCESSOR: usize = 1;

impl Bed {
    /// `plane`: which one of ours.
    pub(super) fn build(plane: PlaneArgs, name: &str, filter: Filter) -> anyhow::Result<Self> {
        let mut lab = Lab::new(name)?;
        let by_switch = plane.plane == PlaneName::Ovs;
        let at = match by_switch {
            true => Attach::Nothing,
            false => {
                lab.add_bridge("br0")?;
                Attach::Bridge("br0")
            }
        };
        let a = lab.add_vm("a", MAC_A, &[(IpAddr::V4(ADDRESS_A), 8)], at)?;
        let b = lab.add_vm("b", MAC_B, &[(IpAddr::V4(ADDRESS_B), 8)], at)?;
        // TIME_WAIT must not run the ports out.
        for vm in [&a, &b] {
            vm.namespace().sysctl("net/ipv4/tcp_tw_reuse", "1")?;
            vm.namespace()
                .sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        }
        // Netfilter on a bridge's packets is iptables' way, and costs whoever doesn't need it as well.
        let netfilter = matches!(filter, Filter::ByHand(_));
        for tool in ["iptables", "ip6tables", "arptables"] {
            let value = if netfilter { "1" } else { "0" };
            lab.host()
                .sysctl(&format!("net/bridge/bridge-nf-call-{tool}"), value)?;
        }
        let switch = match by_switch {
            true => Some(connect(&lab, &[&a, &b])?),
            false => None,
        };
        let generator = Generator::load()?;
        let ifindex = b.namespace().ifindex("eth0")?;
        b.run(|| generator.sink(ifindex))?;
        let mut bed = Self {
            filter,
            switch,
            lab,
            a,
            b,
            plane: None,
            generator,
        };
        match filter {
            Filter::Nothing => {}
            Filter::Ours(policy) => bed.plane = Some(bed.enforce(plane, name, policy, false)?),
            Filter::Direct(policy) => bed.plane = Some(bed.enforce(plane, name, policy, true)?),
            Filter::ByHand(rules) => bed.install_by_hand(plane.backend(), rules)?,
        }
        bed.check_probes()?;
        Ok(bed)
    }

    fn enforce(
        &self,
        plane: PlaneArgs,
        name: &str,
        policy: Policy,
        direct: bool,
    ) -> anyhow::Result<OwnPlane> {
        let inventory = inventory(policy, self.a.device(), self.b.device());
        let (view, _) = policy::compile(&inventory, &HostId::from(HOST));
        self.lab.host().run(|| {
            let target = own_plane::target(view, &own_plane::links()?);
            let mut plane = match &self.switch {
                Some(switch) => OwnPlane::ovs(switch.run_dir())?,
                None => OwnPlane::open(plane, name, direct)?,
            };
            plane.enforce(&target)?;
            Ok(plane)
        })
    }

    /// What a host with a Linux bridge has at the least: bridged packets by way of iptables, replies by
    /// conntrack, one rule after the other, and a drop.
    fn install_by_hand(&self, backend: Option<Backend>, rules: u32) -> anyhow::Result<()> {
        let host = self.lab.host();
        let mut script = String::from("*filter\n:FORWARD DROP [0:0]\n");
        script += "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
        for i in 0..rules.saturating_sub(2) {
            let other = Ipv4Addr::from(0xc633_6400 + i);
            script += &format!("-A FORWARD -s {other} -p udp --dport {L4_PORT} -j ACCEPT\n");
        }
        script += &format!("-A FORWARD -s {ADDRESS_A} -p udp -j ACCEPT\n");
        script +=
            &format!("-A FORWARD -s {ADDRESS_A} -p tcp --dport 1000:65535 -j ACCEPT\nCOMMIT\n");
        let program = match backend {
            None => "iptables-restore".to_owned(),
            Some(backend) => format!("iptables-{}-restore", backend.name()),
        };
        host.run(|| {
            let mut restore = Command::new(&program)
                .stdin(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {program}"))?;
            let mut stdin = restore.stdin.take().expect("stdin is a pipe");
            std::io::Write::write_all(&mut stdin, script.as_bytes())?;
            drop(stdin);
            match restore.wait()? {
                status if status.success() => Ok(()),
                status => bail!("{program}: {status}"),
            }
        })
    }

    /// A bed that doesn't filter as it should is not measured.
    fn check_probes(&self) -> anyhow::Result<()> {
        let (a, b) = (self.a.open_packets()?, self.b.open_packets()?);
        let (permitted, denied) = (vec![self.frame()], self.denied());
        let forth = [permitted.as_slice(), &denied].concat();
        let arrivals = probe(&a, &b, &forth, MAC_A)?;
        let back = match self.filter.policy() {
            Some(Policy::Tracked) => probe(&b, &a, &[unasked()], MAC_B)?,
            _ => Vec::new(),
        };
        if arrivals[0] != Arrival::Arrived {
            bail!(
                "{:?}: a packet that is permitted does not arrive",
                self.filter
            );
        }
        let passed = arrivals[1..].iter().chain(&back);
        if passed.into_iter().any(|a| *a == Arrival::Arrived) {
            bail!("{:?}: a packet that is not permitted arrives", self.filter);
        }
        Ok(())
    }

    /// What `a` sends that must not arrive: by the guard, or by the rules.
    fn denied(&self) -> Vec<Vec<u8>> {
        const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
        let udp = |from: Ipv4Addr, to: Ipv4Addr| {
            let packet = build::ip(from.into(), to.into()).udp(1, L4_PORT);
            packet.macs(MAC_A, MAC_B).bytes()
        };
        let Some(policy) = self.filter.policy() else {
            let ssh = build::ip(ADDRESS_A.into(), ADDRESS_B.into()).tcp(40_000, 23, 2);
            let ssh = ssh.macs(MAC_A, MAC_B).bytes();
            return match self.filter {
                Filter::ByHand(_) => vec![ssh],
                Filter::Nothing | Filter::Ours(_) | Filter::Direct(_) => Vec::new(),
            };
        };
        match policy {
            Policy::Tracked | Policy::Open => vec![udp(NOBODY, ADDRESS_B)],
            Policy::Prefixes(_) | Policy::Members(_) => {
                vec![udp(NOBODY, ADDRESS_B), udp(ADDRESS_A, ADDRESS_B)]
            }
            // What comes from outside has any source.
            Policy::Outside(_) => vec![udp(ADDRESS_A, NOBODY)],
        }
    }

    fn frame(&self) -> Vec<u8> {
        let from = self
            .filter
            .policy()
            .map_or(ADDRESS_A, |policy| source(policy, 0));
        // No UDP checksum, so that ports may change.
        let packet = build::ip(from.into(), ADDRESS_B.into())
            .udp(40_000, L4_PORT)
            .l4_checksum(0);
        packet.macs(MAC_A, MAC_B).bytes()
    }

    pub(super) fn measure(&self, traffic: Traffic, time: Duration) -> anyhow::Result<Measured> {
        let (client, server) = (self.a.namespace(), self.b.namespace());
        let at = SocketAddr::from((ADDRESS_B, 5000));
        let complete = |rate| Measured { rate, lost: 0 };
        match traffic {
            Traffic::TcpConnections => Ok(complete(tcp_connections(
                client, server, at, PROCESSOR, time,
            )?)),
            Traffic::TcpBulk => Ok(complete(tcp_bulk(client, server, at, time)?)),
            Traffic::OneFlow => self.send(Packets::OneFlow, time),
            Traffic::ManyFlows => self.send(Packets::ManyFlows, time),
            Traffic::NewFlows => self.send(Packets::NewFlows, time),
            Traffic::Sources(count) => {
                let policy = self.filter.policy().context("a way without sources")?;
                self.generator
                    .set_sources(|i| source(policy, i.wrapping_mul(2_654_435_761) % count))?;
                self.send(Packets::ManySources, time)
            }
        }
    }

    /// As from `a`, to where `b`'s device receives, all on one processor.
    fn send(&self, packets: Packets, time: Duration) -> anyhow::Result<Measured> {
        let ifindex = self.lab.host().ifindex(self.a.device())?;
        let frame = self.frame();
        self.announce_b()?;
        let busy = || self.switch.as_ref().map(busy::of_vswitchd).transpose();
        let (before, busy_before) = (self.arrived()?, busy()?);
        let sent = self.lab.host().run(|| {
            pin(PROCESSOR)?;
            self.generator.send(packets, ifindex, &frame, time)
        })?;
        let (count, busy_then) = (self.arrived()? - before, busy()?);
        if let (Some(before), Some(then)) = (busy_before, busy_then) {
            let seconds = (then - before).as_secs_f64();
            let rate = Rate { count, seconds };
            return Ok(Measured { rate, lost: 0 });
        }
        let lost = sent.count.saturating_sub(count);
        // A filter may have its reasons; without one the queues on the way are too short for us.
        if self.filter == Filter::Nothing && lost > sent.count / 1000 {
            bail!("{lost} of {} packets got lost without a filter", sent.count);
        }
        let rate = Rate { count, ..sent };
        Ok(Measured { rate, lost })
    }

    /// So that the bridge knows where `b` is, as it does of whoever talks.
    fn announce_b(&self) -> Result<(), LabError> {
        let announced = build::arp_request((MAC_B, ADDRESS_B), ADDRESS_B).bytes();
        self.b.open_packets()?.send(&announced)
    }

    /// That many packets, each of another flow.
    pub(super) fn open_flows(&mut self, count: u32) -> anyhow::Result<Flood> {
        self.forget_flows();
        let ifindex = self.lab.host().ifindex(self.a.device())?;
        let frame = self.frame();
        self.announce_b()?;
        let before = self.arrived()?;
        let generator = &self.generator;
        self.lab.host().run(|| {
            pin(PROCESSOR)?;
            generator.send_count(Packets::NewFlows, ifindex, &frame, count)
        })?;
        let arrived = self.arrived()? - before;
        let entries = self.flow_entries()?;
        let entries = entries.context("without a filter no flows are kept")?;
        self.forget_flows();
        Ok(Flood { arrived, entries })
    }

    fn arrived(&self) -> Result<u64, LabError> {
        self.b.run(|| received("eth0"))
    }

    /// What the hook at a VM's device takes for a packet, the program alone.
    pub(super) fn time_hook(
        &mut self,
        vm: &str,
        direction: Direction,
        frame: &[u8],
        repeat: u32,
    ) -> anyhow::Result<Duration> {
        let vm = if vm == "a" { &self.a } else { &self.b };
        let ifindex = self.lab.host().ifindex(vm.device())?;
        let host = self.lab.host().clone();
        let plane = self.own_plane()?.as_ebpf()?;
        Ok(host.run(|| plane.time_hook(ifindex, direction, frame, repeat))?)
    }

    pub(super) fn verdict(
        &mut self,
        vm: &str,
        direction: Direction,
        frame: &[u8],
    ) -> anyhow::Result<Verdict> {
        let plane = self.own_plane()?.as_ebpf()?;
        Ok(plane.judge(&vm.into(), direction, frame)?)
    }

    fn own_plane(&mut self) -> anyhow::Result<&mut OwnPlane> {
        let plane = self.plane.as_mut();
        plane.context("this bed has no plane of ours")
    }

    /// Flows that the filter keeps state of now.
    pub(super) fn flow_entries(&mut self) -> anyhow::Result<Option<u64>> {
        if self.filter == Filter::Nothing {
            return Ok(None);
        }
        if let Some(switch) = &self.switch {
            let count = switch.appctl("dpctl/ct-get-nconns")?;
            return Ok(Some(count.trim().parse().context("ct-get-nconns")?));
        }
        if let Some(OwnPlane::Ebpf(plane)) = &mut self.plane {
            return Ok(Some(plane.flows(None)?.len() as u64));
        }
        let count = self
            .lab
            .host()
            .run(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"))?;
        Ok(Some(count.trim().parse().context("nf_conntrack_count")?))
    }

    /// Forgets the kernel's flows, so that one round doesn't fill the table for the next.
    pub(super) fn forget_flows(&self) {
        if let Some(switch) = &self.switch {
            // Without a policy there was no tracker yet.
            drop(switch.appctl("dpctl/flush-conntrack"));
            return;
        }
        let by_kernel = match (self.filter, &self.plane) {
            (Filter::ByHand(_), _) | (_, Some(OwnPlane::Iptables(..))) => true,
            (_, Some(OwnPlane::Ebpf(_) | OwnPlane::Ovs(_)) | None) => false,
        };
        if by_kernel {
            self.lab.host().run(|| {
                let flush = Command::new("conntrack")
                    .arg("-F")
                    .stderr(Stdio::null())
                    .status();
                drop(flush);
            });
        }
    }
}

/// These VMs, to a bridge that passes on by itself.
fn connect(lab: &Lab, vms: &[&Vm]) -> anyhow::Result<OpenVswitch> {
    let switch = OpenVswitch::start(lab.host())?;
    switch.add_bridge("br0", false)?;
    for vm in vms {
        vm.offload(Offload::TxChecksum, false)?;
        switch.add_port("br0", vm.device(), &[])?;
    }
    Ok(switch)
}

/// From `b` to `a`, which [`Policy::Tracked`] permits nobody, and no flow explains.
pub(super) fn unasked() -> Vec<u8> {
    let packet = build::ip(ADDRESS_B.into(), ADDRESS_A.into()).udp(7, 7);
    packet.macs(MAC_B, MAC_A).bytes()
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Its devices are the host namespace's.
        let plane = self.plane.take();
        self.lab.host().run(|| drop(plane));
    }
}
