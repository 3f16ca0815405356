//! Bridges, ports and interfaces: what a data plane looks at, as far as it looks.

use crate::DatabaseError;
use crate::database::{select, selected};
use crate::value::{Row, as_text, as_u16, as_u32, as_uuid};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub uuid: String,
    pub name: String,
    /// `system` (the kernel's) may be written as the empty text.
    pub datapath_type: String,
    /// `secure` or `standalone`, which is also the meaning of none.
    pub fail_mode: Option<String>,
    /// Of OpenFlow. Empty: what the version of Open vSwitch takes for the usual ones.
    pub protocols: Vec<String>,
    pub external_ids: BTreeMap<String, String>,
    pub other_config: BTreeMap<String, String>,
    /// 16 hexadecimal digits, once ovs-vswitchd has made the bridge.
    pub datapath_id: Option<String>,
    /// Sorted by their names.
    pub ports: Vec<SwitchPort>,
    pub controllers: usize,
}

/// What a bridge sends to and receives from: an interface, or several that are bonded. Not the NIC of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPort {
    pub uuid: String,
    pub name: String,
    pub tag: Option<u16>,
    pub trunks: Vec<u16>,
    pub vlan_mode: Option<String>,
    /// Sorted by their names.
    pub interfaces: Vec<Interface>,
    pub external_ids: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub uuid: String,
    /// For most kinds, the device's.
    pub name: String,
    /// Empty: a device of the system. `internal`, `geneve`, `patch`, ...
    pub kind: String,
    /// The number in OpenFlow. `None` before ovs-vswitchd has opened it, or when it could not.
    pub ofport: Option<u32>,
    pub ifindex: Option<u32>,
    pub mac_in_use: Option<String>,
    pub external_ids: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub link_up: bool,
    /// Why ovs-vswitchd could not open it.
    pub error: Option<String>,
    pub mtu: Option<u32>,
}

const BRIDGE: &str = "Bridge";
const PORT: &str = "Port";
const INTERFACE: &str = "Interface";

const BRIDGE_COLUMNS: [&str; 10] = [
    "_uuid",
    "name",
    "datapath_type",
    "fail_mode",
    "protocols",
    "external_ids",
    "other_config",
    "datapath_id",
    "ports",
    "controller",
];

const PORT_COLUMNS: [&str; 7] = [
    "_uuid",
    "name",
    "tag",
    "trunks",
    "vlan_mode",
    "interfaces",
    "external_ids",
];

const INTERFACE_COLUMNS: [&str; 11] = [
    "_uuid",
    "name",
    "type",
    "ofport",
    "ifindex",
    "mac_in_use",
    "external_ids",
    "options",
    "link_state",
    "error",
    "mtu",
];

/// What is looked at, by table: nothing in it changes just because packets pass.
pub(crate) const LOOKED_AT: [(&str, &[&str]); 3] = [
    (BRIDGE, &BRIDGE_COLUMNS),
    (PORT, &PORT_COLUMNS),
    (INTERFACE, &INTERFACE_COLUMNS),
];

pub(crate) fn selects() -> [Value; 3] {
    LOOKED_AT.map(|(table, columns)| select(table, columns))
}

/// Out of what the selects told. They are of one transaction, so a reference that leads nowhere is one to
/// a row that is on its way out; it is left out.
pub(crate) fn bridges(outcomes: &[Value]) -> Result<Vec<Bridge>, DatabaseError> {
    let mut interfaces = BTreeMap::new();
    for row in selected(outcomes.get(2), INTERFACE)? {
        interfaces.insert(row.uuid()?, interface(&row)?);
    }
    let mut ports = BTreeMap::new();
    for row in selected(outcomes.get(1), PORT)? {
        ports.insert(row.uuid()?, port(&row, &mut interfaces)?);
    }
    let rows = selected(outcomes.first(), BRIDGE)?;
    let mut bridges = rows
        .iter()
        .map(|row| bridge(row, &mut ports))
        .collect::<Result<Vec<_>, _>>()?;
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bridges)
}

fn bridge(
    row: &Row<'_>,
    ports: &mut BTreeMap<String, SwitchPort>,
) -> Result<Bridge, DatabaseError> {
    let mut ports = taken(ports, &row.set("ports", as_uuid)?);
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Bridge {
        uuid: row.uuid()?,
        name: row.text("name")?,
        datapath_type: row.text("datapath_type")?,
        fail_mode: row.optional("fail_mode", as_text)?,
        protocols: row.set("protocols", as_text)?,
        external_ids: row.texts("external_ids")?,
        other_config: row.texts("other_config")?,
        datapath_id: row.optional("datapath_id", as_text)?,
        ports,
        controllers: row.set("controller", as_uuid)?.len(),
    })
}

fn port(
    row: &Row<'_>,
    interfaces: &mut BTreeMap<String, Interface>,
) -> Result<SwitchPort, DatabaseError> {
    let mut interfaces = taken(interfaces, &row.set("interfaces", as_uuid)?);
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(SwitchPort {
        uuid: row.uuid()?,
        name: row.text("name")?,
        tag: row.optional("tag", as_u16)?,
        trunks: row.set("trunks", as_u16)?,
        vlan_mode: row.optional("vlan_mode", as_text)?,
        interfaces,
        external_ids: row.texts("external_ids")?,
    })
}

fn interface(row: &Row<'_>) -> Result<Interface, DatabaseError> {
    // -1: it could not be opened.
    let ofport = row.optional("ofport", Value::as_i64)?;
    let link_state = row.optional("link_state", as_text)?;
    Ok(Interface {
        uuid: row.uuid()?,
        name: row.text("name")?,
        kind: row.text("type")?,
        ofport: ofport.and_then(|number| number.try_into().ok()),
        ifindex: row.optional("ifindex", as_u32)?,
        mac_in_use: row.optional("mac_in_use", as_text)?,
        external_ids: row.texts("external_ids")?,
        options: row.texts("options")?,
        link_up: link_state.as_deref() == Some("up"),
        error: row.optional("error", as_text)?,
        mtu: row.optional("mtu", as_u32)?,
    })
}

/// A port is on one bridge, an interface in one port.
fn taken<T>(from: &mut BTreeMap<String, T>, uuids: &[String]) -> Vec<T> {
    uuids.iter().filter_map(|uuid| from.remove(uuid)).collect()
}

#[cfg(test)]
mod tests;
