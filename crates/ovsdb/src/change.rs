//! Operations that change bridges: to be put together to one transaction. Each that names a bridge refuses
//! the transaction if there is no such bridge.

use crate::value::{map, named, set, uuid};
use serde_json::{Value, json};

/// A tunnel of which each packet says where to: `options` has `remote_ip=flow` and `key=flow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Of the port and of its one interface.
    pub name: String,
    /// `geneve`, `vxlan`, ...
    pub kind: String,
    /// Of both, so that either can be told to be ours.
    pub external_ids: Vec<(String, String)>,
    /// Beside those two.
    pub options: Vec<(String, String)>,
}

/// Sets these keys, whatever they were; others stay.
pub fn set_external_ids(bridge: &str, pairs: &[(&str, &str)]) -> Vec<Value> {
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
    let mut operations = remove_external_ids(bridge, &keys);
    // An insert doesn't touch keys that are there.
    let mutation = json!(["external_ids", "insert", map(pairs.iter().copied())]);
    operations.push(mutate(bridge, mutation));
    operations
}

/// Those that aren't there don't matter.
pub fn remove_external_ids(bridge: &str, keys: &[&str]) -> Vec<Value> {
    let keys = set(keys.iter().map(|key| json!(key)));
    let mutation = json!(["external_ids", "delete", keys]);
    vec![exists(bridge), mutate(bridge, mutation)]
}

/// What the bridge does without a controller: `secure`, `standalone`, or none, which is `standalone`.
pub fn set_fail_mode(bridge: &str, mode: Option<&str>) -> Vec<Value> {
    let mode = set(mode.map(|mode| json!(mode)));
    vec![
        exists(bridge),
        json!({
            "op": "update", "table": "Bridge", "where": named_so(bridge),
            "row": {"fail_mode": mode},
        }),
    ]
}

/// One of that name that is there already refuses the transaction.
pub fn add_tunnel(bridge: &str, tunnel: &Tunnel) -> Vec<Value> {
    let external_ids = map(tunnel.external_ids.clone());
    let flow = ["remote_ip", "key"].map(|key| (key.to_owned(), "flow".to_owned()));
    let options = map(flow.into_iter().chain(tunnel.options.clone()));
    let [interface, port] = ["interface", "port"].map(|row| row_name(row, &tunnel.name));
    vec![
        exists(bridge),
        json!({
            "op": "insert", "table": "Interface", "uuid-name": interface,
            "row": {
                "name": tunnel.name, "type": tunnel.kind,
                "options": options, "external_ids": external_ids,
            },
        }),
        json!({
            "op": "insert", "table": "Port", "uuid-name": port,
            "row": {
                "name": tunnel.name, "interfaces": named(&interface),
                "external_ids": external_ids,
            },
        }),
        mutate(bridge, json!(["ports", "insert", set([named(&port)])])),
    ]
}

/// By its uuid, so that one which has taken its name since stays. Its interfaces go with it.
pub fn remove_port(bridge: &str, port_uuid: &str) -> Vec<Value> {
    let ports = set([uuid(port_uuid)]);
    vec![
        exists(bridge),
        mutate(bridge, json!(["ports", "delete", ports])),
    ]
}

/// An operation on no row is no error to the server; this one is.
fn exists(bridge: &str) -> Value {
    json!({
        "op": "wait", "table": "Bridge", "where": named_so(bridge), "timeout": 0,
        "columns": ["name"], "until": "==", "rows": [{"name": bridge}],
    })
}

/// Two tunnels of one transaction mustn't have the same. Only letters, digits and `_` may be in it.
fn row_name(row: &str, tunnel: &str) -> String {
    let digits: String = tunnel.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{row}_{digits}")
}

fn mutate(bridge: &str, mutation: Value) -> Value {
    json!({
        "op": "mutate", "table": "Bridge", "where": named_so(bridge), "mutations": [mutation],
    })
}

fn named_so(bridge: &str) -> Value {
    json!([["name", "==", bridge]])
}
