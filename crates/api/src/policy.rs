//! Beside Neutron's API, for operators: whole policies from files, and what hosts make of them.
//!
//! ```text
//! POST   /portcullis/v1/apply?label=L&prune=1&dry_run=1&project=P&host=H   a policy file
//! DELETE /portcullis/v1/apply?label=L                                      all that has the label
//! GET    /portcullis/v1/inventory | hosts | status
//! ```
//! Knows nothing of: what is changed for a policy, and in which order (that is `control`).

use crate::HostTold;
use crate::audit::Touched;
use crate::fault::Fault;
use crate::front::{Api, Whole};
use crate::query::pairs;
use crate::serve::Answer;
use control::told::Lack;
use control::{Caller, Declaration, Declared, Outcome, Refused, State, What, inventory_of};
use http::{Method, StatusCode};
use model::{HostId, Inventory, ProjectId};
use serde_json::{Value, json};

/// What a request says beside the file.
#[derive(Default)]
struct Asked {
    label: Option<String>,
    project: Option<String>,
    host: Option<String>,
    prune: bool,
    dry_run: bool,
}

/// No host is called so.
const NO_HOST: &str = " ";

pub(crate) async fn apply(
    api: &Api,
    whole: &Whole,
    who: &Caller,
    touched: &mut Vec<Touched>,
) -> Result<Answer, Fault> {
    admin(who, "apply")?;
    let asked = Asked::of(&whole.query)?;
    let label = asked.label.clone();
    let label = label.ok_or_else(|| Fault::input("label", "it is needed"))?;
    let project = asked.project.as_deref().map(ProjectId::from);
    let removes = whole.method == Method::DELETE;
    let declared = Declared {
        inventory: match removes {
            true => Inventory::default(),
            false => read(&whole.body, &asked)?,
        },
        project: project.unwrap_or_else(|| who.project.clone()),
        label: label.clone(),
        prune: removes || asked.prune,
        dry_run: asked.dry_run,
    };
    let done = api.control.declare(who, declared).await?;
    let shown = shown(&done, asked.dry_run);
    if !asked.dry_run {
        touched.push(Touched {
            kind: "policy",
            id: label,
            before: Value::Null,
            after: changed(&done),
        });
    }
    Ok(Answer::ok(shown))
}

fn read(bytes: &[u8], asked: &Asked) -> Result<Inventory, Fault> {
    let host = HostId::new(asked.host.as_deref().unwrap_or(NO_HOST));
    let read = policyfile::parse_whole(bytes, "policy", &host);
    let read = read.map_err(|errors| {
        Fault::new(StatusCode::BAD_REQUEST, "InvalidPolicy", errors.to_string())
    })?;
    match read.inventory.hosts.contains_key(NO_HOST) {
        false => Ok(read.inventory),
        true => Err(Fault::input(
            "host",
            "the file has no `hosts`: say on which host its ports are",
        )),
    }
}

impl Asked {
    fn of(query: &str) -> Result<Self, Fault> {
        let mut asked = Self::default();
        for (name, value) in pairs(query) {
            match name.as_str() {
                "label" => asked.label = Some(value),
                "project" => asked.project = Some(value),
                "host" => asked.host = Some(value),
                "prune" => asked.prune = flag("prune", &value)?,
                "dry_run" => asked.dry_run = flag("dry_run", &value)?,
                _ => {
                    let name = crate::attribute::cut(&name);
                    return Err(Fault::bad(format!("'{name}' is not known here")));
                }
            }
        }
        Ok(asked)
    }
}

fn flag(name: &str, value: &str) -> Result<bool, Fault> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Fault::input(name, "it is true or false")),
    }
}

fn shown(done: &Declaration, dry_run: bool) -> Value {
    json!({
        "revision": done.revision.to_string(),
        "dry_run": dry_run,
        "objects": done.outcomes.iter().map(outcome).collect::<Value>(),
    })
}

/// For the audit log.
fn changed(done: &Declaration) -> Value {
    let changed = done.outcomes.iter().filter(|outcome| match outcome.what {
        What::Created | What::Updated | What::Removed => true,
        What::Unchanged | What::Repeats(_) => false,
    });
    changed.map(outcome).collect()
}

fn outcome(outcome: &Outcome) -> Value {
    let (what, same_as) = match &outcome.what {
        What::Created => ("created", None),
        What::Updated => ("updated", None),
        What::Unchanged => ("unchanged", None),
        What::Removed => ("removed", None),
        What::Repeats(id) => ("repeats", Some(id)),
    };
    let mut value = json!({"kind": outcome.kind.name(), "id": outcome.id, "what": what});
    if let Some(id) = same_as {
        value["same_as"] = json!(id);
    }
    value
}

pub(crate) fn inventory(api: &Api, who: &Caller) -> Result<Answer, Fault> {
    admin(who, "get_inventory")?;
    let inventory = inventory_of(&api.control.state());
    Ok(Answer::protobuf(protocol::encode(&inventory)))
}

pub(crate) fn hosts(api: &Api, who: &Caller) -> Result<Answer, Fault> {
    admin(who, "get_hosts")?;
    let here = api.enforcement.hosts();
    let state = api.control.state();
    let mut ids: Vec<&HostId> = state.hosts.keys().collect();
    ids.extend(state.index.ports_on_host.keys());
    ids.extend(state.told.keys());
    ids.extend(here.keys());
    ids.sort();
    ids.dedup();
    let hosts = ids.into_iter().map(|id| {
        let is_here = api.enforcement.is_connected(id);
        host(&state, id, is_here, here.get(id))
    });
    let hosts = hosts.collect::<Value>();
    let revision = state.policy_revision.to_string();
    Ok(Answer::ok(json!({"revision": revision, "hosts": hosts})))
}

/// `here`: what it has told this server, which knows how far it is. Of what it told others, the store has less.
fn host(state: &State, id: &HostId, is_here: bool, here: Option<&HostTold>) -> Value {
    let told = state.told_by(id);
    let server = state.followed(id);
    let ports = state.index.ports_on_host.get(id);
    let committed = state.policy_revision;
    let applied = here.map(|here| here.applied);
    let lag = applied.filter(|applied| applied.epoch == committed.epoch);
    let lag = lag.map(|applied| committed.commit.saturating_sub(applied.commit));
    let software = here.map(|here| &here.software);
    let software = software.or(told.map(|told| &told.software));
    let not_enforced = match here {
        Some(here) => Some(&here.not_enforced),
        None => told.map(|told| &told.not_enforced),
    };
    let not_enforced = not_enforced.into_iter().flatten();
    let not_enforced = not_enforced.map(|(port, not)| {
        let state = match not.lack {
            Lack::Absent => "absent",
            Lack::Refused => "refused",
            Lack::Pending => "pending",
        };
        json!({"port": port.as_str(), "state": state, "why": not.why})
    });
    json!({
        "id": id.as_str(),
        "connected": is_here || server.is_some(),
        "server": server.map(|server| server.name.as_str()),
        "software": software,
        "ports": ports.map_or(0, |ports| ports.len()),
        "applied": applied.map(|applied| applied.to_string()),
        "lag": lag,
        "not_enforced": not_enforced.collect::<Value>(),
    })
}

pub(crate) fn status(api: &Api, who: &Caller) -> Result<Answer, Fault> {
    admin(who, "get_status")?;
    let state = api.control.state();
    let rules: usize = state.rules.values().map(|rules| rules.len()).sum();
    Ok(Answer::ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": state.revision.to_string(),
        "store": {"unreadable": state.unreadable.len()},
        "counts": {
            "hosts": state.hosts.len(),
            "networks": state.networks.len(),
            "subnets": state.subnets.len(),
            "groups": state.groups.len(),
            "rules": rules,
            "address_groups": state.addresses.len(),
            "ports": state.ports.len(),
        },
    })))
}

pub(crate) fn admin(who: &Caller, action: &str) -> Result<(), Fault> {
    match who.is_admin() {
        true => Ok(()),
        false => Err(Fault::from(Refused::NotAuthorized {
            action: action.to_owned(),
        })),
    }
}
