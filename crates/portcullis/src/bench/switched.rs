//! A host with many VMs on one bridge of Open vSwitch, each in a group of its own with ten rules, and with two more
//! that talk: what a change costs, and when its first packet comes.
//!
//! The many have devices, though nobody is behind them.

use super::own_plane::{self, OwnPlane};
use super::policies::{ADDRESS_A, ADDRESS_B, HOST, MAC_A, MAC_B, group, member, port, rule, udp};
use super::{BenchArgs, busy, crowd};
use agent::Link;
use anyhow::{Context, ensure};
use conformance::lab::{Attach, Lab, LabError, Offload, OpenVswitch, PacketSocket, Vm};
use dataplane::{ApplyReport, Target};
use model::{Direction, HostId, Inventory, L4Match, Peer, PortId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::build;

pub(super) struct Switched {
    pub(super) size: u32,
    // Before the lab: its daemons are in the lab's namespace.
    switch: OpenVswitch,
    lab: Lab,
    a: Vm,
    b: Vm,
    links: BTreeMap<u32, Link>,
    plane: Option<OwnPlane>,
    /// No flow is sent twice.
    next_source: u16,
}

/// What a change took.
#[derive(Clone, Debug)]
pub(super) struct Took {
    /// From the call to the return.
    pub(super) time: Duration,
    /// Until the switch had answered that it has all of it.
    pub(super) barrier: Duration,
    pub(super) flows: u64,
    /// From the call to the first packet that it permits.
    pub(super) first_packet: Option<Duration>,
}

/// What the processors were busy with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    pub(super) plane: Duration,
    pub(super) vswitchd: Duration,
    pub(super) database: Duration,
}

/// `b` may be asked here, once a rule says so, or by members of a group.
pub(super) const BY_RULE: u16 = 9;
pub(super) const SMALL: (&str, u16) = ("small", 10);
pub(super) const LARGE: (&str, u16) = ("large", 11);
/// With the two that talk, and one to come.
const MOST: u32 = dataplane_ovs::MOST_RECEIVERS as u32 - 3;
/// Between two packets of whom is waited for.
const PACE: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(20);

/// The sizes of hosts, once each; one segment has room for so many.
pub(super) fn sizes(args: &BenchArgs) -> BTreeSet<u32> {
    args.vms.iter().map(|size| (*size).min(MOST)).collect()
}

impl Switched {
    /// With devices for so many VMs, and for one more to come.
    pub(super) fn build(size: u32) -> anyhow::Result<Self> {
        let mut lab = Lab::new(&format!("switched{size}"))?;
        let a = lab.add_vm("a", MAC_A, &[(ADDRESS_A.into(), 8)], Attach::Nothing)?;
        let b = lab.add_vm("b", MAC_B, &[(ADDRESS_B.into(), 8)], Attach::Nothing)?;
        let switch = OpenVswitch::start(lab.host())?;
        switch.add_bridge("br0", false)?;
        for vm in [&a, &b] {
            vm.offload(Offload::TxChecksum, false)?;
            switch.add_port("br0", vm.device(), &[])?;
        }
        let devices: Vec<String> = (0..=size).map(crowd::device).collect();
        let taps = devices
            .iter()
            .map(|device| format!("tuntap add {device} mode tap\nlink set {device} up\n"));
        lab.host().ip(&taps.collect::<String>())?;
        // One order of all of them would be too long for a command.
        for some in devices.chunks(100) {
            let orders = some.iter().map(|device| format!("add-port br0 {device}"));
            switch.vsctl(&orders.collect::<Vec<_>>().join(" -- "))?;
        }
        let (links, plane) = lab.host().run(|| -> anyhow::Result<_> {
            Ok((own_plane::links()?, OwnPlane::ovs(switch.run_dir())?))
        })?;
        Ok(Self {
            size,
            switch,
            lab,
            a,
            b,
            links,
            plane: Some(plane),
            next_source: 20_000,
        })
    }

    /// The policy that all changes begin with.
    pub(super) fn inventory(&self) -> Inventory {
        let mut inventory = crowd::inventory(self.size);
        let egress = rule("out", Direction::Egress, L4Match::Any, Peer::Any);
        let from = |(id, l4_port): (&str, u16)| {
            let peer = Peer::Group(id.into());
            rule(id, Direction::Ingress, udp(l4_port), peer)
        };
        let groups = [
            ("a", vec![egress]),
            ("b", vec![from(SMALL), from(LARGE)]),
            (SMALL.0, vec![]),
            (LARGE.0, vec![]),
        ];
        for (id, rules) in groups {
            inventory.groups.insert(id.into(), group(id, rules));
        }
        let talkers = [
            port("a", self.a.device(), MAC_A, &[ADDRESS_A]),
            port("b", self.b.device(), MAC_B, &[ADDRESS_B]),
        ];
        inventory.ports.extend(talkers.map(|p| (p.id.clone(), p)));
        for i in 0..10_000 {
            let (id, mut port) = member(i, Ipv4Addr::from(0x0a40_0000 + i));
            let of = if i < 10 {
                vec![SMALL, LARGE]
            } else {
                vec![LARGE]
            };
            port.groups = of.into_iter().map(|(id, _)| id.into()).collect();
            inventory.ports.insert(id, port);
        }
        inventory
    }

    /// As an agent would put it; the device of a VM is there when the VM is.
    pub(super) fn target(&self, inventory: &Inventory) -> Target {
        let (view, _) = policy::compile(inventory, &HostId::from(HOST));
        let mut links = self.links.clone();
        links.retain(|_, link| match link.name.strip_prefix(crowd::DEVICE) {
            Some(_) => view.ports.contains_key(&PortId::new(&*link.name)),
            None => true,
        });
        own_plane::target(view, &links)
    }

    /// `opens`: the port of `b` that is asked from the call on, until the first packet comes.
    pub(super) fn apply(&mut self, target: &Target, opens: Option<u16>) -> anyhow::Result<Took> {
        let Some(l4_port) = opens else {
            return Ok(self.apply_now(target)?.0);
        };
        self.next_source += 1;
        let from = (ADDRESS_A.into(), ADDRESS_B.into());
        let frame = build::ip(from.0, from.1).udp(self.next_source, l4_port);
        let frame = frame.macs(MAC_A, MAC_B).bytes();
        let (sender, receiver) = (self.a.open_packets()?, self.b.open_packets()?);
        let came = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| send_until(&sender, &frame, &came));
            let seen = scope.spawn(|| {
                let seen = receiver.wait_for(PATIENCE, |seen| seen == frame);
                let at = Instant::now();
                came.store(true, Ordering::Relaxed);
                seen.map(|seen| seen.map(|_| at))
            });
            let applied = self.apply_now(target);
            let seen = seen
                .join()
                .expect("the receiver has nothing to panic about");
            let (mut took, began) = applied?;
            let seen = seen?.context("no packet comes under the new policy")?;
            took.first_packet = Some(seen - began);
            Ok(took)
        })
    }

    fn apply_now(&mut self, target: &Target) -> anyhow::Result<(Took, Instant)> {
        self.run(|plane| {
            let began = Instant::now();
            let ApplyReport { writes, .. } = plane.enforce(target)?;
            let took = Took {
                time: began.elapsed(),
                barrier: plane.as_ovs()?.answered_after(),
                flows: writes,
                first_packet: None,
            };
            Ok((took, began))
        })
    }

    /// As another process would find what is there.
    pub(super) fn reopen(&mut self) -> anyhow::Result<()> {
        let run_dir = self.switch.run_dir().to_owned();
        self.run(|plane| {
            *plane.as_ovs()? = own_plane::open_ovs(&run_dir)?;
            Ok(())
        })
    }

    /// All of it is in the switch, and nothing else of ours.
    pub(super) fn verify(&mut self) -> anyhow::Result<()> {
        self.run(|plane| {
            let told = plane.as_ovs()?.verify()?;
            ensure!(told.is_empty(), "{}", told.join("; "));
            Ok(())
        })
    }

    /// Nothing is found.
    pub(super) fn audit(&mut self) -> anyhow::Result<Busy> {
        let before = self.busy_elsewhere()?;
        let plane = self.run(|plane| {
            let before = busy::of_this_thread();
            let drift = plane.plane().audit()?;
            ensure!(drift.is_empty(), "nobody changed anything: {drift:?}");
            Ok(busy::of_this_thread() - before)
        })?;
        let then = self.busy_elsewhere()?;
        Ok(Busy {
            plane,
            vswitchd: then.vswitchd - before.vswitchd,
            database: then.database - before.database,
        })
    }

    pub(super) fn busy_elsewhere(&self) -> anyhow::Result<Busy> {
        Ok(Busy {
            plane: Duration::ZERO,
            vswitchd: busy::of_vswitchd(&self.switch)?,
            database: busy::of_database(&self.switch)?,
        })
    }

    /// In the host's namespace.
    pub(super) fn run<T: Send>(
        &mut self,
        work: impl FnOnce(&mut OwnPlane) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let plane = self.plane.as_mut().expect("it is taken when all is over");
        self.lab.host().run(|| work(plane))
    }
}

fn send_until(sender: &PacketSocket, frame: &[u8], came: &AtomicBool) -> Result<(), LabError> {
    while !came.load(Ordering::Relaxed) {
        sender.send(frame)?;
        std::thread::sleep(PACE);
    }
    Ok(())
}

impl Drop for Switched {
    fn drop(&mut self) {
        let plane = self.plane.take();
        self.lab.host().run(|| drop(plane));
    }
}
