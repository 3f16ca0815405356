//! How long ovs-vswitchd keeps connections that say nothing, by zone of conntrack.
//!
//! ```text
//! Open_vSwitch.datapaths: "netdev" -> Datapath
//! Datapath.ct_zones:      zone     -> CT_Zone -> CT_Timeout_Policy: "udp_single" -> seconds
//! ```
//! A row of `CT_Timeout_Policy` may be that of many zones. Rows that nothing refers to go by themselves.
//! A policy is for connections committed from then on; what is not in it has the datapath's own timeout.

use crate::DatabaseError;
use crate::database::{Database, select, selected};
use crate::value::{Row, as_text, as_u16, as_u32, as_uuid, map, named, set, uuid};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds by what they are for: `tcp_established`, `udp_first`, `udp_single`, `udp_multiple`, ...
pub type Timeouts = BTreeMap<String, u32>;

/// What the database says about one datapath, `netdev` or `system`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Of its row; `None` if nobody has made one yet: ovs-vswitchd does not.
    datapath: Option<String>,
    pub zones: BTreeMap<u16, Zone>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Of the policy's row.
    policy: Option<String>,
    pub timeouts: Timeouts,
    /// Of the zone's row, not the policy's.
    pub external_ids: BTreeMap<String, String>,
}

const CT_ZONE: &str = "CT_Zone";
const DATAPATH: &str = "Datapath";
const OPEN_VSWITCH: &str = "Open_vSwitch";
const POLICY: &str = "CT_Timeout_Policy";

pub(crate) const LOOKED_AT: [(&str, &[&str]); 4] = [
    (OPEN_VSWITCH, &["datapaths"]),
    (DATAPATH, &["_uuid", "ct_zones"]),
    (CT_ZONE, &["_uuid", "timeout_policy", "external_ids"]),
    (POLICY, &["_uuid", "timeouts"]),
];

impl Database {
    /// Of the datapath of this type.
    pub fn zones(&mut self, datapath_type: &str) -> Result<Zones, DatabaseError> {
        let selects = LOOKED_AT.map(|(table, columns)| select(table, columns));
        zones(&self.transact(&selects)?, datapath_type)
    }
}

/// Operations after which these zones have these timeouts, and those to be removed have none; others stay. None
/// if it is so already. The rows that it makes have the owner among their external ids.
pub fn set_timeouts(
    datapath_type: &str,
    found: &Zones,
    wanted: &BTreeMap<u16, Timeouts>,
    removed: &[u16],
    owner: (&str, &str),
) -> Vec<Value> {
    let mut operations = Vec::new();
    let mut policies = BTreeMap::new();
    let mut added = Vec::new();
    let is_so = |zone: &u16, timeouts: &Timeouts| {
        let found = found.zones.get(zone);
        found.is_some_and(|zone| zone.is_of(owner) && zone.timeouts == *timeouts)
    };
    for (zone, timeouts) in wanted.iter().filter(|(zone, t)| !is_so(zone, t)) {
        let policy = policies
            .entry(timeouts)
            .or_insert_with(|| policy(&mut operations, found, timeouts, owner))
            .clone();
        let name = format!("zone_{zone}");
        operations.push(json!({
            "op": "insert", "table": CT_ZONE, "uuid-name": name,
            "row": {"timeout_policy": policy, "external_ids": map([owner])},
        }));
        added.push((*zone, named(&name)));
    }
    let removed = removed.iter().filter(|zone| found.zones.contains_key(zone));
    let replaced = added.iter().map(|(zone, _)| zone);
    let deleted: BTreeSet<u16> = removed.chain(replaced).copied().collect();
    if deleted.is_empty() {
        return operations;
    }
    match &found.datapath {
        Some(datapath) => {
            // An insert doesn't touch keys that are there.
            let keys = set(deleted.into_iter().map(|zone| json!(zone)));
            operations.push(mutate(datapath, json!(["ct_zones", "delete", keys])));
            operations.push(mutate(datapath, json!(["ct_zones", "insert", map(added)])));
        }
        None => operations.extend(new_datapath(datapath_type, &map(added))),
    }
    operations
}

impl Zone {
    fn is_of(&self, (key, value): (&str, &str)) -> bool {
        self.external_ids.get(key).is_some_and(|v| v == value)
    }
}

/// A row that ovs-vswitchd will find and fill in.
fn new_datapath(datapath_type: &str, zones: &Value) -> [Value; 3] {
    let datapaths = map([(datapath_type, named("datapath"))]);
    [
        json!({
            "op": "insert", "table": DATAPATH, "uuid-name": "datapath",
            "row": {"datapath_version": "", "ct_zones": zones},
        }),
        // If somebody has been faster, an insert would change nothing and be no error.
        json!({
            "op": "mutate", "table": OPEN_VSWITCH, "where": [],
            "mutations": [["datapaths", "insert", datapaths]],
        }),
        json!({
            "op": "wait", "table": OPEN_VSWITCH, "where": [["datapaths", "includes", datapaths]],
            "timeout": 0, "columns": [], "until": "==", "rows": [{}],
        }),
    ]
}

/// A reference to the policy with these timeouts: to one that a zone of this owner has, or to a new one.
fn policy(
    operations: &mut Vec<Value>,
    found: &Zones,
    timeouts: &Timeouts,
    owner: (&str, &str),
) -> Value {
    let mut ours = found.zones.values().filter(|zone| zone.is_of(owner));
    let equal = ours.find(|zone| zone.timeouts == *timeouts);
    if let Some(policy) = equal.and_then(|zone| zone.policy.as_deref()) {
        return uuid(policy);
    }
    let name = format!("policy_{}", operations.len());
    let reference = named(&name);
    operations.push(json!({
        "op": "insert", "table": POLICY, "uuid-name": name,
        "row": {"timeouts": map(timeouts.clone()), "external_ids": map([owner])},
    }));
    reference
}

fn mutate(datapath: &str, mutation: Value) -> Value {
    json!({
        "op": "mutate", "table": DATAPATH, "where": [["_uuid", "==", uuid(datapath)]],
        "mutations": [mutation],
    })
}

fn zones(outcomes: &[Value], datapath_type: &str) -> Result<Zones, DatabaseError> {
    let mut datapaths = BTreeMap::new();
    for row in selected(outcomes.first(), OPEN_VSWITCH)? {
        datapaths.extend(row.map("datapaths", as_text, as_uuid)?);
    }
    let Some(datapath) = datapaths.remove(datapath_type) else {
        return Ok(Zones::default());
    };
    let policies = by_uuid(outcomes.get(3), POLICY)?;
    let rows = by_uuid(outcomes.get(2), CT_ZONE)?;
    let mut zones = BTreeMap::new();
    if let Some(row) = by_uuid(outcomes.get(1), DATAPATH)?.get(&datapath) {
        for (number, reference) in row.map("ct_zones", as_u16, as_uuid)? {
            if let Some(row) = rows.get(&reference) {
                zones.insert(number, zone(row, &policies)?);
            }
        }
    }
    let datapath = Some(datapath);
    Ok(Zones { datapath, zones })
}

fn zone(row: &Row<'_>, policies: &BTreeMap<String, Row<'_>>) -> Result<Zone, DatabaseError> {
    let policy = row.optional("timeout_policy", as_uuid)?;
    let timeouts = match policy.as_ref().and_then(|policy| policies.get(policy)) {
        Some(row) => row.map("timeouts", as_text, as_u32)?,
        None => Timeouts::new(),
    };
    Ok(Zone {
        policy,
        timeouts,
        external_ids: row.texts("external_ids")?,
    })
}

fn by_uuid<'a>(
    outcome: Option<&'a Value>,
    table: &'static str,
) -> Result<BTreeMap<String, Row<'a>>, DatabaseError> {
    let rows = selected(outcome, table)?;
    rows.into_iter().map(|row| Ok((row.uuid()?, row))).collect()
}

#[cfg(test)]
mod tests;
