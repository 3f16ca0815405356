//! Hosts, as Neutron lists its agents.

use super::{ID, not_in_table};
use crate::attribute::{NAME, Shape, TEXT_OR_NULL, flag, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Table, View};
use control::objects::Host;
use control::{Control, Stored};
use model::HostId;
use serde_json::{Value, json};

pub(crate) static TABLE: Table = Table {
    path: "agents",
    one: "agent",
    many: "agents",
    says: "Hosts with their agents; for admins. PUT makes a host that isn't there",
    attributes: &[
        ID,
        shown("agent_type", NAME, ""),
        shown("binary", NAME, ""),
        shown("topic", NAME, ""),
        shown("host", NAME, ""),
        shown("availability_zone", TEXT_OR_NULL, ""),
        shown("admin_state_up", Shape::Flag, ""),
        shown("alive", Shape::Flag, "Its agent follows a server that is there"),
        shown(
            "configurations",
            Shape::Anything,
            "tunneling_ip: the host's end of tunnels; tagged: it learns the groups of other hosts' packets from them",
        )
        .changed(),
    ],
    create: false,
    update: true,
    delete: true,
    tags: false,
};

pub(crate) fn read(host: &Stored<Host>, view: &View<'_>, name: &str) -> Value {
    match name {
        "id" | "host" => host.id.as_str().into(),
        "agent_type" => "Portcullis agent".into(),
        "binary" => "portcullis".into(),
        "topic" => "".into(),
        "availability_zone" => Value::Null,
        "admin_state_up" => true.into(),
        "alive" => {
            let is_here = view.enforcement.is_connected(&host.id);
            (is_here || view.state.followed(&host.id).is_some()).into()
        }
        "configurations" => json!({"tunneling_ip": host.tunnel_address, "tagged": host.tagged}),
        _ => not_in_table(name),
    }
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    let before = control
        .state()
        .hosts
        .get(id)
        .map(|host| (*host.object).clone());
    let mut host = before.unwrap_or_else(|| Host {
        id: HostId::from(id),
        tunnel_address: None,
        tagged: false,
        tags: Default::default(),
        settings: None,
    });
    let configured = body.raw("configurations").and_then(Value::as_object);
    for (name, value) in configured.into_iter().flatten() {
        let wrong = |why| Fault::input("configurations", format!("{name} {why}"));
        match (name.as_str(), value) {
            ("tunneling_ip", Value::Null) => host.tunnel_address = None,
            ("tunneling_ip", value) => {
                let address = value.as_str().and_then(|text| text.parse().ok());
                host.tunnel_address = Some(address.ok_or_else(|| wrong("is no IP address"))?);
            }
            ("tagged", value) => {
                host.tagged = flag(value).ok_or_else(|| wrong("is not yes or no"))?;
            }
            _ => return Err(wrong("is not known")),
        }
    }
    Ok(control.put_host(change.who, host).await?)
}
