//! `apply`: a policy file is put onto a cluster.

use crate::client::{Client, ClientArgs, Verb, escaped};
use crate::failure::Failure;
use crate::output::{Format, FormatArgs, print};
use crate::policy_source::{read_file, this_host};
use clap::Args;
use model::{HostId, Inventory};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Put a policy file onto a cluster
///
/// The same file that `run` takes. What isn't there is made, what is otherwise is changed, and nothing else is
/// touched: what is applied bears the file's label, and another label's objects, or those made by the API, are refused
/// by name before anything is changed. A second time nothing changes. No flow passes on the way that neither the old
/// policy nor the new one permits.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis apply -f policy.yaml --host rack1-a       its ports are on the host rack1-a
  portcullis apply -f policy.yaml --dry-run            what would change?
  portcullis apply -f policy.yaml --prune              and what is no longer in the file goes
  portcullis apply -f web.yaml --label web --server https://network.example --token-file token
  portcullis diff -f policy.yaml                       which flows would open, which would close?

A file without `hosts` is about one host: --host, or else this machine. Of hosts that no agent has followed from
a warning says that their ports are enforced nowhere.

Exit codes: 0 it is so, 1 refused and nothing changed, 2 usage, 3 invalid policy, 4 the server can't be
asked, or doesn't know us.")]
pub(crate) struct ApplyArgs {
    /// The policy file
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// What is applied is known by it [default: the file's name without its ending]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,

    /// Remove what has the label and isn't in the file
    #[arg(long)]
    prune: bool,

    /// Only say what would change
    #[arg(long)]
    dry_run: bool,

    /// Whose it is [default: the caller's project]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,

    /// Where a file's ports are that has no `hosts` [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    client: ClientArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: ApplyArgs) -> Result<(), Failure> {
    let bytes = read_file(&args.file)?;
    let host = this_host(args.host.as_deref())?;
    // A fault of the file is told with the file's name, and without a server.
    let file = args.file.display().to_string();
    let policy = policyfile::parse_whole(&bytes, &file, &host)
        .map_err(|errors| Failure::Policy(errors.to_string()))?
        .inventory;
    let label = label(args.label.as_deref(), &args.file)?;
    let mut path = format!(
        "/portcullis/v1/apply?label={}&host={}&prune={}&dry_run={}",
        escaped(&label),
        escaped(host.as_str()),
        args.prune,
        args.dry_run
    );
    if let Some(project) = &args.project {
        let _ = write!(path, "&project={}", escaped(project));
    }
    let client = args.client.client()?;
    let answer = client.declare(&path, Some(&bytes))?;
    tell(args.format.output, &answer);
    warn_of_hosts(&client, &policy);
    Ok(())
}

/// The policy is applied, whatever is known of hosts.
fn warn_of_hosts(client: &Client, policy: &Inventory) {
    let Ok(hosts) = client.ask(Verb::Get, "/portcullis/v1/hosts") else {
        return;
    };
    for (host, ports) in without_agent(policy, &hosts) {
        let ports = match ports {
            1 => "its port is".to_owned(),
            n => format!("its {n} ports are"),
        };
        eprintln!(
            "warning: host {host}: no agent has followed from it yet, so {ports} enforced nowhere"
        );
    }
}

/// Hosts that the policy puts ports on, and how many, and of which the server has never heard.
fn without_agent<'a>(policy: &'a Inventory, hosts: &Value) -> BTreeMap<&'a HostId, usize> {
    let mut ports = BTreeMap::new();
    for host in policy.ports.values().filter_map(|port| port.host.as_ref()) {
        *ports.entry(host).or_default() += 1;
    }
    // It has told with which software it follows, once it has enforced something.
    let heard = |host: &Value| host["connected"] == true || !host["software"].is_null();
    let hosts = hosts["hosts"].as_array().into_iter().flatten();
    for host in hosts.filter(|host| heard(host)) {
        ports.retain(|id, _| host["id"] != id.as_str());
    }
    ports
}

/// Two files that say nothing of it are not each other's.
pub(super) fn label(given: Option<&str>, file: &Path) -> Result<String, Failure> {
    if let Some(label) = given {
        return Ok(label.to_owned());
    }
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.filter(|stem| !stem.is_empty());
    stem.map(str::to_owned)
        .ok_or_else(|| Failure::Usage(format!("{} has no name: give --label", file.display())))
}

/// As `kubectl` does: a line for each object that isn't as it was, and a count of the others.
pub(super) fn tell(format: Format, answer: &Value) {
    print(format, answer, lines);
}

fn lines(answer: &Value, wide: bool) -> String {
    let dry = match answer["dry_run"].as_bool() {
        Some(true) => " (dry run)",
        Some(false) | None => "",
    };
    let mut text = String::new();
    let mut unchanged = 0;
    for object in answer["objects"].as_array().into_iter().flatten() {
        let field = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let (kind, id, what) = (field("kind"), field("id"), field("what"));
        match what.as_str() {
            "unchanged" if !wide => unchanged += 1,
            "repeats" => {
                let _ = writeln!(text, "{kind}/{id} says the same as {}", field("same_as"));
            }
            what => {
                let _ = writeln!(text, "{kind}/{id} {what}{dry}");
            }
        }
    }
    if unchanged > 0 {
        let _ = writeln!(text, "{unchanged} unchanged");
    }
    if text.is_empty() {
        text.push_str("nothing to do\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(dry: bool, objects: Value, expected: &str) {
        let answer = json!({"dry_run": dry, "objects": objects});
        assert_eq!(lines(&answer, false), expected);
    }

    #[test]
    fn a_host_that_follows_or_has_followed_is_known() {
        let file = "\
version: 1
hosts: { a: {}, b: {}, c: {}, d: {} }
networks:
  lan: { subnets: [10.9.0.0/24] }
ports:
  on-a: { host: a, mac: 52:54:00:00:00:01, addresses: [10.9.0.1] }
  on-b: { host: b, mac: 52:54:00:00:00:02, addresses: [10.9.0.2] }
  on-c: { host: c, mac: 52:54:00:00:00:03, addresses: [10.9.0.3] }
  on-d: { host: d, mac: 52:54:00:00:00:04, addresses: [10.9.0.4] }
  nowhere: { host: none, mac: 52:54:00:00:00:05, addresses: [10.9.0.5] }
";
        let read = policyfile::parse_whole(file.as_bytes(), "f", &HostId::new("x"));
        let policy = read.expect("it is valid").inventory;
        let hosts = json!({"hosts": [
            {"id": "a", "connected": true, "software": null},
            {"id": "b", "connected": false, "software": "portcullis 0.1.0"},
            {"id": "c", "connected": false, "software": null},
        ]});
        let warned = without_agent(&policy, &hosts);
        let warned = Vec::from_iter(warned.iter().map(|(id, ports)| (id.as_str(), *ports)));
        assert_eq!(warned, [("c", 1), ("d", 1)]);
    }

    #[test]
    fn each_change_has_a_line() {
        let group = json!({"kind": "group", "id": "web", "what": "created"});
        let rule = json!({"kind": "rule", "id": "web.2", "what": "repeats", "same_as": "web.1"});
        let port = json!({"kind": "port", "id": "vm", "what": "unchanged"});
        check(false, json!([]), "nothing to do\n");
        check(
            true,
            json!([group, rule, port]),
            "group/web created (dry run)\nrule/web.2 says the same as web.1\n1 unchanged\n",
        );
    }
}
