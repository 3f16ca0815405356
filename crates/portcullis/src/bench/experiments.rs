//! Which ways of filtering are measured under which traffic: one list for each plane.

use super::bed::{Filter, Traffic};
use super::policies::Policy;

/// A way of filtering, and what the tables call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) filter: Filter,
}

const fn way(name: &'static str, filter: Filter) -> Way {
    Way { name, filter }
}

pub(super) const NO_FILTER: Way = way("no filter", Filter::Nothing);
pub(super) const TRACKED: Way = way("tracked", Filter::Ours(Policy::Tracked));
const UNTRACKED: Way = way("untracked", Filter::Ours(Policy::Open));
const TRACKED_DIRECT: Way = way("tracked, direct", Filter::Direct(Policy::Tracked));
const UNTRACKED_DIRECT: Way = way("untracked, direct", Filter::Direct(Policy::Open));
pub(super) const BY_HAND: Way = way("iptables, conntrack, 10 rules", Filter::ByHand(10));
const PREFIXES_10: Way = way("10 prefix rules", Filter::Ours(Policy::Prefixes(10)));
const PREFIXES_1K: Way = way("1,000 prefix rules", Filter::Ours(Policy::Prefixes(1_000)));
const PREFIXES_10K: Way = way(
    "10,000 prefix rules",
    Filter::Ours(Policy::Prefixes(10_000)),
);
const PREFIXES_100K: Way = way(
    "100,000 prefix rules",
    Filter::Ours(Policy::Prefixes(100_000)),
);
const MEMBERS_10: Way = way("group of 10", Filter::Ours(Policy::Members(10)));
const MEMBERS_10K: Way = way("group of 10,000", Filter::Ours(Policy::Members(10_000)));

/// One table: ways of filtering under one kind of traffic, compared with the first of them.
pub(super) struct Experiment {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) traffic: Vec<(Way, Traffic)>,
}

pub(super) fn of_ebpf() -> Vec<Experiment> {
    let everywhere = [
        NO_FILTER,
        TRACKED,
        UNTRACKED,
        TRACKED_DIRECT,
        UNTRACKED_DIRECT,
        BY_HAND,
    ];
    let largest = (PREFIXES_100K, Traffic::Sources(100_000));
    all(&everywhere, largest)
}

pub(super) fn of_iptables() -> Vec<Experiment> {
    let everywhere = [NO_FILTER, TRACKED, UNTRACKED, BY_HAND];
    let largest = (PREFIXES_10K, Traffic::Sources(10_000));
    all(&everywhere, largest)
}

/// Of TCP only connections: bulk would tell of the copies between this datapath and the devices.
pub(super) fn of_ovs() -> Vec<Experiment> {
    let everywhere = [NO_FILTER, PREFIXES_10, PREFIXES_1K, TRACKED, UNTRACKED];
    let largest = (PREFIXES_1K, Traffic::Sources(1_000));
    let mut all = all(&everywhere, largest);
    all.retain(|experiment| experiment.name != "TCP bulk");
    for experiment in &mut all {
        let ways = &mut experiment.traffic;
        // The policies with prefixes permit one port of UDP.
        ways.retain(|(way, traffic)| match traffic {
            Traffic::TcpConnections | Traffic::TcpBulk | Traffic::NewFlows => {
                ![PREFIXES_10, PREFIXES_1K].contains(way)
            }
            Traffic::OneFlow | Traffic::ManyFlows | Traffic::Sources(_) => true,
        });
        // The larger one of them is the largest here.
        ways.dedup();
    }
    all
}

/// `largest`: of the policies with prefixes, with traffic from all of them.
fn all(everywhere: &[Way], largest: (Way, Traffic)) -> Vec<Experiment> {
    let same = |ways: &[Way], traffic| ways.iter().map(|way| (*way, traffic)).collect();
    let experiment = |name, unit, traffic| Experiment {
        name,
        unit,
        traffic,
    };
    vec![
        experiment(
            "UDP, 1 flow",
            "packets/s",
            same(everywhere, Traffic::OneFlow),
        ),
        experiment(
            "UDP, 4,096 flows",
            "packets/s",
            same(everywhere, Traffic::ManyFlows),
        ),
        experiment(
            "UDP, every packet a new flow",
            "packets/s",
            same(everywhere, Traffic::NewFlows),
        ),
        experiment(
            "TCP connect, request, close",
            "per s",
            same(everywhere, Traffic::TcpConnections),
        ),
        experiment("TCP bulk", "bytes/s", same(everywhere, Traffic::TcpBulk)),
        experiment(
            "rules, one hit",
            "packets/s",
            same(&[PREFIXES_10, PREFIXES_1K, largest.0], Traffic::OneFlow),
        ),
        experiment(
            "rules, hits uniform over all",
            "packets/s",
            vec![
                (PREFIXES_10, Traffic::Sources(10)),
                (PREFIXES_1K, Traffic::Sources(1_000)),
                largest,
            ],
        ),
        experiment(
            "members, one hit",
            "packets/s",
            same(&[MEMBERS_10, MEMBERS_10K], Traffic::OneFlow),
        ),
        experiment(
            "members, hits uniform over all",
            "packets/s",
            vec![
                (MEMBERS_10, Traffic::Sources(10)),
                (MEMBERS_10K, Traffic::Sources(10_000)),
            ],
        ),
    ]
}
