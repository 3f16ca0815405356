//! `flows`: the connections that are tracked.

use super::InstanceArgs;
use crate::failure::Failure;
use crate::output::{Columns, FormatArgs, Tone, print, text};
use crate::plane::PlaneArgs;
use crate::policy_source::{InspectionArgs, look_named};
use clap::Args;
use dataplane::{FlowRecord, Standing};
use model::{Direction, FlowKey, FlowState, PortId};
use serde_json::{Value, json};

/// List tracked flows
///
/// Connections whose packets all pass by the rules alone need no tracking and are not in the list. A
/// listed flow may be dead: its replies pass only while a rule permits its first packet.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis flows              of all ports
  portcullis flows web          of one port
  portcullis flows web -o json | jq length

Exit codes: 0 shown, 4 nothing is enforced here, no such port, or no privilege.")]
pub(crate) struct FlowsArgs {
    /// Flows of this port only
    port: Option<String>,

    #[command(flatten)]
    instance: InstanceArgs,

    #[command(flatten)]
    plane: PlaneArgs,

    #[command(flatten)]
    inspection: InspectionArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: FlowsArgs) -> Result<(), Failure> {
    let instance = args.instance.instance()?;
    let mut plane = look_named(args.plane, &instance, args.inspection)?;
    let wanted = args.port.as_deref().map(PortId::new);
    if let Some(port) = &wanted
        && !plane.ports()?.contains(port)
    {
        return Err(Failure::System(format!(
            "port {port} is not enforced on this host; `portcullis status` lists those that are"
        )));
    }
    let mut flows = plane.flows(wanted.as_ref())?;
    flows.sort_by(|a, b| (&a.port, a.key).cmp(&(&b.port, b.key)));
    let flows = flows.iter().map(value_of).collect();
    print(args.format.output, &Value::Array(flows), table);
    Ok(())
}

fn value_of(flow: &FlowRecord) -> Value {
    json!({
        "port": flow.port.as_str(),
        "protocol": protocol(&flow.key),
        "local": end(flow.key.local, &flow.key, flow.key.local_l4),
        "remote": end(flow.key.remote, &flow.key, flow.key.remote_l4),
        "identifier": flow.key.icmp.map(|_| flow.key.local_l4),
        "started": match flow.original {
            Direction::Egress => "out",
            Direction::Ingress => "in",
        },
        "state": match flow.state {
            FlowState::Opening => "opening",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::Reset => "reset",
        },
        "replied": flow.replied,
        "idle_s": flow.idle.as_secs(),
        "rule": match &flow.standing {
            Standing::Rule(rule) => Some(rule.to_string()),
            Standing::Revoked | Standing::NotAsked => None,
        },
        "live": match &flow.standing {
            Standing::Rule(_) => Some(true),
            Standing::Revoked => Some(false),
            Standing::NotAsked => None,
        },
    })
}

fn protocol(key: &FlowKey) -> String {
    match (key.icmp, key.protocol) {
        (Some(request), _) => format!("icmp type {}", request.icmp_type),
        (None, 6) => "tcp".to_owned(),
        (None, 17) => "udp".to_owned(),
        (None, 33) => "dccp".to_owned(),
        (None, 132) => "sctp".to_owned(),
        (None, 136) => "udplite".to_owned(),
        (None, number) => format!("protocol {number}"),
    }
}

fn end(address: std::net::IpAddr, key: &FlowKey, l4: u16) -> String {
    let ported = model::PortedProtocol::from_number(key.protocol).is_some();
    match ported && key.icmp.is_none() {
        true => std::net::SocketAddr::new(address, l4).to_string(),
        false => address.to_string(),
    }
}

fn table(flows: &Value, wide: bool) -> String {
    let flows = flows.as_array().map_or(&[][..], Vec::as_slice);
    if flows.is_empty() {
        return "no tracked flows\n".to_owned();
    }
    let mut header = vec![
        "PORT", "PROTOCOL", "LOCAL", "", "REMOTE", "STATE", "IDLE", "RULE",
    ];
    if wide {
        header.push("REPLIED");
    }
    let mut columns = Columns::new(&header);
    for flow in flows {
        let arrow = match flow["started"] == "out" {
            true => "->",
            false => "<-",
        };
        let tone = match flow["state"] == "established" {
            true => Tone::Good,
            false => Tone::Doubtful,
        };
        let mut cells = vec![
            (text(flow, "port"), Tone::Plain),
            (text(flow, "protocol"), Tone::Plain),
            (text(flow, "local"), Tone::Plain),
            (arrow.to_owned(), Tone::Plain),
            (text(flow, "remote"), Tone::Plain),
            (text(flow, "state"), tone),
            (format!("{}s", flow["idle_s"]), Tone::Plain),
            match flow["live"].as_bool() {
                Some(true) => (text(flow, "rule"), Tone::Plain),
                Some(false) => ("(revoked)".to_owned(), Tone::Bad),
                // The policy has changed; the next packet asks again.
                None => ("(to be asked)".to_owned(), Tone::Doubtful),
            },
        ];
        if wide {
            cells.push((text(flow, "replied"), Tone::Plain));
        }
        columns.row(cells);
    }
    columns.text()
}
