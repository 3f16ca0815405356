//! A bridge that forwards by itself must not do so when our flows are gone, as after a restart of ovs-vswitchd. So
//! while we enforce on it, it is `secure`, and forwards by a flow of ours.
//!
//! ```text
//! fail_mode                        external_ids                               table 0, priority 0
//! standalone, or none    <--       -                                          NORMAL, by the switch itself
//! secure                 -->       portcullis-forwarding=normal               NORMAL, by us
//!                                  portcullis-fail-mode=standalone (or none)
//! ```
//! Without a controller the switch forgets all flows when its mode changes, those of others too: they are written
//! again, in one bundle with ours. What they refer to (groups, meters) can't be; with such flows the mode stays.

use crate::books::Books;
use crate::cookie::Cookie;
use crate::draft::Draft;
use crate::place::FORWARDING;
use crate::render::Forwarding;
use crate::tables::Table;
use openflow::{Action, Field, Flow, FlowStats, Port};
use ovsdb::{Bridge, change};
use serde_json::Value;

/// What the bridge's mode was before it was ours.
pub(crate) const FAIL_MODE: &str = "portcullis-fail-mode";
const SECURE: &str = "secure";
const NONE: &str = "none";

/// It was made so by us.
pub(crate) fn is_secured(bridge: &Bridge) -> bool {
    bridge.external_ids.contains_key(FAIL_MODE)
}

/// It would forward without our flows.
pub(crate) fn is_open(bridge: &Bridge, forwarding: Forwarding) -> bool {
    forwarding == Forwarding::Normal && bridge.fail_mode.as_deref() != Some(SECURE)
}

pub(crate) fn secure(bridge: &Bridge) -> Vec<Value> {
    let mut operations = change::set_fail_mode(&bridge.name, Some(SECURE));
    if !is_secured(bridge) {
        let was = bridge.fail_mode.as_deref().unwrap_or(NONE);
        let ids = [(FORWARDING, "normal"), (FAIL_MODE, was)];
        operations.extend(change::set_external_ids(&bridge.name, &ids));
    }
    operations
}

/// As it was before us, and without a word of ours.
pub(crate) fn release(bridge: &Bridge) -> Vec<Value> {
    let mut operations = Vec::new();
    let mut keys: Vec<&str> = Books::keys(bridge).map(String::as_str).collect();
    if let Some(was) = bridge.external_ids.get(FAIL_MODE) {
        let was = Some(was.as_str()).filter(|was| *was != NONE);
        operations.extend(change::set_fail_mode(&bridge.name, was));
        keys.extend([FORWARDING, FAIL_MODE]);
    }
    if !keys.is_empty() {
        operations.extend(change::remove_external_ids(&bridge.name, &keys));
    }
    operations
}

/// The last flow of the first table: whatever nobody has a word about goes as the bridge forwards.
pub(crate) fn floor() -> Draft {
    Draft::new(Table::Classify, 0).act(Action::Output(Port::Normal))
}

/// Flows of others, but for what the switch writes by itself.
pub(crate) fn others(told: Vec<FlowStats>) -> Vec<Flow> {
    let flows = told.into_iter().map(|told| told.flow);
    let others = flows.filter(|flow| Cookie::from_number(flow.cookie).is_none());
    let by_itself = Flow {
        cookie: 0,
        ..floor().flow()
    };
    others.filter(|flow| *flow != by_itself).collect()
}

/// By the flow that meets what a port sends.
pub(crate) fn guarded_port(flow: &Flow) -> Option<u16> {
    let is_ours = matches!(Cookie::from_number(flow.cookie), Some(Cookie::Port(_)));
    let is_first = flow.table == Table::Classify.number();
    let of_port = flow.matching.get(Field::InPort)?.value.u128()?;
    (is_ours && is_first).then_some(of_port as u16)
}

/// Of groups or meters, which are lost with the flows.
pub(crate) fn refers(flow: &Flow) -> bool {
    const GROUP: [u8; 2] = 22u16.to_be_bytes();
    const METER: [u8; 2] = 6u16.to_be_bytes();
    flow.actions.iter().any(|action| match action {
        Action::Other(bytes) => bytes.starts_with(&GROUP),
        Action::Instruction(bytes) => bytes.starts_with(&METER),
        Action::Clone(actions) => actions.iter().any(|action| match action {
            Action::Other(bytes) => bytes.starts_with(&GROUP),
            _other => false,
        }),
        _other => false,
    })
}
