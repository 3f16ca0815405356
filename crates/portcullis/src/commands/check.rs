//! `check`: is a policy file valid, and what is in it.

use crate::failure::Failure;
use crate::output::{Columns, FormatArgs, Tone, print, text};
use crate::policy_source::{located, read_file, this_host, understand};
use clap::Args;
use model::HostId;
use policyfile::PolicyFile;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Say whether a policy file is valid; touches nothing
///
/// Every error is shown with its place in the file and what to do about it. What is valid and looks
/// like a slip is a warning.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis check policy.yaml
  portcullis check policy.yaml --host compute-7      a file for several hosts
  portcullis check policy.yaml -o json

Exit codes: 0 valid, 3 invalid, 4 the file can't be read.")]
pub(crate) struct CheckArgs {
    /// The policy file
    file: PathBuf,

    /// The host whose ports count [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: CheckArgs) -> Result<(), Failure> {
    let host = this_host(args.host.as_deref())?;
    let bytes = read_file(&args.file)?;
    let file = args.file.display().to_string();
    let (read, findings) = understand(&bytes, &file, &host).map_err(Failure::Policy)?;
    let warnings: Vec<String> = findings
        .iter()
        .map(|f| located(f, &file, &read.positions))
        .collect();
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    print(
        args.format.output,
        &summary(&read, &host, &file, &warnings),
        table,
    );
    Ok(())
}

fn summary(read: &PolicyFile, host: &HostId, file: &str, warnings: &[String]) -> Value {
    let inventory = &read.inventory;
    let rules: usize = inventory.groups.values().map(|g| g.rules.len()).sum();
    let ports: Vec<Value> = inventory
        .ports
        .values()
        .filter(|p| p.host.as_ref() == Some(host))
        .map(|p| {
            let device = match &p.device {
                model::DeviceMatch::Name(name) => name.clone(),
                model::DeviceMatch::Pattern(pattern) => format!("pattern {pattern}"),
                model::DeviceMatch::Mac => "by MAC".to_owned(),
                model::DeviceMatch::InterfaceId(id) => format!("interface id {id}"),
            };
            json!({
                "port": p.id.as_str(),
                "network": p.network.as_str(),
                "device": device,
                "mac": p.mac.to_string(),
                "addresses": p.fixed_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "groups": p.groups.iter().map(|g| g.as_str()).collect::<Vec<_>>(),
                "port_security": p.port_security,
            })
        })
        .collect();
    json!({
        "file": file,
        "valid": true,
        "host": host.as_str(),
        "networks": inventory.networks.len(),
        "groups": inventory.groups.len(),
        "rules": rules,
        "address_groups": inventory.address_groups.len(),
        "ports_in_file": inventory.ports.len(),
        "ports": ports,
        "warnings": warnings,
    })
}

fn table(summary: &Value, wide: bool) -> String {
    let ports = summary["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = format!(
        "{}: valid; {} groups with {} rules, {} ports, {} of them on host {}\n",
        text(summary, "file"),
        summary["groups"],
        summary["rules"],
        summary["ports_in_file"],
        ports.len(),
        text(summary, "host"),
    );
    if wide && !ports.is_empty() {
        let mut columns =
            Columns::new(&["PORT", "NETWORK", "DEVICE", "MAC", "ADDRESSES", "GROUPS"]);
        for port in ports {
            let list = |field: &str| {
                let items = port[field].as_array().into_iter().flatten();
                let items: Vec<&str> = items.filter_map(Value::as_str).collect();
                match (items.as_slice(), field) {
                    ([], _) => "-".to_owned(),
                    (items, _) => items.join(","),
                }
            };
            let groups = match port["port_security"] == false {
                true => "(port security off)".to_owned(),
                false => list("groups"),
            };
            columns.row(
                [
                    text(port, "port"),
                    text(port, "network"),
                    text(port, "device"),
                    text(port, "mac"),
                    list("addresses"),
                    groups,
                ]
                .map(|cell| (cell, Tone::Plain)),
            );
        }
        out.push('\n');
        out.push_str(&columns.text());
    }
    out
}
