//! What has to outlive the process and the switch's: the zone of each port, and until when it is held.
//!
//! Kept where the ports are, in the bridges' `external_ids`: `portcullis-zone-PORT` and `portcullis-held-PORT`.
//! A zone that was given back is the last to be given again: what the tracker knows of it may be late.
//! Knows nothing of: what a zone holds.

use model::{PortId, Prefix, ScopeId};
use ovsdb::Bridge;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) zones: BTreeMap<PortId, u16>,
    /// TCP flows of the port start by SYN only, until then.
    pub(crate) held: BTreeMap<PortId, SystemTime>,
    /// Addresses that have left a group, and until when a flow may remember them in it.
    pub(crate) lost: BTreeMap<(ScopeId, Prefix), SystemTime>,
    /// Which of a bridge's fields stands for our option: asked of each switch, and not kept.
    pub(crate) options: BTreeMap<String, u8>,
    last: u16,
}

const ZONE: &str = "portcullis-zone-";
const HELD: &str = "portcullis-held-";
/// With scope and prefix, a slash between them.
const LOST: &str = "portcullis-lost-";
/// Other users of the tracker begin at the low end.
const FIRST_ZONE: u16 = 0x8000;
const LAST_ZONE: u16 = 0xfffe;

impl Books {
    pub(crate) fn read(bridges: &[Bridge]) -> Self {
        let mut books = Self::default();
        let ids = bridges.iter().flat_map(|bridge| &bridge.external_ids);
        for (key, value) in ids {
            if let Some(port) = key.strip_prefix(ZONE)
                && let Ok(zone) = value.parse()
            {
                books.zones.insert(port.into(), zone);
                books.last = books.last.max(zone);
            }
            if let Some(port) = key.strip_prefix(HELD)
                && let Ok(seconds) = value.parse()
            {
                let until = UNIX_EPOCH + Duration::from_secs(seconds);
                books.held.insert(port.into(), until);
            }
            if let Some((scope, prefix)) = key.strip_prefix(LOST).and_then(|k| k.split_once('/'))
                && let (Ok(prefix), Ok(seconds)) = (prefix.parse(), value.parse())
            {
                let until = UNIX_EPOCH + Duration::from_secs(seconds);
                books.lost.insert((scope.into(), prefix), until);
            }
        }
        books
    }

    /// Each of these ports has a zone from now on, if there are enough. Returns the new ones.
    pub(crate) fn give<'a>(&mut self, ports: impl IntoIterator<Item = &'a PortId>) -> Vec<u16> {
        let mut given = Vec::new();
        let mut taken: BTreeSet<u16> = self.zones.values().copied().collect();
        for port in ports {
            if self.zones.contains_key(port) {
                continue;
            }
            if taken.len() > usize::from(LAST_ZONE - FIRST_ZONE) {
                break;
            }
            let next = |zone: u16| match zone {
                FIRST_ZONE..LAST_ZONE => zone + 1,
                _ => FIRST_ZONE,
            };
            let mut zone = next(self.last);
            while !taken.insert(zone) {
                zone = next(zone);
            }
            self.last = zone;
            self.zones.insert(port.clone(), zone);
            given.push(zone);
        }
        given
    }

    /// What a bridge has to say of these ports.
    pub(crate) fn external_ids<'a>(
        &self,
        ports: impl IntoIterator<Item = &'a PortId>,
    ) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::new();
        for port in ports {
            if let Some(zone) = self.zones.get(port) {
                ids.insert(format!("{ZONE}{port}"), zone.to_string());
            }
            if let Some(until) = self.held.get(port) {
                ids.insert(format!("{HELD}{port}"), seconds(*until));
            }
        }
        ids
    }

    /// What a bridge with a tunnel has to say besides.
    pub(crate) fn lost_ids(&self) -> BTreeMap<String, String> {
        let lost = self.lost.iter();
        lost.map(|((scope, prefix), until)| (format!("{LOST}{scope}/{prefix}"), seconds(*until)))
            .collect()
    }

    /// Whether something is written down on it: nothing of ours has been elsewhere.
    pub(crate) fn are_on(bridge: &Bridge) -> bool {
        Self::keys(bridge).next().is_some()
    }

    /// The keys of ours that a bridge has.
    pub(crate) fn keys(bridge: &Bridge) -> impl Iterator<Item = &String> {
        let keys = bridge.external_ids.keys();
        keys.filter(|key| [ZONE, HELD, LOST].iter().any(|ours| key.starts_with(ours)))
    }
}

fn seconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().to_string()
}
