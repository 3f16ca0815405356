//! Sends the bench's packets, at next to no cost of its own: an XDP program makes each (traffic.bpf.c),
//! and the kernel takes it as if a device had just received it. What is measured is what the host does
//! with a packet from there on.
//!
//! Knows nothing of: who receives, what filters.

use anyhow::Context;
use conformance::lab::load::Rate;
use libbpf_rs::{
    MapCore, MapFlags, Object, ObjectBuilder, ProgramInput, TC_INGRESS, TcHookBuilder,
};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/traffic.bpf.o"));

/// The programs' names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packets {
    OneFlow,
    ManyFlows,
    NewFlows,
    ManySources,
}

/// Makes packets. Their numbers go on from one measurement to the next.
pub(super) struct Generator(Object);

/// Packets between two looks at the clock: some 50 ms. Before and after them the kernel waits for a
/// grace period, which takes 10.
const SLICE: u32 = 50_000;

impl Generator {
    pub(super) fn load() -> anyhow::Result<Self> {
        let open = ObjectBuilder::default().open_memory(OBJECT)?;
        let object = open.load().context("loading the bench's traffic")?;
        Ok(Self(object))
    }

    /// The addresses that [`Packets::ManySources`] come from: the `i`th packet's, and so on in turn.
    pub(super) fn set_sources(&self, source: impl Fn(u32) -> Ipv4Addr) -> anyhow::Result<()> {
        let map = self.map("sources");
        let count = map.max_entries();
        let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = (0..count).flat_map(|i| source(i).octets()).collect();
        map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
            .context("the table of sources")
    }

    /// UDP that a device of the calling thread's namespace receives ends there, for good.
    pub(super) fn sink(&self, ifindex: u32) -> anyhow::Result<()> {
        let ifindex = i32::try_from(ifindex).expect("the kernel counts in i32");
        let program = self.program("sink");
        TcHookBuilder::new(program.as_fd())
            .ifindex(ifindex)
            .hook(TC_INGRESS)
            .create()
            .and_then(|mut hook| hook.attach())
            .context("the end of the bench's traffic")?;
        Ok(())
    }

    /// Packets to the host from a device of the calling thread's namespace, for so long: as many, and in
    /// how much time of the processor. The kernel keeps the time: what it takes to begin and to end, or
    /// what others have the processor for, is not in it.
    pub(super) fn send(
        &self,
        packets: Packets,
        ifindex: u32,
        frame: &[u8],
        time: Duration,
    ) -> anyhow::Result<Rate> {
        let before = self.made()?;
        let started = Instant::now();
        let mut busy = Duration::ZERO;
        while started.elapsed() < time {
            busy += self.send_some(packets, ifindex, frame, SLICE)? * SLICE;
        }
        Ok(Rate {
            seconds: busy.as_secs_f64(),
            count: self.made()? - before,
        })
    }

    /// So many packets, however long they take.
    pub(super) fn send_count(
        &self,
        packets: Packets,
        ifindex: u32,
        frame: &[u8],
        count: u32,
    ) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let now = left.min(SLICE);
            self.send_some(packets, ifindex, frame, now)?;
            left -= now;
        }
        Ok(())
    }

    /// How long one of them takes.
    fn send_some(
        &self,
        packets: Packets,
        ifindex: u32,
        frame: &[u8],
        count: u32,
    ) -> anyhow::Result<Duration> {
        let name = match packets {
            Packets::OneFlow => "one_flow",
            Packets::ManyFlows => "many_flows",
            Packets::NewFlows => "new_flows",
            Packets::ManySources => "many_sources",
        };
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let length = u32::try_from(frame.len()).expect("a frame is short");
        let mut context = [0, length, 0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        let ran = self.program(name).test_run(ProgramInput {
            context_in: Some(&mut context),
            data_in: Some(frame),
            flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
            repeat: count,
            ..ProgramInput::default()
        });
        // A signal (Ctrl-C) fails it, too: the time until then is not known.
        let ran = ran.context("sending live frames (takes Linux 5.18)")?;
        Ok(ran.duration)
    }

    fn made(&self) -> anyhow::Result<u64> {
        let count = self
            .map("made")
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        let count = count.and_then(|bytes| bytes.try_into().ok());
        Ok(u64::from_ne_bytes(count.expect("the array has one number")))
    }

    fn program(&self, name: &str) -> libbpf_rs::ProgramMut<'_> {
        let found = self.0.progs_mut().find(|program| program.name() == name);
        found.expect("the embedded object has this program")
    }

    fn map(&self, name: &str) -> libbpf_rs::Map<'_> {
        let found = self.0.maps().find(|map| map.name() == name);
        found.expect("the embedded object has this map")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conformance::lab::{Attach, Lab};
    use model::MacAddr;
    use wire::build;

    const MAC_A: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xa]);
    const MAC_B: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xb]);
    const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn frame((source, from, to): (Ipv4Addr, u16, u16)) -> Vec<u8> {
        let receiver = Ipv4Addr::new(10, 0, 0, 2);
        let packet = build::ip(source.into(), receiver.into()).udp(from, to);
        packet.l4_checksum(0).macs(MAC_A, MAC_B).bytes()
    }

    /// What the packets of two runs are, by their number.
    fn check(packets: Packets, expected: fn(u32) -> (Ipv4Addr, u16, u16)) {
        let mut lab = Lab::new("traffic").expect("root");
        lab.add_bridge("br0").expect("a bridge");
        let [a, b] = [("a", MAC_A), ("b", MAC_B)].map(|(name, mac)| {
            lab.add_vm(name, mac, &[], Attach::Bridge("br0"))
                .expect("a VM")
        });
        let seen = b.open_packets().expect("a socket");
        let ifindex = lab.host().ifindex(a.device()).expect("its number");
        let generator = Generator::load().expect("loaded");
        generator.set_sources(source).expect("a table");
        for run in [0, 1] {
            let sent = (SENDER, 40_000, 9);
            lab.host()
                .run(|| generator.send_some(packets, ifindex, &frame(sent), 100))
                .expect("sent");
            for n in run * 100..(run + 1) * 100 {
                let arrived = seen.receive(Duration::from_secs(2)).expect("a socket");
                assert_eq!(arrived, Some(frame(expected(n))), "{packets:?} {n}");
            }
        }
        assert_eq!(seen.receive(Duration::ZERO).expect("a socket"), None);
    }

    fn source(n: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0a40_0000 + n * 0x101)
    }

    #[test]
    fn packets_of_one_flow_are_alike() {
        check(Packets::OneFlow, |_| (SENDER, 40_000, 9));
    }

    #[test]
    fn flows_take_turns() {
        check(Packets::ManyFlows, |n| (SENDER, n as u16 & 0xfff, 9));
    }

    #[test]
    fn new_flows_go_on_in_the_next_run() {
        check(Packets::NewFlows, |n| (SENDER, (n >> 16) as u16, n as u16));
    }

    #[test]
    fn a_source_comes_with_its_checksum() {
        check(Packets::ManySources, |n| (source(n), 40_000, 9));
    }
}
