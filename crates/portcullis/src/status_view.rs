//! The answer of `status`: made as JSON by whoever knows (the agent, else the plane), shown as a table
//! by who asked.

use crate::output::{Columns, Tone, text};
use agent::{Instance, PortState, Snapshot, Source};
use dataplane::{
    Capabilities, Count, Counters, Device, DevicesInForce, Drift, Flows, NdOptions, PortCounters,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// As the running agent sees it.
pub(crate) fn of_agent(
    status: &agent::Status,
    instance: &Instance,
    policy: &Path,
    plane: &str,
    direct: bool,
) -> Value {
    let snapshot = &status.snapshot;
    let empty = Counters::default();
    let counters = status.counters.as_ref().unwrap_or(&empty);
    let ports: Vec<Value> = snapshot
        .ports
        .iter()
        .map(|(id, port)| {
            let (state, why) = match &port.state {
                PortState::Enforced => ("enforced", None),
                PortState::NoDevice => ("no-device", None),
                PortState::Refused(why) => ("refused", Some(why)),
                PortState::Pending => ("pending", None),
            };
            let mut value = counted(id.as_str(), counters.ports.get(id));
            value["device"] = json!(port.device.as_ref().map(|d| &d.name));
            value["ifindex"] = json!(port.device.as_ref().map(|d| d.ifindex));
            value["state"] = json!(state);
            value["why"] = json!(why);
            value
        })
        .collect();
    json!({
        "instance": instance.name(),
        "agent": agent_value(snapshot, policy),
        "plane": {
            "name": plane,
            "direct": direct,
            "capabilities": capabilities(status.capabilities),
            "error": status.counters.as_ref().err(),
        },
        "ports": ports,
        "closed": closed_devices(&snapshot.closed),
        "rules": rules(counters),
    })
}

/// What the plane alone can say; no agent runs.
pub(crate) fn of_plane(
    counters: &Counters,
    devices: &DevicesInForce,
    drift: &[Drift],
    can: Capabilities,
    instance: &Instance,
    plane: &str,
) -> Value {
    let ports: Vec<Value> = counters
        .ports
        .iter()
        .map(|(id, port)| {
            let mut value = counted(id.as_str(), Some(port));
            let device = devices.of_ports.get(id);
            value["state"] = json!(device.map_or("no-device", |_| "enforced"));
            value["device"] = json!(device.map(|d| &d.name));
            value["ifindex"] = json!(device.map(|d| d.ifindex));
            value
        })
        .collect();
    json!({
        "instance": instance.name(),
        "agent": null,
        "plane": {
            "name": plane,
            "direct": devices.direct,
            "capabilities": capabilities(can),
            "error": null,
        },
        "drift": drift.iter().map(drift_text).collect::<Vec<_>>(),
        "ports": ports,
        "closed": closed_devices(&devices.closed),
        "rules": rules(counters),
    })
}

fn closed_devices(closed: &BTreeSet<Device>) -> Vec<Value> {
    let device = |d: &Device| json!({"device": d.name, "ifindex": d.ifindex});
    closed.iter().map(device).collect()
}

pub(crate) fn table(status: &Value, wide: bool) -> String {
    let mut out = head(status);
    let ports = status["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if ports.is_empty() {
        out.push_str("\nno ports\n");
    } else {
        let mut header = vec![
            "PORT",
            "DEVICE",
            "STATE",
            "FLOWS",
            "HALF-OPEN",
            "IN",
            "OUT",
            "DROPPED",
        ];
        if wide {
            header.push("REASONS");
        }
        let mut columns = Columns::new(&header);
        for port in ports {
            let tone = match port["state"].as_str() {
                Some("enforced") => Tone::Good,
                Some("refused") => Tone::Bad,
                Some(_) | None => Tone::Doubtful,
            };
            let packets = |direction: &str| port["passed"][direction]["packets"].to_string();
            let drops = port["drops"].as_object().cloned().unwrap_or_default();
            let dropped: u64 = drops.values().filter_map(|d| d["packets"].as_u64()).sum();
            let mut cells = vec![
                (text(port, "port"), Tone::Plain),
                (text(port, "device"), Tone::Plain),
                (text(port, "state"), tone),
                (text(port, "flows"), Tone::Plain),
                (text(port, "half_open"), Tone::Plain),
                (packets("ingress"), Tone::Plain),
                (packets("egress"), Tone::Plain),
                (dropped.to_string(), Tone::Plain),
            ];
            if wide {
                let reasons: Vec<String> = drops
                    .iter()
                    .map(|(reason, count)| format!("{reason}={}", count["packets"]))
                    .collect();
                cells.push((reasons.join(" "), Tone::Plain));
            }
            columns.row(cells);
        }
        let _ = write!(out, "\n{}", columns.text());
    }
    for port in ports {
        if let Some(why) = port["why"].as_str() {
            let _ = writeln!(out, "port {} refused: {why}", text(port, "port"));
        }
    }
    let closed = status["closed"].as_array().map_or(&[][..], Vec::as_slice);
    for device in closed {
        let name = text(device, "device");
        let _ = writeln!(out, "device {name} is closed: it is ours, and no port's");
    }
    let hit = status["rules"].as_array().map_or(&[][..], Vec::as_slice);
    if wide && !hit.is_empty() {
        let mut columns = Columns::new(&["GROUP", "RULE", "PACKETS", "BYTES"]);
        for rule in hit {
            columns.row(
                ["group", "rule", "packets", "bytes"].map(|field| (text(rule, field), Tone::Plain)),
            );
        }
        let _ = write!(out, "\n{}", columns.text());
    }
    out
}

pub(crate) fn drift_text(drift: &Drift) -> String {
    match drift {
        Drift::Detached { port, device } => {
            format!("port {port}: our programs are not on {device}")
        }
        Drift::NotFirst {
            port,
            device,
            first,
        } => format!("port {port}: on {device}, {first} sees packets before us"),
        Drift::Changed { what } => format!("changed by someone else: {what}"),
    }
}

fn agent_value(snapshot: &Snapshot, policy: &Path) -> Value {
    let ms = |d: std::time::Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
    json!({
        "pid": std::process::id(),
        "host": snapshot.host.as_str(),
        "policy": {
            "file": policy.display().to_string(),
            "source": snapshot.source.map(|s| match s {
                Source::File => "file",
                Source::Cache => "cache",
                Source::Server => "server",
            }),
            "read": snapshot.read.map(|r| r.to_string()),
            "applied": snapshot.applied.map(|r| r.to_string()),
            "errors": snapshot.policy_errors,
            "findings": snapshot.findings,
        },
        "apply_error": snapshot.apply_error,
        "drift": snapshot.drift.iter().map(drift_text).collect::<Vec<_>>(),
        "confirm_left_s": snapshot.confirm_left.map(|d| d.as_secs()),
        "link_up_to_armed": {
            "devices": snapshot.arming.devices,
            "p50_ms": ms(snapshot.arming.p50),
            "p99_ms": ms(snapshot.arming.p99),
            "max_ms": ms(snapshot.arming.max),
        },
    })
}

fn counted(id: &str, port: Option<&PortCounters>) -> Value {
    let none = PortCounters::default();
    let port = port.unwrap_or(&none);
    let drops: Map<String, Value> = port
        .drops
        .iter()
        .filter(|(_, count)| count.packets > 0)
        .map(|(reason, count)| (reason.name().to_owned(), count_value(*count)))
        .collect();
    json!({
        "port": id,
        "device": null,
        "ifindex": null,
        "state": null,
        "why": null,
        "flows": port.flows,
        "half_open": port.half_open,
        "passed": {
            "ingress": count_value(port.passed_ingress),
            "egress": count_value(port.passed_egress),
        },
        "drops": drops,
    })
}

fn count_value(count: Count) -> Value {
    json!({ "packets": count.packets, "bytes": count.bytes })
}

fn rules(counters: &Counters) -> Vec<Value> {
    counters
        .rules
        .iter()
        .map(|(rule, count)| {
            json!({
                "group": rule.group.as_str(),
                "rule": rule.rule.as_str(),
                "packets": count.packets,
                "bytes": count.bytes,
            })
        })
        .collect()
}

fn capabilities(can: Capabilities) -> Value {
    let Capabilities {
        flows,
        quote_match,
        fragment_verdict,
        per_end_start,
        nd_options,
        igmp_types,
        link_local_list,
        whole_headers,
        lenient_ip,
        ipv4_options,
        extension_chain,
        udplite_ports,
        dccp_ports,
    } = can;
    json!({
        "own-flows": flows == Flows::Own,
        "quote-match": quote_match,
        "fragment-verdict": fragment_verdict,
        "per-end-start": per_end_start,
        "nd-options": nd_options == NdOptions::Walked,
        "igmp-types": igmp_types,
        "link-local-list": link_local_list,
        "whole-headers": whole_headers,
        "lenient-ip": lenient_ip,
        "ipv4-options": ipv4_options,
        "extension-chain": extension_chain,
        "udplite-ports": udplite_ports,
        "dccp-ports": dccp_ports,
    })
}

/// A line for each thing worth knowing before the ports.
fn head(status: &Value) -> String {
    let mut out = String::new();
    let agent = &status["agent"];
    let direct = match status["plane"]["direct"] == true {
        true => ", straight from port to port",
        false => "",
    };
    let _ = writeln!(
        out,
        "instance  {}, plane {}{direct}",
        text(status, "instance"),
        text(&status["plane"], "name")
    );
    if agent.is_null() {
        out.push_str("agent     not running; what it left is enforced\n");
    } else {
        let policy = &agent["policy"];
        let _ = writeln!(
            out,
            "agent     pid {}, host {}",
            text(agent, "pid"),
            text(agent, "host")
        );
        let lag = match policy["read"] == policy["applied"] {
            true => String::new(),
            false => format!(" (read: {})", text(policy, "read")),
        };
        let _ = writeln!(
            out,
            "policy    {}, revision {} applied{lag}",
            text(policy, "file"),
            text(policy, "applied")
        );
        if policy["source"] == "cache" {
            out.push_str("          CACHED: the file can't be used\n");
        }
        for error in strings(&policy["errors"]) {
            let _ = writeln!(out, "error     {error}");
        }
        for finding in strings(&policy["findings"]) {
            let _ = writeln!(out, "finding   {finding}");
        }
        if let Some(error) = agent["apply_error"].as_str() {
            let _ = writeln!(out, "error     not applied: {error}");
        }
        let up = &agent["link_up_to_armed"];
        if up["devices"] != 0 {
            let _ = writeln!(
                out,
                "armed     {} devices after link-up: p50 {} ms, p99 {} ms",
                up["devices"], up["p50_ms"], up["p99_ms"]
            );
        }
        if let Some(left) = agent["confirm_left_s"].as_u64() {
            let _ = writeln!(
                out,
                "confirm   within {left} s by `portcullis confirm`, or enforcement is removed"
            );
        }
    }
    let drift = match agent.is_null() {
        true => &status["drift"],
        false => &agent["drift"],
    };
    for drift in strings(drift) {
        let _ = writeln!(out, "drift     {drift}");
    }
    if let Some(error) = status["plane"]["error"].as_str() {
        let _ = writeln!(out, "error     no counters: {error}");
    }
    let lacks: Vec<&str> = status["plane"]["capabilities"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, has)| **has == false)
        .map(|(name, _)| name.as_str())
        .collect();
    if !lacks.is_empty() {
        let _ = writeln!(out, "lacks     {}", lacks.join(" "));
    }
    out
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
