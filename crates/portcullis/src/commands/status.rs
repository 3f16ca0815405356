//! `status`: what is enforced, on which devices, and what was dropped.

use super::InstanceArgs;
use crate::client::{Client, MaybeServerArgs, Verb};
use crate::failure::Failure;
use crate::output::{Columns, FormatArgs, Tone, print, text};
use crate::plane::PlaneArgs;
use crate::policy_source::{InspectionArgs, look_named};
use crate::{control, status_view};
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;

/// Show what is enforced: ports, devices, flows, drops
///
/// With a running agent it says what the agent knows too: the policy's revision and errors, the time
/// from link-up to armed. Without one it shows what is in the kernel.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis status
  portcullis status -o wide        with drop reasons and the packets of each rule
  portcullis status --server http://127.0.0.1:9696    a cluster's hosts, and how far behind they are
  portcullis status -o json | jq '.ports[] | select(.state != \"enforced\")'

Exit codes: 0 shown, 4 nothing is enforced here, or it can't be read.")]
pub(crate) struct StatusArgs {
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

pub(crate) fn run(args: StatusArgs) -> Result<(), Failure> {
    if let Some(client) = args.server.client()? {
        return hosts(&client, None, args.format);
    }
    let instance = args.instance.instance()?;
    let status = match control::request(&instance, "status")? {
        Some(status) => status,
        None => {
            let mut plane = look_named(args.plane, &instance, args.inspection)?;
            let can = plane.capabilities();
            let counters = plane.counters().map_err(Failure::system)?;
            let devices = plane.find_devices()?;
            let drift = plane.audit().map_err(Failure::system)?;
            let name = args.plane.name();
            status_view::of_plane(&counters, &devices, &drift, can, &instance, name)
        }
    };
    print(args.format.output, &status, status_view::table);
    Ok(())
}

/// A cluster's hosts: who is connected, how far behind, and which ports aren't enforced.
pub(super) fn hosts(client: &Client, id: Option<&str>, format: FormatArgs) -> Result<(), Failure> {
    let mut value = client.ask(Verb::Get, "/portcullis/v1/hosts")?;
    if let Some(id) = id {
        let hosts = value["hosts"].as_array_mut().map(std::mem::take);
        let mut hosts = hosts.unwrap_or_default();
        hosts.retain(|host| host["id"] == id);
        if hosts.is_empty() {
            return Err(Failure::No(format!("Host {id} could not be found.")));
        }
        value["hosts"] = Value::Array(hosts);
    }
    print(format.output, &value, hosts_table);
    Ok(())
}

fn hosts_table(value: &Value, wide: bool) -> String {
    let hosts = value["hosts"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if hosts.is_empty() {
        return "no hosts\n".to_owned();
    }
    let mut header = vec![
        "HOST",
        "CONNECTED",
        "PORTS",
        "NOT ENFORCED",
        "APPLIED",
        "LAG",
    ];
    if wide {
        header.extend(["SERVER", "SOFTWARE"]);
    }
    let mut table = Columns::new(&header);
    let mut missing = String::new();
    for host in hosts {
        let (connected, tone) = match host["connected"].as_bool() {
            Some(true) => ("yes", Tone::Good),
            Some(false) | None => ("no", Tone::Bad),
        };
        let ports = host["not_enforced"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let bad = if ports.is_empty() {
            Tone::Plain
        } else {
            Tone::Bad
        };
        // Where it follows another server, only that one knows.
        let late = match host["lag"].as_u64() {
            Some(0) => Tone::Good,
            Some(_) | None => Tone::Doubtful,
        };
        let mut row = vec![
            (text(host, "id"), Tone::Plain),
            (connected.to_owned(), tone),
            (text(host, "ports"), Tone::Plain),
            (ports.len().to_string(), bad),
            (text(host, "applied"), Tone::Plain),
            (text(host, "lag"), late),
        ];
        if wide {
            let more = ["server", "software"].map(|field| (text(host, field), Tone::Plain));
            row.extend(more);
        }
        table.row(row);
        for port in ports {
            let (id, state) = (text(port, "port"), text(port, "state"));
            let why = match (port["why"].as_str(), state.as_str()) {
                (None | Some(""), "absent") => ": the host has no device for it",
                (None | Some(""), _) => "",
                (Some(why), _) => &format!(": {why}"),
            };
            let _ = writeln!(missing, "{}: port {id} is {state}{why}", text(host, "id"));
        }
    }
    let revision = text(value, "revision");
    format!("{}\ncommitted: {revision}\n{missing}", table.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_that_is_not_enforced_has_a_reason_or_none_is_promised() {
        let port =
            |id: &str, state: &str, why: &str| json!({"port": id, "state": state, "why": why});
        let ports = [
            port("p1", "absent", ""),
            port("p2", "refused", "its rules don't fit"),
            port("p3", "pending", ""),
        ];
        let host = json!({"id": "a", "connected": true, "not_enforced": ports});
        let table = hosts_table(&json!({"revision": "1.2", "hosts": [host]}), false);
        let told = Vec::from_iter(table.lines().filter(|line| line.starts_with("a: ")));
        let expected = [
            "a: port p1 is absent: the host has no device for it",
            "a: port p2 is refused: its rules don't fit",
            "a: port p3 is pending",
        ];
        assert_eq!(told, expected);
    }
}
