//! `explain`: why does this packet pass, or not.

use super::InstanceArgs;
use crate::client::MaybeServerArgs;
use crate::failure::Failure;
use crate::output::{FormatArgs, colourful, print, text};
use crate::plane::{self, LivePlane, PlaneArgs};
use crate::policy_source::{InForce, InspectionArgs, asked, in_force};
use agent::Instance;
use clap::{ArgGroup, Args};
use dataplane::{FlowRecord, Outcome};
use model::{
    Capabilities, Direction, DropReason, FlowState, Inventory, MacAddr, PassReason, Port, PortId,
    RuleRef, Stage, Verdict,
};
use oracle::{Decision, Open, Oracle};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use wire::words::Words;

/// Say why a packet passes or is dropped, stage by stage
///
/// The answer comes twice: from the model of the policy, and from what is loaded, which is asked about the
/// very packet without counting or remembering it: the very programs of the eBPF plane; of the iptables
/// plane a copy of the kernel's rules, sets and tracked connections in a network namespace of its own; Open
/// vSwitch traces the packet through its own flows. It says so if they differ. Flows that are tracked now are taken into account in both.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("packet").required(true)))]
#[command(after_help = "\
Examples:
  portcullis explain --port web --ingress 'tcp 10.0.0.5:40000 -> 10.0.0.9:443'
  portcullis explain --port web --egress  'udp 10.0.0.9:5353 -> 10.0.0.1:53'
  portcullis explain --port web --ingress 'icmp 10.0.0.5 -> 10.0.0.9 echo-request id 7'
  portcullis explain --port web --ingress 'tcp [fd00::5]:40000 -> [fd00::9]:443 [ack]'
  portcullis explain --port web --egress  'arp reply 10.0.0.9 to 10.0.0.5'
  portcullis explain --port web --ingress '...' --policy new.yaml     a policy that isn't in force

Packets: tcp, udp, udplite, sctp, dccp, icmp, protocol N, arp, rarp, ns, na, rs, ra, mld, igmp, dhcp;
then `src-mac M`, `dst-mac M`, `frag ID@OFFSET[+]`, `ttl N`, `vlan N`, `len N` and more.

Exit codes: 0 answered (also if it is dropped), 1 model and data plane differ, 2 the packet or the
port makes no sense, 3 invalid policy, 4 nothing to ask.")]
pub(crate) struct ExplainArgs {
    /// The port
    #[arg(long)]
    port: String,

    /// A packet that the virtual machine would receive
    #[arg(long, value_name = "PACKET", group = "packet")]
    ingress: Option<String>,

    /// A packet that the virtual machine sends
    #[arg(long, value_name = "PACKET", group = "packet")]
    egress: Option<String>,

    /// Ask about this policy; the data plane is then not asked [default: what is in force]
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
    plane: PlaneArgs,

    #[command(flatten)]
    inspection: InspectionArgs,

    #[command(flatten)]
    format: FormatArgs,
}

struct Question {
    port: PortId,
    direction: Direction,
    frame: Vec<u8>,
}

/// Who is asked what the contract says, and what it has to know.
struct Model<'a> {
    policy: &'a InForce,
    can: Capabilities,
    question: &'a Question,
    /// Of the port.
    flows: &'a [FlowRecord],
}

struct Answer {
    decision: Decision,
    /// `None`: not asked, and why.
    live: Result<Outcome, String>,
    /// Tracked flows that the model was told of.
    flows: usize,
}

pub(crate) fn run(args: ExplainArgs) -> Result<(), Failure> {
    let instance = args.instance.instance()?;
    let server = args.server.client()?;
    let mut policy = asked(server.as_ref(), args.host.as_deref(), || {
        let (policy, host) = (args.policy.as_deref(), args.host.as_deref());
        in_force(&instance, policy, host, args.inspection)
    })?;
    // A cluster's port is judged at its own host.
    let bound = policy.inventory.ports.get(args.port.as_str());
    if let (Some(host), None, Some(_)) = (
        bound.and_then(|port| port.host.clone()),
        &args.host,
        &server,
    ) {
        policy.host = host;
    }
    let question = question(&args, &policy, server.is_some())?;

    let mut live: Result<Box<dyn LivePlane>, String> = match (&args.policy, &server) {
        (Some(_), _) => Err("not asked: the policy was given by --policy".to_owned()),
        (None, Some(_)) => Err("not asked: the policy is a server's".to_owned()),
        (None, None) => look(args.plane, &instance, &policy),
    };
    let flows = match &mut live {
        Ok(plane) => plane.flows(Some(&question.port))?,
        Err(_) => Vec::new(),
    };
    let model = Model {
        policy: &policy,
        can: live
            .as_ref()
            .map_or(Capabilities::ALL, |plane| plane.capabilities()),
        question: &question,
        flows: &flows,
    };
    let decision = model.ask(&policy.inventory);
    let live = match live {
        Ok(mut plane) => plane.dry_run(&question.port, question.direction, &question.frame)?,
        Err(why) => Err(why),
    };
    let differ = live
        .as_ref()
        .is_ok_and(|outcome| model.differs(&decision, outcome));
    let answer = Answer {
        decision,
        live,
        flows: flows.len(),
    };
    print(
        args.format.output,
        &value_of(&policy, &question, &answer, differ),
        table,
    );
    match differ {
        false => Ok(()),
        true => Err(Failure::No(
            "portcullis: the model and the data plane differ: somebody changed what is loaded, or one of them is wrong. If nobody did, please report this with the output of `portcullis explain -o json`."
                .to_owned(),
        )),
    }
}

/// Where nothing is enforced there is nobody to ask, and the model still answers.
fn look(
    args: PlaneArgs,
    instance: &Instance,
    policy: &InForce,
) -> Result<Box<dyn LivePlane>, String> {
    let opened = plane::look(args, instance).and_then(|mut plane| {
        plane.recognize(&policy::compile(&policy.inventory, &policy.host).0)?;
        Ok(plane)
    });
    opened.map_err(|failure| format!("not asked: {}", failure.text()))
}

/// `of_all`: of a cluster, whose ports are on many hosts.
fn question(args: &ExplainArgs, policy: &InForce, of_all: bool) -> Result<Question, Failure> {
    let (direction, words) = match (&args.ingress, &args.egress) {
        (Some(words), _) => (Direction::Ingress, words),
        (None, Some(words)) => (Direction::Egress, words),
        (None, None) => return Err(Failure::Usage("no packet to explain".to_owned())),
    };
    let words: Words = words
        .parse()
        .map_err(|e| Failure::Usage(format!("in the packet {words:?}: {e}")))?;
    let port = policy.inventory.ports.get(args.port.as_str());
    let port = port.filter(|p| p.host.as_ref() == Some(&policy.host));
    let port = port.ok_or_else(|| no_port(&args.port, policy, of_all && args.host.is_none()))?;
    let (src, dst) = macs(port, direction, &words, policy);
    Ok(Question {
        port: port.id.clone(),
        direction,
        frame: words.frame(src, dst),
    })
}

fn no_port(name: &str, policy: &InForce, of_all: bool) -> Failure {
    const SHOWN: usize = 10;
    let from = &policy.from;
    let ports = policy.inventory.ports.values();
    let ports = ports.filter(|p| of_all || p.host.as_ref() == Some(&policy.host));
    let known = Vec::from_iter(ports.map(|p| p.id.as_str()).take(SHOWN));
    let place = match of_all {
        true if policy.inventory.ports.contains_key(name) => {
            return Failure::Usage(format!("port {name} is on no host, says {from}"));
        }
        true => String::new(),
        false => format!(" on host {}", policy.host),
    };
    let known = match known.is_empty() {
        true => "it has none".to_owned(),
        false => format!("there are: {}", known.join(", ")),
    };
    Failure::Usage(format!("no port {name}{place} in {from}; {known}"))
}

/// The port's own MAC on its side. On the other side that of who has the address, else one that
/// stands for a router.
fn macs(port: &Port, direction: Direction, words: &Words, policy: &InForce) -> (MacAddr, MacAddr) {
    const ROUTER: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);
    let owner = |address: IpAddr| {
        let ports = policy.inventory.ports.values();
        let mut neighbours = ports.filter(|p| p.network == port.network);
        neighbours
            .find(|p| p.fixed_addresses.contains(&address))
            .map_or(ROUTER, |p| p.mac)
    };
    let ends = words.ends();
    match direction {
        Direction::Egress => (port.mac, ends.map_or(ROUTER, |(_, dst)| owner(dst))),
        Direction::Ingress => (ends.map_or(ROUTER, |(src, _)| owner(src)), port.mac),
    }
}

impl Model<'_> {
    fn ask(&self, inventory: &Inventory) -> Decision {
        // Any moment far enough from the beginning for flows to have been seen before it.
        let now = Duration::from_secs(10 * 365 * 86_400);
        let Question {
            port,
            direction,
            frame,
        } = self.question;
        let mut oracle = Oracle::new(self.policy.host.clone(), self.can);
        oracle.apply(inventory, now);
        for (place, flow) in (0..).zip(self.flows) {
            // What the kernel's tracker lists is there, however long ago it was seen.
            let idle = match self.can.own_flows() {
                true => flow.idle,
                false => Duration::ZERO,
            };
            let flow_there = oracle::Flow {
                original: flow.original,
                state: flow.state,
                // Which one doesn't matter, as long as no two share it.
                place: matches!(flow.state, FlowState::Opening).then_some(place),
                replied: flow.replied,
                // Decides only what becomes of the flow afterwards.
                fin: [false; 2],
                seen: now.saturating_sub(idle),
            };
            oracle.put_flow(port, flow.key, flow_there);
        }
        oracle.explain(port, *direction, frame, now)
    }

    /// Whether one of the two is wrong.
    fn differs(&self, decision: &Decision, outcome: &Outcome) -> bool {
        let (expected, seen) = (&decision.verdict, &outcome.verdict);
        match decision.open {
            Open::Either => return false,
            // It may be lost before anybody asks why.
            Open::MayDrop if matches!(seen, Verdict::Drop(_)) => return false,
            Open::MayDrop | Open::No => {}
        }
        if expected == seen {
            return false;
        }
        let lacks = self.can != Capabilities::ALL;
        match (named(expected), named(seen), seen) {
            (Some(_), Some(rule), _) if lacks => !self.permits_alone(rule),
            // Its budget is looked after once a second, and nothing that the model knows of.
            (Some(_), None, Verdict::Drop(DropReason::FlowBudget)) => self.can.own_flows(),
            _ => true,
        }
    }

    /// Of several rules that permit it, netfilter meets any first; and a flow that needs no tracking may be
    /// tracked. So its rule is right if there need be no other for the packet to pass.
    fn permits_alone(&self, rule: &RuleRef) -> bool {
        let mut inventory = self.policy.inventory.clone();
        for (id, group) in &mut inventory.groups {
            group
                .rules
                .retain(|name, _| *id == rule.group && *name == rule.rule);
        }
        matches!(self.ask(&inventory).verdict, Verdict::Pass(_))
    }
}

/// The rule that a packet passes by, its own or its flow's.
fn named(verdict: &Verdict) -> Option<&RuleRef> {
    match verdict {
        Verdict::Pass(PassReason::Rule(rule) | PassReason::Live(rule)) => Some(rule),
        Verdict::Pass(_) | Verdict::Drop(_) => None,
    }
}

fn value_of(policy: &InForce, question: &Question, answer: &Answer, differ: bool) -> Value {
    let hex: String = question.frame.iter().map(|b| format!("{b:02x}")).collect();
    let stages: Vec<Value> = answer
        .decision
        .trace
        .iter()
        .map(|(stage, said)| json!({ "stage": stage_name(*stage), "says": said }))
        .collect();
    json!({
        "port": question.port.as_str(),
        "direction": question.direction.to_string(),
        "packet": wire::words::describe(&question.frame),
        "frame": hex,
        "policy": policy.from,
        "host": policy.host.as_str(),
        "tracked_flows": answer.flows,
        "model": verdict_value(&answer.decision.verdict),
        "stages": stages,
        "open": answer.decision.open != Open::No,
        "plane": answer.live.as_ref().map_or(Value::Null, outcome_value),
        "plane_not_asked": answer.live.as_ref().err(),
        "differ": differ,
    })
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Hook => "hook",
        Stage::Parse => "parse",
        Stage::Guard => "guard",
        Stage::Conntrack => "conntrack",
        Stage::Identity => "identity",
        Stage::Policy => "policy",
        Stage::Verdict => "verdict",
    }
}

fn outcome_value(outcome: &Outcome) -> Value {
    let mut value = verdict_value(&outcome.verdict);
    value["flow_found"] = json!(outcome.flow_found);
    value["flow_live"] = json!(outcome.live);
    value["elidable"] = json!(outcome.elidable);
    value
}

fn verdict_value(verdict: &Verdict) -> Value {
    let (reason, rule, meaning) = match verdict {
        Verdict::Pass(reason) => match reason {
            PassReason::Rule(rule) => ("rule", Some(rule), "This rule permits it."),
            PassReason::Live(rule) => (
                "live",
                Some(rule),
                "It belongs to a flow whose first packet this rule permits.",
            ),
            PassReason::ElidedError => (
                "elided-error",
                None,
                "An ICMP error about a flow that needs no tracking.",
            ),
            PassReason::Fragment => (
                "fragment",
                None,
                "A later fragment of a datagram whose first fragment passed.",
            ),
            PassReason::Infrastructure => (
                "infrastructure",
                None,
                "What a network needs to work: ARP, neighbour discovery, DHCP, membership.",
            ),
            PassReason::Unguarded => ("unguarded", None, "The port has port security off."),
        },
        Verdict::Drop(reason) => (reason.name(), None, reason.meaning()),
    };
    json!({
        "verdict": match verdict { Verdict::Pass(_) => "pass", Verdict::Drop(_) => "drop" },
        "reason": reason,
        "rule": rule.map(ToString::to_string),
        "meaning": meaning,
    })
}

fn table(answer: &Value, _wide: bool) -> String {
    let mut out = format!(
        "{} at port {}: {}\n\n",
        text(answer, "direction"),
        text(answer, "port"),
        text(answer, "packet")
    );
    let stages = answer["stages"].as_array().into_iter().flatten();
    // The verdict has lines of its own.
    for stage in stages.filter(|stage| stage["stage"] != "verdict") {
        let name = text(stage, "stage");
        let _ = writeln!(out, "  {name:<10} {}", text(stage, "says"));
    }
    let _ = writeln!(out, "\nmodel       {}", verdict_line(&answer["model"]));
    match answer["plane_not_asked"].as_str() {
        None => {
            let _ = writeln!(out, "data plane  {}", verdict_line(&answer["plane"]));
        }
        Some(why) => {
            let _ = writeln!(out, "data plane  {why}");
        }
    }
    if answer["open"] == true {
        out.push_str("            the contract leaves this verdict open at this moment\n");
    }
    if answer["differ"] == true {
        out.push_str("            THEY DIFFER\n");
    }
    out
}

fn verdict_line(verdict: &Value) -> String {
    let colour = match (colourful(), verdict["verdict"] == "pass") {
        (false, _) => ("", ""),
        (true, true) => ("\x1b[32m", "\x1b[0m"),
        (true, false) => ("\x1b[31m", "\x1b[0m"),
    };
    let rule = verdict["rule"]
        .as_str()
        .map(|r| format!(" {r}"))
        .unwrap_or_default();
    format!(
        "{}{}{} ({}{rule}): {}",
        colour.0,
        text(verdict, "verdict"),
        colour.1,
        text(verdict, "reason"),
        text(verdict, "meaning")
    )
}
