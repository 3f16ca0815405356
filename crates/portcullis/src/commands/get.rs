//! `get` and `delete`: a cluster's objects, by kind.

use super::apply::{label, tell};
use crate::client::{Client, ClientArgs, Verb, escaped};
use crate::failure::Failure;
use crate::output::{Columns, FormatArgs, Tone, print, say, text};
use crate::policy_source::read_file;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

/// Show a cluster's objects
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis get groups
  portcullis get port vm1 -o yaml
  portcullis get rules -o wide
  portcullis get hosts                      connected, how far behind, how many ports

KIND is groups (sg), rules, ports, networks (net), subnets, address-groups (ag) or hosts; singular or plural.

Exit codes: 0 shown, 1 no such object, 2 no such kind, 4 the server can't be asked, or doesn't know us.")]
pub(crate) struct GetArgs {
    /// What to show
    #[arg(value_name = "KIND")]
    kind: String,

    /// Only this one
    #[arg(value_name = "ID")]
    id: Option<String>,

    #[command(flatten)]
    client: ClientArgs,

    #[command(flatten)]
    format: FormatArgs,
}

/// Remove a cluster's objects
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis delete group web
  portcullis delete ports vm1 vm2
  portcullis delete port vm1 --dry-run
  portcullis delete host rack1-a            what its agent told, or a file said of it; its ports stay there
  portcullis delete -f policy.yaml          all that was applied from this file
  portcullis delete --label web             all that was applied under this label

What others use stays: of a file or a label, all of it then; of ids, that one and those after it.

Exit codes: 0 removed, 1 refused or no such object, 2 usage, 4 the server can't be asked, or doesn't know us.")]
pub(crate) struct DeleteArgs {
    /// What to remove: a kind, as of `get`, and ids
    #[arg(value_name = "KIND ID", num_args = 0.., required_unless_present_any = ["file", "label"], conflicts_with_all = ["file", "label"])]
    objects: Vec<String>,

    /// All that was applied from this file: it has the file's label
    #[arg(short, long, value_name = "FILE", conflicts_with = "label")]
    file: Option<PathBuf>,

    /// All that has this label
    #[arg(long, value_name = "NAME")]
    label: Option<String>,

    /// With -f or --label, whose it is [default: the caller's project]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,

    /// Only say what would be removed. Whether others use it is seen with -f or --label alone
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    client: ClientArgs,

    #[command(flatten)]
    format: FormatArgs,
}

/// A kind of object, and where the API has it.
struct Kind {
    one: &'static str,
    /// Other names of it.
    names: &'static [&'static str],
    path: &'static str,
    /// What an answer holds them under.
    root: [&'static str; 2],
    /// Header, attribute, and whether it is for wide tables only.
    columns: &'static [(&'static str, &'static str, bool)],
}

const KINDS: [Kind; 6] = [
    Kind {
        one: "group",
        names: &["groups", "sg", "security-group", "security-groups"],
        path: "security-groups",
        root: ["security_group", "security_groups"],
        columns: &[
            ("ID", "id", false),
            ("NAME", "name", false),
            ("PROJECT", "project_id", false),
            ("STATEFUL", "stateful", false),
            ("TAGS", "tags", true),
            ("REVISION", "revision_number", true),
        ],
    },
    Kind {
        one: "rule",
        names: &["rules", "security-group-rule", "security-group-rules"],
        path: "security-group-rules",
        root: ["security_group_rule", "security_group_rules"],
        columns: &[
            ("ID", "id", false),
            ("GROUP", "security_group_id", false),
            ("DIRECTION", "direction", false),
            ("FAMILY", "ethertype", false),
            ("PROTOCOL", "protocol", false),
            ("FIRST", "port_range_min", false),
            ("LAST", "port_range_max", false),
            ("PREFIX", "remote_ip_prefix", false),
            ("REMOTE", "remote_group_id", false),
            ("ADDRESSES", "remote_address_group_id", false),
            ("PROJECT", "project_id", true),
        ],
    },
    Kind {
        one: "port",
        names: &["ports"],
        path: "ports",
        root: ["port", "ports"],
        columns: &[
            ("ID", "id", false),
            ("NETWORK", "network_id", false),
            ("ADDRESSES", "fixed_ips", false),
            ("GROUPS", "security_groups", false),
            ("HOST", "binding:host_id", false),
            ("STATUS", "status", false),
            ("MAC", "mac_address", true),
            ("PROJECT", "project_id", true),
            ("TAGS", "tags", true),
        ],
    },
    Kind {
        one: "network",
        names: &["networks", "net", "nets"],
        path: "networks",
        root: ["network", "networks"],
        columns: &[
            ("ID", "id", false),
            ("NAME", "name", false),
            ("SUBNETS", "subnets", false),
            ("PROJECT", "project_id", false),
            ("TAGS", "tags", true),
        ],
    },
    Kind {
        one: "subnet",
        names: &["subnets"],
        path: "subnets",
        root: ["subnet", "subnets"],
        columns: &[
            ("ID", "id", false),
            ("NETWORK", "network_id", false),
            ("PREFIX", "cidr", false),
            ("GATEWAY", "gateway_ip", false),
            ("PROJECT", "project_id", true),
        ],
    },
    Kind {
        one: "address-group",
        names: &["address-groups", "ag", "ags"],
        path: "address-groups",
        root: ["address_group", "address_groups"],
        columns: &[
            ("ID", "id", false),
            ("NAME", "name", false),
            ("ADDRESSES", "addresses", false),
            ("PROJECT", "project_id", true),
        ],
    },
];

/// Shown as `status` does; removed as the others are.
const HOST: Kind = Kind {
    one: "host",
    names: &["hosts"],
    path: "agents",
    root: ["agent", "agents"],
    columns: &[],
};

/// Of one page.
const PAGE: usize = 1000;

pub(crate) fn run(args: GetArgs) -> Result<(), Failure> {
    let client = args.client.client()?;
    if let Some(id) = &args.id {
        not_empty(id)?;
    }
    if HOST.is_called(&args.kind) {
        return super::status::hosts(&client, args.id.as_deref(), args.format);
    }
    let kind = kind(&args.kind)?;
    let value = match &args.id {
        Some(id) => one(&client, kind, id)?,
        None => Value::Array(all(&client, kind)?),
    };
    print(args.format.output, &value, |value, wide| {
        table(kind, value, wide)
    });
    Ok(())
}

impl Kind {
    fn is_called(&self, name: &str) -> bool {
        self.one == name || self.names.contains(&name)
    }
}

fn kind(name: &str) -> Result<&'static Kind, Failure> {
    let known = KINDS.iter().find(|kind| kind.is_called(name));
    known.ok_or_else(|| {
        let names = KINDS.iter().map(|kind| kind.names[0]);
        let near = policyfile::suggestion(name, "kinds", names.chain(["hosts"]));
        Failure::Usage(format!("no kind of object is called {name}; {near}"))
    })
}

/// The API would take the path for that of all of them.
fn not_empty(id: &str) -> Result<(), Failure> {
    match id.is_empty() {
        true => Err(Failure::Usage("an id is empty".to_owned())),
        false => Ok(()),
    }
}

fn one(client: &Client, kind: &Kind, id: &str) -> Result<Value, Failure> {
    let path = format!("/v2.0/{}/{}", kind.path, escaped(id));
    let mut answer = client.ask(Verb::Get, &path)?;
    Ok(answer[kind.root[0]].take())
}

fn all(client: &Client, kind: &Kind) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    let mut marker = String::new();
    loop {
        let path = format!("/v2.0/{}?limit={PAGE}{marker}", kind.path);
        let mut answer = client.ask(Verb::Get, &path)?;
        let Value::Array(page) = answer[kind.root[1]].take() else {
            return Ok(all);
        };
        let last = page.last().and_then(|last| last["id"].as_str());
        marker = format!("&marker={}", escaped(last.unwrap_or_default()));
        let full = page.len() >= PAGE;
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}

fn table(kind: &Kind, value: &Value, wide: bool) -> String {
    let one = std::slice::from_ref(value);
    let objects = value.as_array().map_or(one, Vec::as_slice);
    if objects.is_empty() {
        return format!("no {}\n", kind.names[0]);
    }
    let columns = kind.columns.iter().filter(|(_, _, more)| wide || !more);
    let columns = Vec::from_iter(columns);
    let header = columns.iter().map(|(header, ..)| *header);
    let mut table = Columns::new(&Vec::from_iter(header));
    for object in objects {
        table.row(columns.iter().map(|(_, name, _)| {
            let tone = match (*name, object[*name].as_str()) {
                ("status", Some("ACTIVE")) => Tone::Good,
                ("status", Some("ERROR")) => Tone::Bad,
                _ => Tone::Plain,
            };
            (cell(object, name), tone)
        }));
    }
    table.text()
}

/// Lists in one cell; of an address, the address.
fn cell(object: &Value, name: &str) -> String {
    let Value::Array(items) = &object[name] else {
        return text(object, name);
    };
    let item = |item: &Value| match item {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let address = fields.get("ip_address").and_then(Value::as_str);
            address.unwrap_or_default().to_owned()
        }
        other => other.to_string(),
    };
    match items.is_empty() {
        true => "-".to_owned(),
        false => Vec::from_iter(items.iter().map(item)).join(","),
    }
}

pub(crate) fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let client = args.client.client()?;
    if let Some(file) = &args.file {
        // All that counts is its name; so one that was mistyped has to be told from one with nothing left of it.
        read_file(file)?;
    }
    let of_file = args.file.as_deref().map(|file| label(None, file));
    if let Some(label) = of_file.transpose()?.or(args.label) {
        let mut path = format!(
            "/portcullis/v1/apply?label={}&dry_run={}",
            escaped(&label),
            args.dry_run
        );
        if let Some(project) = &args.project {
            path.push_str(&format!("&project={}", escaped(project)));
        }
        let answer = client.declare(&path, None)?;
        tell(args.format.output, &answer);
        return Ok(());
    }
    let [name, ids @ ..] = &args.objects[..] else {
        return Err(Failure::Usage("say what to delete: KIND ID".to_owned()));
    };
    let kind = if HOST.is_called(name) {
        &HOST
    } else {
        kind(name)?
    };
    if ids.is_empty() {
        return Err(Failure::Usage(format!("say which {} to delete", kind.one)));
    }
    ids.iter().try_for_each(|id| not_empty(id))?;
    for id in ids {
        if args.dry_run {
            one(&client, kind, id)?;
            say(&format!("{}/{id} would be removed\n", kind.one));
            continue;
        }
        let path = format!("/v2.0/{}/{}", kind.path, escaped(id));
        client.ask(Verb::Delete, &path)?;
        say(&format!("{}/{id} removed\n", kind.one));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_have_several_names() {
        for (name, expected) in [
            ("group", Some("group")),
            ("sg", Some("group")),
            ("rules", Some("rule")),
            ("ag", Some("address-group")),
            ("pod", None),
        ] {
            assert_eq!(kind(name).ok().map(|kind| kind.one), expected, "{name}");
        }
    }

    #[test]
    fn lists_are_in_one_cell() {
        let port = json!({
            "id": "vm", "security_groups": ["a", "b"], "fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.5"}],
            "network_id": "lan", "binding:host_id": null, "status": "DOWN",
        });
        let shown = table(kind("port").expect("a kind"), &port, false);
        let expected = "\
ID  NETWORK  ADDRESSES  GROUPS  HOST  STATUS
vm  lan      10.0.0.5   a,b     -     DOWN
";
        assert_eq!(shown, expected);
    }
}
