//! Would the selftest notice? Each clause of the contract is broken, one at a time, in a judge that is
//! otherwise the oracle: by changing what it is told (packet, policy, time, capabilities) so that it
//! can't see what the clause is about, or what it answers. A fault that is not found means that the
//! generator doesn't get there.

mod faults {
    pub(crate) mod frame;
    pub(crate) mod policy;
}

use faults::{frame, policy};
use model::{
    Budgets, Capabilities, Direction, DropReason, Elision, Inventory, Narrowing, NdOptions,
    PassReason, Port, PortId, Settings, Timeouts, Verdict,
};
use oracle::Oracle;
use portcullis_conformance::{Answer, Judge, OracleJudge, generate, selftest};
use std::time::Duration;

/// How a judge can be wrong.
enum Fault {
    /// It sees another packet.
    Frame(fn(&mut Vec<u8>, Direction, Option<&Port>)),
    /// It has another policy: given the one before as it had it.
    Policy(fn(&mut Inventory, &Inventory)),
    Settings(fn(&mut Settings)),
    Timeouts(fn(&mut Timeouts)),
    Budgets(fn(&mut Budgets)),
    Time(fn(Duration) -> Duration),
    /// After a change of policy its state is another.
    State(fn(&mut Oracle, &Inventory)),
    Lacks(fn(&mut Capabilities)),
    Verdict(fn(Verdict) -> Verdict),
}

use Fault::{Frame, Lacks, Policy, State, Time};

/// Cases within which every fault has to show.
const CASES: u64 = 200_000;

#[test]
fn every_fault_in_the_guard_is_found() {
    check(&[
        ("tags are looked through", Frame(frame::strip_tag)),
        (
            "any ethertype is listed",
            Fault::Settings(|s| s.ethertypes.extend([0x9000, 0x0600])),
        ),
        (
            "the source MAC is not checked",
            Frame(frame::own_source_mac),
        ),
        (
            "ARP's sender address is not checked",
            Frame(frame::own_arp_address),
        ),
        (
            "ARP's sender MAC is not checked",
            Frame(frame::honest_arp_mac),
        ),
        ("ARP's opcode is not checked", Frame(frame::arp_request)),
        ("ARP's header is not checked", Frame(frame::arp_header)),
        ("RARP does not pass", Frame(frame::no_rarp)),
        ("ND's hop limit is not checked", Frame(frame::nd_hops)),
        ("ND's code is not checked", Frame(frame::nd_code)),
        (
            "ND's link-layer options are not checked",
            Frame(frame::nd_option),
        ),
        ("ND's target is not checked", Frame(frame::nd_target)),
        (
            "anybody may be a router",
            Policy(|i, _| policy::ports(i, |p| p.router = true)),
        ),
        (
            "nobody may be a router",
            Policy(|i, _| policy::ports(i, |p| p.router = false)),
        ),
        ("MLD queries are reports", Frame(frame::mld_query)),
        ("MLD's hop limit is not checked", Frame(frame::mld_hops)),
        ("IGMP queries are reports", Frame(frame::igmp_query)),
        ("IGMP's TTL is not checked", Frame(frame::igmp_ttl)),
        (
            "anybody may serve DHCP",
            Policy(|i, _| policy::ports(i, |p| p.dhcp_server = true)),
        ),
        (
            "nobody may serve DHCP",
            Policy(|i, _| policy::ports(i, |p| p.dhcp_server = false)),
        ),
        (
            "listed DHCP servers don't count",
            Policy(|i, _| policy::networks(i, |n| n.dhcp_servers.clear())),
        ),
        (
            "link-local beyond EUI-64 always",
            Policy(|i, _| policy::networks(i, |n| n.eui64_only = false)),
        ),
        (
            "routers' addresses are not reserved",
            Policy(|i, _| policy::networks(i, |n| n.routers.clear())),
        ),
        (
            "subnets have no broadcast address",
            Policy(|i, _| policy::networks(i, policy::no_broadcast)),
        ),
        (
            "pairs have no MAC of their own",
            Policy(|i, _| policy::ports(i, policy::no_pair_macs)),
        ),
        (
            "every address is the port's",
            Policy(|i, _| policy::ports(i, policy::own_the_world)),
        ),
        (
            "loopback sources are not martian",
            Frame(frame::no_loopback),
        ),
        ("source routes are not seen", Frame(frame::no_source_route)),
        ("segments left are not seen", Frame(frame::no_segments)),
        ("IP lengths are not believed", Frame(frame::whole_length)),
        (
            "an atomic fragment is a fragment",
            Frame(frame::atomic_is_first),
        ),
        (
            "unspecified sources are not martian",
            Frame(frame::no_unspecified),
        ),
        (
            "multicast sources are not martian",
            Frame(frame::no_multicast_source),
        ),
        ("DHCP may go anywhere", Frame(frame::dhcp_anywhere)),
        ("MLD may speak of any group", Frame(frame::mld_group)),
        (
            "hop-by-hop may stand anywhere",
            Frame(frame::late_hop_by_hop),
        ),
        ("datagrams have no end", Frame(frame::endless_datagram)),
        (
            "only EUI-64 is link-local",
            Policy(|i, _| policy::networks(i, |n| n.eui64_only = true)),
        ),
        (
            "ports elsewhere reserve nothing",
            Policy(|i, _| policy::others_change_mac(i)),
        ),
    ]);
}

#[test]
fn every_fault_in_conntrack_is_found() {
    check(&[
        (
            "RST means nothing",
            Frame(|f, _, _| frame::clear_flags(f, frame::RST)),
        ),
        (
            "FIN means nothing",
            Frame(|f, _, _| frame::clear_flags(f, frame::FIN)),
        ),
        ("SYN starts nothing", Frame(frame::no_syn)),
        ("SYN with ACK is ACK", Frame(frame::no_syn_ack)),
        (
            "a request's code does not count",
            Frame(frame::request_code),
        ),
        ("a change of policy loses state", State(policy::lose_state)),
        (
            "half-open flows have one place less",
            Fault::Budgets(|b| b.half_open_per_port = (b.half_open_per_port - 1).max(1)),
        ),
        (
            "nothing is picked up in mid-stream",
            Frame(frame::no_mid_stream),
        ),
        (
            "a SYN against the direction is any reply",
            Frame(frame::syn_is_ack),
        ),
        ("ICMP identifiers don't count", Frame(frame::no_identifier)),
        ("a reply's code doesn't count", Frame(frame::reply_code)),
        (
            "timestamp replies are no replies",
            Frame(frame::no_timestamp),
        ),
        ("redirects are errors", Frame(frame::redirect_is_error)),
        ("source quench is an error", Frame(frame::quench_is_error)),
        (
            "errors are believed whomever they quote",
            Frame(frame::quote_anybody),
        ),
        (
            "a quoted later fragment counts",
            Frame(frame::quote_fragment),
        ),
        ("quotes of any length count", Frame(frame::quote_short)),
        ("multicast frames start flows", Frame(frame::unicast_mac)),
        ("later fragments don't overlap", Frame(frame::far_fragment)),
        (
            "datagrams have no identification",
            Frame(frame::one_datagram),
        ),
        ("orphans pass", Fault::Verdict(orphans_pass)),
        (
            "errors about untracked flows never pass",
            Fault::Verdict(no_elided_errors),
        ),
        ("tcp opening", Fault::Timeouts(|t| t.tcp_opening_s *= 2)),
        (
            "tcp established",
            Fault::Timeouts(|t| t.tcp_established_s /= 2),
        ),
        ("tcp closing", Fault::Timeouts(|t| t.tcp_closing_s /= 3)),
        ("tcp reset", Fault::Timeouts(|t| t.tcp_reset_s *= 7)),
        ("udp", Fault::Timeouts(|t| t.udp_s *= 3)),
        ("udp, both seen", Fault::Timeouts(|t| t.udp_replied_s /= 3)),
        ("icmp", Fault::Timeouts(|t| t.icmp_s *= 4)),
        ("other", Fault::Timeouts(|t| t.other_s /= 3)),
        ("time stands still", Time(|_| Duration::ZERO)),
        ("time flies", Time(|by| by * 2)),
        (
            "the port's budget",
            Fault::Budgets(|b| b.flows_per_port = 1_000),
        ),
        (
            "the port's budget is one less",
            Fault::Budgets(|b| b.flows_per_port = b.flows_per_port.saturating_sub(1)),
        ),
        (
            "half-open flows",
            Fault::Budgets(|b| b.half_open_per_port = 1_000),
        ),
        (
            "the host's cap",
            Fault::Budgets(|b| b.flows_per_host = 1_000_000),
        ),
        ("the reserve", Fault::Budgets(|b| b.reserve_per_port = 0)),
        (
            "the error rate",
            Fault::Budgets(|b| b.elided_errors_per_s = 1_000),
        ),
        (
            "the error rate is one more",
            Fault::Budgets(|b| b.elided_errors_per_s += 1),
        ),
    ]);
}

#[test]
fn every_fault_in_policy_is_found() {
    check(&[
        (
            "ranges end one later",
            Policy(|i, _| policy::rules(i, policy::end_later)),
        ),
        (
            "ranges begin one later",
            Policy(|i, _| policy::rules(i, policy::begin_later)),
        ),
        ("source ports are matched", Frame(frame::swap_ports)),
        (
            "prefixes are one bit wider",
            Policy(|i, _| policy::rules(i, policy::widen)),
        ),
        (
            "ICMP codes are not matched",
            Policy(|i, _| policy::rules(i, policy::any_code)),
        ),
        (
            "the first prefix of an address group",
            Policy(|i, _| policy::lose_prefix(i)),
        ),
        (
            "a prefix of the other family is anybody",
            Policy(|i, _| policy::rules(i, policy::wrong_family_is_any)),
        ),
        (
            "a rule for an extension header is for anything",
            Policy(|i, _| policy::rules(i, policy::extension_is_any)),
        ),
        (
            "a missing group is anybody",
            Policy(|i, _| policy::missing_is_any(i)),
        ),
        (
            "an empty group is anybody",
            Policy(|i, _| policy::empty_is_any(i)),
        ),
        (
            "short pairs are members",
            Policy(|i, _| policy::ports(i, policy::short_pairs_enter)),
        ),
        (
            "pairs are no members",
            Policy(|i, _| policy::ports(i, policy::pairs_stay_out)),
        ),
        (
            "all networks are one scope",
            Policy(|i, _| policy::networks(i, |n| n.scope = "s".into())),
        ),
        (
            "every group is stateful",
            Policy(|i, _| policy::groups(i, |g| g.stateful = true)),
        ),
        (
            "every group is stateless",
            Policy(|i, _| policy::groups(i, |g| g.stateful = false)),
        ),
        (
            "port security is always on",
            Policy(|i, _| policy::ports(i, |p| p.port_security = true)),
        ),
        ("a removed rule stays", Policy(policy::rules_stay)),
        ("a member that leaves stays", Policy(policy::members_stay)),
        (
            "nothing is elided",
            Fault::Settings(|s| s.elision = Elision::Off),
        ),
        ("strict is on", Fault::Settings(strict_is_on)),
        ("on is strict", Fault::Settings(on_is_strict)),
        (
            "narrowing keeps",
            Fault::Settings(|s| s.narrowing = Narrowing::Keep),
        ),
        (
            "narrowing cuts",
            Fault::Settings(|s| s.narrowing = Narrowing::Cut),
        ),
        ("no quotes", Lacks(|c| c.quote_match = false)),
        ("joint start", Lacks(|c| c.per_end_start = false)),
        ("no ports of UDP-Lite", Lacks(|c| c.udplite_ports = false)),
        ("no ports of DCCP", Lacks(|c| c.dccp_ports = false)),
        ("IGMP is IGMP", Lacks(|c| c.igmp_types = false)),
        (
            "what a MAC derives is taken",
            Lacks(|c| c.link_local_list = false),
        ),
        (
            "neighbour discovery has fields alone",
            Lacks(|c| c.nd_options = NdOptions::Fields),
        ),
        ("live is not told from a rule", Fault::Verdict(live_as_rule)),
    ]);
}

#[test]
fn a_judge_without_fault_has_no_mismatch() {
    assert_eq!(mismatches(&Fault::Verdict(|v| v)), 0);
}

#[test]
fn a_mismatch_is_told_whole_and_small() {
    let fault = Frame(|f, _, _| frame::clear_flags(f, frame::RST));
    let mut judge = Faulty::new(&fault);
    let report = selftest::run(&mut judge, Capabilities::ALL, CASES, 1, selftest::on);
    let counted: u64 = report.kinds.values().sum();
    assert_eq!((report.mismatches, report.mismatches > 0), (counted, true));
    for failure in &report.failures {
        let text = failure.to_string();
        // A policy, what opens a flow, its RST, time or a packet, and what else it may take.
        assert!(failure.trace.events.len() <= 12, "{text}");
        for part in [
            "seed 0x",
            "policy 1.",
            "    oracle: ",
            "    faulty: ",
            "  oracle: Verdict",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}

fn check(faults: &[(&str, Fault)]) {
    let unnoticed = faults.iter().filter(|(_, fault)| mismatches(fault) == 0);
    let unnoticed: Vec<&str> = unnoticed.map(|(name, _)| *name).collect();
    assert_eq!(unnoticed, [""; 0], "not noticed in {CASES} cases");
}

/// In pieces, as one mismatch is enough.
fn mismatches(fault: &Fault) -> u64 {
    let mut judge = Faulty::new(fault);
    let mut done = 0;
    for seed in 0.. {
        let report = selftest::count(&mut judge, Capabilities::ALL, CASES / 20, seed);
        done += report.cases;
        if report.mismatches > 0 || done >= CASES {
            return report.mismatches;
        }
    }
    unreachable!("the numbers of seeds don't end")
}

struct Faulty<'a> {
    fault: &'a Fault,
    inner: OracleJudge,
    /// As it has it.
    inventory: Inventory,
}

impl<'a> Faulty<'a> {
    fn new(fault: &'a Fault) -> Self {
        let mut capabilities = Capabilities::ALL;
        if let Lacks(change) = fault {
            change(&mut capabilities);
        }
        Self {
            fault,
            inner: OracleJudge::new(generate::host(), capabilities),
            inventory: Inventory::default(),
        }
    }
}

impl Judge for Faulty<'_> {
    fn name(&self) -> &str {
        "faulty"
    }

    fn reset(&mut self) {
        self.inner.reset();
        self.inventory = Inventory::default();
    }

    fn apply(&mut self, inventory: &Inventory) {
        let mut inventory = inventory.clone();
        match self.fault {
            Policy(change) => change(&mut inventory, &self.inventory),
            Fault::Settings(change) => policy::settings(&mut inventory, change),
            Fault::Timeouts(change) => {
                policy::settings(&mut inventory, |s| change(&mut s.timeouts));
            }
            Fault::Budgets(change) => {
                policy::settings(&mut inventory, |s| change(&mut s.budgets));
            }
            Frame(_) | State(_) | Time(_) | Lacks(_) | Fault::Verdict(_) => {}
        }
        self.inventory = inventory;
        self.inner.apply(&self.inventory);
        if let State(change) = self.fault {
            change(self.inner.oracle(), &self.inventory);
        }
    }

    fn advance(&mut self, by: Duration) {
        let mut by = by;
        if let Time(change) = self.fault {
            by = change(by);
        }
        self.inner.advance(by);
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        let mut frame = frame.to_vec();
        if let Frame(change) = self.fault {
            change(&mut frame, direction, self.inventory.ports.get(port));
        }
        let mut answer = self.inner.judge(port, direction, &frame);
        if let Fault::Verdict(change) = self.fault {
            answer.verdict = change(answer.verdict);
        }
        answer
    }
}

fn orphans_pass(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Drop(DropReason::OrphanFragment) => Verdict::Pass(PassReason::Fragment),
        other => other,
    }
}

fn no_elided_errors(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Pass(PassReason::ElidedError) => Verdict::Drop(DropReason::NoRule),
        other => other,
    }
}

fn live_as_rule(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Pass(PassReason::Live(rule)) => Verdict::Pass(PassReason::Rule(rule)),
        other => other,
    }
}

fn strict_is_on(settings: &mut Settings) {
    if settings.elision == Elision::Strict {
        settings.elision = Elision::On;
    }
}

fn on_is_strict(settings: &mut Settings) {
    if settings.elision == Elision::On {
        settings.elision = Elision::Strict;
    }
}
